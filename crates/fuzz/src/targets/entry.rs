//! The payload of an entry in a key shard's log ([`ringfort_core::kv::entry`]). Decoding shares the entry's memory.

use crate::allocation::{Bound, GROWTH, within};
use crate::codec::{Codec, check, encoding};
use crate::source::Source;
use bytes::Bytes;
use ringfort_core::codec::fields::Encoded;
use ringfort_core::kv::Command;
use ringfort_core::kv::entry::{Batch, decode};
use ringfort_core::time::HlcTimestamp;

pub struct Entry;

impl Codec for Entry {
    type Value = (HlcTimestamp, Vec<Command>);
    const CANONICAL: bool = true;
    /// A command takes two bytes: its operation, and an empty key. This target collects the commands in a list;
    /// [`decode`] does not.
    const BOUND: Bound = Bound { fixed: 512, per_byte: GROWTH * size_of::<Command>() / 2 };

    fn draw(source: &mut Source) -> Self::Value {
        let timestamp = HlcTimestamp(source.number());
        // An entry can't contain a command that exceeds the limits.
        (timestamp, source.list(command).into_iter().filter(|command| command.check().is_ok()).collect())
    }

    fn encode((timestamp, commands): &Self::Value) -> Bytes {
        let mut batch = Batch::new(*timestamp);
        commands.iter().for_each(|command| batch.push(command));
        batch.finish()
    }

    fn decode(bytes: Bytes) -> Option<Self::Value> {
        let decoded = decode(bytes).ok()?;
        assert_eq!(decoded.commands.len(), decoded.commands.clone().count());
        let commands: Vec<Command> = decoded.commands.collect();
        commands.iter().all(|command| command.check().is_ok()).then_some((decoded.timestamp, commands))
    }
}

/// A random command, of any operation.
pub fn command(source: &mut Source) -> Command {
    Command::decode(source).expect("whatever is drawn is a value")
}

pub fn body(data: &[u8]) {
    const A_COUNT_OF_REFERENCES: Bound = Bound { fixed: 64, per_byte: 0 };
    let bytes = Bytes::copy_from_slice(data);
    let _ = within(A_COUNT_OF_REFERENCES, data.len(), || decode(bytes));
    check::<Entry>(data);
}

pub fn seed(data: &[u8]) -> Bytes {
    encoding::<Entry>(data)
}
