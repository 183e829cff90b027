//! Receives one snapshot from another node: checks each frame, writes the file, and builds the state from what is on
//! disk.
//!
//! A snapshot that can't be used leaves no file: its name is new each time, so nothing else would delete it.

use super::Restored;
use super::restore::{self, LoadError};
use crate::disk::Disk;
use crate::message::RaftMessage;
use crate::snapshot::{Received, SnapshotError, SnapshotHeader, SnapshotWriter};
use std::sync::Arc;

/// Whether a file with this header holds the state that `message`, a leader's MsgSnapshot, describes.
pub fn fits(header: &SnapshotHeader, message: &RaftMessage) -> bool {
    let metadata = message.message.get_snapshot().get_metadata();
    let position = (header.shard, header.index.0, header.term.0);
    position == (message.shard, metadata.index, metadata.term) && header.conf_state == *metadata.get_conf_state()
}

/// A file that is being received.
pub struct Receiving<D: Disk + ?Sized> {
    disk: Arc<D>,
    name: String,
    writer: SnapshotWriter<D>,
}

/// The result of a frame.
pub enum Progress<D: Disk + ?Sized> {
    /// More frames follow.
    More(Receiving<D>),
    /// The file is complete and durable, and this is the state in it.
    Complete(Restored),
}

impl<D: Disk + ?Sized> Receiving<D> {
    /// Begins to receive a file under a name that no other file has.
    pub fn begin(disk: Arc<D>, name: String, header: &SnapshotHeader) -> Result<Receiving<D>, SnapshotError> {
        let writer = SnapshotWriter::begin(disk.clone(), &name, header)?;
        Ok(Receiving { disk, name, writer })
    }

    /// Handles the next frame. After an error, the file is deleted.
    pub fn frame(mut self, frame: &[u8]) -> Result<Progress<D>, LoadError> {
        match self.writer.frame(frame) {
            Ok(Received::Chunk) => Ok(Progress::More(self)),
            Ok(Received::End) => self.complete().map(Progress::Complete),
            Err(error) => {
                self.abandon();
                Err(error.into())
            }
        }
    }

    fn complete(self) -> Result<Restored, LoadError> {
        let Receiving { disk, name, writer } = self;
        writer.finish()?;
        let restored = restore::load(&disk, &name);
        if restored.is_err() {
            let _ = disk.delete(&name);
        }
        Ok(restored?.1)
    }

    /// Abandons the file, because its sender is gone. The next start deletes a file that can't be deleted now.
    pub fn abandon(self) {
        let _ = self.writer.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mem::MemDisk;
    use crate::kv::state::{CutMeta, Machine};
    use crate::snapshot::SnapshotReader;
    use crate::types::{LogIndex, ReplicaId, ShardId, Term};
    use bytes::Bytes;

    fn header(meta: CutMeta) -> SnapshotHeader {
        SnapshotHeader {
            shard: ShardId(1),
            index: LogIndex(9),
            term: Term(2),
            conf_state: Default::default(),
            meta: meta.encode(),
        }
    }

    /// The frames of a snapshot with this header and these chunks.
    fn frames(header: &SnapshotHeader, chunks: &[&[u8]]) -> Vec<Bytes> {
        let disk = Arc::new(MemDisk::new());
        let mut writer = SnapshotWriter::begin(disk.clone(), "sent", header).unwrap();
        chunks.iter().for_each(|chunk| writer.chunk(chunk).unwrap());
        writer.finish().unwrap();
        let mut reader = SnapshotReader::open(disk, "sent").unwrap();
        std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
    }

    fn receive(disk: &Arc<MemDisk>, header: &SnapshotHeader, frames: &[Bytes]) -> Result<Option<Restored>, LoadError> {
        let mut receiving = Receiving::begin(disk.clone(), "received".to_owned(), header)?;
        for frame in frames {
            match receiving.frame(frame)? {
                Progress::More(more) => receiving = more,
                Progress::Complete(restored) => return Ok(Some(restored)),
            }
        }
        receiving.abandon();
        Ok(None)
    }

    #[test]
    fn a_snapshot_is_there_completely_or_not_at_all() {
        let header = header(Machine::new().begin_cut());
        let frames = frames(&header, &[]);
        let disk = Arc::new(MemDisk::new());
        assert!(matches!(receive(&disk, &header, &frames), Ok(Some(Restored::Kv(_)))));
        assert_eq!(disk.list().unwrap(), ["received"]);

        let disk = Arc::new(MemDisk::new());
        assert!(matches!(receive(&disk, &header, &[]), Ok(None)), "its sender is gone");
        assert_eq!(disk.list().unwrap(), [""; 0]);
    }

    #[test]
    fn a_snapshot_that_is_damaged_or_no_state_leaves_no_file() {
        let meta = CutMeta { revision: 1, timestamp: Default::default(), hash: 7, len: 1 };
        let header = header(meta);
        // Valid frames around invalid content.
        let sound = frames(&header, &[b"no entries"]);
        let mut damaged = sound.clone();
        damaged[0] = sound[0].iter().map(|byte| byte ^ 1).collect();
        for (frames, is_sound) in [(sound, true), (damaged, false)] {
            let disk = Arc::new(MemDisk::new());
            let refused = receive(&disk, &header, &frames).err();
            assert_eq!(matches!(refused, Some(LoadError::Restore(_))), is_sound, "{refused:?}");
            assert!(refused.is_some());
            assert_eq!(disk.list().unwrap(), [""; 0]);
        }
    }

    #[test]
    fn a_file_of_another_position_than_its_message_does_not_fit() {
        let header = header(Machine::new().begin_cut());
        let mut message = raft::eraftpb::Message::default();
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (9, 2);
        let message = RaftMessage { shard: ShardId(1), from: ReplicaId(1), to: ReplicaId(2), message };
        assert!(fits(&header, &message));
        let mut other = message.clone();
        other.message.mut_snapshot().mut_metadata().term = 3;
        assert!(!fits(&header, &other) && !fits(&header, &RaftMessage { shard: ShardId(2), ..message }));
    }
}
