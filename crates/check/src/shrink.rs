//! Reduces a history that no order explains to the few operations that show it, for every [`Model`].
//!
//! Removing operations is not harmless: without its put, a get's value would come from nowhere. A step is taken only if
//! it is *sound*: if the longer history were linearizable, the shorter one would be too. So the remaining operations by
//! themselves prove the violation, and can be checked by eye.
//!
//! The sound steps, with their reasons:
//!
//! - **An observation is removed.** It changes nothing for the others.
//! - **A claim of an answer is forgotten.** A weaker answer is easier to explain.
//! - **Operations invoked after some moment are removed**, and those answered after it get an unknown outcome. A prefix
//!   of an explanation explains the prefix of the history.
//! - **A write is removed, if the model says** that no answer depends on it ([`Model::is_removable`]).
//!
//! The steps are repeated until none keeps the history unexplained. That makes it minimal in the sense that no further
//! step can be taken, not the smallest of all.

use crate::model::Model;
use crate::operation::{Ending, Operation, Time};
use crate::search::{Verdict, judge_within};

/// Each attempt to shrink may take this many steps of the search. A shrinking step that takes more is not taken.
const BUDGET_STEPS: u32 = 50_000;

/// One step; see the module's header. Numbers are places in the history.
enum Step<M: Model> {
    Until(Time),
    ForgetEverywhere(M::Claim),
    Forget(usize, M::Claim),
    Remove(usize),
}

type History<M> = Vec<Operation<<M as Model>::Kind>>;

/// The operations of a non-linearizable history that by themselves show the violation, in the order of their
/// invocation.
pub fn smallest<M: Model>(operations: &[Operation<M::Kind>]) -> History<M> {
    let mut history = operations.to_vec();
    history.retain(|operation| match operation.ending {
        Ending::Answered(_) => true,
        Ending::Unknown => !M::only_observes(operation),
        Ending::Refused => false,
    });
    history.sort_by_key(|operation| operation.invoked);
    for claim in M::CLAIMS {
        attempt::<M>(&mut history, Step::ForgetEverywhere(*claim));
    }
    if let Some(moment) = first_unexplained::<M>(&history) {
        attempt::<M>(&mut history, Step::Until(moment));
    }
    loop {
        let before = history.clone();
        // Backwards, because steps remove operations.
        for number in (0..history.len()).rev() {
            attempt::<M>(&mut history, Step::Remove(number));
        }
        for number in 0..history.len() {
            for claim in M::CLAIMS {
                attempt::<M>(&mut history, Step::Forget(number, *claim));
            }
        }
        if history == before {
            break;
        }
    }
    restore_endings::<M>(&mut history, operations);
    history
}

/// The steps gave an unknown outcome to operations answered after the contradiction was complete. This restores the
/// answers' times for readers; with them, even fewer orders are possible.
fn restore_endings<M: Model>(shorter: &mut History<M>, operations: &[Operation<M::Kind>]) {
    for operation in shorter.iter_mut().filter(|operation| operation.ending == Ending::Unknown) {
        let is_same = |other: &&Operation<M::Kind>| {
            let mut kind = other.kind.clone();
            forget_all::<M>(&mut kind);
            (other.client, other.invoked, &kind) == (operation.client, operation.invoked, &operation.kind)
        };
        if let Some(original) = operations.iter().find(is_same) {
            operation.ending = original.ending;
        }
    }
}

/// Takes a step if no order explains the rest.
fn attempt<M: Model>(history: &mut History<M>, step: Step<M>) {
    if let Some(shorter) = after(history, step)
        && judge_within::<M>(&shorter, BUDGET_STEPS) == Verdict::NotLinearizable
    {
        *history = shorter;
    }
}

/// The history after a step, or `None` if the step is not sound or changes nothing.
fn after<M: Model>(history: &[Operation<M::Kind>], step: Step<M>) -> Option<History<M>> {
    let mut shorter = match step {
        Step::Until(moment) => beginning::<M>(history, moment),
        _ => history.to_vec(),
    };
    match step {
        Step::Until(_) => {}
        Step::ForgetEverywhere(claim) => {
            shorter.iter_mut().for_each(|operation| M::forget(&mut operation.kind, claim));
        }
        Step::Forget(number, claim) => M::forget(&mut shorter[number].kind, claim),
        Step::Remove(number) if M::only_observes(&history[number]) || M::is_removable(history, number) => {
            shorter.remove(number);
        }
        Step::Remove(_) => return None,
    }
    (shorter != history).then_some(shorter)
}

/// The earliest completion up to which there is no explanation, if there is one.
pub fn first_unexplained<M: Model>(history: &[Operation<M::Kind>]) -> Option<Time> {
    let mut completions: Vec<Time> = history.iter().filter_map(Operation::completed).collect();
    completions.sort_unstable();
    let is_explained =
        |moment: &Time| judge_within::<M>(&beginning::<M>(history, *moment), BUDGET_STEPS) == Verdict::Linearizable;
    completions.get(completions.partition_point(is_explained)).copied()
}

/// The operations invoked until `until`. Those answered later get an unknown outcome.
fn beginning<M: Model>(history: &[Operation<M::Kind>], until: Time) -> History<M> {
    let mut begun: History<M> = history.iter().filter(|operation| operation.invoked <= until).cloned().collect();
    begun.retain_mut(|operation| {
        if operation.completed().is_some_and(|completed| completed > until) {
            operation.ending = Ending::Unknown;
            forget_all::<M>(&mut operation.kind);
        }
        operation.ending != Ending::Unknown || !M::only_observes(operation)
    });
    begun
}

fn forget_all<M: Model>(kind: &mut M::Kind) {
    M::CLAIMS.iter().for_each(|claim| M::forget(kind, *claim));
}

/// The results of all possible steps on a history.
#[cfg(test)]
pub fn all_steps<M: Model>(history: &[Operation<M::Kind>]) -> Vec<History<M>> {
    let forget = |number| M::CLAIMS.iter().map(move |claim| Step::<M>::Forget(number, *claim));
    let steps = (0..history.len()).flat_map(|number| forget(number).chain([Step::Remove(number)]));
    let everywhere = M::CLAIMS.iter().map(|claim| Step::ForgetEverywhere(*claim));
    let until = history.iter().filter_map(Operation::completed).map(Step::Until);
    steps.chain(everywhere).chain(until).filter_map(|step| after(history, step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_value::short::{append, delete, get, get_all, get_number, increment, put, unknown, versioned};
    use crate::key_value::{KeyValue, Kind};

    /// Sequential writes, reads and deletes, before or after the operations that matter.
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
        assert_eq!(smallest::<KeyValue>(history), expected);
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
        // The contradiction does not need the delete's answer.
        history.iter_mut().filter(|operation| operation.invoked == Time(103)).for_each(|delete| {
            delete.kind = Kind::Delete { found: Some(true) };
        });
        shrinks_to(&history, &core);
    }

    #[test]
    fn what_a_delete_found_stays_if_it_is_the_point() {
        let core = [delete(None, (103, 104)), delete(Some(true), (105, 106))];
        // No writes of unknown outcome here: they would explain the history.
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

    #[test]
    fn a_number_is_what_its_increments_since_the_last_delete_made_it() {
        let core = [delete(None, (14, 15)), increment(5, None, (101, 102)), get_number(3, (103, 104))];
        let before = [put(7, (10, 11)), delete(Some(true), (12, 13))];
        let after = [increment(1, Some(4), (105, 106)), delete(Some(true), (110, 111))];
        shrinks_to(&[&before[..], &core, &after, &noise(200)].concat(), &core);
    }

    #[test]
    fn a_lost_append_is_what_was_written_and_what_was_read() {
        let core = [put(1, (101, 102)), append(2, None, (103, 104)), get_all(&[1, 3], (107, 108))];
        let other = [append(3, None, (105, 106))];
        let history = [&noise(20)[..], &core[..2], &other, &core[2..], &noise(200)].concat();
        shrinks_to(&history, &[&core[..2], &other, &core[2..]].concat());
    }

    #[test]
    fn what_was_answered_after_the_contradiction_keeps_its_time() {
        let late = put(2, (103, 120));
        let core = [put(1, (101, 102)), late, get(Some(2), (105, 106)), get(Some(1), (107, 108))];
        shrinks_to(&[&core[..], &noise(200)].concat(), &core);
    }
}
