//! The search for an order that explains a history.
//!
//! Wing and Gong ("Testing and verifying concurrent objects", 1993): of the operations that have not been placed yet,
//! any may come next that was invoked before the first of them completed. Try one, go on, take it back if that leads
//! nowhere. Lowe ("Testing for linearizability", 2017): which operations are placed and what the key then holds decides
//! everything that follows, so no such pair is looked into twice.
//!
//! The problem is NP-complete; what follows keeps real histories cheap, however long they are:
//!
//! - **Chains.** The operations are divided into as few sequences as possible of which each operation precedes the next
//!   one, about one for each client. What is placed of a chain is a number, and what may be next of it its first operation
//!   that is left. So a step costs by the number of clients, not by the length of the history.
//! - **What changes nothing is placed at once.** If an operation that may come next only observes (a get, a delete that
//!   found nothing) and its answer fits what the key holds now, then any explanation from here on stays one when that
//!   operation is moved to its front: nobody sees the difference, and nothing had to come before it. So there is
//!   nothing to take back.
//! - **What is still to be read is not overwritten.** Values are unique: a get of a value that is gone can't be placed.
//! - **Values that nobody reads are one value**: there is no telling them apart.
//! - **A put of unknown outcome whose value was read did happen**, before the first get of it completed: it is like one
//!   that completed then.
//! - **Any other write of unknown outcome may be left out**, and stands for another of its kind that was invoked later. So
//!   they are used in the order of their invocation, and of two ways to come to the same place and state, the one that
//!   used fewer of them can do all that the other can. The search goes by how many are used, and looks into none that uses
//!   more than another did; k of them would otherwise cost 2^k.
//!
//! Versions, where the store tells them, are a part of the state: a write that was applied twice is seen in them.
//!
//! What it costs, for four clients of one key, 3 % of whose answers are lost, optimised: 20,000 operations take 0.1 s
//! without versions, 1.1 s with them, since every lost write that happened must be guessed from the versions after it.
//! 100,000 take 0.5 s without versions; with them the budget is used up after 2.4 s, and the verdict is undecided.

use crate::operation::{Ending, Kind, Operation, Time, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The longest history that can be judged: a key takes no more.
pub const MAX_OPERATIONS: usize = 1 << 20;

/// How many steps the search may take before it gives up: about three seconds, and 300 MB.
const BUDGET_STEPS: u32 = 1_500_000;

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
    Search::new(operations).run(budget_steps)
}

/// What the key holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Held {
    Nothing,
    /// A value that no get reads.
    Unread,
    Read(Value),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct State {
    held: Held,
    /// 0 where there is no value, and throughout if no answer tells a version.
    version: u64,
}

/// An operation that must be placed, and by when.
#[derive(Clone, Copy)]
struct Placeable<'a> {
    operation: &'a Operation,
    completed: Time,
}

/// How much of each chain is placed, and the state that this led to.
type Place = (Box<[u32]>, State);

struct Search<'a> {
    chains: Vec<Vec<Placeable<'a>>>,
    /// Of each value that is read, how much of which chains must be placed until all gets of it are.
    readers: BTreeMap<Value, BTreeMap<usize, u32>>,
    /// When those puts and deletes were invoked, in that order, that may have happened or not.
    spare_puts: Vec<Time>,
    spare_deletes: Vec<Time>,
    counts_versions: bool,
    /// Where the search has been: how much of each chain was placed and the state, with the least numbers of spare puts
    /// and deletes that led there.
    been: BTreeMap<Place, Vec<[usize; 2]>>,
}

/// The beginning of an order.
#[derive(Clone)]
struct Beginning {
    /// Of each chain.
    placed: Box<[u32]>,
    /// Spare puts and deletes.
    used: [usize; 2],
    state: State,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Search<'a> {
        let mut first_reads: BTreeMap<Value, Time> = BTreeMap::new();
        for (value, completed) in operations.iter().filter_map(|get| get.read().zip(get.completed())) {
            let first = first_reads.entry(value).or_insert(completed);
            *first = completed.min(*first);
        }
        let (mut placeable, mut spare_puts, mut spare_deletes) = (Vec::new(), Vec::new(), Vec::new());
        for operation in operations {
            match (operation.ending, operation.kind) {
                (Ending::Answered(completed), _) => placeable.push(Placeable { operation, completed }),
                (Ending::Unknown, Kind::Put { value, .. }) => match first_reads.get(&value) {
                    Some(&completed) => placeable.push(Placeable { operation, completed }),
                    None => spare_puts.push(operation.invoked),
                },
                (Ending::Unknown, Kind::Delete { .. }) => spare_deletes.push(operation.invoked),
                // A get without an answer constrains nothing.
                (Ending::Unknown, Kind::Get { .. }) | (Ending::Refused, _) => {}
            }
        }
        spare_puts.sort_unstable();
        spare_deletes.sort_unstable();
        let chains = chains(placeable);
        let mut readers: BTreeMap<Value, BTreeMap<usize, u32>> = BTreeMap::new();
        for (number, chain) in chains.iter().enumerate() {
            for (place, get) in chain.iter().enumerate() {
                if let Some(value) = get.operation.read() {
                    readers.entry(value).or_default().insert(number, place as u32 + 1);
                }
            }
        }
        let counts_versions = operations.iter().any(|operation| operation.saw_version().is_some());
        Search { chains, readers, spare_puts, spare_deletes, counts_versions, been: BTreeMap::new() }
    }

    fn run(mut self, budget_steps: u32) -> Verdict {
        // By how many spare operations they use: the least come first. Among equals the last one, depth first.
        let state = State { held: Held::Nothing, version: 0 };
        let start = Beginning { placed: vec![0; self.chains.len()].into(), used: [0, 0], state };
        let (mut level, mut further, mut steps) = (vec![start], Vec::new(), 0);
        while !level.is_empty() {
            while let Some(next) = level.pop() {
                let Some((beginning, horizon)) = self.with_observations(next) else { return Verdict::Linearizable };
                if self.has_been(&beginning) {
                    continue;
                }
                if steps == budget_steps {
                    return Verdict::Undecided;
                }
                steps += 1;
                self.push_writes(&beginning, horizon, &mut level);
                self.push_spare(&beginning, horizon, &mut further);
            }
            std::mem::swap(&mut level, &mut further);
        }
        Verdict::NotLinearizable
    }

    /// The first operation of a chain that is left.
    fn head(&self, chain: usize, placed: &[u32]) -> Option<Placeable<'a>> {
        self.chains[chain].get(placed[chain] as usize).copied()
    }

    /// The first completion among what is not placed: what was invoked later can't be next.
    fn horizon(&self, placed: &[u32]) -> Option<Time> {
        (0..self.chains.len()).filter_map(|chain| Some(self.head(chain, placed)?.completed)).min()
    }

    /// Places what only observes and may be next, and says what the horizon is then; `None` if all is placed.
    fn with_observations(&self, mut beginning: Beginning) -> Option<(Beginning, Time)> {
        loop {
            let horizon = self.horizon(&beginning.placed)?;
            let mut is_same = true;
            for chain in 0..self.chains.len() {
                while let Some(Placeable { operation, .. }) = self.head(chain, &beginning.placed) {
                    let only_observes = matches!(operation.kind, Kind::Get { .. }) || operation.saw_absence();
                    let fits = operation.invoked <= horizon && self.after(beginning.state, operation).is_some();
                    if !(only_observes && fits) {
                        break;
                    }
                    beginning.placed[chain] += 1;
                    is_same = false;
                }
            }
            if is_same {
                return Some((beginning, horizon));
            }
        }
    }

    /// The state after an operation, or `None` if it would have been answered otherwise.
    fn after(&self, state: State, operation: &Operation) -> Option<State> {
        let is_answered = operation.is_answered();
        match operation.kind {
            Kind::Put { value, version } => {
                let held = if self.readers.contains_key(&value) { Held::Read(value) } else { Held::Unread };
                let next = State { held, version: self.version_after_put(state) };
                let fits = !is_answered || version.is_none_or(|version| version == next.version);
                fits.then_some(next)
            }
            Kind::Get { found } => {
                let held = found.map_or(Held::Nothing, |found| Held::Read(found.value));
                let is_version = |version| version == state.version;
                let fits = held == state.held && found.and_then(|found| found.version).is_none_or(is_version);
                fits.then_some(state)
            }
            Kind::Delete { found } => {
                let fits = !is_answered || found.is_none_or(|found| found == (state.held != Held::Nothing));
                fits.then_some(State { held: Held::Nothing, version: 0 })
            }
        }
    }

    fn version_after_put(&self, state: State) -> u64 {
        if self.counts_versions { state.version + 1 } else { 0 }
    }

    /// Whether gets of what the key holds are left, so that nothing may overwrite it yet.
    fn is_to_be_read(&self, beginning: &Beginning) -> bool {
        let Held::Read(value) = beginning.state.held else { return false };
        let is_left = |(chain, until): (&usize, &u32)| beginning.placed[*chain] < *until;
        self.readers.get(&value).is_some_and(|readers| readers.iter().any(is_left))
    }

    fn push_writes(&self, beginning: &Beginning, horizon: Time, level: &mut Vec<Beginning>) {
        if self.is_to_be_read(beginning) {
            return;
        }
        let heads = (0..self.chains.len()).filter_map(|chain| Some((chain, self.head(chain, &beginning.placed)?)));
        let is_write = |operation: &Operation| !matches!(operation.kind, Kind::Get { .. });
        let mut writes: Vec<(usize, Placeable)> =
            heads.filter(|(_, head)| head.operation.invoked <= horizon && is_write(head.operation)).collect();
        // What completed first is most likely to be next: it is tried first, so it comes last.
        writes.sort_by_key(|(_, head)| std::cmp::Reverse(head.completed));
        for (chain, head) in writes {
            if let Some(state) = self.after(beginning.state, head.operation) {
                let mut next = Beginning { state, ..beginning.clone() };
                next.placed[chain] += 1;
                level.push(next);
            }
        }
    }

    fn push_spare(&self, beginning: &Beginning, horizon: Time, further: &mut Vec<Beginning>) {
        if self.is_to_be_read(beginning) {
            return;
        }
        let [puts, deletes] = beginning.used;
        let may_be_next = |spare: &[Time], used: usize| spare.get(used).is_some_and(|invoked| *invoked <= horizon);
        let put = State { held: Held::Unread, version: self.version_after_put(beginning.state) };
        if put != beginning.state && may_be_next(&self.spare_puts, puts) {
            further.push(Beginning { used: [puts + 1, deletes], state: put, ..beginning.clone() });
        }
        let delete = State { held: Held::Nothing, version: 0 };
        if delete != beginning.state && may_be_next(&self.spare_deletes, deletes) {
            further.push(Beginning { used: [puts, deletes + 1], state: delete, ..beginning.clone() });
        }
    }

    /// Whether the search has been here with no more spare operations used; if not, it is now.
    fn has_been(&mut self, beginning: &Beginning) -> bool {
        let ways = self.been.entry((beginning.placed.clone(), beginning.state)).or_default();
        let [puts, deletes] = beginning.used;
        if ways.iter().any(|way| way[0] <= puts && way[1] <= deletes) {
            return true;
        }
        ways.push(beginning.used);
        false
    }
}

/// Divides operations into as few sequences as possible of which each operation precedes the next one.
fn chains(mut placeable: Vec<Placeable>) -> Vec<Vec<Placeable>> {
    placeable.sort_by_key(|next| next.operation.invoked);
    let mut chains: Vec<Vec<Placeable>> = Vec::new();
    // Those that may go on, by when their last operation completed, so that as few as possible are begun.
    let mut ends: BTreeSet<(Time, usize)> = BTreeSet::new();
    for next in placeable {
        let chain = match ends.first().copied().filter(|(end, _)| *end < next.operation.invoked) {
            Some((end, chain)) => {
                ends.remove(&(end, chain));
                chain
            }
            None => {
                chains.push(Vec::new());
                chains.len() - 1
            }
        };
        chains[chain].push(next);
        ends.insert((next.completed, chain));
    }
    chains
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
    fn a_way_counts_as_gone_only_if_it_used_no_more_of_either_kind() {
        let state = State { held: Held::Unread, version: 0 };
        let been = |used| Beginning { placed: Box::new([]), used, state };
        let mut search = Search::new(&[]);
        assert!(!search.has_been(&been([1, 0])));
        assert!(!search.has_been(&been([0, 1])), "it has a put left that the other has not");
        assert!(search.has_been(&been([1, 1])) && search.has_been(&been([0, 1])));
        assert!(!search.has_been(&been([0, 0])));
        let absent = State { held: Held::Nothing, version: 0 };
        assert!(!search.has_been(&Beginning { state: absent, ..been([1, 1]) }));
    }

    #[test]
    fn values_that_nobody_reads_cost_what_one_does() {
        let mut history: Vec<Operation> = (0..9).map(|number| put(number, (1, 9))).collect();
        history.push(get(None, (10, 11)));
        assert_eq!(judge_within(&history, 600), Verdict::NotLinearizable);
    }

    #[test]
    fn what_is_still_to_be_read_is_not_overwritten() {
        let mut history: Vec<Operation> = (0..9).map(|number| put(number, (1, 9))).collect();
        history.extend([get(Some(0), (10, 11)), get(None, (12, 13))]);
        assert_eq!(judge_within(&history, 600), Verdict::NotLinearizable);
    }

    #[test]
    fn a_search_that_takes_too_long_is_undecided() {
        let history: Vec<Operation> =
            (0..40).map(|number| put(number, (1, 9))).chain([get(Some(99), (20, 21))]).collect();
        assert_eq!(judge_within(&history, 1000), Verdict::Undecided);
    }
}
