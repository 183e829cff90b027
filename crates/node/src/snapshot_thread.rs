//! The thread that writes snapshot files, in the order in which the workers ask.

use crate::disk::FileDisk;
use crate::inbox::Event;
use crate::shell::Shell;
use crate::snapshot_transfer;
use crossbeam_channel::Receiver;
use ringfort_core::disk::Disk;
use ringfort_core::effects::SnapshotWork;
use ringfort_core::snapshot::{SnapshotError, SnapshotWriter};
use std::collections::BTreeMap;
use std::sync::Arc;

pub enum SnapshotEvent {
    Work(Box<SnapshotWork>),
    Stop,
}

/// Runs until [`SnapshotEvent::Stop`].
pub fn run(shell: Arc<Shell>, events: Receiver<SnapshotEvent>) {
    let mut files = Files { disk: shell.disk.clone(), open: BTreeMap::new() };
    while let Ok(SnapshotEvent::Work(work)) = events.recv() {
        match *work {
            SnapshotWork::Begin { name, header, .. } => {
                files.begin(name, |disk, name| SnapshotWriter::begin(disk, name, &header))
            }
            SnapshotWork::Chunk { shard, name, payload } => {
                files.write(&name, &payload);
                shell.worker(shard).push_event(Event::ChunkWritten(shard));
            }
            SnapshotWork::Finish { shard, name } => {
                let written = files.finish(&name);
                shell.metrics.snapshots_written.count(written);
                shell.worker(shard).push_event(Event::SnapshotWritten { shard, name, written });
            }
            SnapshotWork::Abandon { name } => files.abandon(&name),
            SnapshotWork::Send { name, message } => {
                shell.runtime.spawn(snapshot_transfer::send(shell.clone(), name, message));
            }
            SnapshotWork::Delete { name } => {
                // What can't be deleted now is cleared away at the next start.
                if let Err(error) = shell.disk.delete(&name) {
                    tracing::warn!(name, %error, "could not delete a snapshot");
                }
            }
        }
    }
}

/// The files being written. One that has failed is gone from here, and its end is reported as not written.
struct Files {
    disk: Arc<FileDisk>,
    open: BTreeMap<String, SnapshotWriter<FileDisk>>,
}

impl Files {
    fn begin(
        &mut self,
        name: String,
        begin: impl FnOnce(Arc<FileDisk>, &str) -> Result<SnapshotWriter<FileDisk>, SnapshotError>,
    ) {
        match begin(self.disk.clone(), &name) {
            Ok(writer) => drop(self.open.insert(name, writer)),
            Err(error) => warn(&name, &error),
        }
    }

    fn write(&mut self, name: &str, payload: &[u8]) {
        if let Some(writer) = self.open.get_mut(name)
            && let Err(error) = writer.chunk(payload)
        {
            warn(name, &error);
            self.abandon(name);
        }
    }

    fn finish(&mut self, name: &str) -> bool {
        match self.open.remove(name).map(SnapshotWriter::finish) {
            Some(Ok(_)) => true,
            Some(Err(error)) => {
                warn(name, &error);
                false
            }
            None => false,
        }
    }

    fn abandon(&mut self, name: &str) {
        if let Some(Err(error)) = self.open.remove(name).map(SnapshotWriter::abandon) {
            warn(name, &error);
        }
    }
}

fn warn(name: &str, error: &SnapshotError) {
    tracing::warn!(name, "could not write a snapshot; another one follows when it is needed: {error}");
}
