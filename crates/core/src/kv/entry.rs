//! The payload of an entry in a shard's Raft log: a timestamp, and commands of one turn of the worker.
//!
//! | bytes | meaning |
//! |---|---|
//! | `81` | version of the encoding; entries of the system shard begin with another byte |
//! | varint | the timestamp, given by the leader |
//! | a [`Command`] | repeated until the end |
//!
//! A committed entry must mean the same on every replica, or replicas diverge. So an unknown version or operation makes
//! the whole entry an error, before any of its commands is applied. [`decode`] checks everything once and returns
//! commands that share the entry's memory.

use super::op::Command;
use crate::codec::fields::{Checking, Encoded, Fields};
use crate::codec::{CodecError, MAX_VARINT_BYTES, Reader, bytes_len, put_varint};
use crate::limits::{COMMAND_OVERHEAD_BYTES, LARGEST_ENTRY_BYTES, MAX_ENTRY_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::time::HlcTimestamp;
use bytes::Bytes;

/// The first byte of every entry of a key shard.
const VERSION: u8 = 0x81;

const _: () =
    assert!(VERSION != crate::system::ENTRY_VERSION, "the two kinds of shards could read each other's entries");
const _: () = assert!(1 + bytes_len(MAX_KEY_BYTES) + bytes_len(MAX_VALUE_BYTES) <= COMMAND_LIMIT_BYTES);
const _: () = assert!(MAX_VARINT_BYTES < COMMAND_OVERHEAD_BYTES, "version byte and timestamp do not fit");
/// The largest command that an entry can hold.
pub const COMMAND_LIMIT_BYTES: usize = MAX_KEY_BYTES + MAX_VALUE_BYTES + COMMAND_OVERHEAD_BYTES;

/// An entry's payload in the making.
///
/// Invariant: no larger than [`MAX_ENTRY_BYTES`], unless it holds a single command.
#[derive(Debug)]
pub struct Batch {
    encoded: Vec<u8>,
    count: usize,
}

impl Batch {
    pub fn new(timestamp: HlcTimestamp) -> Batch {
        let mut encoded = vec![VERSION];
        put_varint(&mut encoded, timestamp.0);
        Batch { encoded, count: 0 }
    }

    /// Whether this command still fits into the entry.
    pub fn fits(&self, command: &Command) -> bool {
        self.count == 0 || self.encoded.len() + command.encoded_len() <= MAX_ENTRY_BYTES
    }

    /// Appends a command that [`fits`](Batch::fits).
    ///
    /// # Panics
    /// If the command exceeds its limits, which were checked when the request arrived. Once such a command was in the
    /// log, all replicas would panic, and again at each restart.
    pub fn push(&mut self, command: &Command) {
        assert!(self.fits(command), "a command was pushed into an entry that is full");
        assert_eq!(command.check(), Ok(()), "a command beyond its limits reached an entry");
        self.encoded.reserve(command.encoded_len());
        command.encode(&mut self.encoded);
        self.count += 1;
    }

    /// The number of commands.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of what [`finish`](Batch::finish) returns.
    pub fn len_bytes(&self) -> usize {
        self.encoded.len()
    }

    pub fn finish(self) -> Bytes {
        Bytes::from(self.encoded)
    }
}

/// Why an entry's payload cannot be applied. None of its commands has been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("commands in version {0} of the encoding, this build reads version {VERSION}: upgrade this node")]
    UnknownVersion(u8),
    #[error("commands of {0} bytes, the largest entry has {LARGEST_ENTRY_BYTES}")]
    TooLarge(usize),
    #[error(transparent)]
    Malformed(#[from] CodecError),
}

/// An entry's payload, checked.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub timestamp: HlcTimestamp,
    pub commands: Commands,
}

/// Reads a payload that a [`Batch`] made. Commands share its memory.
pub fn decode(payload: Bytes) -> Result<Decoded, DecodeError> {
    let Checked { timestamp, first, count } = check(&payload)?;
    Ok(Decoded { timestamp, commands: Commands { count, rest: payload.slice(first..) } })
}

/// The result of checking a payload.
pub struct Checked {
    timestamp: HlcTimestamp,
    /// Where the first command begins.
    first: usize,
    count: usize,
}

/// Whether [`decode`] can read a payload. Allocates nothing.
pub fn check(payload: &[u8]) -> Result<Checked, DecodeError> {
    if payload.len() > LARGEST_ENTRY_BYTES {
        return Err(DecodeError::TooLarge(payload.len()));
    }
    let mut reader = Reader::new(payload);
    let timestamp = read_timestamp(&mut reader)?;
    let first = payload.len() - reader.rest().len();
    let (mut count, mut checking) = (0, Checking(reader));
    while !checking.0.is_empty() {
        Command::decode(&mut checking)?;
        count += 1;
    }
    Ok(Checked { timestamp, first, count })
}

/// The timestamp of a payload. Does not read the commands.
pub fn timestamp(payload: &[u8]) -> Result<HlcTimestamp, DecodeError> {
    read_timestamp(&mut Reader::new(payload))
}

fn read_timestamp(reader: &mut Reader<'_>) -> Result<HlcTimestamp, DecodeError> {
    match reader.u8()? {
        VERSION => Ok(HlcTimestamp(reader.varint()?)),
        version => Err(DecodeError::UnknownVersion(version)),
    }
}

/// The commands of an entry, in order.
#[derive(Clone, Debug)]
pub struct Commands {
    count: usize,
    rest: Bytes,
}

impl Iterator for Commands {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        if self.rest.is_empty() {
            return None;
        }
        let mut fields = Fields::new(&self.rest);
        let command = Command::decode(&mut fields).expect("decode has read this command before");
        let rest = fields.rest();
        self.rest = rest;
        self.count -= 1;
        Some(command)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Commands {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::put_bytes;
    use crate::kv::{Append, Delete, Increment, Put};
    use proptest::prelude::*;

    fn put(key: &'static str, value: &'static str) -> Command {
        Put { key: key.into(), value: value.into() }.into()
    }

    fn delete(key: &'static str) -> Command {
        Delete { key: key.into() }.into()
    }

    fn encode(timestamp: HlcTimestamp, commands: &[Command]) -> Bytes {
        let mut batch = Batch::new(timestamp);
        for command in commands {
            let before = batch.len_bytes();
            batch.push(command);
            assert_eq!(batch.len_bytes() - before, command.encoded_len());
        }
        batch.finish()
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let bytes = |from| prop::collection::vec(any::<u8>(), from..200).prop_map(Bytes::from);
        prop_oneof![
            (bytes(1), bytes(0)).prop_map(|(key, value)| Command::from(Put { key, value })),
            bytes(1).prop_map(|key| Delete { key }.into()),
            (bytes(1), any::<i64>()).prop_map(|(key, by)| Increment { key, by }.into()),
            (bytes(1), bytes(0)).prop_map(|(key, bytes)| Append { key, bytes }.into()),
        ]
    }

    #[test]
    fn encoding_is_pinned() {
        let encoded = encode(HlcTimestamp(300), &[put("k", "value"), delete("key")]);
        assert_eq!(&encoded[..], b"\x81\xac\x02\x01\x01k\x05value\x02\x03key");
        assert_eq!(&encode(HlcTimestamp(0), &[])[..], b"\x81\x00");
    }

    #[test]
    fn unknown_versions_and_operations_are_named() {
        assert_eq!(decode(Bytes::from_static(b"\x02\x00")).err(), Some(DecodeError::UnknownVersion(2)));
        assert_eq!(
            decode(Bytes::from_static(b"\x81\x00\x02\x01k\x09")).err(),
            Some(DecodeError::Malformed(CodecError::UnknownCode(9))),
            "the command before it does not come out either"
        );
    }

    #[test]
    fn limits_hold_in_both_directions() {
        let key = Bytes::from(vec![b'k'; MAX_KEY_BYTES]);
        let value = Bytes::from(vec![b'v'; MAX_VALUE_BYTES]);
        let largest = Command::from(Put { key: key.clone(), value });
        let mut batch = Batch::new(HlcTimestamp(u64::MAX));
        batch.push(&largest);
        assert!(batch.len_bytes() <= LARGEST_ENTRY_BYTES);
        assert!(!batch.fits(&delete("k")), "the largest command has an entry of its own");
        assert_eq!(decode(batch.finish()).expect("valid").commands.next(), Some(largest));

        let mut long_key = vec![VERSION, 0, 2];
        put_bytes(&mut long_key, &vec![b'k'; MAX_KEY_BYTES + 1]);
        let error = DecodeError::Malformed(CodecError::TooLong { len: 1 + key.len() as u64, max: MAX_KEY_BYTES });
        assert_eq!(decode(long_key.into()).err(), Some(error));
        assert_eq!(
            decode(vec![VERSION; LARGEST_ENTRY_BYTES + 1].into()).err(),
            Some(DecodeError::TooLarge(LARGEST_ENTRY_BYTES + 1))
        );
    }

    #[test]
    #[should_panic(expected = "beyond its limits")]
    fn no_entry_takes_a_key_that_no_replica_would_read() {
        let key = vec![b'k'; MAX_KEY_BYTES + 1].into();
        Batch::new(HlcTimestamp(1)).push(&Put { key, value: Bytes::new() }.into());
    }

    #[test]
    fn decoding_copies_nothing() {
        let encoded = encode(HlcTimestamp(1), &[put("key", "value")]);
        let memory = encoded.as_ptr_range();
        let Some(Command::Put(Put { value, .. })) = decode(encoded).expect("valid").commands.next() else {
            panic!("a put was encoded")
        };
        assert!(memory.contains(&value.as_ptr()));
    }

    proptest! {
        #[test]
        fn commands_come_back(timestamp in any::<u64>(), commands in prop::collection::vec(any_command(), 0..20)) {
            let decoded = decode(encode(HlcTimestamp(timestamp), &commands)).expect("valid");
            prop_assert_eq!(decoded.timestamp, HlcTimestamp(timestamp));
            prop_assert_eq!(decoded.commands.len(), commands.len());
            prop_assert_eq!(decoded.commands.collect::<Vec<_>>(), commands);
        }

        #[test]
        fn accepted_bytes_encode_to_themselves(
            commands in prop::collection::vec(any_command(), 0..6),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..8u32), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode(HlcTimestamp(7), &commands).to_vec();
            for (at, bit) in changes {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            bytes.truncate(1 + cut.index(bytes.len()));
            if let Ok(decoded) = decode(bytes.clone().into()) {
                let commands: Vec<_> = decoded.commands.collect();
                prop_assume!(commands.iter().all(|command| command.check().is_ok()));
                prop_assert_eq!(&encode(decoded.timestamp, &commands)[..], &bytes[..]);
            }
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let with_version = [&[VERSION][..], &noise].concat();
            for bytes in [noise, with_version] {
                if let Ok(decoded) = decode(bytes.into()) {
                    prop_assert_eq!(decoded.commands.len(), decoded.commands.count());
                }
            }
        }
    }
}
