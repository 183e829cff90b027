//! Whether a history could have come from a map that does one operation at a time.
//!
//! Each key is judged alone, by `ringfort_check`, which knows puts, gets and deletes (linearizability is local: Herlihy
//! and Wing, 1990). The order of events takes the place of time there, so that no two are at the same one.
//!
//! A judgement that takes too long is a violation too: a checker that gives up must not pass for one that found
//! nothing.

mod violation;

pub use violation::{Reason, Violation};

use crate::history::{Action, Event, History, Key, Operation, Outcome, Value};
use ringfort_check as check;

/// Histories up to this length are shrunk to the few operations that prove what is wrong with them; it takes time by
/// the cube of it.
const SHRINKABLE: usize = 300;

/// Checks every key of a history.
///
/// # Errors
///
/// A violation of the first key that has one.
pub fn check(history: &History) -> Result<(), Violation> {
    history.by_key().into_iter().try_for_each(|(key, operations)| check_key(key, &operations))
}

fn check_key(key: Key, operations: &[Operation]) -> Result<(), Violation> {
    let judged: Vec<check::Operation> = operations.iter().map(for_check).collect();
    let found_by = |proof: &check::Operation| operations.iter().find(|other| time(other.invoked) == proof.invoked);
    match check::judge(&judged) {
        check::Verdict::Linearizable => Ok(()),
        check::Verdict::Undecided => Err(Violation { key, reason: Reason::Undecided, operations: Vec::new() }),
        check::Verdict::NotLinearizable if judged.len() > SHRINKABLE => {
            let until = check::first_unexplained(&judged);
            let is_answer = |operation: &&Operation| operation.completed().map(time) == until;
            let answer = operations.iter().find(is_answer).into_iter().copied().collect();
            Err(Violation { key, reason: Reason::Unexplained(judged.len()), operations: answer })
        }
        check::Verdict::NotLinearizable => {
            let check::Violation { reason, operations } = check::Violation::of(&judged);
            let operations = operations.iter().filter_map(found_by).copied().collect();
            Err(Violation { key, reason: Reason::Contradiction(reason), operations })
        }
    }
}

fn time(event: Event) -> check::Time {
    check::Time(event.order)
}

fn value(Value(number): Value) -> check::Value {
    check::Value { writer: (number >> 32) as u32, number: number as u32 }
}

fn for_check(operation: &Operation) -> check::Operation {
    let read = |read: Option<Value>| read.map(|read| check::Found { value: value(read), version: None });
    let kind = match (operation.action, operation.outcome) {
        (Action::Put(put), _) => check::Kind::Put { value: value(put), version: None },
        (Action::Get, Outcome::Read(_, found)) => check::Kind::Get { found: read(found) },
        (Action::Get, _) => check::Kind::Get { found: None },
        (Action::Delete, Outcome::Deleted(_, found)) => check::Kind::Delete { found: Some(found) },
        (Action::Delete, _) => check::Kind::Delete { found: None },
    };
    let ending = match operation.outcome {
        Outcome::Written(at) | Outcome::Read(at, _) | Outcome::Deleted(at, _) => check::Ending::Answered(time(at)),
        Outcome::Failed => check::Ending::Refused,
        Outcome::Unknown => check::Ending::Unknown,
    };
    check::Operation { client: operation.client.0, kind, invoked: time(operation.invoked), ending }
}
