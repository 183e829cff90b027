//! The thread that writes snapshot files, in the order in which the workers request them ([`CutFiles`]).

use crate::events::SnapshotEvent;
use crate::inbox::Event;
use crate::seldom::Seldom;
use crate::shell::Shell;
use crossbeam_channel::Receiver;
use ringfort_core::replica::cut_files::{CutFiles, Performed};
use ringfort_core::snapshot::SnapshotError;
use std::sync::Arc;

/// Runs until [`SnapshotEvent::Stop`].
pub fn run(shell: Arc<Shell>, events: Receiver<SnapshotEvent>) {
    let mut files = CutFiles::new(shell.disk.clone());
    while let Ok(SnapshotEvent::Work(work)) = events.recv() {
        match files.perform(*work, &mut warn) {
            Performed::Done => {}
            Performed::Chunk(shard) => shell.workers.of(shard).push_event(Event::ChunkWritten(shard)),
            Performed::File { shard, name, written } => {
                shell.metrics.snapshots_written.count(written);
                shell.workers.of(shard).push_event(Event::SnapshotWritten { shard, name, written });
            }
            Performed::Send { name, message } => {
                shell.runtime.spawn(shell.transfers.clone().send(name, *message));
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
