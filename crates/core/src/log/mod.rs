//! The write-ahead log: one for all shards of a node, so that one sync covers them all.
//!
//! # Format
//!
//! A caller passes a batch of [`LogItem`]s of any number of shards; [`Log::append`] writes it as one *record* and
//! [`Log::sync`] makes it durable. Records fill *segments*, files that were filled with zeros beforehand
//! (`log-00000000000000000001.seg`, ...). At start, [`Log::open`] returns what each shard needs to continue.
//!
//! ```text
//! segment  | record | record | record ...            | never written: zeros |
//!
//! record   | first sector          | later sector     | later sector ... |
//!          | tag header payload    | tag payload      | tag payload, 0s  |
//!
//! tag      4 bytes   kind (first = 1, later = 2) << 30 | sequence mod 2^30
//! header   48 bytes  checksum of tag and header, sequence (8), segment (8), sector in it (4), previous record's
//!                    checksum (4), shards (4), body bytes (4), checksum of the shards (4), of the body (4), "RFL1"
//! payload            the shards, each a ShardId (4) and its highest ReplicaId (8), then the body
//! body               items, see `codec`; in the first record of a segment, a directory of all shards before them
//! ```
//!
//! Numbers are little-endian, checksums CRC32C over the sectors as they are, tags and padding included. The body's
//! checksum is in the header and the header's in the next record, so that each record can be checked alone and a
//! missing one is noticed.
//!
//! # Torn or corrupt
//!
//! Records of both kinds fail their checks. A torn record was never acknowledged and must be cut; a corrupt one may
//! hold a vote or an entry that other nodes count on. They can be told apart because
//!
//! 1. a disk writes a sector as a whole or not at all;
//! 2. segments are durably zero before they are used, and no sector of a record is all zeros (its tag is not): so a
//!    sector that a crash kept from being written can be recognized as unwritten;
//! 3. a record is written only when the one before is synced: so only the last record, in the last segment, can be
//!    torn.
//!
//! Hence: a record is **torn** if it is the last in the last segment and one of its sectors is unwritten. That may be
//! its first sector; then its later sectors are recognized by their tags. A torn record is overwritten with zeros, and
//! the log continues in its place. Any other record that fails its checks is **corrupt**: the shards that the record
//! names are suspect, or all shards if the names are lost. Later records are still found, by their own headers, and
//! count: a complete state ([`Change::State`]) makes a shard trustworthy again, since it replaces everything before it.
//! If the last record is corrupt, nothing is overwritten, not even a torn record behind it, which proves that the
//! corrupt one was synced: the log continues in a new segment. If a header was lost, the new segment skips a sequence
//! number. So each start finds the same, until the shards have written new states.
//!
//! Missing segments are detected wherever they were: in the middle by the numbers; at the beginning by the directory in
//! the next segment; at the end, or if all are gone, by a file that holds the number of the last segment ([`extent`]).
//! They count as corrupt records of unknown shards. A log is new only if nothing shows that there was one before.
//!
//! One case can't be detected: a disk that loses all or part of the last synced record and returns zeros instead. If a
//! disk refuses to read a sector, the log does not open ([`LogError::Unreadable`]), because the error may or may not be
//! permanent.
//!
//! # Releasing segments
//!
//! A shard needs the segment of its last complete state and those after it. Segments before the first needed one are
//! deleted, oldest first, but never the last one with a directory that could be read. Because of the directory the
//! remaining segments are sufficient: it lists every live and every removed replica, so a removal pins no segment, and
//! a live shard whose state is missing is suspect rather than unknown. An idle shard pins its segment until its owner
//! appends its state again: [`Log::pinned_by`]. If its replica no longer runs, but may run again after a restart, the
//! log reads the state itself: [`Log::read_back`].
//!
//! A suspect shard pins nothing, because it may stay suspect forever, and the log would grow until the disk is full. A
//! segment with records of it is *set aside* instead of deleted: it is renamed to `lost-00000000000000000001.seg`, for
//! an operator. That adds at most the segments that the log had when the replica was lost. Files that were set aside
//! are deleted when no shard is suspect any more.
//!
//! # Costs
//!
//! A batch: one `pwrite` and one `fdatasync`, or several of each for a record that is written in parts
//! ([`Log::append_in_parts`]); no allocation once the buffers have grown. A record: 52 bytes, 12 for each shard, 4 in
//! each sector, and half a sector of padding on average. A new segment: a rename with its directory sync, a sync of the
//! extent, and 3 to 15 bytes for each known shard. A start reads everything once and holds one segment in memory.

mod batch;
mod codec;
mod extent;
mod index;
pub mod item;
mod read_back;
mod record;
mod recovery;
mod replay;
mod scan;
mod segment;

#[cfg(test)]
mod tests;

pub use segment::SpareRequest;

/// Whether the log creates files with this name.
pub fn is_log_file(name: &str) -> bool {
    let is_segment = segment::SegmentNumber::parse(name).is_some() || segment::is_set_aside(name);
    name == extent::EXTENT_FILE || is_segment || segment::is_spare(name)
}

use crate::disk::{Disk, SECTOR_BYTES};
use crate::mutation::Mutation;
use crate::types::{ReplicaId, ShardId};
pub use batch::{BatchNumber, BatchSource, LogBatch};
use codec::{encode_directory, encode_item};
use index::Index;
use item::{LogItem, ReplicaState};
use record::RecordBuffer;
use recovery::Restart;
use replay::Next;
use segment::{Segment, SegmentMaker, SegmentNumber};
use std::collections::{BTreeMap, VecDeque};
use std::io;

/// What a record usually has at most beside its entries' bytes: see [`Log::waits_for_spare`].
const BESIDE_ENTRIES_BYTES: u64 = 64 << 10;

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The size of a segment: a multiple of the sector size. A record that is larger gets a segment of its own size.
    pub segment_bytes: u64,
    /// Other files show that a log was opened here before: if none is found, it is lost.
    pub has_begun: bool,
    pub mutation: Mutation,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { segment_bytes: crate::limits::SEGMENT_BYTES, has_begun: false, mutation: Mutation::None }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no segment for the record, most often because the disk is full. Nothing has changed: the same batch,
    /// or another one, may be appended later.
    #[error("no space for another log segment")]
    NoSegment(#[source] io::Error),
    /// The content of the disk is unknown. The process must abort, since a retry could report as durable what is not;
    /// the log is recovered at the next start.
    #[error("could not {doing}: without its log, this node must stop")]
    Failed { doing: &'static str, source: io::Error },
    /// The log could not be read at start. Nothing has changed, except that old spare segments may have been deleted.
    #[error("the log cannot be read")]
    Unreadable(#[source] io::Error),
    /// The log was written by a later version of this program. Nothing has changed.
    #[error("{file_name} is in a format that this version of Ringfort does not know")]
    UnknownFormat { file_name: String },
}

/// The content of the log at start.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    pub shards: BTreeMap<ShardId, RecoveredShard>,
    /// Records of unknown shards are lost: this node may have held replicas that are not in `shards`. It must not start
    /// one under an id that it may have held, until [`Log::declare_complete`].
    pub shards_unknown: bool,
    /// What was found damaged or was cut, for the operator. Empty after a crash that left no torn record.
    pub findings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RecoveredShard {
    /// Everything that was synced; Raft can start from it.
    Recovered { replica: ReplicaId, state: Box<ReplicaState> },
    /// Some of what was synced may be lost: this replica must never vote or acknowledge again.
    Suspect { replica: ReplicaId },
    /// No replica with this id or a lower one may run again.
    Removed(ReplicaId),
}

/// The log, open for writing.
///
/// - At most one record is unsynced: the last one.
/// - `segments` are ordered by number, and only the last is written to. `offset` is a multiple of the sector size, and
///   from there on the last segment is zero, unless `offset` is its end.
/// - `next_segment` is above every segment that ever had a record; the extent holds the number of the last of these.
/// - A segment's first record has a directory of all shards before it.
/// - `index` reflects every item written. No segment that it needs is deleted, and never the last one.
/// - A segment with remains of a lost replica is in `segments` or in `set_aside`.
/// - After [`LogError::Failed`], no method may be called.
pub struct Log<D> {
    disk: D,
    segments: VecDeque<Segment>,
    /// The files of earlier segments that hold what is left of lost replicas.
    set_aside: Vec<String>,
    next_segment: SegmentNumber,
    offset: u64,
    next: Next,
    index: Index,
    maker: SegmentMaker,
    is_unsynced: bool,
    has_failed: bool,
    buffer: RecordBuffer,
    named: Vec<(ShardId, ReplicaId)>,
}

impl<D: Disk> Log<D> {
    /// Recovers the log on disk, or starts a new one if there is none. Other files are left alone.
    pub fn open(disk: D, config: LogConfig) -> Result<(Log<D>, Recovery), LogError> {
        let maker = SegmentMaker::new(config.segment_bytes);
        let (recovery, restart) = recovery::recover(&disk, &config)?;
        let Restart { index, segments, set_aside, next_segment, offset, next } = restart;
        let mut log = Log {
            disk,
            segments: segments.into(),
            set_aside,
            next_segment,
            offset,
            next,
            index,
            maker,
            is_unsynced: false,
            has_failed: false,
            buffer: RecordBuffer::default(),
            named: Vec::new(),
        };
        log.release_segments();
        Ok((log, recovery))
    }

    /// Writes a batch, in one record. It is durable once [`Log::sync`] has returned, which must come before the next
    /// append. An empty batch does nothing.
    ///
    /// Panics as [`Log::append_in_parts`] does.
    pub fn append(&mut self, items: &[LogItem]) -> Result<(), LogError> {
        self.append_in_parts(items, u64::MAX, &mut || {})
    }

    /// Writes a batch in one record, and syncs after each `part_bytes` of it to keep each sync small. Calls `progress`
    /// after each part of the record that is durable, and after each part of a new segment that is made for it. The
    /// last part is durable once [`Log::sync`] has returned; a crash before that may leave a torn record.
    ///
    /// Panics if an item does not follow from what the log holds of its shard: a state comes first, entries continue
    /// it, and a replica that was suspect or removed must not come back.
    pub fn append_in_parts(
        &mut self,
        items: &[LogItem],
        part_bytes: u64,
        progress: &mut dyn FnMut(),
    ) -> Result<(), LogError> {
        assert!(!self.has_failed, "a log that has failed is not used again");
        assert!(!self.is_unsynced, "one record is unsynced at a time");
        if items.is_empty() {
            return Ok(());
        }
        self.encode(items, self.offset == 0);
        if !self.has_room() {
            self.encode(items, true);
            self.start_segment(progress)?;
        }
        let segment = self.segments.back().expect("a record has a segment");
        if self.offset == 0 {
            self.index.directory_written(segment.number);
        }
        for item in items {
            self.index.apply(item, segment.number);
        }
        let (bytes, checksum) = self.buffer.finish(segment.number, self.offset, self.next.previous);
        let written = write_in_parts(&self.disk, &segment.file_name, self.offset, bytes, part_bytes, progress);
        self.offset += bytes.len() as u64;
        self.buffer.shrink();
        self.next = Next { sequence: self.next.sequence.next(), previous: checksum };
        self.is_unsynced = true;
        written.map_err(|(doing, source)| self.fail(doing, source))
    }

    /// Makes the last batch durable, then releases the segments that are no longer needed.
    pub fn sync(&mut self) -> Result<(), LogError> {
        assert!(!self.has_failed, "a log that has failed is not used again");
        if !self.is_unsynced {
            return Ok(());
        }
        let segment = self.segments.back().expect("a record has a segment");
        if let Err(source) = self.disk.sync(&segment.file_name) {
            return Err(self.fail("sync the log", source));
        }
        self.is_unsynced = false;
        self.release_segments();
        Ok(())
    }

    /// A spare segment for another thread to make while this one continues. Each request is returned once and must be
    /// followed by [`Log::spare_ready`]. Without a spare, an append that needs a segment makes it itself, and waits.
    pub fn spare_request(&mut self) -> Option<SpareRequest> {
        self.maker.spare_request()
    }

    /// Reports the outcome of the [`SpareRequest`]. After a failure, there is no further request until a segment was
    /// needed.
    pub fn spare_ready(&mut self, outcome: io::Result<()>) {
        self.maker.spare_ready(outcome);
    }

    /// Whether a record with this many bytes of entries is likely to need the spare segment that is being made.
    /// Appending it now would make another segment at the same time, twice the work for the disk.
    pub fn waits_for_spare(&self, entry_bytes: u64) -> bool {
        let room = self.segments.back().map_or(0, |segment| segment.size_bytes - self.offset);
        // The record's exact size is known only when it is encoded. A high estimate waits early, at most once a
        // segment.
        self.maker.is_making_spare() && room < 2 * entry_bytes + BESIDE_ENTRIES_BYTES
    }

    /// The size of all segments, without the spare and those that were set aside.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size_bytes).sum()
    }

    /// The shards for which the oldest segment is kept. It is released once each of them has appended its state or its
    /// removal. None if the oldest segment is the one being written.
    pub fn pinned_by(&self) -> impl Iterator<Item = ShardId> {
        let oldest = self.segments.front().filter(|_| self.segments.len() > 1);
        oldest.into_iter().flat_map(|segment| self.index.pinning(segment.number))
    }

    /// The caller has learned, from the system shard, of all replicas that this node has ever held, and appended the
    /// removal of those that the log had lost ([`Recovery::shards_unknown`]). Takes effect with the next segment.
    pub fn declare_complete(&mut self) {
        self.index.set_complete();
    }

    /// Encodes a record except for its end, which depends on its position.
    fn encode(&mut self, items: &[LogItem], starts_segment: bool) {
        self.named.clear();
        self.named.extend(items.iter().map(|item| (item.shard, item.replica)));
        if starts_segment {
            self.named.extend(self.index.removed());
        }
        self.named.sort_unstable();
        // The replicas of a shard are sorted: keep the last, highest one.
        self.named.dedup_by(|later, kept| {
            later.0 == kept.0 && {
                kept.1 = later.1;
                true
            }
        });
        self.buffer.begin(self.next.sequence, &self.named);
        if starts_segment {
            encode_directory(&self.index.directory(), &mut self.buffer);
        }
        for item in items {
            encode_item(item, &mut self.buffer);
        }
    }

    fn has_room(&self) -> bool {
        self.segments.back().is_some_and(|segment| self.offset + self.buffer.size_bytes() <= segment.size_bytes)
    }

    fn start_segment(&mut self, progress: &mut dyn FnMut()) -> Result<(), LogError> {
        let number = self.next_segment;
        let made = self.maker.make(&self.disk, number, self.buffer.size_bytes(), progress);
        // If the extent can't be written, the next attempt makes the segment again, in place of this one.
        match made.and_then(|segment| extent::advance(&self.disk, number).map(|()| segment)) {
            Ok(segment) => {
                if let Some(full) = self.segments.back() {
                    self.disk.close(&full.file_name);
                }
                self.segments.push_back(segment);
                self.next_segment = number.next();
                self.offset = 0;
                Ok(())
            }
            Err(error) => {
                self.has_failed = matches!(error, LogError::Failed { .. });
                Err(error)
            }
        }
    }

    /// Deletes unneeded segments, or sets them aside. Call it only after a sync of the items that replace them.
    fn release_segments(&mut self) {
        assert!(!self.is_unsynced, "an unsynced record replaces nothing");
        while let Some(oldest) = self.segments.front()
            && oldest.number < self.index.first_needed()
        {
            let has_remains = self.index.has_remains_in(oldest.number);
            let name = oldest.number.set_aside_name();
            let released = match has_remains {
                true => self.rename(&oldest.file_name, &name),
                false => self.disk.delete(&oldest.file_name),
            };
            if let Err(error) = released {
                tracing::warn!(file_name = oldest.file_name, %error, "could not release a log segment; trying again");
                break;
            }
            self.segments.pop_front();
            if has_remains {
                tracing::warn!("kept what is left of a lost replica in {name}, which the log no longer needs");
                self.set_aside.push(name);
            }
        }
        if !self.set_aside.is_empty() && !self.index.may_have_lost() {
            self.delete_set_aside();
        }
    }

    /// A rename fails if only the directory's sync has failed. The next attempt finds the file under its new name, and
    /// syncs the directory.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let is_done = self.disk.size(from)?.is_none() && self.disk.size(to)?.is_some();
        self.disk.rename(if is_done { to } else { from }, to)
    }

    /// Deletes the remains of lost replicas, all of which have successors.
    fn delete_set_aside(&mut self) {
        let disk = &self.disk;
        self.set_aside.retain(|file_name| {
            let deleted = disk.delete(file_name);
            if let Err(error) = &deleted {
                tracing::warn!(file_name, %error, "could not delete the remains of a lost replica; trying again");
            }
            deleted.is_err()
        });
    }

    fn fail(&mut self, doing: &'static str, source: io::Error) -> LogError {
        self.has_failed = true;
        LogError::Failed { doing, source }
    }
}

/// Writes a record in parts and syncs all parts but the last. Each part consists of whole sectors: if it ended inside a
/// sector, a crash could leave that sector half written, and the record would count as corrupt.
fn write_in_parts(
    disk: &impl Disk,
    file_name: &str,
    mut offset: u64,
    mut record: &[u8],
    part_bytes: u64,
    progress: &mut dyn FnMut(),
) -> Result<(), (&'static str, io::Error)> {
    let part_sectors = usize::try_from(part_bytes).unwrap_or(usize::MAX) / SECTOR_BYTES;
    let part_bytes = part_sectors.max(1) * SECTOR_BYTES;
    loop {
        let (part, rest) = record.split_at(part_bytes.min(record.len()));
        disk.write_at(file_name, offset, part).map_err(|source| ("write the log", source))?;
        if rest.is_empty() {
            return Ok(());
        }
        disk.sync(file_name).map_err(|source| ("sync the log", source))?;
        progress();
        offset += part.len() as u64;
        record = rest;
    }
}
