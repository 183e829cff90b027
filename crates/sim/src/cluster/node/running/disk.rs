//! The disk of a running node: its log, its health, and the bytes in memory that wait for it.

use super::*;
use ringfort_core::log::BatchSource;
use ringfort_core::log_writer::{Appended, Synced};

/// Bytes that may wait for the disk: few, so that slow or hung disks reach the bound.
const MAX_UNSYNCED_BYTES: u64 = 64 << 10;

/// Segments that a log may have before shards are asked to release the oldest.
pub(super) const SEGMENTS_BUDGET: u64 = 6;

impl Running {
    pub(in crate::cluster::node) fn write_log(&mut self, out: &mut Outbox) {
        if self.is_record_under_way {
            return;
        }
        if let Some(spare) = self.writer.log_mut().spare_request() {
            let made = self.disk.preallocate(&spare.name, spare.size_bytes, &mut || {});
            self.writer.log_mut().spare_ready(made);
        }
        while self.writer.has_room()
            && let Some((source, batch)) = self.log_queue.pop_front()
        {
            self.writer.add(source, batch);
        }
        if self.writer.is_empty() {
            return;
        }
        self.is_record_under_way = true;
        self.append(out);
    }

    /// Writes the gathered record, or tries again after a pause.
    pub(super) fn append(&mut self, out: &mut Outbox) {
        self.health.record_begun(self.now.moment);
        match self.writer.append(&mut || {}) {
            Ok(Appended::Written { had_no_space }) => {
                if had_no_space {
                    self.health.set_full(self.now.moment, false);
                }
                out.tasks.push((When::Synced, Task::LogSynced));
            }
            Ok(Appended::NoSpace { pause, .. }) => {
                if self.disk() != DiskState::Full {
                    out.events.push("times without space for the log");
                }
                self.health.set_full(self.now.moment, true);
                out.tasks.push((When::After(pause), Task::LogRetry));
            }
            Err(_) => out.aborted = true,
        }
    }

    /// Evaluates the disk, as a thread of the shell does, and tells gossip.
    pub(super) fn watch_disk(&mut self, out: &mut Outbox) {
        let report = self.health.look(self.now.moment);
        out.aborted |= report.must_end;
        if report.health != std::mem::replace(&mut self.said, report.health) {
            if report.health.disk == DiskState::Hung {
                out.events.push("times that a disk hung");
            }
            self.gossip.announce(self.now, report.health);
            self.perform_gossip(out);
        }
    }

    pub(super) fn disk(&self) -> DiskState {
        self.health.report(self.now.moment).health.disk
    }

    /// What the node has no room for now.
    pub(in crate::cluster::node) fn admission(&self) -> Admission {
        let disk = self.disk();
        Admission {
            is_disk_hung: disk == DiskState::Hung,
            is_disk_full: disk == DiskState::Full,
            is_without_files: false,
            is_memory_full: self.is_memory_full,
            unsynced_bytes: self.unsynced_bytes + self.inbox_bytes,
            max_unsynced_bytes: MAX_UNSYNCED_BYTES,
            mutation: self.settings.replica.mutation,
        }
    }

    /// The health that the node last reported.
    pub fn said(&self) -> NodeHealth {
        self.said
    }

    /// Whether a sync hangs on a disk that was healthy until then.
    pub fn has_sync_that_hangs(&self) -> bool {
        self.sync_hangs && self.was_healthy
    }

    /// Bytes in memory besides the maps, by use.
    pub fn held(&self) -> Held {
        let entries = |replica: &Replica<Responder>| {
            let position = replica.position();
            replica.log_bytes() - replica.log().bytes_after(position.committed.min(position.durable))
        };
        let chunks = self.hung_snapshots.iter().map(|work| match work {
            SnapshotWork::Chunk { payload, .. } => payload.len(),
            _ => 0,
        });
        Held {
            entries: self.replicas().map(entries).sum(),
            messages: self.inbox_bytes as usize,
            unsynced: self.unsynced_bytes as usize,
            snapshots: chunks.sum(),
        }
    }

    /// The most bytes that may be held, if each part is as large as it may be.
    pub fn may_hold_bytes(&self) -> usize {
        let entries = self.slots.len() * ENTRY_BUDGET_BYTES;
        // The last admitted message holds no more than the entries that its leader keeps.
        let unsynced = MAX_UNSYNCED_BYTES as usize + ENTRY_BUDGET_BYTES;
        let snapshots: usize = self.replicas().map(Replica::state_bytes).sum();
        entries + unsynced + snapshots
    }

    pub(super) fn log_synced(&mut self, now: Now, out: &mut Outbox) {
        let Ok(Synced { batches, unsynced_bytes, .. }) = self.writer.sync() else {
            out.aborted = true;
            return;
        };
        self.is_record_under_way = false;
        self.health.record_ended(now.moment);
        self.unsynced_bytes -= unsynced_bytes;
        for (source, number) in batches {
            match source {
                BatchSource::Gossip => self.gossip.handle_persisted(now, number),
                BatchSource::Worker(worker) => self.give_to(worker, Input::Persisted(number), out),
            }
        }
        for shard in self.writer.pressed(now.moment) {
            match shard {
                ShardId::EVENTUAL => self.gossip.handle_log_pressure(),
                shard => self.give(shard, Input::LogPressure(shard), out),
            }
        }
        self.write_log(out);
        self.perform_gossip(out);
    }

    /// The disk stops answering.
    pub fn hang_disk(&mut self) {
        self.is_disk_hung = true;
    }

    /// The disk answers again: operations issued meanwhile are done.
    pub fn release_disk(&mut self, out: &mut Outbox) {
        self.is_disk_hung = false;
        if std::mem::take(&mut self.sync_hangs) {
            out.tasks.push((When::Soon, Task::LogSynced));
        }
        for work in std::mem::take(&mut self.hung_snapshots) {
            self.snapshot(work, out);
        }
        self.save_unsaved_topology(out);
    }

    pub fn is_disk_hung(&self) -> bool {
        self.is_disk_hung
    }

    pub fn set_memory_full(&mut self, is_full: bool) {
        self.is_memory_full = is_full;
    }
}
