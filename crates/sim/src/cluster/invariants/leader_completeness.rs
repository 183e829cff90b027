//! Leader completeness (Raft paper, figure 3): entries committed in a term are in the logs of the leaders of all later
//! terms.
//!
//! Each term's commit index is recorded as it advances. When a leader is first seen, only the last committed entry of
//! earlier terms is looked up: below it, log matching applies. An entry that has left memory was applied, and state
//! machine safety covers it.

use super::{Scene, Seen};
use crate::invariant::{Invariant, Violation};
use ringfort_core::types::{ShardId, Term};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct LeaderCompleteness {
    /// The last entry, by index and term, that was committed in each term.
    committed: BTreeMap<ShardId, BTreeMap<Term, (u64, u64)>>,
    leaders: BTreeSet<(ShardId, Term)>,
}

impl LeaderCompleteness {
    pub fn check<T>(&mut self, scene: &Scene, seen: &Seen<T>) -> Result<(), Violation> {
        if !seen.position.is_leader {
            return Ok(());
        }
        let (shard, term, log) = (seen.shard, seen.position.term, seen.replica.log());
        let committed = self.committed.entry(shard).or_default();
        if self.leaders.insert((shard, term))
            && let Some(&(index, of_term)) = committed.range(..term).map(|(_, last)| last).max()
        {
            let has_left_memory = index < log.base().index.0 || index < log.first_in_memory() && index <= log.last();
            let known = log.term_at(index);
            if known != Some(of_term) && (known.is_some() || !has_left_memory) {
                let what = format!(
                    "node {} leads shard {shard} in term {term} without entry {index} of term {of_term}, which is \
                     committed: its log ends at {}, and has {known:?} there",
                    scene.id,
                    log.last()
                );
                return Err(Invariant::LeaderCompleteness.broken(what));
            }
        }
        let index = seen.position.committed.0.min(log.last());
        if let Some(of_term) = log.term_at(index) {
            committed.insert(term, (index, of_term));
        }
        Ok(())
    }
}
