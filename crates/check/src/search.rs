//! The search for an order that explains a history.
//!
//! Wing and Gong ("Testing and verifying concurrent objects", 1993): of the operations that have not been placed yet,
//! any may come next that was invoked before the first of them completed. Try one, go on, take it back if that leads
//! nowhere. Lowe ("Testing for linearizability", 2017): which operations are placed and what the key then holds decides
//! everything that follows, so no such pair is looked into twice.
//!
//! Two more observations keep real histories cheap:
//!
//! - **What changes nothing is placed at once.** If an operation that may come next only observes (a get, a delete that
//!   found nothing) and its answer fits what the key holds now, then any explanation from here on stays one when that
//!   operation is moved to its front: nobody sees the difference, and nothing had to come before it. So there is
//!   nothing to take back.
//! - **An operation of unknown outcome may be left out.** Hence of two ways to place the same answered operations and
//!   come to the same state, the one that used fewer unknown ones can do all that the other can. The search goes by
//!   how many are used, and looks into none that uses more than another did; k unknown operations would otherwise
//!   cost 2^k.
//!
//! Versions, where the store tells them, are a part of the state: a write that was applied twice is seen in them.

use crate::operation::{Ending, Kind, Operation, Time, Value};
use crate::set::{CAPACITY, Set};
use std::collections::BTreeMap;

/// The longest history that can be judged: a key takes no more.
pub const MAX_OPERATIONS: usize = CAPACITY;

/// So many steps may be looked at before the search gives up: about a second, and 100 MB.
const BUDGET_STEPS: u32 = 500_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is an order of the operations that explains all answers.
    Linearizable,
    /// There is none.
    NotLinearizable,
    /// The budget is used up.
    Undecided,
}

/// Judges the history of one key, in any order.
///
/// # Panics
///
/// If there are more than [`MAX_OPERATIONS`].
pub fn judge(operations: &[Operation]) -> Verdict {
    judge_within(operations, BUDGET_STEPS)
}

pub(crate) fn judge_within(operations: &[Operation], budget_steps: u32) -> Verdict {
    assert!(operations.len() <= MAX_OPERATIONS, "a history has at most {MAX_OPERATIONS} operations");
    let (mut answered, mut unknown) = (Vec::new(), Vec::new());
    for operation in operations {
        match (operation.ending, operation.kind) {
            (Ending::Answered(completed), _) => answered.push((operation, completed)),
            (Ending::Unknown, Kind::Put { .. } | Kind::Delete { .. }) => unknown.push(operation),
            // A get without an answer constrains nothing.
            (Ending::Unknown, Kind::Get { .. }) | (Ending::Refused, _) => {}
        }
    }
    // Whoever completed first is most likely to be next.
    answered.sort_by_key(|(_, completed)| *completed);
    let counts_versions = answered.iter().any(|(operation, _)| operation.saw_version().is_some());
    let search = Search { answered, unknown, counts_versions, been: BTreeMap::new() };
    search.run(budget_steps)
}

/// What the key holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct State {
    value: Option<Value>,
    /// 0 where there is no value, and throughout if no answer tells a version.
    version: u64,
}

impl State {
    const ABSENT: State = State { value: None, version: 0 };

    /// The state after an operation, or `None` if it would have been answered otherwise.
    fn after(self, operation: &Operation, counts_versions: bool) -> Option<State> {
        let is_answered = operation.is_answered();
        match operation.kind {
            Kind::Put { value, version } => {
                let next = State { value: Some(value), version: if counts_versions { self.version + 1 } else { 0 } };
                let fits = !is_answered || version.is_none_or(|version| version == next.version);
                fits.then_some(next)
            }
            Kind::Get { found } => {
                let fits = found.map(|found| found.value) == self.value
                    && found.and_then(|found| found.version).is_none_or(|version| version == self.version);
                fits.then_some(self)
            }
            Kind::Delete { found } => {
                let fits = !is_answered || found.is_none_or(|found| found == self.value.is_some());
                fits.then_some(State::ABSENT)
            }
        }
    }
}

struct Search<'a> {
    /// With the times of their completion, in that order.
    answered: Vec<(&'a Operation, Time)>,
    unknown: Vec<&'a Operation>,
    counts_versions: bool,
    /// Where the search has been: placed answered operations and state, with the least sets of unknown ones that led
    /// there.
    been: BTreeMap<(Set, State), Vec<Set>>,
}

/// The beginning of an order.
#[derive(Clone, Copy)]
struct Beginning {
    /// Of the answered operations.
    placed: Set,
    /// Of the unknown ones.
    used: Set,
    state: State,
}

impl Search<'_> {
    fn run(mut self, budget_steps: u32) -> Verdict {
        // By how many unknown operations they use: the least sets come first. Among equals the last one, depth first.
        let mut levels = vec![Vec::new(); self.unknown.len() + 1];
        levels[0].push(Beginning { placed: Set::default(), used: Set::default(), state: State::ABSENT });
        let mut steps = 0;
        while let Some((level, next)) = (0..levels.len()).find_map(|level| Some((level, levels[level].pop()?))) {
            let Some((beginning, horizon)) = self.with_observations(next) else { return Verdict::Linearizable };
            if self.has_been(&beginning) {
                continue;
            }
            if steps == budget_steps {
                return Verdict::Undecided;
            }
            steps += 1;
            self.push_answered(&beginning, horizon, &mut levels[level]);
            if let Some(further) = levels.get_mut(level + 1) {
                self.push_unknown(&beginning, horizon, further);
            }
        }
        Verdict::NotLinearizable
    }

    /// Places what only observes and may be next, and says what the horizon is then; `None` if all is placed.
    fn with_observations(&self, mut beginning: Beginning) -> Option<(Beginning, Time)> {
        loop {
            let horizon = self.horizon(&beginning.placed)?;
            let before = beginning.placed;
            for (number, (operation, _)) in self.answered.iter().enumerate() {
                let only_observes = matches!(operation.kind, Kind::Get { .. }) || operation.saw_absence();
                if only_observes
                    && operation.invoked <= horizon
                    && !beginning.placed.contains(number)
                    && beginning.state.after(operation, self.counts_versions) == Some(beginning.state)
                {
                    beginning.placed = beginning.placed.with(number);
                }
            }
            if beginning.placed == before {
                return Some((beginning, horizon));
            }
        }
    }

    fn push_answered(&self, beginning: &Beginning, horizon: Time, level: &mut Vec<Beginning>) {
        // What completed first is tried first, so it comes last.
        for (number, (operation, _)) in self.answered.iter().enumerate().rev() {
            let may_be_next = operation.invoked <= horizon
                && !beginning.placed.contains(number)
                && !matches!(operation.kind, Kind::Get { .. });
            if may_be_next && let Some(state) = beginning.state.after(operation, self.counts_versions) {
                level.push(Beginning { placed: beginning.placed.with(number), state, ..*beginning });
            }
        }
    }

    fn push_unknown(&self, beginning: &Beginning, horizon: Time, level: &mut Vec<Beginning>) {
        for (number, operation) in self.unknown.iter().enumerate() {
            if operation.invoked > horizon || beginning.used.contains(number) {
                continue;
            }
            let state = beginning.state.after(operation, self.counts_versions);
            let state = state.expect("without an answer nothing contradicts a state");
            if state != beginning.state {
                level.push(Beginning { used: beginning.used.with(number), state, ..*beginning });
            }
        }
    }

    /// The first completion among what is not placed: what was invoked later can't be next.
    fn horizon(&self, placed: &Set) -> Option<Time> {
        let mut left = self.answered.iter().enumerate().filter(|(number, _)| !placed.contains(*number));
        left.next().map(|(_, (_, completed))| *completed)
    }

    /// Whether the search has been here with no more unknown operations used; if not, it is now.
    fn has_been(&mut self, beginning: &Beginning) -> bool {
        let ways = self.been.entry((beginning.placed, beginning.state)).or_default();
        if ways.iter().any(|way| way.is_subset_of(&beginning.used)) {
            return true;
        }
        ways.push(beginning.used);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::short::{delete, get, put, unknown, versioned};

    #[track_caller]
    fn assert_linearizable(expected: bool, operations: &[Operation]) {
        let verdict = if expected { Verdict::Linearizable } else { Verdict::NotLinearizable };
        assert_eq!(judge(operations), verdict);
    }

    #[test]
    fn a_get_sees_what_was_acknowledged_before_it() {
        let [one, two] = [put(1, (1, 2)), put(2, (3, 4))];
        assert_linearizable(true, &[one, two, get(Some(2), (5, 6))]);
        assert_linearizable(false, &[one, two, get(Some(1), (5, 6))]);
        assert_linearizable(false, &[one, get(None, (5, 6))]);
        assert_linearizable(true, &[one, two, get(Some(1), (3, 4))]);
        // The same nanosecond decides nothing.
        assert_linearizable(true, &[one, two, get(Some(1), (4, 6))]);
    }

    #[test]
    fn what_was_deleted_stays_deleted() {
        let history = [put(1, (1, 2)), delete(Some(true), (3, 4))];
        assert_linearizable(true, &[&history[..], &[get(None, (5, 6))]].concat());
        assert_linearizable(false, &[&history[..], &[get(Some(1), (5, 6))]].concat());
        assert_linearizable(false, &[&history[..], &[delete(Some(true), (5, 6))]].concat());
        assert_linearizable(false, &[put(1, (1, 2)), delete(Some(false), (3, 4))]);
        // Two deletes at once: one of them found it.
        assert_linearizable(true, &[put(1, (1, 2)), delete(Some(false), (3, 6)), delete(Some(true), (3, 6))]);
        assert_linearizable(false, &[put(1, (1, 2)), delete(Some(true), (3, 6)), delete(Some(true), (3, 6))]);
    }

    #[test]
    fn unknown_outcomes_explain_what_they_can() {
        let late = unknown(put(2, (3, 4)));
        let one = put(1, (1, 2));
        assert_linearizable(true, &[one, late, get(Some(1), (5, 6)), get(Some(2), (7, 8))]);
        assert_linearizable(false, &[one, late, get(Some(2), (5, 6)), get(Some(1), (7, 8))]);
        assert_linearizable(false, &[one, late, get(Some(2), (1, 2))]);
        assert_linearizable(true, &[one, unknown(delete(None, (3, 4))), get(None, (9, 9))]);
        assert_linearizable(false, &[Operation { ending: Ending::Refused, ..one }, get(Some(1), (9, 9))]);
        assert_linearizable(true, &[unknown(get(Some(7), (1, 2)))]);
    }

    #[test]
    fn versions_count_the_writes_since_the_creation() {
        let (one, two) = (versioned(put(1, (1, 2)), 1), put(2, (3, 4)));
        assert_linearizable(true, &[one, versioned(two, 2), versioned(get(Some(2), (5, 6)), 2)]);
        // The second write was applied twice.
        assert_linearizable(false, &[one, two, versioned(get(Some(2), (5, 6)), 3)]);
        let again = [delete(Some(true), (3, 4)), versioned(put(2, (5, 6)), 1)];
        assert_linearizable(true, &[&[one][..], &again].concat());
        // A write that nobody saw is seen in the version after it.
        assert_linearizable(true, &[one, unknown(two), versioned(put(3, (5, 6)), 3)]);
    }

    #[test]
    fn unknown_operations_that_explain_nothing_cost_little() {
        let mut history: Vec<Operation> = (10..70).map(|number| unknown(put(number, (1, 2)))).collect();
        history.extend([put(1, (3, 4)), put(2, (5, 6)), get(Some(1), (7, 8))]);
        assert_eq!(judge_within(&history, 1000), Verdict::NotLinearizable);
    }

    #[test]
    fn a_search_that_takes_too_long_is_undecided() {
        let history: Vec<Operation> =
            (0..40).map(|number| put(number, (1, 9))).chain([get(Some(99), (20, 21))]).collect();
        assert_eq!(judge_within(&history, 1000), Verdict::Undecided);
    }
}
