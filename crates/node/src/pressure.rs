//! What a node has no room for: it says so before a proposal, when nothing has happened yet.
//!
//! - **Memory.** Where `--max-memory` is given, puts are refused while the maps on this node hold as many bytes. Deletes
//!   and reads are served, so that there is a way back. The maps are looked at every [`LOOK_INTERVAL`], which makes this a
//!   high-water mark: what is written in between comes on top. So do the log's entries, within a budget of their own, and
//!   what a replica is sent by its leader, which it can't refuse.
//! - **Disk.** While the log has no space or the disk does not answer, writes would wait until their deadlines and end
//!   unknown, so they are refused. Entries from leaders elsewhere are dropped while there is no space, or while
//!   [`MAX_UNSYNCED_BYTES`] wait for the disk; otherwise they would gather in memory without bound. Raft sends them
//!   again.

use crate::shell::Shell;
use ringfort_core::command::Command;
use ringfort_core::limits::MAX_UNSYNCED_BYTES;
use ringfort_core::message::RaftMessage;
use ringfort_core::replica::{Failure, Write};
use ringfort_core::worker::Request;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often the maps are measured. At a gigabit a second 6 MB arrive in between.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub struct Pressure {
    max_memory_bytes: Option<u64>,
    is_memory_full: AtomicBool,
    is_disk_full: AtomicBool,
    is_without_files: AtomicBool,
    is_disk_hung: AtomicBool,
    /// Bytes of batches that are not synced yet.
    unsynced_bytes: AtomicU64,
}

impl Pressure {
    pub fn new(max_memory_bytes: Option<u64>) -> Pressure {
        Pressure { max_memory_bytes, ..Pressure::default() }
    }

    /// Why a request must not be proposed by this node now.
    pub fn refusal(&self, request: &Request) -> Option<Failure> {
        let Request::Write(write) = request else { return None };
        if self.is_disk_hung() {
            return Some(Failure::DiskHung);
        }
        // The cluster's own commands are few, and may be what helps.
        let Write::Kv(command) = write else { return None };
        let is_put = matches!(command, Command::Put { .. });
        if self.is_disk_full.load(Ordering::Relaxed) {
            Some(Failure::DiskFull)
        } else if self.is_without_files.load(Ordering::Relaxed) || self.has_too_much_unsynced() {
            Some(Failure::Overloaded)
        } else if is_put && self.is_memory_full.load(Ordering::Relaxed) {
            Some(Failure::MemoryFull)
        } else {
            None
        }
    }

    /// Whether a message of another node may go on to its replica.
    pub fn takes(&self, message: &RaftMessage) -> bool {
        let can_log = || !self.is_disk_full() && !self.is_without_files.load(Ordering::Relaxed);
        message.message.entries.is_empty() || (can_log() && !self.has_too_much_unsynced())
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

    fn has_too_much_unsynced(&self) -> bool {
        self.unsynced_bytes() >= MAX_UNSYNCED_BYTES
    }

    /// The maps hold this many bytes.
    fn measured(&self, held_bytes: u64) {
        let Some(max_bytes) = self.max_memory_bytes else { return };
        let is_full = held_bytes >= max_bytes;
        if self.is_memory_full.swap(is_full, Ordering::Relaxed) != is_full {
            match is_full {
                true => tracing::warn!(held_bytes, max_bytes, "--max-memory is reached: puts are refused"),
                false => tracing::info!(held_bytes, max_bytes, "below --max-memory again: puts are taken"),
            }
        }
    }
}

/// Measures the maps for as long as the node is there; does nothing where there is no limit.
pub async fn watch_memory(shell: Weak<Shell>) {
    loop {
        let Some(shell) = shell.upgrade().filter(|shell| shell.pressure.max_memory_bytes.is_some()) else { return };
        let shards = shell.routing.topology().shards;
        let sizes = shards.ids().filter_map(|shard| Some(shell.routing.view(shard)?.size().1 as u64));
        shell.pressure.measured(sizes.sum());
        drop(shell);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ringfort_core::replica::Query;

    fn refusals(pressure: &Pressure) -> [Option<Failure>; 3] {
        let key = Bytes::from("k");
        [
            Request::Write(Write::Kv(Command::Put { key: key.clone(), value: Bytes::new() })),
            Request::Write(Write::Kv(Command::Delete { key: key.clone() })),
            Request::Read(Query::Get { key }),
        ]
        .map(|request| pressure.refusal(&request))
    }

    #[test]
    fn full_memory_refuses_puts_until_there_is_room_again() {
        let pressure = Pressure::new(Some(100));
        pressure.measured(99);
        assert_eq!(refusals(&pressure), [None; 3]);
        pressure.measured(100);
        assert_eq!(refusals(&pressure), [Some(Failure::MemoryFull), None, None]);
        pressure.measured(99);
        assert_eq!(refusals(&pressure), [None; 3]);
    }

    #[test]
    fn without_a_limit_nothing_is_too_much() {
        let pressure = Pressure::new(None);
        pressure.measured(u64::MAX);
        assert_eq!(refusals(&pressure), [None; 3]);
    }

    #[test]
    fn a_disk_that_hangs_refuses_writes_and_takes_entries_up_to_the_bound() {
        let pressure = Pressure::default();
        let entries = RaftMessage {
            shard: ringfort_core::types::ShardId(0),
            from: Default::default(),
            to: Default::default(),
            message: raft::eraftpb::Message { entries: vec![Default::default()].into(), ..Default::default() },
        };
        pressure.set_disk_hung(true);
        let hung = Some(Failure::DiskHung);
        assert_eq!(refusals(&pressure), [hung, hung, None]);
        assert!(pressure.takes(&entries));
        pressure.unsynced(MAX_UNSYNCED_BYTES);
        assert!(!pressure.takes(&entries));
        pressure.set_disk_hung(false);
        let overloaded = Some(Failure::Overloaded);
        assert_eq!(refusals(&pressure), [overloaded, overloaded, None]);
        pressure.synced(1);
        assert_eq!(refusals(&pressure), [None; 3]);
        assert!(pressure.takes(&entries));
    }

    #[test]
    fn a_full_disk_refuses_writes_and_entries_but_not_what_keeps_a_leader() {
        let pressure = Pressure::default();
        let mut message = RaftMessage {
            shard: ringfort_core::types::ShardId(0),
            from: Default::default(),
            to: Default::default(),
            message: Default::default(),
        };
        pressure.set_disk_full(true);
        let full = Some(Failure::DiskFull);
        assert_eq!(refusals(&pressure), [full, full, None]);
        assert!(pressure.takes(&message));
        message.message.entries.push(Default::default());
        assert!(!pressure.takes(&message));
        pressure.set_disk_full(false);
        pressure.set_without_files(true);
        let overloaded = Some(Failure::Overloaded);
        assert_eq!(refusals(&pressure), [overloaded, overloaded, None]);
        assert!(!pressure.takes(&message));
        pressure.set_without_files(false);
        assert!(pressure.takes(&message));
        assert_eq!(refusals(&pressure), [None; 3]);
    }
}
