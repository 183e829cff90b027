//! The operations on a key and their answers.

use super::KeyValue;
use crate::model::Model;
use crate::operation::Operation;
use std::fmt;

/// The value that a put or an append writes. It is unique, because each writer numbers its values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Value {
    pub writer: u32,
    pub number: u32,
}

impl Value {
    /// The value of a get that no client wrote.
    pub const FOREIGN: Value = Value { writer: u32::MAX, number: u32::MAX };
}

/// The content that a get read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    pub base: Base,
    /// The values appended to the base, in order.
    pub appended: Vec<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// A value that was put, or appended to an absent key.
    Value(Value),
    /// The result of increments.
    Number(i64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub content: Content,
    /// How often the key has been written since it was created; `None` if the store does not report it.
    pub version: Option<u64>,
}

/// An operation and its answer.
///
/// `bytes`: the length of the written value; it matters only if appends are answered with a length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `version`: as in [`Found`], including this write.
    Put {
        value: Value,
        bytes: u32,
        version: Option<u64>,
    },
    Get {
        found: Option<Found>,
    },
    /// `found`: whether the key existed; `None` if the store does not report it.
    Delete {
        found: Option<bool>,
    },
    /// `number`: the key's new value; `None` if the store does not report it.
    Increment {
        by: i64,
        number: Option<i64>,
    },
    /// `length`: how many bytes the key holds now; `None` if the store does not report it.
    Append {
        value: Value,
        bytes: u32,
        length: Option<u64>,
    },
}

impl Kind {
    /// A put of a value whose length does not matter, answered without a version.
    pub const fn put(value: Value) -> Kind {
        Kind::Put { value, bytes: 0, version: None }
    }

    pub fn is_write(&self) -> bool {
        !matches!(self, Kind::Get { .. })
    }

    /// Whether both are the same operation, regardless of the answers.
    pub fn is_same_question(&self, other: &Kind) -> bool {
        let question = |kind: &Kind| {
            let mut kind = kind.clone();
            match &mut kind {
                Kind::Get { found } => *found = None,
                _ => KeyValue::CLAIMS.iter().for_each(|claim| KeyValue::forget(&mut kind, *claim)),
            }
            kind
        };
        question(self) == question(other)
    }

    /// The value that a put or an append writes.
    pub fn written(&self) -> Option<Value> {
        match self {
            Kind::Put { value, .. } | Kind::Append { value, .. } => Some(*value),
            Kind::Get { .. } | Kind::Delete { .. } | Kind::Increment { .. } => None,
        }
    }
}

impl Content {
    /// All values in it, in the order in which they were written.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        let first = match self.base {
            Base::Value(value) => Some(value),
            Base::Number(_) => None,
        };
        first.into_iter().chain(self.appended.iter().copied())
    }

    pub fn contains(&self, value: Value) -> bool {
        self.values().any(|other| other == value)
    }
}

impl From<Value> for Content {
    fn from(value: Value) -> Content {
        Content { base: Base::Value(value), appended: Vec::new() }
    }
}

impl From<i64> for Content {
    fn from(number: i64) -> Content {
        Content { base: Base::Number(number), appended: Vec::new() }
    }
}

impl Operation {
    /// The content read by an answered get.
    pub(crate) fn read(&self) -> Option<&Content> {
        match &self.kind {
            Kind::Get { found: Some(found) } if self.is_answered() => Some(&found.content),
            _ => None,
        }
    }

    /// Whether a get read content with this value.
    pub(crate) fn has_read(&self, value: Value) -> bool {
        self.read().is_some_and(|content| content.contains(value))
    }

    /// Whether the answer says that the key did not exist.
    pub(crate) fn saw_absence(&self) -> bool {
        self.is_answered() && matches!(self.kind, Kind::Get { found: None } | Kind::Delete { found: Some(false) })
    }

    /// Whether this is a delete whose answer says that the key existed.
    pub(crate) fn found_to_delete(&self) -> bool {
        self.is_answered() && self.kind == Kind::Delete { found: Some(true) }
    }

    /// The version in the answer.
    pub(crate) fn saw_version(&self) -> Option<u64> {
        match &self.kind {
            _ if !self.is_answered() => None,
            Kind::Put { version, .. } => *version,
            Kind::Get { found } => found.as_ref().and_then(|found| found.version),
            Kind::Delete { .. } | Kind::Increment { .. } | Kind::Append { .. } => None,
        }
    }

    /// The number in the answer to an increment.
    pub(crate) fn saw_number(&self) -> Option<i64> {
        match self.kind {
            Kind::Increment { number, .. } if self.is_answered() => number,
            _ => None,
        }
    }

    /// The length in the answer to an append.
    pub(crate) fn saw_length(&self) -> Option<u64> {
        match self.kind {
            Kind::Append { length, .. } if self.is_answered() => length,
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    /// The operation without its answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Put { value, .. } => write!(f, "put {value}"),
            Kind::Get { .. } => f.write_str("get"),
            Kind::Delete { .. } => f.write_str("delete"),
            Kind::Increment { by, .. } => write!(f, "increment by {by}"),
            Kind::Append { value, .. } => write!(f, "append {value}"),
        }
    }
}

impl fmt::Display for Value {
    /// `3.17`: the seventeenth value of writer 3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::FOREIGN => f.write_str("foreign"),
            Value { writer, number } => write!(f, "{writer}.{number}"),
        }
    }
}

impl fmt::Display for Content {
    /// `3.17+1.4`: the value 3.17, to which 1.4 was appended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base {
            Base::Value(value) => value.fmt(f)?,
            Base::Number(number) => number.fmt(f)?,
        }
        self.appended.iter().try_for_each(|value| write!(f, "+{value}"))
    }
}

/// Histories in a few characters, for tests.
#[cfg(test)]
pub mod short {
    use super::*;
    use crate::operation::{Ending, Time};

    fn operation(client: u32, kind: Kind, (invoked, completed): (u64, u64)) -> Operation {
        Operation { client, kind, invoked: Time(invoked), ending: Ending::Answered(Time(completed)) }
    }

    pub fn value(number: u32) -> Value {
        Value { writer: 1, number }
    }

    pub fn put(number: u32, times: (u64, u64)) -> Operation {
        operation(1, Kind::put(value(number)), times)
    }

    pub fn get(found: Option<u32>, times: (u64, u64)) -> Operation {
        let found = found.map(|number| Found { content: value(number).into(), version: None });
        operation(2, Kind::Get { found }, times)
    }

    /// A get of values that were appended one after the other.
    pub fn get_all(numbers: &[u32], times: (u64, u64)) -> Operation {
        let mut values = numbers.iter().map(|number| value(*number));
        let base = Base::Value(values.next().expect("a text has a first value"));
        let content = Content { base, appended: values.collect() };
        operation(2, Kind::Get { found: Some(Found { content, version: None }) }, times)
    }

    pub fn get_number(number: i64, times: (u64, u64)) -> Operation {
        operation(2, Kind::Get { found: Some(Found { content: number.into(), version: None }) }, times)
    }

    pub fn delete(found: Option<bool>, times: (u64, u64)) -> Operation {
        operation(3, Kind::Delete { found }, times)
    }

    pub fn increment(by: i64, number: Option<i64>, times: (u64, u64)) -> Operation {
        operation(4, Kind::Increment { by, number }, times)
    }

    /// Ten bytes long.
    pub fn append(number: u32, length: Option<u64>, times: (u64, u64)) -> Operation {
        operation(5, Kind::Append { value: value(number), bytes: 10, length }, times)
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
