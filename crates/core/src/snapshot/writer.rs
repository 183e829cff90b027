//! Writes a snapshot, chunk by chunk or as its frames arrive from another node.

use super::frame::{self, Kind, Place};
use super::header::SnapshotHeader;
use super::{SnapshotError, temporary_name};
use crate::disk::Disk;
use crate::limits::SYNCED_PART_BYTES;
use std::sync::Arc;

/// A snapshot being written under a temporary name. If [`begin`](SnapshotWriter::begin) or
/// [`finish`](SnapshotWriter::finish) fails, it deletes the file; after any other error the caller
/// [abandons](SnapshotWriter::abandon) it. Names are rarely reused, so a file that was left behind would take space on
/// a disk that may be full, until [`clean_up`](super::clean_up) deletes it at the next start.
///
/// Invariant: the file holds the header and `place.sequence - 1` chunks, and ends at `offset`. It is durable up to
/// `synced`, which is less than [`SYNCED_PART_BYTES`] before `offset`. If one sync had to make the whole file durable,
/// the log's syncs would wait for it.
pub struct SnapshotWriter<D: Disk + ?Sized> {
    disk: Arc<D>,
    name: String,
    offset: u64,
    synced: u64,
    /// The position of the next frame.
    place: Place,
}

/// The kind of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Chunk,
    /// The footer, and nothing is missing: call [`finish`](SnapshotWriter::finish).
    End,
}

impl<D: Disk + ?Sized> SnapshotWriter<D> {
    /// Begins the snapshot that will have this name once it is finished.
    pub fn begin(disk: Arc<D>, name: &str, header: &SnapshotHeader) -> Result<SnapshotWriter<D>, SnapshotError> {
        let first = frame::encode(Place { header_checksum: 0, sequence: 0 }, Kind::Header, &header.encode());
        let place = Place { header_checksum: frame::checksum(&first)?, sequence: 1 };
        disk.create(&temporary_name(name))?;
        let mut writer = SnapshotWriter { disk, name: name.into(), offset: 0, synced: 0, place };
        match writer.append(&[frame::MAGIC, &first[..]].concat()) {
            Ok(()) => Ok(writer),
            Err(error) => Err(writer.fail(error)),
        }
    }

    /// Appends a chunk of at most [`MAX_CHUNK_BYTES`](super::MAX_CHUNK_BYTES).
    pub fn chunk(&mut self, payload: &[u8]) -> Result<(), SnapshotError> {
        self.append(&frame::encode(self.place, Kind::Chunk, payload))?;
        self.place.sequence += 1;
        Ok(())
    }

    /// Checks and appends the next frame of a reader elsewhere that has the same header.
    pub fn frame(&mut self, bytes: &[u8]) -> Result<Received, SnapshotError> {
        match frame::decode(self.place, bytes)? {
            (Kind::Chunk, _) => {
                self.append(bytes)?;
                self.place.sequence += 1;
                Ok(Received::Chunk)
            }
            (Kind::Footer, _) => Ok(Received::End),
            (Kind::Header, _) => Err(SnapshotError::Corrupt("a second header")),
        }
    }

    /// Completes the file, makes it durable and renames it to its final name. Returns its size in bytes.
    pub fn finish(mut self) -> Result<u64, SnapshotError> {
        match self.complete() {
            Ok(()) => Ok(self.offset),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Abandons the snapshot and deletes its file.
    pub fn abandon(self) -> Result<(), SnapshotError> {
        Ok(self.disk.delete(&temporary_name(&self.name))?)
    }

    /// Deletes the file after an error. The error is returned even if the deletion fails, because it says more.
    fn fail(self, error: SnapshotError) -> SnapshotError {
        let _ = self.abandon();
        error
    }

    fn complete(&mut self) -> Result<(), SnapshotError> {
        let footer = frame::encode(self.place, Kind::Footer, &[]);
        self.append(&footer)?;
        let temporary = temporary_name(&self.name);
        self.disk.sync(&temporary)?;
        self.disk.rename(&temporary, &self.name)?;
        self.disk.close(&self.name);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let temporary = temporary_name(&self.name);
        self.disk.write_at(&temporary, self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        if self.offset - self.synced >= SYNCED_PART_BYTES {
            self.disk.sync(&temporary)?;
            self.synced = self.offset;
        }
        Ok(())
    }
}
