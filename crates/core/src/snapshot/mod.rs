//! Snapshot files: a shard's whole state at one index of its log, on disk and in transit to another node.
//!
//! **Format.** Eight magic bytes, then frames: the header (`header`), chunks whose contents are opaque here (a shard's
//! map and the system shard's state are stored alike), a footer. Each frame carries its sequence number under a CRC32C
//! that continues from the header's: a frame that is damaged, missing, duplicated, misplaced or from another snapshot
//! is detected when it is read (`frame`).
//!
//! **A snapshot exists completely or not at all.** [`SnapshotWriter`] writes under a temporary name, syncs, then
//! renames. At the next start, [`clean_up`] deletes temporary files that a crash has left, and snapshots that no log
//! names any more.
//!
//! **Streaming.** A sender reads frames with [`SnapshotReader::next_frame`], and the receiver checks and stores them
//! with [`SnapshotWriter::frame`] as they are: neither parses a chunk, and the checksum made when the snapshot was
//! first written is checked wherever it arrives. The header is sent first, because no frame can be checked without it.

mod frame;
mod header;
mod reader;
#[cfg(test)]
mod test_disk;
mod writer;

pub use header::SnapshotHeader;
pub use reader::SnapshotReader;
pub use writer::{Received, SnapshotWriter};

use crate::codec::CodecError;
use crate::disk::Disk;
use crate::limits::{LARGEST_ENTRY_BYTES, MAX_PEER_MESSAGE_BYTES, SNAPSHOT_CHUNK_BYTES};
use crate::types::{LogIndex, ShardId};
use std::io;

/// The largest chunk: one of the usual size that ends in the largest entry. It also bounds headers.
pub const MAX_CHUNK_BYTES: usize = SNAPSHOT_CHUNK_BYTES + LARGEST_ENTRY_BYTES;

const _: () = assert!(MAX_CHUNK_BYTES < MAX_PEER_MESSAGE_BYTES / 2);

const PREFIX: &str = "snap-";
const SUFFIX: &str = ".snap";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Why a snapshot cannot be written, received or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No file has appeared or changed under the snapshot's name. A failed sync is never retried on the same file:
    /// begin another one.
    #[error("a snapshot's file failed")]
    Disk(#[from] io::Error),
    #[error("there is no snapshot {0}")]
    Missing(String),
    #[error("a snapshot in version {0} of the format, this build reads version {version}: upgrade this node", version = header::VERSION)]
    UnknownVersion(u8),
    /// The bytes are not what was written. The same file or stream fails again; another replica's snapshot may be
    /// intact.
    #[error("a snapshot is damaged: {0}")]
    Corrupt(&'static str),
    #[error("a snapshot is damaged")]
    Malformed(#[from] CodecError),
}

/// The file name of a shard's snapshot at an index.
pub fn snapshot_name(shard: ShardId, index: LogIndex) -> String {
    format!("{PREFIX}{shard}-{index}{SUFFIX}")
}

/// Whether a snapshot may have this name.
pub fn is_snapshot(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// Whether a snapshot of this shard may have this name.
pub fn is_snapshot_of(name: &str, shard: ShardId) -> bool {
    is_snapshot(name) && name[PREFIX.len()..].starts_with(&format!("{shard}-"))
}

/// Deletes all snapshots except those to keep, and the files of unfinished ones. Call it only at a node's start: it
/// would also delete a snapshot that is being written.
pub fn clean_up<D: Disk + ?Sized>(disk: &D, is_kept: impl Fn(&str) -> bool) -> io::Result<()> {
    for name in disk.list()? {
        let unfinished = name.strip_suffix(TEMPORARY_SUFFIX);
        if unfinished.is_some_and(is_snapshot) || (is_snapshot(&name) && !is_kept(&name)) {
            disk.delete(&name)?;
        }
    }
    Ok(())
}

fn temporary_name(name: &str) -> String {
    format!("{name}{TEMPORARY_SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::test_disk::TestDisk;
    use super::*;

    #[test]
    fn names_say_shard_and_index() {
        assert_eq!(snapshot_name(ShardId(7), LogIndex(1234)), "snap-7-1234.snap");
        assert_eq!(snapshot_name(ShardId::SYSTEM, LogIndex(1)), "snap-system-1.snap");
        let is_of = |shard| is_snapshot_of("snap-17-3.snap", ShardId(shard));
        assert_eq!([17, 1, 173].map(is_of), [true, false, false]);
    }

    #[test]
    fn cleaning_up_leaves_what_is_kept_and_what_is_none_of_ours() {
        let disk = TestDisk::default();
        for name in ["snap-1-5.snap", "snap-1-9.snap", "snap-1-9.snap.tmp", "snap-2-3.snap.tmp", "log-1", "other.tmp"] {
            disk.create(name).expect("create");
        }
        clean_up(&disk, |name| ["snap-1-9.snap", "snap-8-8.snap"].contains(&name)).expect("clean up");
        assert_eq!(disk.list().expect("list"), ["log-1", "other.tmp", "snap-1-9.snap"]);
    }
}
