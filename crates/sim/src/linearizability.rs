//! Checks whether a history could have come from a map that executes one operation at a time.
//!
//! [`ringfort_check`] checks each key separately (linearizability is local: Herlihy and Wing, 1990).
//!
//! A check that takes too long counts as a violation too: a checker that gives up must not look like one that found
//! nothing.

mod violation;

pub use violation::{Reason, Violation};

use crate::history::History;
use ringfort_check::{self as check, Operation, Time, Verdict};
use std::collections::BTreeMap;

/// Histories up to this length are shrunk to the few operations that prove the violation, which takes time cubic in the
/// length.
const SHRINKABLE: usize = 300;

/// Checks every key of a history.
///
/// # Errors
///
/// A violation of the first key that has one.
pub fn check(history: &History) -> Result<(), Violation> {
    history.by_key().into_iter().try_for_each(|(key, operations)| {
        let Some((reason, operations)) = what_is_wrong(&operations) else { return Ok(()) };
        let times = operations.iter().flat_map(|operation| [Some(operation.invoked), operation.completed()]).flatten();
        let moments: BTreeMap<Time, _> = times.map(|time| (time, history.moment(time))).collect();
        Err(Violation { key, reason, operations, moments })
    })
}

/// Why no order explains the operations on a key, and the operations that show it.
fn what_is_wrong(operations: &[Operation]) -> Option<(Reason, Vec<Operation>)> {
    match check::judge(operations) {
        Verdict::Linearizable => None,
        Verdict::Undecided => Some((Reason::Undecided, Vec::new())),
        Verdict::NotLinearizable if operations.len() > SHRINKABLE => {
            let until = check::first_unexplained(operations);
            let answer = operations.iter().find(|operation| operation.completed() == until);
            Some((Reason::Unexplained(operations.len()), answer.into_iter().cloned().collect()))
        }
        Verdict::NotLinearizable => {
            let check::Violation { reason, operations } = check::Violation::of(operations);
            Some((Reason::Contradiction(reason), operations))
        }
    }
}
