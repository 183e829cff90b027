//! Which entries stay in memory, and when a snapshot is due.
//!
//! Three things want entries in memory: what has not been applied or is not durable yet, followers that lack them, and
//! the log, which small logs are written to once more (see [`Replica::release_log`]). Only the first can't be given up.
//! So memory has budgets that hold whatever followers lack: [`RETAINED_SHARE`] of a worker's budget for what one shard
//! keeps beside its snapshot, and the worker's budget over all shards. A follower whose next entry has left gets a
//! snapshot.
//!
//! A snapshot is due where the entries after the last one, which a restart would read, are over the worker's budget, or
//! where a shard is quiet. How often it is taken, the worker bounds by what it costs.

use super::*;

impl<T> Replica<T> {
    /// Bytes of the entries that a snapshot taken now would make unnecessary; zero where one can't be taken.
    pub fn bytes_relieved_by_snapshot(&self) -> usize {
        let can_be_taken = self.cutting.is_none() && self.installing.is_none() && self.applied > self.base().index.0;
        if can_be_taken { self.storage().bytes_after_base() } else { 0 }
    }

    /// Bytes of all entries after the base, in memory or not.
    pub fn bytes_after_base(&self) -> usize {
        self.storage().bytes_after_base()
    }

    /// Whether entries are held that nothing has been added to for a while.
    pub fn is_quiet(&self) -> bool {
        self.is_at_rest() && self.bytes_relieved_by_snapshot() > SMALL_LOG_BYTES
    }

    fn is_at_rest(&self) -> bool {
        self.ticks >= self.last_grown.1 + QUIET_TICKS
    }

    /// Lets go of entries that a snapshot has: those that no follower lacks, and those beyond `share_bytes`, the oldest
    /// first.
    pub fn release_covered_entries(&mut self, share_bytes: usize) {
        let covered = self.base().index.min(self.releasable());
        let share_bytes = if self.is_at_rest() { 0 } else { share_bytes };
        let keep_bytes = self.bytes_after_base().saturating_add(share_bytes);
        let unneeded = covered.min(self.needed_after());
        let storage = self.raft.mut_store();
        storage.release(unneeded, 0);
        storage.release(covered, keep_bytes);
    }

    /// Bytes of entries that can leave memory at once; where `spare_followers`, without those that followers lack.
    pub fn releasable_bytes(&self, spare_followers: bool) -> usize {
        self.storage().bytes_up_to(self.release_limit(spare_followers))
    }

    /// Lets go of entries, whether or not a snapshot has them, until no more than `keep_bytes` are left, if that is
    /// possible.
    pub fn release_entries(&mut self, spare_followers: bool, keep_bytes: usize) {
        let limit = self.release_limit(spare_followers);
        self.raft.mut_store().release(limit, keep_bytes);
    }

    fn release_limit(&self, spare_followers: bool) -> LogIndex {
        let limit = self.releasable();
        if spare_followers { limit.min(self.needed_after()) } else { limit }
    }

    /// Nothing after this entry may leave memory: it waits to be applied or for the disk, or belongs to the state
    /// that goes into the log with the snapshot under way, or at the end of this drain.
    fn releasable(&self) -> LogIndex {
        let log = &self.raft.raft.raft_log;
        let cut = self.cutting.as_ref().map_or(u64::MAX, |cutting| cutting.base().index.0);
        let restated = if self.restate { self.base().index.0 } else { u64::MAX };
        LogIndex(log.applied.min(log.persisted).min(cut).min(restated))
    }

    /// The last entry that all followers have that answer; entries after it are worth keeping in memory. A follower
    /// to which a snapshot is on its way will have what is in that.
    fn needed_after(&self) -> LogIndex {
        let raft = &self.raft.raft;
        if !self.is_leader() {
            return LogIndex(u64::MAX);
        }
        let answering = raft.prs().iter().filter(|(id, progress)| **id != self.id.0 && progress.recent_active);
        let has = answering.map(|(id, progress)| self.transfers.index_sent_to(ReplicaId(*id)).0.max(progress.matched));
        LogIndex(has.min().unwrap_or(u64::MAX))
    }
}
