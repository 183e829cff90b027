//! Which entries stay in memory, and when a snapshot is due.
//!
//! Entries stay in memory for three reasons: they are not applied or not durable yet; a follower lacks them; or a small
//! log will be written to the node's log once more (see [`Replica::release_log`]). Only the first reason is binding. So
//! there are two budgets, which lagging followers do not extend: one shard may keep a worker's budget divided by
//! [`RETAINED_SHARE`] beside its snapshot, and all shards together may keep the worker's budget. A follower whose next
//! entry has been released gets a snapshot.
//!
//! A snapshot is due if the entries after the last snapshots, which a restart would read, exceed the worker's budget,
//! or if a shard is quiet. The worker bounds how often snapshots are taken by their cost.

use super::*;

impl<T> Replica<T> {
    /// Bytes of the entries that a snapshot taken now would make unnecessary; zero if none can be taken.
    pub fn bytes_relieved_by_snapshot(&self) -> usize {
        let can_be_taken = self.snapshots.is_idle() && self.applied.index > self.base().index;
        if can_be_taken { self.storage().bytes_after_base() } else { 0 }
    }

    /// Bytes of all entries after the base, in memory or not.
    pub fn bytes_after_base(&self) -> usize {
        self.storage().bytes_after_base()
    }

    /// Whether the replica holds entries and has received no new ones for a while.
    pub fn is_quiet(&self) -> bool {
        self.is_at_rest() && self.bytes_relieved_by_snapshot() > SMALL_LOG_BYTES
    }

    fn is_at_rest(&self) -> bool {
        self.ticks >= self.last_grown.1 + self.config.timing.ticks(QUIET_AFTER)
    }

    /// Releases entries that a snapshot covers: those that no follower lacks, and the oldest of the others until at
    /// most `share_bytes` of them are left.
    pub fn release_covered_entries(&mut self, share_bytes: usize) {
        let covered = self.base().index.min(self.releasable());
        let share_bytes = if self.is_at_rest() { 0 } else { share_bytes };
        let keep_bytes = self.bytes_after_base().saturating_add(share_bytes);
        let unneeded = covered.min(self.needed_after());
        let keeps_all = self.config.mutation.is(Mutation::KeepForLaggards);
        let storage = self.raft.mut_store();
        storage.release(unneeded, 0);
        if !keeps_all {
            storage.release(covered, keep_bytes);
        }
    }

    /// Bytes of entries that can be released now; with `spare_followers`, without those that followers lack.
    pub fn releasable_bytes(&self, spare_followers: bool) -> usize {
        self.storage().bytes_up_to(self.release_limit(spare_followers))
    }

    /// Releases entries, whether or not a snapshot covers them, until at most `keep_bytes` are left or no more can be
    /// released.
    pub fn release_entries(&mut self, spare_followers: bool, keep_bytes: usize) {
        let limit = self.release_limit(spare_followers);
        self.raft.mut_store().release(limit, keep_bytes);
    }

    fn release_limit(&self, spare_followers: bool) -> LogIndex {
        let limit = self.releasable();
        if spare_followers || self.config.mutation.is(Mutation::KeepForLaggards) {
            limit.min(self.needed_after())
        } else {
            limit
        }
    }

    /// The last entry that may be released. Later ones are not applied or not durable yet, or belong to the state that
    /// will be logged with the current snapshot or at the end of this turn.
    fn releasable(&self) -> LogIndex {
        let log = &self.raft.raft.raft_log;
        let cut = self.snapshots.cutting.as_ref().map_or(u64::MAX, |cutting| cutting.base().index.0);
        let restated = if self.snapshots.restate { self.base().index.0 } else { u64::MAX };
        LogIndex(log.applied.min(log.persisted).min(cut).min(restated))
    }

    /// The last entry that all answering followers have; entries after it are worth keeping in memory. A follower that
    /// is being sent a snapshot counts as having its content.
    fn needed_after(&self) -> LogIndex {
        let raft = &self.raft.raft;
        if !self.is_leader() {
            return LogIndex(u64::MAX);
        }
        let answering = raft.prs().iter().filter(|(id, _)| **id != self.id.0 && self.answers(ReplicaId(**id)));
        let has = answering.map(|(id, progress)| self.transfers.index_sent_to(ReplicaId(*id)).0.max(progress.matched));
        LogIndex(has.min().unwrap_or(u64::MAX))
    }
}
