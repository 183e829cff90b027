//! The thread that writes snapshot files, in the order in which the workers request them ([`CutFiles`]).

use crate::events::SnapshotEvent;
use crate::inbox::Event;
use crate::metrics::Metrics;
use crate::seldom::Seldom;
use crate::snapshot_transfer::Transfers;
use crate::workers::Workers;
use crossbeam_channel::Receiver;
use ringfort_core::disk::Disk;
use ringfort_core::replica::cut_files::{CutFiles, Performed};
use ringfort_core::snapshot::SnapshotError;
use std::sync::Arc;
use tokio::runtime::Handle;

/// What the thread uses of its node.
pub struct SnapshotThread {
    pub disk: Arc<dyn Disk>,
    pub workers: Arc<Workers>,
    pub transfers: Arc<Transfers>,
    pub metrics: Arc<Metrics>,
    pub runtime: Handle,
}

impl SnapshotThread {
    /// Runs until [`SnapshotEvent::Stop`].
    pub fn run(self, events: Receiver<SnapshotEvent>) {
        let mut files = CutFiles::new(self.disk.clone());
        while let Ok(SnapshotEvent::Work(work)) = events.recv() {
            match files.perform(*work, &mut warn) {
                Performed::Done => {}
                Performed::Chunk(shard) => self.workers.of(shard).push_event(Event::ChunkWritten(shard)),
                Performed::File { shard, name, written } => {
                    self.metrics.snapshots_written.count(written);
                    self.workers.of(shard).push_event(Event::SnapshotWritten { shard, name, written });
                }
                Performed::Send { name, message } => {
                    self.runtime.spawn(self.transfers.clone().send(name, *message));
                }
            }
        }
    }
}

fn warn(name: &str, error: &SnapshotError) {
    static FAILED: Seldom = Seldom::new();
    if let Some(left_out) = FAILED.due() {
        tracing::warn!(
            name,
            left_out,
            "could not write or delete a snapshot; it is written again later, or deleted at the next start: {error}"
        );
    }
}
