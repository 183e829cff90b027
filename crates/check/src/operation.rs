//! An operation on the key, and what its client was told.
//!
//! | ending | what the client knows | when it takes effect |
//! |---|---|---|
//! | [`Ending::Answered`] | the answer, in [`Kind`] | once, between invocation and completion |
//! | [`Ending::Refused`] | the store promised that nothing happened | never |
//! | [`Ending::Unknown`] | nothing | once at any time after the invocation, or never |
//!
//! Values are unique: a put writes what no other put writes. In the beginning the key is absent.

use std::fmt;

/// Nanoseconds since some beginning. Of two operations one came first if it completed *before* the other was invoked;
/// at the same nanosecond they count as concurrent, which never accuses a store wrongly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Time(pub u64);

/// What a put writes: unique, because writers count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Value {
    pub writer: u32,
    pub number: u32,
}

impl Value {
    /// What a get read that was written by none of the clients.
    pub const FOREIGN: Value = Value { writer: u32::MAX, number: u32::MAX };
}

/// What was asked, and the answer, which counts only if there was one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `version`: how often the key has been written since it was created, this time included; `None` where the store
    /// does not say. So also for gets.
    Put {
        value: Value,
        version: Option<u64>,
    },
    Get {
        found: Option<Found>,
    },
    /// Whether there was such a key; `None` where the store does not say.
    Delete {
        found: Option<bool>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    pub value: Value,
    pub version: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    Answered(Time),
    Refused,
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    pub client: u32,
    pub kind: Kind,
    pub invoked: Time,
    pub ending: Ending,
}

impl Operation {
    /// When the client was told, if it was.
    pub fn completed(&self) -> Option<Time> {
        match self.ending {
            Ending::Answered(at) => Some(at),
            Ending::Refused | Ending::Unknown => None,
        }
    }

    /// Whether this was over before the other one began.
    pub fn precedes(&self, other: &Operation) -> bool {
        self.completed().is_some_and(|completed| completed < other.invoked)
    }

    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.ending, Ending::Answered(_))
    }

    /// The value that an answered get read.
    pub(crate) fn read(&self) -> Option<Value> {
        match self.kind {
            Kind::Get { found: Some(found) } if self.is_answered() => Some(found.value),
            _ => None,
        }
    }

    /// Whether the answer says that there was no such key.
    pub(crate) fn saw_absence(&self) -> bool {
        self.is_answered() && matches!(self.kind, Kind::Get { found: None } | Kind::Delete { found: Some(false) })
    }

    /// Whether this is a delete whose answer says that there was such a key.
    pub(crate) fn found_to_delete(&self) -> bool {
        self.is_answered() && self.kind == Kind::Delete { found: Some(true) }
    }

    /// The version in the answer.
    pub(crate) fn saw_version(&self) -> Option<u64> {
        match self.kind {
            _ if !self.is_answered() => None,
            Kind::Put { version, .. } => version,
            Kind::Get { found } => found.and_then(|found| found.version),
            Kind::Delete { .. } => None,
        }
    }
}

impl fmt::Display for Value {
    /// `3.17`: the seventeenth of writer 3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::FOREIGN => f.write_str("foreign"),
            Value { writer, number } => write!(f, "{writer}.{number}"),
        }
    }
}

/// Histories in a few characters, for tests.
#[cfg(test)]
pub(crate) mod short {
    use super::*;

    fn operation(client: u32, kind: Kind, (invoked, completed): (u64, u64)) -> Operation {
        Operation { client, kind, invoked: Time(invoked), ending: Ending::Answered(Time(completed)) }
    }

    pub fn put(number: u32, times: (u64, u64)) -> Operation {
        operation(1, Kind::Put { value: Value { writer: 1, number }, version: None }, times)
    }

    pub fn get(found: Option<u32>, times: (u64, u64)) -> Operation {
        let found = found.map(|number| Found { value: Value { writer: 1, number }, version: None });
        operation(2, Kind::Get { found }, times)
    }

    pub fn delete(found: Option<bool>, times: (u64, u64)) -> Operation {
        operation(3, Kind::Delete { found }, times)
    }

    pub fn unknown(operation: Operation) -> Operation {
        Operation { ending: Ending::Unknown, ..operation }
    }

    pub fn versioned(mut operation: Operation, seen: u64) -> Operation {
        match &mut operation.kind {
            Kind::Put { version, .. } | Kind::Get { found: Some(Found { version, .. }) } => *version = Some(seen),
            kind => panic!("{kind:?} has no version"),
        }
        operation
    }
}
