//! What a replica has handed to the log, how much of it is durable, and which messages wait for it.
//!
//! The worker numbers batches, and they become durable in order. Invariants:
//!
//! - `pending` is ordered by batch, and holds every `Ready` whose persistence has not been reported to Raft;
//! - `commit` is never above the commit index in a durable record: a restart finds at least this index.

use crate::message::RaftMessage;
use std::collections::VecDeque;

/// A `Ready` whose batch is not durable yet, and the messages that wait for it.
pub(super) struct Pending {
    batch: u64,
    pub ready: u64,
    pub messages: Vec<RaftMessage>,
}

#[derive(Default)]
pub(super) struct Durability {
    /// All batches up to this one are durable.
    persisted: u64,
    /// The batch that holds the latest change of term or vote.
    vote: u64,
    pending: VecDeque<Pending>,
    commit: u64,
    /// Commit indexes on their way to the disk, each with its batch.
    commits: VecDeque<(u64, u64)>,
}

impl Durability {
    /// `commit` is the commit index on disk.
    pub fn new(commit: u64) -> Durability {
        Durability { commit, ..Durability::default() }
    }

    /// All batches up to this one are durable.
    pub fn persisted(&self) -> u64 {
        self.persisted
    }

    /// The commit index that a restart would find.
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// Whether the current term and vote are durable.
    pub fn has_vote(&self) -> bool {
        self.vote <= self.persisted
    }

    /// `batch` holds a new term or vote.
    pub fn set_vote(&mut self, batch: u64) {
        self.vote = batch;
    }

    /// `batch` holds this commit index.
    pub fn set_commit(&mut self, batch: u64, commit: u64) {
        self.commits.push_back((batch, commit));
    }

    /// Whether no `Ready` waits for the disk.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Holds `messages` until their `Ready` can be reported as persisted: when its batch is durable, or, if it has
    /// nothing to make durable (`batch` is none), when the `Ready` before it is, because Raft requires readies to be
    /// persisted in order.
    ///
    /// # Panics
    /// If there is neither a batch nor a `Ready` before it.
    pub fn hold(&mut self, ready: u64, batch: Option<u64>, messages: Vec<RaftMessage>) {
        let batch = batch.or_else(|| self.pending.back().map(|last| last.batch));
        let batch = batch.expect("a ready that has nothing to wait for is not held");
        self.pending.push_back(Pending { batch, ready, messages });
    }

    /// All batches up to `number` are durable. Returns the readies that waited for them, in order.
    pub fn persist(&mut self, number: u64) -> Vec<Pending> {
        self.persisted = number;
        while let Some((_, commit)) = self.commits.pop_front_if(|(batch, _)| *batch <= number) {
            self.commit = commit;
        }
        let due = self.pending.partition_point(|pending| pending.batch <= number);
        self.pending.drain(..due).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_without_content_waits_for_the_one_before_it() {
        let mut durability = Durability::new(3);
        durability.set_commit(7, 5);
        durability.set_commit(9, 6);
        durability.hold(1, Some(7), Vec::new());
        durability.hold(2, None, Vec::new());
        durability.hold(3, Some(9), Vec::new());
        let mut persist =
            |number| -> Vec<u64> { durability.persist(number).into_iter().map(|pending| pending.ready).collect() };
        assert_eq!(persist(6), Vec::<u64>::new());
        assert_eq!(persist(8), [1, 2]);
        assert_eq!(persist(9), [3]);
        assert_eq!((durability.commit(), durability.persisted(), durability.is_settled()), (6, 9, true));
    }

    #[test]
    fn a_commit_index_counts_when_its_record_is_durable() {
        let mut durability = Durability::new(3);
        durability.set_commit(7, 5);
        durability.persist(6);
        assert_eq!(durability.commit(), 3);
        durability.persist(7);
        assert_eq!(durability.commit(), 5);
    }

    #[test]
    fn a_vote_counts_when_its_record_is_durable() {
        let mut durability = Durability::default();
        assert!(durability.has_vote());
        durability.set_vote(4);
        assert!(!durability.has_vote());
        durability.persist(4);
        assert!(durability.has_vote());
    }
}
