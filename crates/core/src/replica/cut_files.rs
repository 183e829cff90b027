//! The files of this node's own snapshots: performs the work that workers ask for, in their order.
//!
//! A worker sends the chunks of a cut while its replica continues, and waits for each to be written. If a file can't be
//! begun or a chunk can't be written, the file is abandoned and its end is reported at once, so that the replica does
//! not cut the rest for nothing. The end of each file is reported once: the work for it that is still queued then is
//! skipped.
//!
//! A replica may abandon a cut just when its file is complete. So [`SnapshotWork::Abandon`] deletes the file under its
//! final name as well: nothing else refers to it.

use crate::disk::Disk;
use crate::effects::SnapshotWork;
use crate::message::RaftMessage;
use crate::snapshot::{SnapshotError, SnapshotWriter};
use crate::types::ShardId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The files that are being written.
pub struct CutFiles<D: Disk + ?Sized> {
    disk: Arc<D>,
    open: BTreeMap<String, SnapshotWriter<D>>,
}

/// The result of a piece of work.
#[derive(Debug)]
pub enum Performed {
    /// Nothing to report.
    Done,
    /// A written chunk: report it by
    /// [`Worker::handle_snapshot_chunk_written`](crate::worker::Worker::handle_snapshot_chunk_written).
    Chunk(ShardId),
    /// The end of a file: report it by
    /// [`Worker::handle_snapshot_written`](crate::worker::Worker::handle_snapshot_written).
    File { shard: ShardId, name: String, written: bool },
    /// A file for the caller to send.
    Send { name: String, message: Box<RaftMessage> },
}

impl<D: Disk + ?Sized> CutFiles<D> {
    pub fn new(disk: Arc<D>) -> CutFiles<D> {
        CutFiles { disk, open: BTreeMap::new() }
    }

    /// Performs one piece of work. Failures are passed to `failed` with the file's name, for the log.
    pub fn perform(&mut self, work: SnapshotWork, failed: &mut dyn FnMut(&str, &SnapshotError)) -> Performed {
        match work {
            SnapshotWork::Begin { shard, name, header } => {
                match SnapshotWriter::begin(self.disk.clone(), &name, &header) {
                    Ok(writer) => {
                        self.open.insert(name, writer);
                        Performed::Done
                    }
                    Err(error) => {
                        failed(&name, &error);
                        Performed::File { shard, name, written: false }
                    }
                }
            }
            SnapshotWork::Chunk { shard, name, payload } => {
                let Some(writer) = self.open.get_mut(&name) else { return Performed::Done };
                match writer.chunk(&payload) {
                    Ok(_) => Performed::Chunk(shard),
                    Err(error) => {
                        failed(&name, &error);
                        self.abandon(&name, failed);
                        Performed::File { shard, name, written: false }
                    }
                }
            }
            SnapshotWork::Finish { shard, name } => {
                let Some(writer) = self.open.remove(&name) else { return Performed::Done };
                let finished = writer.finish();
                if let Err(error) = &finished {
                    failed(&name, error);
                }
                Performed::File { shard, name, written: finished.is_ok() }
            }
            SnapshotWork::Abandon { name } => {
                self.abandon(&name, failed);
                Performed::Done
            }
            SnapshotWork::Delete { name } => {
                // The next start deletes files that can't be deleted now.
                if let Err(error) = self.disk.delete(&name) {
                    failed(&name, &error.into());
                }
                Performed::Done
            }
            SnapshotWork::Send { name, message } => Performed::Send { name, message: Box::new(message) },
        }
    }

    /// Abandons a file, complete or not.
    fn abandon(&mut self, name: &str, failed: &mut dyn FnMut(&str, &SnapshotError)) {
        let abandoned = match self.open.remove(name) {
            Some(writer) => writer.abandon(),
            None => self.disk.delete(name).map_err(SnapshotError::from),
        };
        if let Err(error) = abandoned {
            failed(name, &error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mem::MemDisk;
    use crate::kv::state::Machine;
    use crate::snapshot::SnapshotHeader;
    use crate::types::{LogIndex, Term};

    const SHARD: ShardId = ShardId(1);

    struct Scene {
        disk: Arc<MemDisk>,
        files: CutFiles<MemDisk>,
    }

    impl Scene {
        fn new() -> Scene {
            let disk = Arc::new(MemDisk::new());
            Scene { disk: disk.clone(), files: CutFiles::new(disk) }
        }

        /// Performs the work, and returns the result and whether something failed.
        fn perform(&mut self, work: SnapshotWork) -> (Performed, bool) {
            let mut has_failed = false;
            let performed = self.files.perform(work, &mut |_, _| has_failed = true);
            (performed, has_failed)
        }

        fn begin(&mut self) -> (Performed, bool) {
            let header = SnapshotHeader {
                shard: SHARD,
                index: LogIndex(9),
                term: Term(2),
                conf_state: Default::default(),
                meta: Machine::new().begin_cut().encode(),
            };
            self.perform(SnapshotWork::Begin { shard: SHARD, name: "cut".to_owned(), header })
        }

        fn chunk(&mut self) -> (Performed, bool) {
            self.perform(SnapshotWork::Chunk { shard: SHARD, name: "cut".to_owned(), payload: vec![1; 4096].into() })
        }

        fn finish(&mut self) -> (Performed, bool) {
            self.perform(SnapshotWork::Finish { shard: SHARD, name: "cut".to_owned() })
        }
    }

    #[test]
    fn a_cut_that_is_given_up_leaves_no_file_whether_it_was_finished_or_not() {
        let mut scene = Scene::new();
        for is_finished in [false, true] {
            assert!(matches!(scene.begin(), (Performed::Done, false)));
            if is_finished {
                assert!(matches!(scene.finish(), (Performed::File { written: true, .. }, false)));
            }
            let abandoned = scene.perform(SnapshotWork::Abandon { name: "cut".to_owned() });
            assert!(matches!(abandoned, (Performed::Done, false)));
            assert_eq!(scene.disk.list().unwrap(), [""; 0], "finished: {is_finished}");
        }
    }

    #[test]
    fn the_end_of_a_file_that_fails_is_reported_at_once_and_only_once() {
        let mut scene = Scene::new();
        scene.begin();
        scene.disk.set_capacity(Some(scene.disk.used_bytes()));
        assert!(matches!(scene.chunk(), (Performed::File { written: false, .. }, true)));
        assert_eq!(scene.disk.list().unwrap(), [""; 0], "its space is needed");
        let is_skipped = |scene: &mut Scene| {
            assert!(matches!(scene.chunk(), (Performed::Done, false)));
            assert!(matches!(scene.finish(), (Performed::Done, false)));
        };
        is_skipped(&mut scene);
        scene.disk.set_capacity(Some(scene.disk.used_bytes()));
        assert!(matches!(scene.begin(), (Performed::File { written: false, .. }, true)));
        is_skipped(&mut scene);
    }

    #[test]
    fn a_file_that_can_not_be_completed_leaves_nothing() {
        let mut scene = Scene::new();
        scene.begin();
        scene.disk.set_capacity(Some(scene.disk.used_bytes()));
        assert!(matches!(scene.finish(), (Performed::File { written: false, .. }, true)));
        assert_eq!(scene.disk.list().unwrap(), [""; 0]);
    }
}
