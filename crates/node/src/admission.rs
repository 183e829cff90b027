//! Admission control: a node refuses what it has no room for before proposing it, while nothing has been applied.
//!
//! - **Memory.** With `--max-memory`, all writes but deletes are refused while the maps on this node hold that many
//!   bytes. Deletes and reads are still served, so that clients can free memory. The maps are measured every
//!   [`LOOK_INTERVAL`](crate::memory_watch::LOOK_INTERVAL), so the limit is a high-water mark: writes between two
//!   measurements can exceed it. Log entries, which have their own budget, and entries from a leader, which a replica
//!   can't refuse, come on top.
//! - **Disk.** Requests are refused while the log has no space, the disk does not answer, or too many bytes wait to be
//!   synced.
//!
//! Core's [`Admission`] decides what this means for requests and for entries from leaders on other nodes.

use ringfort_core::health::Admission;
use ringfort_core::message::RaftMessage;
use ringfort_core::request::{Failure, Request};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct AdmissionState {
    max_memory_bytes: Option<u64>,
    is_memory_full: AtomicBool,
    is_disk_full: AtomicBool,
    is_without_files: AtomicBool,
    is_disk_hung: AtomicBool,
    /// Bytes of entries that wait for a worker.
    inbox_bytes: AtomicU64,
    /// Bytes of batches that are not synced yet.
    unsynced_bytes: AtomicU64,
}

impl AdmissionState {
    pub fn new(max_memory_bytes: Option<u64>) -> AdmissionState {
        AdmissionState { max_memory_bytes, ..AdmissionState::default() }
    }

    /// Why this node must not propose the request now, if it must not.
    pub fn refusal(&self, request: &Request) -> Option<Failure> {
        self.admission().refusal(request)
    }

    /// Whether a message from another node may be delivered to its replica. Its entries count until they are
    /// [handled](AdmissionState::handled).
    pub fn admits(&self, message: &RaftMessage) -> bool {
        let is_taken = self.admission().takes(message);
        if is_taken {
            self.inbox_bytes.fetch_add(message.entry_bytes(), Ordering::Relaxed);
        }
        is_taken
    }

    /// Messages with this many bytes of entries were handled by a worker, or were dropped. Entries that the worker logs
    /// are among the [unsynced](AdmissionState::unsynced).
    pub fn handled(&self, bytes: u64) {
        self.inbox_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How many bytes of entries wait for a worker.
    pub fn inbox_bytes(&self) -> u64 {
        self.inbox_bytes.load(Ordering::Relaxed)
    }

    fn admission(&self) -> Admission {
        Admission {
            is_disk_hung: self.is_disk_hung(),
            is_disk_full: self.is_disk_full(),
            is_without_files: self.is_without_files.load(Ordering::Relaxed),
            is_memory_full: self.is_memory_full(),
            unsynced_bytes: self.unsynced_bytes() + self.inbox_bytes(),
            ..Admission::default()
        }
    }

    pub fn is_disk_full(&self) -> bool {
        self.is_disk_full.load(Ordering::Relaxed)
    }

    pub fn is_disk_hung(&self) -> bool {
        self.is_disk_hung.load(Ordering::Relaxed)
    }

    pub fn is_memory_full(&self) -> bool {
        self.is_memory_full.load(Ordering::Relaxed)
    }

    /// Whether the log lacks a file descriptor for its next segment, which has the same effect as a full disk.
    pub fn set_without_files(&self, is_without: bool) {
        self.is_without_files.store(is_without, Ordering::Relaxed);
    }

    pub fn set_disk_full(&self, is_full: bool) {
        self.is_disk_full.store(is_full, Ordering::Relaxed);
    }

    pub fn set_disk_hung(&self, is_hung: bool) {
        self.is_disk_hung.store(is_hung, Ordering::Relaxed);
    }

    /// A batch of this many bytes was handed to the log.
    pub fn unsynced(&self, bytes: u64) {
        self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Batches of this many bytes are durable.
    pub fn synced(&self, bytes: u64) {
        self.unsynced_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How many bytes are not synced yet.
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes.load(Ordering::Relaxed)
    }

    /// Whether there is a limit on memory.
    pub fn has_memory_limit(&self) -> bool {
        self.max_memory_bytes.is_some()
    }

    /// The maps hold this many bytes.
    pub fn measured(&self, held_bytes: u64) {
        let Some(max_bytes) = self.max_memory_bytes else { return };
        let is_full = held_bytes >= max_bytes;
        if self.is_memory_full.swap(is_full, Ordering::Relaxed) != is_full {
            match is_full {
                true => {
                    tracing::warn!(held_bytes, max_bytes, "--max-memory is reached: all writes but deletes are refused")
                }
                false => tracing::info!(held_bytes, max_bytes, "below --max-memory again: all writes are accepted"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ringfort_core::kv::Put;
    use ringfort_core::limits::MAX_UNSYNCED_BYTES;
    use ringfort_ring::ShardCount;

    fn refusal(admission: &AdmissionState) -> Option<Failure> {
        let put = Put { key: Bytes::from("k"), value: Bytes::new() };
        admission.refusal(&Request::command(ShardCount::MAX, put).unwrap())
    }

    #[test]
    fn full_memory_refuses_puts_until_there_is_room_again() {
        let admission = AdmissionState::new(Some(100));
        admission.measured(99);
        assert_eq!(refusal(&admission), None);
        admission.measured(100);
        assert_eq!(refusal(&admission), Some(Failure::MemoryFull));
        admission.measured(99);
        assert_eq!(refusal(&admission), None);
    }

    #[test]
    fn without_a_limit_nothing_is_too_much() {
        let admission = AdmissionState::new(None);
        admission.measured(u64::MAX);
        assert_eq!(refusal(&admission), None);
    }

    #[test]
    fn each_state_of_the_disk_is_told() {
        let admission = AdmissionState::default();
        admission.set_disk_hung(true);
        assert_eq!(refusal(&admission), Some(Failure::DiskHung));
        admission.set_disk_hung(false);
        admission.set_disk_full(true);
        assert_eq!(refusal(&admission), Some(Failure::DiskFull));
        admission.set_disk_full(false);
        admission.set_without_files(true);
        assert_eq!(refusal(&admission), Some(Failure::Overloaded));
        admission.set_without_files(false);
        admission.unsynced(MAX_UNSYNCED_BYTES);
        assert_eq!(refusal(&admission), Some(Failure::Overloaded));
        admission.synced(1);
        assert_eq!(refusal(&admission), None);
    }

    #[test]
    fn entries_that_no_worker_has_handled_count_as_unsynced() {
        let admission = AdmissionState::default();
        let data = vec![0; MAX_UNSYNCED_BYTES as usize].into();
        let entry = raft::eraftpb::Entry { data, ..Default::default() };
        let message = RaftMessage {
            shard: ringfort_core::types::ShardId(0),
            from: Default::default(),
            to: Default::default(),
            message: raft::eraftpb::Message { entries: vec![entry].into(), ..Default::default() },
        };
        assert!(admission.admits(&message));
        assert!(!admission.admits(&message), "as much waits for a worker");
        admission.handled(message.entry_bytes());
        assert!(admission.admits(&message));
    }
}
