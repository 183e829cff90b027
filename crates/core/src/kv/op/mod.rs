//! The operations on the keys of a shard: one file each, and the table that lists them.
//!
//! A **command** changes the state. It goes through the shard's log, and every replica applies it, so it may depend
//! only on the state and its own fields. A **query** reads the state of one replica.
//!
//! **Encoding.** The byte that the table assigns to the operation, then its fields. A reply is encoded in the same way,
//! with the byte of its operation; 0 is a [`Refusal`], whatever the command. A byte never changes its meaning; the byte
//! of a removed operation is not reused.

#[macro_use]
mod table;
mod append;
mod delete;
mod get;
mod increment;
mod put;
mod scan;

pub use append::{Append, AppendReply};
pub use delete::{Delete, DeleteReply};
pub use get::Get;
pub use increment::{Increment, IncrementReply};
pub use put::{Put, PutReply};
pub use scan::Scan;

use super::entry::COMMAND_LIMIT_BYTES;
use super::state::{Machine, Transaction};
use crate::codec::CodecError;
use crate::codec::fields::{Encoded, Sink, Source};
use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use bytes::Bytes;

operations! {
    commands {
        1 => Put,
        2 => Delete,
        3 => Increment,
        4 => Append,
    }
    queries {
        1 => Get,
        2 => Scan,
    }
}

/// What all operations have in common.
pub trait Operation: Encoded {
    /// Its name in metrics and messages.
    const NAME: &'static str;

    /// Whether it is safe to retry when its outcome is unknown: executing it twice has the same effect as once.
    const REPEATS: bool;

    type Reply: Encoded;

    /// Checks the limits on its fields. An operation beyond them is refused before anything else happens.
    fn check(&self) -> Result<(), Invalid>;
}

/// An operation that changes the state of a shard.
pub trait Mutate: Operation {
    /// Whether it may make the state larger. If so, it is refused while memory is full.
    const GROWS: bool;

    /// The key that it changes, which determines the shard.
    fn key(&self) -> &Bytes;

    /// Changes the state. Every replica calls it with the same state, and it must do the same on each. If it returns a
    /// refusal, it has changed nothing.
    fn apply(&self, state: &mut Transaction<'_>) -> Result<Self::Reply, Refusal>;
}

/// An operation that reads the state of a shard.
pub trait Read: Operation {
    /// Whether the reply takes long to collect. If so, the worker does not collect it, and only confirms that the state
    /// may be read.
    const IS_LARGE: bool;

    /// The key that it reads. `None` for a query that goes to each shard separately.
    fn key(&self) -> Option<&Bytes>;

    fn answer(&self, machine: &Machine) -> Self::Reply;
}

/// An operation that the table lists.
pub trait Listed: Operation {
    /// The enum of all replies to commands, or of all replies to queries.
    type Replies;

    /// The reply to this operation; `None` if it is the reply to another one.
    fn reply(reply: Self::Replies) -> Option<Self::Reply>;
}

/// Why an operation is invalid. A retry would be refused too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the key is empty")]
    EmptyKey,
    #[error("the key has {0} bytes, the limit is {MAX_KEY_BYTES}")]
    LongKey(usize),
    #[error("the value has {0} bytes, the limit is {MAX_VALUE_BYTES}")]
    LargeValue(usize),
    #[error("the command has {0} bytes, the limit is {COMMAND_LIMIT_BYTES}")]
    LargeCommand(usize),
}

/// Why a command could not be carried out on the state as it is. It has changed nothing. The refusal is committed like
/// any reply, so the outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the value of the key is not a decimal 64-bit integer; put one, or delete the key to start at 0")]
    NotANumber,
    #[error("the sum does not fit into a 64-bit integer; the value is unchanged")]
    Overflow,
    #[error("the value would have more than {MAX_VALUE_BYTES} bytes, which is the limit; it is unchanged")]
    LargeValue,
}

impl Encoded for Refusal {
    fn encode(&self, out: &mut impl Sink) {
        out.byte(match self {
            Refusal::NotANumber => 1,
            Refusal::Overflow => 2,
            Refusal::LargeValue => 3,
        });
    }

    fn decode(source: &mut impl Source) -> Result<Refusal, CodecError> {
        match source.code(&[1, 2, 3])? {
            1 => Ok(Refusal::NotANumber),
            2 => Ok(Refusal::Overflow),
            _ => Ok(Refusal::LargeValue),
        }
    }
}

/// Checks the limits on a key.
pub fn check_key(key: &[u8]) -> Result<(), Invalid> {
    match key.len() {
        0 => Err(Invalid::EmptyKey),
        length if length > MAX_KEY_BYTES => Err(Invalid::LongKey(length)),
        _ => Ok(()),
    }
}

/// Checks the limit on a value.
pub fn check_value(value: &[u8]) -> Result<(), Invalid> {
    match value.len() {
        length if length > MAX_VALUE_BYTES => Err(Invalid::LargeValue(length)),
        _ => Ok(()),
    }
}

/// Whether a command is no larger than what an entry takes, whatever its fields are.
fn check_command(encoded_len: usize) -> Result<(), Invalid> {
    match encoded_len {
        length if length > COMMAND_LIMIT_BYTES => Err(Invalid::LargeCommand(length)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fields::Fields;
    use crate::time::HlcTimestamp;

    #[test]
    fn operations_have_names_of_their_own() {
        let names: std::collections::BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn operations_are_drawn_by_their_shares() {
        let share = |kind| match kind {
            Kind::Put => 2,
            Kind::Get => 1,
            Kind::Delete | Kind::Increment | Kind::Append | Kind::Scan => 0,
        };
        let drawn = |number| {
            Kind::drawn(share, |sum| {
                assert_eq!(sum, 3);
                number
            })
        };
        assert_eq!([0, 1, 2].map(drawn), [Kind::Put, Kind::Put, Kind::Get]);
    }

    #[test]
    fn commands_answer_what_they_did() {
        let mut machine = Machine::new();
        let mut apply = |command: Command| command.apply(&mut machine.begin(HlcTimestamp(1), &mut |_| {}));
        let key = Bytes::from("k");
        let mut put = || apply(Put { key: key.clone(), value: "v".into() }.into());
        assert_eq!(put(), CommandReply::Put(PutReply { version: 1, revision: 1 }));
        assert_eq!(put(), CommandReply::Put(PutReply { version: 2, revision: 2 }));
        let mut delete = || apply(Delete { key: key.clone() }.into());
        assert_eq!(delete(), CommandReply::Delete(DeleteReply { existed: true, revision: 3 }));
        assert_eq!(delete(), CommandReply::Delete(DeleteReply { existed: false, revision: 3 }));
        let mut increment = || apply(Increment { key: key.clone(), by: 7 }.into());
        assert_eq!(increment(), CommandReply::Increment(IncrementReply { number: 7, version: 1, revision: 4 }));
        assert_eq!(increment(), CommandReply::Increment(IncrementReply { number: 14, version: 2, revision: 5 }));
        apply(Put { key: key.clone(), value: "v".into() }.into());
        let increment = Increment { key: key.clone(), by: 7 };
        assert_eq!(apply(increment.into()), CommandReply::Refused(Refusal::NotANumber));
        let mut append = |bytes: Bytes| apply(Append { key: key.clone(), bytes }.into());
        let reply = AppendReply { length_bytes: 3, version: 4, revision: 7 };
        assert_eq!(append("ab".into()), CommandReply::Append(reply));
        assert_eq!(append(vec![0; MAX_VALUE_BYTES].into()), CommandReply::Refused(Refusal::LargeValue));
    }

    #[test]
    fn a_command_is_bounded_as_a_whole() {
        assert_eq!(check_command(COMMAND_LIMIT_BYTES), Ok(()));
        assert_eq!(check_command(COMMAND_LIMIT_BYTES + 1), Err(Invalid::LargeCommand(COMMAND_LIMIT_BYTES + 1)));
        let put = Put { key: vec![0; MAX_KEY_BYTES].into(), value: vec![0; MAX_VALUE_BYTES].into() };
        assert_eq!(Command::from(put).check(), Ok(()), "the largest one is no larger");
    }

    #[test]
    fn an_operation_that_is_not_known_is_refused_by_its_byte() {
        let read = Command::decode(&mut Fields::new(&Bytes::from_static(b"\x09\x01k")));
        assert_eq!(read, Err(CodecError::UnknownCode(9)));
    }
}
