//! From a history that no order explains to the few operations that show it.
//!
//! Leaving operations out is not harmless: without its put, a get's value came from nowhere. A step is taken only if it is
//! *sound*: were the longer history linearizable, the shorter one would be too. So whatever is left in the end
//! accuses the store by itself, and can be checked by eye.
//!
//! Sound steps, each with the reason:
//!
//! - **A get goes.** Nobody sees the difference.
//! - **An answer is forgotten** (a version; whether a delete found the key). Less is claimed.
//! - **What was invoked after some moment goes**, with the answers that came after that moment. The beginning of an
//!   explanation explains the beginning of a history.
//! - **A put or delete goes, if nobody depends on it.** Take an order that explains the history. Without the write W, what
//!   the key holds differs only between W and the next write; versions differ until the next delete. So an operation O
//!   that saw something which W's absence could change must be known to be elsewhere: it completed before W was invoked,
//!   or another write that ends the difference lies between them, completed before O was invoked and invoked after W
//!   completed.
//!
//! The steps are repeated until none keeps the history unexplained. That makes it minimal in the sense that no further
//! step can be taken, not the smallest of all.

use crate::operation::{Ending, Found, Kind, Operation, Time};
use crate::search::{Verdict, judge_within};

/// Each attempt to shrink may take so many steps of the search. One that takes more is not made.
const BUDGET_STEPS: u32 = 50_000;

/// One step; see the module's header. Numbers are places in the history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Until(Time),
    ForgetVersions,
    ForgetVersion(usize),
    ForgetFound(usize),
    LeaveOut(usize),
}

/// The operations of a history that is not linearizable which show it by themselves, in the order of their invocation.
pub fn smallest(operations: &[Operation]) -> Vec<Operation> {
    let mut history = operations.to_vec();
    history.retain(|operation| match operation.ending {
        Ending::Answered(_) => true,
        Ending::Unknown => !matches!(operation.kind, Kind::Get { .. }),
        Ending::Refused => false,
    });
    history.sort_by_key(|operation| operation.invoked);
    attempt(&mut history, Step::ForgetVersions);
    if let Some(moment) = first_unexplained(&history) {
        attempt(&mut history, Step::Until(moment));
    }
    loop {
        let before = history.clone();
        // Backwards, since steps take operations away.
        for number in (0..history.len()).rev() {
            attempt(&mut history, Step::LeaveOut(number));
        }
        for number in 0..history.len() {
            attempt(&mut history, Step::ForgetVersion(number));
            attempt(&mut history, Step::ForgetFound(number));
        }
        if history == before {
            return history;
        }
    }
}

/// Takes a step if no order explains what is left.
fn attempt(history: &mut Vec<Operation>, step: Step) {
    if let Some(shorter) = after(history, step)
        && judge_within(&shorter, BUDGET_STEPS) == Verdict::NotLinearizable
    {
        *history = shorter;
    }
}

/// The history after a step, or `None` if the step is not sound.
fn after(history: &[Operation], step: Step) -> Option<Vec<Operation>> {
    let mut shorter = history.to_vec();
    match step {
        Step::Until(moment) => return Some(beginning(history, moment)),
        Step::ForgetVersions => shorter.iter_mut().for_each(forget_version),
        Step::ForgetVersion(number) => forget_version(&mut shorter[number]),
        Step::ForgetFound(number) => forget_found(&mut shorter[number]),
        Step::LeaveOut(number) if nobody_depends_on(history, number) => drop(shorter.remove(number)),
        Step::LeaveOut(_) => return None,
    }
    Some(shorter)
}

/// The first completion by which there is no explanation, if there is one.
pub fn first_unexplained(history: &[Operation]) -> Option<Time> {
    let mut completions: Vec<Time> = history.iter().filter_map(Operation::completed).collect();
    completions.sort_unstable();
    let is_explained =
        |moment: &Time| judge_within(&beginning(history, *moment), BUDGET_STEPS) == Verdict::Linearizable;
    completions.get(completions.partition_point(is_explained)).copied()
}

/// What was invoked until `until`. Of what was answered later, gets go and answers are forgotten.
fn beginning(history: &[Operation], until: Time) -> Vec<Operation> {
    let mut begun: Vec<Operation> = history.iter().filter(|operation| operation.invoked <= until).copied().collect();
    begun.retain_mut(|operation| {
        if operation.completed().is_some_and(|completed| completed <= until) {
            return true;
        }
        forget_version(operation);
        forget_found(operation);
        !matches!(operation.kind, Kind::Get { .. })
    });
    begun
}

fn forget_version(operation: &mut Operation) {
    if let Kind::Put { version, .. } | Kind::Get { found: Some(Found { version, .. }) } = &mut operation.kind {
        *version = None;
    }
}

fn forget_found(operation: &mut Operation) {
    if let Kind::Delete { found } = &mut operation.kind {
        *found = None;
    }
}

/// Whether an operation can go soundly: see the module's header.
fn nobody_depends_on(history: &[Operation], number: usize) -> bool {
    let gone = history[number];
    let others = || history.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, operation)| operation);
    let is_put = |kind: &Kind| matches!(kind, Kind::Put { .. });
    let is_delete = |kind: &Kind| matches!(kind, Kind::Delete { .. });
    let is_write = |kind: &Kind| !matches!(kind, Kind::Get { .. });
    others().all(|observer| {
        if observer.precedes(&gone) {
            return true;
        }
        // Whether such a write is known to lie between the one that goes and an observer that would see it go.
        let is_shielded = |sees: bool, ends: fn(&Kind) -> bool| {
            !sees || others().any(|write| ends(&write.kind) && gone.precedes(write) && write.precedes(observer))
        };
        let sees_no_other_state = match gone.kind {
            Kind::Get { .. } => return true,
            Kind::Put { value, .. } => {
                observer.read() != Some(value) && is_shielded(observer.found_to_delete(), is_write)
            }
            // The latter is not for soundness: of a deleted key that was deleted again the first delete should be left.
            Kind::Delete { .. } => {
                is_shielded(observer.saw_absence(), is_put) && is_shielded(observer.found_to_delete(), is_write)
            }
        };
        sees_no_other_state && is_shielded(observer.saw_version().is_some(), is_delete)
    })
}

/// What every possible step makes of a history.
#[cfg(test)]
pub(crate) fn all_steps(history: &[Operation]) -> Vec<Vec<Operation>> {
    let numbers = 0..history.len();
    let mut steps: Vec<Step> = numbers
        .flat_map(|number| [Step::LeaveOut(number), Step::ForgetVersion(number), Step::ForgetFound(number)])
        .chain(history.iter().filter_map(Operation::completed).map(Step::Until))
        .collect();
    steps.push(Step::ForgetVersions);
    steps.into_iter().filter_map(|step| after(history, step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::short::{delete, get, put, unknown, versioned};

    /// Writes, reads and deletes one after the other, before or after what matters.
    fn noise(from: u64) -> Vec<Operation> {
        let number = from as u32;
        vec![
            get(None, (from, from + 1)),
            put(number, (from + 2, from + 3)),
            put(number + 1, (from + 4, from + 5)),
            get(Some(number + 1), (from + 6, from + 7)),
            unknown(put(number + 2, (from + 8, from + 9))),
            delete(Some(true), (from + 10, from + 11)),
            get(None, (from + 12, from + 13)),
        ]
    }

    #[track_caller]
    fn shrinks_to(history: &[Operation], expected: &[Operation]) {
        assert_eq!(smallest(history), expected);
    }

    #[test]
    fn a_stale_read_is_two_puts_and_the_get() {
        let core = [put(1, (101, 102)), put(2, (103, 104)), get(Some(1), (105, 106))];
        let history = [&noise(20)[..], &noise(50), &core, &[delete(Some(true), (110, 111))], &noise(200)].concat();
        shrinks_to(&history, &core);
    }

    #[test]
    fn a_lost_write_is_the_put_and_the_get_that_finds_nothing() {
        let core = [put(1, (101, 102)), get(None, (105, 106))];
        shrinks_to(&[&noise(20)[..], &noise(50), &core, &noise(200)].concat(), &core);
    }

    #[test]
    fn a_resurrected_value_is_the_put_the_delete_and_the_get() {
        let core = [put(1, (101, 102)), delete(None, (103, 104)), get(Some(1), (107, 108))];
        let mut history = [&noise(20)[..], &core, &noise(200)].concat();
        history.push(get(None, (105, 106)));
        // Whether the delete found something is not needed to see that it was undone.
        history.iter_mut().filter(|operation| operation.invoked == Time(103)).for_each(|delete| {
            delete.kind = Kind::Delete { found: Some(true) };
        });
        shrinks_to(&history, &core);
    }

    #[test]
    fn what_a_delete_found_stays_if_it_is_the_point() {
        let core = [delete(None, (103, 104)), delete(Some(true), (105, 106))];
        // No writes of unknown outcome here: they would explain it.
        let before = [put(5, (10, 11)), delete(Some(true), (12, 13)), get(None, (14, 15)), put(1, (101, 102))];
        shrinks_to(&[&before[..], &core, &noise(200)].concat(), &core);
        let core = [put(1, (101, 102)), delete(Some(false), (103, 104))];
        shrinks_to(&[&noise(20)[..], &core, &noise(200)].concat(), &core);
    }

    #[test]
    fn a_write_applied_twice_is_what_its_version_depends_on() {
        let core = [delete(None, (101, 102)), put(1, (103, 104)), versioned(get(Some(1), (107, 108)), 2)];
        let before = [put(7, (10, 11)), delete(Some(true), (12, 13)), put(8, (14, 15))];
        let seen_once = [versioned(get(Some(1), (105, 106)), 1)];
        let after = [delete(Some(true), (110, 111)), put(9, (112, 113))];
        shrinks_to(&[&before[..], &core, &seen_once, &after].concat(), &core);
    }

    #[test]
    fn a_write_of_unknown_outcome_stays_if_it_excuses() {
        // The put that timed out explains the first get, and then not the second.
        let core =
            [put(1, (101, 102)), unknown(put(2, (103, 104))), get(Some(2), (105, 106)), get(Some(1), (107, 108))];
        shrinks_to(&[&noise(20)[..], &core, &noise(200)].concat(), &core);
    }
}
