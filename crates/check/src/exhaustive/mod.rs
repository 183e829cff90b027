//! Tests the search and the shrinking steps against a judge that tries every order of small random histories, and the
//! search on long histories of correct and of faulty stores.

mod key_values;
mod queues;
mod registers;

use crate::model::Model;
use crate::operation::{Ending, Operation};
use crate::search::{Verdict, judge};
use crate::shrink;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What an object does, written as plainly as possible and without the model's code.
trait Plain {
    type Kind: Clone + PartialEq + Debug;
    type State: Clone + Ord + Default;

    /// Executes the operation, and puts the full answer into `kind`. `None` if the store would report that it did
    /// nothing.
    fn apply(state: &mut Self::State, kind: &mut Self::Kind) -> Option<()>;

    /// Whether everything in the recorded answer is also in the full answer.
    fn agrees(told: &Self::Kind, full: &Self::Kind) -> bool;
}

/// Whether some order explains the operations, by trying all orders. It only remembers the pairs of remaining
/// operations and state that led nowhere.
fn explained<P: Plain>(operations: &[Operation<P::Kind>]) -> bool {
    let all = (1 << operations.len()) - 1;
    EveryOrder::<P> { operations, hopeless: BTreeSet::new() }.explains(all, P::State::default())
}

struct EveryOrder<'a, P: Plain> {
    operations: &'a [Operation<P::Kind>],
    hopeless: BTreeSet<(u32, P::State)>,
}

impl<P: Plain> EveryOrder<'_, P> {
    /// `left`: a bit for each operation.
    fn explains(&mut self, left: u32, state: P::State) -> bool {
        let operations = self.operations;
        let numbers = || (0..operations.len()).filter(|number| left & (1 << number) != 0);
        if numbers().all(|number| !operations[number].is_answered()) {
            return true;
        }
        if self.hopeless.contains(&(left, state.clone())) {
            return false;
        }
        let is_explained = numbers().any(|number| {
            let (next, rest) = (&operations[number], left & !(1 << number));
            if numbers().any(|other| operations[other].precedes(next)) || next.ending == Ending::Refused {
                return false;
            }
            let (mut after, mut full) = (state.clone(), next.kind.clone());
            let happened = P::apply(&mut after, &mut full).is_some();
            let fits = !next.is_answered() || (happened && P::agrees(&next.kind, &full));
            fits && self.explains(rest, after)
        });
        if !is_explained {
            self.hopeless.insert((left, state));
        }
        is_explained
    }
}

/// Judges a history in both ways, and returns whether an order explains it.
#[track_caller]
fn assert_judged_as_by_every_order<M: Model, P: Plain<Kind = M::Kind>>(history: &[Operation<M::Kind>]) -> bool {
    let expected = explained::<P>(history);
    let verdict = if expected { Verdict::Linearizable } else { Verdict::NotLinearizable };
    assert_eq!(judge::<M>(history), verdict, "{history:#?}");
    expected
}

/// Each step of shrinking alone must be sound, whether or not it would be kept. Returns how many steps there were.
#[track_caller]
fn assert_steps_are_sound<M: Model, P: Plain<Kind = M::Kind>>(history: &[Operation<M::Kind>]) -> usize {
    if judge::<M>(history) != Verdict::Linearizable {
        return 0;
    }
    let steps = shrink::all_steps::<M>(history);
    for shorter in &steps {
        assert!(explained::<P>(shorter), "{history:#?} became {shorter:#?}");
    }
    steps.len()
}

/// Lets half of the operations end in an unknown way, and the others take longer.
fn blur<K>(random: &mut Random, history: &mut [Operation<K>], may_be_unknown: impl Fn(&K) -> bool) {
    for operation in history {
        if may_be_unknown(&operation.kind) && random.percent(50) {
            operation.ending = Ending::Unknown;
        } else if let Ending::Answered(completed) = &mut operation.ending {
            completed.0 += random.below(6);
        }
    }
}
