//! The thread that writes snapshot files, in the order in which the workers ask.

use crate::inbox::Event;
use crate::seldom::Seldom;
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
            SnapshotWork::Begin { shard, name, header } => {
                let begun = files.begin(&name, |disk| SnapshotWriter::begin(disk, &name, &header));
                if !begun {
                    // Report the failure now, so that the worker does not cut for nothing.
                    shell.metrics.snapshots_written.count(false);
                    shell.worker(shard).push_event(Event::SnapshotWritten { shard, name, written: false });
                }
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
                static KEPT: Seldom = Seldom::new();
                if let Err(error) = shell.disk.delete(&name)
                    && let Some(left_out) = KEPT.due()
                {
                    tracing::warn!(name, left_out, %error, "could not delete a snapshot");
                }
            }
        }
    }
}

/// The files being written. One that has failed is gone from here, and its end is reported as not written.
struct Files {
    disk: Arc<dyn Disk>,
    open: BTreeMap<String, SnapshotWriter<dyn Disk>>,
}

impl Files {
    fn begin(
        &mut self,
        name: &str,
        begin: impl FnOnce(Arc<dyn Disk>) -> Result<SnapshotWriter<dyn Disk>, SnapshotError>,
    ) -> bool {
        match begin(self.disk.clone()) {
            Ok(writer) => {
                self.open.insert(name.to_owned(), writer);
                true
            }
            Err(error) => {
                warn(name, &error);
                false
            }
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

    /// Gives a file up, complete or not: the replica may have ended its cut while the file was being finished.
    fn abandon(&mut self, name: &str) {
        let abandoned = match self.open.remove(name) {
            Some(writer) => writer.abandon(),
            None => self.disk.delete(name).map_err(SnapshotError::from),
        };
        if let Err(error) = abandoned {
            warn(name, &error);
        }
    }
}

fn warn(name: &str, error: &SnapshotError) {
    static FAILED: Seldom = Seldom::new();
    if let Some(left_out) = FAILED.due() {
        tracing::warn!(name, left_out, "could not write a snapshot; it is tried again later: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_core::disk::mem::MemDisk;
    use ringfort_core::kv::state::Machine;
    use ringfort_core::snapshot::SnapshotHeader;
    use ringfort_core::types::{LogIndex, ShardId, Term};

    #[test]
    fn a_cut_that_is_given_up_leaves_no_file_whether_it_was_finished_or_not() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let mut files = Files { disk: disk.clone(), open: BTreeMap::new() };
        let header = SnapshotHeader {
            shard: ShardId(1),
            index: LogIndex(9),
            term: Term(2),
            conf_state: Default::default(),
            meta: Machine::new().begin_cut().encode(),
        };
        for is_finished in [false, true] {
            assert!(files.begin("cut", |disk| SnapshotWriter::begin(disk, "cut", &header)));
            assert!(!is_finished || files.finish("cut"));
            files.abandon("cut");
            assert_eq!(disk.list().unwrap(), [""; 0], "finished: {is_finished}");
        }
    }
}
