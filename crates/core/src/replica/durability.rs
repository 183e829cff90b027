//! What a replica has handed to the log, how much of it is durable, and which messages wait for it.
//!
//! The worker numbers batches, and they become durable in order. Invariants:
//!
//! - `pending` is ordered by batch, and holds every `Ready` whose persistence has not been reported to Raft;
//! - `commit` is never above the commit index in a durable record: a restart finds at least this index.

use crate::log::BatchNumber;
use crate::message::RaftMessage;
use std::collections::VecDeque;

/// A `Ready` whose batch is not durable yet, and the messages that wait for it.
pub(super) struct Pending {
    batch: BatchNumber,
    pub ready: u64,
    pub messages: Vec<RaftMessage>,
}

#[derive(Default)]
pub(super) struct Durability {
    /// All batches up to this one are durable.
    persisted: BatchNumber,
    /// The batch that holds the latest change of term or vote.
    vote: BatchNumber,
    pending: VecDeque<Pending>,
    commit: u64,
    /// Commit indexes on their way to the disk, each with its batch.
    commits: VecDeque<(BatchNumber, u64)>,
}

impl Durability {
    /// `commit` is the commit index on disk.
    pub fn new(commit: u64) -> Durability {
        Durability { commit, ..Durability::default() }
    }

    /// All batches up to this one are durable.
    pub fn persisted(&self) -> BatchNumber {
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
    pub fn set_vote(&mut self, batch: BatchNumber) {
        self.vote = batch;
    }

    /// `batch` holds this commit index.
    pub fn set_commit(&mut self, batch: BatchNumber, commit: u64) {
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
    pub fn hold(&mut self, ready: u64, batch: Option<BatchNumber>, messages: Vec<RaftMessage>) {
        let batch = batch.or_else(|| self.pending.back().map(|last| last.batch));
        let batch = batch.expect("a ready that has nothing to wait for is not held");
        self.pending.push_back(Pending { batch, ready, messages });
    }

    /// All batches up to `number` are durable. Returns the readies that waited for them, in order.
    pub fn persist(&mut self, number: BatchNumber) -> Vec<Pending> {
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
        durability.set_commit(BatchNumber(7), 5);
        durability.set_commit(BatchNumber(9), 6);
        durability.hold(1, Some(BatchNumber(7)), Vec::new());
        durability.hold(2, None, Vec::new());
        durability.hold(3, Some(BatchNumber(9)), Vec::new());
        let mut persist = |number| -> Vec<u64> {
            durability.persist(BatchNumber(number)).into_iter().map(|pending| pending.ready).collect()
        };
        assert_eq!(persist(6), Vec::<u64>::new());
        assert_eq!(persist(8), [1, 2]);
        assert_eq!(persist(9), [3]);
        assert_eq!((durability.commit(), durability.persisted(), durability.is_settled()), (6, BatchNumber(9), true));
    }

    #[test]
    fn a_commit_index_counts_when_its_record_is_durable() {
        let mut durability = Durability::new(3);
        durability.set_commit(BatchNumber(7), 5);
        durability.persist(BatchNumber(6));
        assert_eq!(durability.commit(), 3);
        durability.persist(BatchNumber(7));
        assert_eq!(durability.commit(), 5);
    }

    #[test]
    fn a_vote_counts_when_its_record_is_durable() {
        let mut durability = Durability::default();
        assert!(durability.has_vote());
        durability.set_vote(BatchNumber(4));
        assert!(!durability.has_vote());
        durability.persist(BatchNumber(4));
        assert!(durability.has_vote());
    }
}
