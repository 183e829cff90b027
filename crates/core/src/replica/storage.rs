//! The log as raft-rs reads it, in memory.
//!
//! The disk is read only at start. A replica's entries are on disk for the next start, and in memory for Raft, which
//! sends them to lagging followers and hands them out to be applied.
//!
//! Two indexes say where the log begins. The **base** is the beginning on the disk: the state up to it is in a snapshot
//! file, and a restart begins there. The **floor** is the beginning in memory: entries above it are held here. Usually
//! the floor is at the base, or below it for followers that lack entries. It is above the base if entries had to be
//! released before a snapshot could be taken; then only the log on the disk has them, and a follower that lacks them
//! gets the next snapshot.

use crate::log::item::Base;
use crate::types::{LogIndex, ReplicaId, Term};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// The queue keeps capacity for this many entries: an active replica has about as many.
const PLACES_KEPT: usize = 64;

/// A replica's log in memory.
///
/// Invariants: `entries` are contiguous and begin at `floor.0 + 1`; neither floor nor base is above the last index.
pub struct RaftStorage {
    hard_state: HardState,
    base: Base,
    floor: (u64, u64),
    entries: VecDeque<Entry>,
    /// Bytes of `entries`.
    bytes: usize,
    /// Bytes of all entries after the base, whether or not they are still in memory.
    bytes_after_base: usize,
    snapshot_requested: Cell<bool>,
}

impl RaftStorage {
    pub fn new(hard_state: HardState, base: Base, entries: Vec<Entry>) -> RaftStorage {
        let floor = (base.index.0, base.term.0);
        let bytes = entries.iter().map(entry_bytes).sum();
        let storage = RaftStorage {
            hard_state,
            base,
            floor,
            entries: entries.into(),
            bytes,
            bytes_after_base: bytes,
            snapshot_requested: Cell::new(false),
        };
        storage.check();
        storage
    }

    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Bytes of entries held in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of all entries after the base: what a restart reads, and what a snapshot would make unnecessary.
    pub fn bytes_after_base(&self) -> usize {
        self.bytes_after_base
    }

    pub fn last(&self) -> u64 {
        self.floor.0 + self.entries.len() as u64
    }

    /// Whether all entries after the base are in memory.
    pub fn is_whole(&self) -> bool {
        self.floor.0 <= self.base.index.0
    }

    /// All entries after the base: what a restart needs besides the snapshot.
    ///
    /// # Panics
    /// Unless the storage [is whole](RaftStorage::is_whole).
    pub fn entries_after_base(&self) -> Vec<Entry> {
        assert!(self.is_whole(), "entries after the base at {:?} have left memory", self.base.index);
        let skipped = (self.base.index.0 - self.floor.0) as usize;
        self.entries.iter().skip(skipped).cloned().collect()
    }

    /// All entries in memory, for checks.
    pub fn in_memory(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The index of the first entry in memory, or of the next entry if there is none.
    pub fn first_in_memory(&self) -> u64 {
        self.floor.0 + 1
    }

    /// The term of the entry at `index`; none if it is no longer in memory, or never was.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        Storage::term(self, index).ok()
    }

    /// The entries in memory from `from` on.
    pub fn entries_from(&self, from: u64) -> impl Iterator<Item = &Entry> {
        let skipped = from.saturating_sub(self.floor.0 + 1) as usize;
        self.entries.iter().skip(skipped)
    }

    /// Appends `entries`, replacing those from the first one's index on.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.base.index.0 && first.index <= self.last() + 1,
            "entries from {} do not continue a log from {:?} to {}",
            first.index,
            self.base.index,
            self.last()
        );
        assert!(first.index > self.floor.0, "entries up to {} are committed and have left memory", self.floor.0);
        while self.last() >= first.index {
            if let Some(replaced) = self.entries.pop_back() {
                let bytes = entry_bytes(&replaced);
                self.bytes -= bytes;
                self.bytes_after_base -= bytes;
            }
        }
        let bytes = entries.iter().map(entry_bytes).sum::<usize>();
        self.bytes += bytes;
        self.bytes_after_base += bytes;
        self.entries.extend(entries.iter().cloned());
        self.check();
    }

    /// The log now begins at `base`, whose snapshot is written. This releases no entries: see
    /// [`release`](RaftStorage::release).
    ///
    /// # Panics
    /// If entries after the new base have been released. Callers of [`release`](RaftStorage::release) keep
    /// those that a snapshot under way does not cover.
    pub fn advance_base(&mut self, base: Base) {
        assert!(base.index >= self.base.index, "the base may not go back from {:?}", self.base.index);
        assert!(base.index.0 >= self.floor.0, "entries after {:?} have left memory", base.index);
        self.base = base;
        let skipped = (self.base.index.0 - self.floor.0) as usize;
        self.bytes_after_base = self.entries.iter().skip(skipped).map(entry_bytes).sum();
        self.check();
    }

    /// Releases entries up to `limit`, oldest first, until at most `keep_bytes` are left.
    pub fn release(&mut self, limit: LogIndex, keep_bytes: usize) {
        while self.bytes > keep_bytes && self.floor.0 < limit.0 {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry_bytes(&entry);
            self.floor = (entry.index, entry.term);
        }
        self.release_places();
        self.check();
    }

    /// Bytes of the entries in memory up to `limit`.
    pub fn bytes_up_to(&self, limit: LogIndex) -> usize {
        let count = limit.0.saturating_sub(self.floor.0) as usize;
        self.entries.iter().take(count).map(entry_bytes).sum()
    }

    /// Bytes of the entries in memory after `index`, for checks.
    pub fn bytes_after(&self, index: LogIndex) -> usize {
        self.entries_from(index.0 + 1).map(entry_bytes).sum()
    }

    /// A snapshot from the leader replaces everything.
    pub fn install(&mut self, base: Base) {
        self.floor = (base.index.0, base.term.0);
        self.base = base;
        self.entries.clear();
        self.release_places();
        (self.bytes, self.bytes_after_base) = (0, 0);
        self.hard_state.commit = self.hard_state.commit.max(self.floor.0);
        self.check();
    }

    /// Whether Raft has asked for a snapshot that does not exist; this clears the request.
    pub fn take_snapshot_request(&self) -> bool {
        self.snapshot_requested.take()
    }

    /// Shrinks the queue once three quarters of its capacity are unused. A queue never shrinks on its own: after a
    /// burst of small writes the unused capacity of 64 shards was 59 MB of a node.
    fn release_places(&mut self) {
        if self.entries.capacity() > 4 * self.entries.len().max(PLACES_KEPT) {
            self.entries.shrink_to(2 * self.entries.len().max(PLACES_KEPT));
        }
    }

    fn check(&self) {
        debug_assert!(self.base.index.0 <= self.last());
        debug_assert!(self.entries.front().is_none_or(|entry| entry.index == self.floor.0 + 1));
        debug_assert!(self.entries.back().is_none_or(|entry| entry.index == self.last()));
    }
}

impl Storage for RaftStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.base.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.floor.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "entries up to {high} asked of a log that ends at {}", self.last());
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        for entry in self.entries.iter().skip((low - self.floor.0 - 1) as usize).take((high - low) as usize) {
            let bytes = entry_bytes(entry) as u64;
            if bytes > room && !taken.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.floor.0 {
            return Ok(self.floor.1);
        }
        if index == self.base.index.0 {
            return Ok(self.base.term.0);
        }
        if index < self.floor.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        match self.entries.get((index - self.floor.0 - 1) as usize) {
            Some(entry) => Ok(entry.term),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first_in_memory())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The snapshot at the base, if the replica `to` is part of its configuration (Raft refuses it otherwise), it
    /// reaches `request_index`, and the entries after it are here; otherwise one is requested and Raft tries again
    /// later.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let is_usable = self.base.index.0 >= request_index && contains(&self.base.conf_state, ReplicaId(to));
        if !is_usable || !self.is_whole() {
            self.snapshot_requested.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(snapshot_message(&self.base))
    }
}

/// Raft's message for the snapshot at `base`: its position, without its content, which is streamed separately.
pub fn snapshot_message(base: &Base) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = base.index.0;
    metadata.term = base.term.0;
    metadata.set_conf_state(base.conf_state.clone());
    snapshot
}

/// The position and configuration that a snapshot message names.
pub fn base_of(snapshot: &Snapshot, name: String) -> Base {
    let metadata = snapshot.get_metadata();
    Base {
        index: LogIndex(metadata.index),
        term: Term(metadata.term),
        conf_state: metadata.get_conf_state().clone(),
        snapshot: name,
    }
}

fn contains(conf_state: &ConfState, replica: ReplicaId) -> bool {
    let lists = [&conf_state.voters, &conf_state.voters_outgoing, &conf_state.learners];
    lists.iter().any(|list| list.contains(&replica.0))
}

fn entry_bytes(entry: &Entry) -> usize {
    const FIXED: usize = std::mem::size_of::<Entry>();
    FIXED + entry.data.len() + entry.context.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![7; 10].into(), ..Entry::default() }
    }

    fn base(index: u64, voters: &[u64]) -> Base {
        let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
        Base { index: LogIndex(index), term: Term(1), conf_state, snapshot: String::new() }
    }

    fn storage(first: u64, last: u64) -> RaftStorage {
        RaftStorage::new(HardState::default(), base(first - 1, &[1]), (first..=last).map(|i| entry(i, 1)).collect())
    }

    fn read(storage: &RaftStorage, low: u64, high: u64, max: u64) -> Vec<u64> {
        let entries = storage.entries(low, high, max, GetEntriesContext::empty(false)).unwrap();
        entries.iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn entries_are_replaced_from_the_first_new_one_on() {
        let mut storage = storage(2, 6);
        let before = storage.bytes();
        storage.append(&[entry(4, 2)]);
        assert_eq!(storage.last(), 4);
        assert_eq!(storage.term(4).unwrap(), 2);
        assert!(storage.bytes() < before);
        assert_eq!(read(&storage, 2, 5, u64::MAX), [2, 3, 4]);
        assert_eq!(read(&storage, 2, 5, 0), [2], "one at least");
    }

    #[test]
    fn entries_below_the_base_stay_for_laggards_and_are_not_part_of_the_state() {
        let mut storage = storage(2, 10);
        let after_base = storage.bytes_up_to(LogIndex(2));
        storage.advance_base(base(8, &[1, 2]));
        storage.release(LogIndex(5), 0);
        assert_eq!(storage.bytes_after_base(), 2 * after_base);
        assert_eq!(storage.first_index().unwrap(), 6);
        assert_eq!(read(&storage, 6, 11, u64::MAX), [6, 7, 8, 9, 10]);
        assert_eq!(storage.entries_after_base().iter().map(|e| e.index).collect::<Vec<_>>(), [9, 10]);
        assert_eq!(storage.term(5).unwrap(), 1);
        assert_eq!(storage.term(4), Err(Error::Store(StorageError::Compacted)));
    }

    #[test]
    fn places_of_entries_that_left_memory_are_given_up() {
        let mut storage = storage(2, 10_000);
        assert!(storage.entries.capacity() >= 9_999);
        storage.advance_base(base(9_990, &[1]));
        storage.release(LogIndex(9_990), 0);
        assert!(storage.entries.capacity() <= 2 * PLACES_KEPT);
        assert_eq!(read(&storage, 9_991, 10_001, u64::MAX).len(), 10);
        storage.append(&(10_001..20_000).map(|index| entry(index, 1)).collect::<Vec<_>>());
        storage.install(base(30_000, &[1]));
        assert!(storage.entries.capacity() <= 2 * PLACES_KEPT);
    }

    #[test]
    fn a_snapshot_is_offered_only_to_replicas_in_its_configuration() {
        let mut storage = storage(2, 3);
        assert!(storage.snapshot(0, 9).is_err());
        assert!(storage.take_snapshot_request());
        assert!(!storage.take_snapshot_request());
        storage.advance_base(base(3, &[1, 9]));
        assert_eq!(storage.snapshot(0, 9).unwrap().get_metadata().index, 3);
        assert!(storage.snapshot(4, 9).is_err());
    }

    #[test]
    fn a_snapshot_is_offered_only_with_the_entries_after_it() {
        let mut storage = storage(2, 10);
        let all = storage.bytes_after_base();
        storage.release(LogIndex(4), 0);
        assert_eq!((storage.first_index().unwrap(), storage.is_whole()), (5, false));
        assert_eq!(storage.bytes_after_base(), all, "a restart still reads them");
        assert!(storage.snapshot(0, 1).is_err());
        assert!(storage.take_snapshot_request());
        storage.advance_base(base(6, &[1]));
        assert_eq!(storage.entries_after_base().len(), 4);
        assert_eq!(storage.snapshot(0, 1).unwrap().get_metadata().index, 6);
    }

    #[test]
    fn what_is_released_is_bounded_by_bytes_and_by_an_index() {
        let mut storage = storage(2, 11);
        let each = storage.bytes() / 10;
        storage.release(LogIndex(11), 4 * each);
        assert_eq!(storage.first_index().unwrap(), 8);
        storage.release(LogIndex(9), 0);
        assert_eq!((storage.first_index().unwrap(), storage.bytes()), (10, 2 * each));
    }

    #[test]
    fn an_installed_snapshot_replaces_the_log() {
        let mut storage = storage(2, 6);
        storage.install(base(20, &[1]));
        assert_eq!((storage.first_index().unwrap(), storage.last(), storage.bytes()), (21, 20, 0));
        storage.append(&[entry(21, 3)]);
        assert_eq!(read(&storage, 21, 22, u64::MAX), [21]);
    }
}
