//! Describes what is wrong with a history that no order explains.

use crate::key_value::{Content, KeyValue, Kind, Value};
use crate::operation::{Ending, Operation};
use crate::shrink::smallest;
use std::fmt;

/// Why no order of a violation's operations explains their answers: the simplest reason that applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A get returned a value that no client wrote to this key. "Put" includes appends, here and below.
    NeverPut(Value),
    /// A get returned a value whose put was refused, which promises that nothing happened.
    Refused(Value),
    /// A get returned a value before its put began.
    BeforePut(Value),
    /// A key was absent after a put of it was acknowledged, and no client could have deleted it meanwhile.
    Lost(Value),
    /// A get returned a value although a delete was acknowledged after its put and before the get.
    Resurrected(Value),
    /// A get returned a value although a put of another one was acknowledged in between.
    Outdated { read: Value, acknowledged: Value },
    /// A delete found the key although another delete was acknowledged before, and no client could have put it
    /// meanwhile.
    DeletedTwice,
    /// A version does not match the invoked writes.
    Version(u64),
    /// An increment's result does not match the invoked writes.
    Number(i64),
    /// An append's resulting length does not match the invoked writes.
    Length(u64),
    /// Several answers contradict each other in a less simple way.
    NoOrder,
}

/// A key's history that is not linearizable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub reason: Reason,
    /// Operations that no order explains even without the rest of the history, by the time of their invocation. Also
    /// the write of a value that could not have been read because it was refused or had not begun.
    pub operations: Vec<Operation>,
}

impl Violation {
    /// The violation in a history that [`judge`](crate::judge) has found not to be linearizable.
    pub fn of(history: &[Operation]) -> Violation {
        let mut operations = smallest::<KeyValue>(history);
        let is_missing = |write: &&Operation| {
            write.kind.written().is_some_and(|value| {
                reads_of(&operations, value).next().is_some() && write_of(&operations, value).is_none()
            })
        };
        let writes: Vec<Operation> = history.iter().filter(is_missing).cloned().collect();
        operations.extend(writes);
        operations.sort_by_key(|operation| operation.invoked);
        Violation { reason: reason(&operations), operations }
    }

    /// The operation whose answer is the contradiction, which drawings highlight.
    pub fn contradicted(&self) -> Option<&Operation> {
        let seen = |operation: &&Operation| match self.reason {
            Reason::NeverPut(value) | Reason::Refused(value) | Reason::BeforePut(value) => operation.has_read(value),
            Reason::Resurrected(value) | Reason::Outdated { read: value, .. } => operation.has_read(value),
            Reason::Lost(_) => operation.saw_absence(),
            Reason::DeletedTwice => operation.found_to_delete(),
            Reason::Version(version) => operation.saw_version() == Some(version),
            Reason::Number(number) => operation.saw_number() == Some(number),
            Reason::Length(length) => operation.saw_length() == Some(length),
            Reason::NoOrder => operation.is_answered(),
        };
        self.operations.iter().filter(seen).max_by_key(|operation| operation.completed())
    }
}

fn reads_of(operations: &[Operation], value: Value) -> impl Iterator<Item = &Operation> {
    operations.iter().filter(move |operation| operation.has_read(value))
}

/// The put or append of a value.
fn write_of(operations: &[Operation], value: Value) -> Option<&Operation> {
    operations.iter().find(|operation| operation.kind.written() == Some(value))
}

fn reason(operations: &[Operation]) -> Reason {
    for get in operations {
        let Some(content) = get.read() else { continue };
        for value in content.values() {
            if let Some(reason) = wrong_value(operations, get, content, value) {
                return reason;
            }
        }
    }
    for observer in operations.iter().filter(|operation| operation.saw_absence()) {
        for put in operations.iter().filter(|put| put.precedes(observer)) {
            let may_have_deleted = |other: &Operation| {
                matches!(other.kind, Kind::Delete { .. }) && other != observer && !other.precedes(put)
            };
            if let Some(value) = put.kind.written()
                && !operations.iter().any(may_have_deleted)
            {
                return Reason::Lost(value);
            }
        }
    }
    let is_deleted_twice = |second: &Operation| {
        let is_put_between = |first: &Operation| {
            let is_creation = |kind: &Kind| kind.is_write() && !matches!(kind, Kind::Delete { .. });
            let may_be = |write: &Operation| is_creation(&write.kind) && !write.precedes(first);
            operations.iter().any(|put| may_be(put) && !second.precedes(put))
        };
        let is_delete = |first: &Operation| matches!(first.kind, Kind::Delete { .. });
        second.found_to_delete()
            && operations.iter().any(|first| is_delete(first) && first.precedes(second) && !is_put_between(first))
    };
    if operations.iter().any(is_deleted_twice) {
        return Reason::DeletedTwice;
    }
    // Every claim that could be forgotten has been, so the remaining ones matter.
    let version = operations.iter().rev().find_map(Operation::saw_version).map(Reason::Version);
    let number = || operations.iter().rev().find_map(Operation::saw_number).map(Reason::Number);
    let length = || operations.iter().rev().find_map(Operation::saw_length).map(Reason::Length);
    version.or_else(number).or_else(length).unwrap_or(Reason::NoOrder)
}

/// The simple reason, if any, why one value of the content that a get read is wrong.
fn wrong_value(operations: &[Operation], get: &Operation, content: &Content, value: Value) -> Option<Reason> {
    let Some(write) = write_of(operations, value) else { return Some(Reason::NeverPut(value)) };
    if write.ending == Ending::Refused {
        return Some(Reason::Refused(value));
    }
    if get.precedes(write) {
        return Some(Reason::BeforePut(value));
    }
    let between = operations.iter().filter(|other| write.precedes(other) && other.precedes(get));
    between.map(|other| &other.kind).find_map(|kind| match kind {
        Kind::Delete { .. } => Some(Reason::Resurrected(value)),
        Kind::Put { value: acknowledged, .. } | Kind::Append { value: acknowledged, .. } => {
            let reason = Reason::Outdated { read: value, acknowledged: *acknowledged };
            (!content.contains(*acknowledged)).then_some(reason)
        }
        Kind::Get { .. } | Kind::Increment { .. } => None,
    })
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NeverPut(value) => write!(f, "a get returned the value {value}, which no client wrote to this key"),
            Reason::Refused(value) => {
                write!(f, "a get returned the value {value}, whose write was reported as not applied")
            }
            Reason::BeforePut(value) => write!(f, "a get returned the value {value} before its write began"),
            Reason::Lost(value) => {
                write!(f, "the value {value} was acknowledged and is gone, although no client deleted it")
            }
            Reason::Resurrected(value) => {
                write!(f, "a get returned the value {value} after a delete of the key was acknowledged")
            }
            Reason::Outdated { read, acknowledged } => {
                write!(f, "a get returned the value {read} after the later value {acknowledged} was acknowledged")
            }
            Reason::DeletedTwice => f.write_str("a delete found the key after a delete of it was acknowledged"),
            Reason::Version(version) => {
                write!(f, "the version {version} does not match the writes of the clients")
            }
            Reason::Number(number) => {
                write!(f, "the number {number} does not match the writes of the clients")
            }
            Reason::Length(length) => {
                write!(f, "the length {length} does not match the writes of the clients")
            }
            Reason::NoOrder => f.write_str("no order of these operations explains their answers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_value::short::{append, delete, get, increment, put, unknown, value, versioned};

    #[track_caller]
    fn assert_reason(history: &[Operation], expected: Reason) {
        let violation = Violation::of(history);
        assert_eq!(violation.reason, expected, "{violation:#?}");
        // The last operation of each of these histories is the contradicted one.
        assert_eq!(
            violation.contradicted().map(|operation| operation.invoked),
            history.last().map(|last| last.invoked)
        );
    }

    #[test]
    fn plain_reasons_are_told_plainly() {
        let (one, two) = (|| put(1, (1, 2)), || put(2, (3, 4)));
        assert_reason(&[one(), get(Some(9), (5, 6))], Reason::NeverPut(value(9)));
        let refused = Operation { ending: Ending::Refused, ..two() };
        assert_reason(&[one(), refused, get(Some(2), (5, 6))], Reason::Refused(value(2)));
        assert_reason(&[put(2, (10, 11)), get(Some(2), (5, 6))], Reason::BeforePut(value(2)));
        assert_reason(&[delete(Some(false), (1, 1)), put(1, (2, 3)), get(None, (5, 6))], Reason::Lost(value(1)));
        assert_reason(&[one(), delete(Some(false), (5, 6))], Reason::Lost(value(1)));
        assert_reason(&[one(), delete(Some(true), (3, 4)), get(Some(1), (5, 6))], Reason::Resurrected(value(1)));
        let outdated = Reason::Outdated { read: value(1), acknowledged: value(2) };
        assert_reason(&[one(), two(), get(Some(1), (5, 6))], outdated);
        assert_reason(&[one(), delete(None, (3, 4)), delete(Some(true), (5, 6))], Reason::DeletedTwice);
        let twice = [versioned(one(), 1), versioned(get(Some(1), (5, 6)), 2)];
        assert_reason(&twice, Reason::Version(2));
        let back_and_forth = [one(), unknown(two()), get(Some(2), (5, 6)), get(Some(1), (7, 8))];
        assert_reason(&back_and_forth, Reason::NoOrder);
        assert_reason(&[one(), append(2, None, (3, 4)), get(Some(1), (5, 6))], outdated);
        assert_reason(&[increment(1, Some(1), (1, 2)), increment(1, Some(1), (3, 4))], Reason::Number(1));
        assert_reason(&[one(), append(2, None, (3, 4)), append(3, Some(10), (5, 6))], Reason::Length(10));
    }

    #[test]
    fn a_put_is_shown_once_also_if_its_version_was_forgotten() {
        let history = [versioned(put(1, (1, 2)), 1), delete(Some(true), (3, 4)), get(Some(1), (5, 6))];
        assert_eq!(Violation::of(&history).operations.len(), 3);
    }
}
