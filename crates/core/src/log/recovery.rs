//! Reading the log at start: the segments in order, then deciding about its end.

use super::extent::{self, Extent};
use super::index::Index;
use super::record::{Sequence, Tag};
use super::replay::{Next, Replay, place};
use super::scan::{Piece, scan};
use super::segment::{Segment, SegmentNumber, is_set_aside, is_spare};
use super::{LogConfig, LogError, Recovery};
use crate::disk::{Disk, SECTOR_BYTES};
use crate::mutation::Mutation;
use std::ops::Range;

/// Where the log continues.
pub(super) struct Restart {
    pub index: Index,
    /// In order. The last one is written to.
    pub segments: Vec<Segment>,
    /// The files of earlier segments that hold what is left of lost replicas.
    pub set_aside: Vec<String>,
    /// The number of the next segment: above all segments that exist or existed.
    pub next_segment: SegmentNumber,
    /// The position of the next record in the last segment; that segment's size if it must not be changed.
    pub offset: u64,
    pub next: Next,
}

/// The end of the last segment.
enum Tail {
    /// The last record, in these sectors, with nothing behind it; or no record at all.
    Whole(Range<usize>),
    /// A partly written record: it begins at `start`, and `written` has its written sectors.
    Torn { start: usize, written: Range<usize> },
    /// A synced record that is no longer intact.
    Damaged,
}

/// Reads the whole log, cuts a torn record, and makes what was read durable.
pub(super) fn recover(disk: &impl Disk, config: &LogConfig) -> Result<(Recovery, Restart), LogError> {
    let mutation = config.mutation;
    let (segments, set_aside) = find_segments(disk)?;
    let found = segments.last().map(|segment| segment.number);
    let extent = Extent::read(disk)?;
    let begun = match extent {
        _ if mutation.is(Mutation::TakeLostLogForNew) => None,
        // The extent is written before any other file that shows a log: it was lost together with the segments.
        Extent::Missing | Extent::Damaged if found.is_none() && (config.has_begun || !set_aside.is_empty()) => {
            Some(SegmentNumber::FIRST)
        }
        Extent::Missing | Extent::Damaged => None,
        Extent::Known(begun) => begun,
    };
    let last = found.max(begun);
    let next_segment = last.map_or(SegmentNumber::FIRST, SegmentNumber::next);
    let lowest = segments.first().map_or(next_segment, |segment| segment.number);
    let mut replay = Replay::new(lowest, mutation);
    if extent == Extent::Damaged {
        replay.find("the log's extent is damaged, so it is unknown whether its last segments are missing".to_owned());
    }
    let mut offset = 0;
    for (position, segment) in segments.iter().enumerate() {
        if position > 0 && segments[position - 1].number.next() != segment.number {
            let finding = format!("the segment before segment {} is missing", segment.number.0);
            replay.lose_all(finding, segment.number);
        }
        let bytes = read(disk, segment)?;
        let mut pieces = scan(segment.number, &bytes)
            .map_err(|_| LogError::UnknownFormat { file_name: segment.file_name.clone() })?;
        if Some(segment.number) < last {
            replay_pieces(&mut replay, segment.number, &pieces);
            offset = segment.size_bytes;
        } else {
            if mutation.is(Mutation::TruncateAtFirstBad) {
                truncate_at_first_bad(&mut pieces);
            }
            let tail = replay_last(&mut replay, segment.number, &pieces);
            offset = settle(disk, segment, &bytes, tail)?;
        }
    }
    if let Some(last) = last.filter(|_| found < begun) {
        // The next segment skips their numbers, so that every later start finds the same gap.
        let finding = match found {
            Some(found) => format!("segments {} to {} are missing", found.next().0, last.0),
            None => format!("all segments are missing, up to segment {}", last.0),
        };
        replay.lose_all(finding, found.unwrap_or(last));
    }
    if extent == Extent::Missing {
        extent::make(disk)?;
    }
    if let Some(last) = last {
        // Even if it already has this number: it may have been read from the page cache after a failed sync.
        extent::advance(disk, last)?;
    }
    let next = replay.next().unwrap_or(Next { sequence: Sequence::FIRST, previous: 0 });
    let (recovery, index) = replay.finish(lowest, found.unwrap_or(lowest));
    Ok((recovery, Restart { index, segments, set_aside, next_segment, offset, next }))
}

/// The log's segments in order, and the files of those that were set aside.
fn find_segments(disk: &impl Disk) -> Result<(Vec<Segment>, Vec<String>), LogError> {
    let (mut segments, mut set_aside) = (Vec::new(), Vec::new());
    for file_name in disk.list().map_err(LogError::Unreadable)? {
        if is_spare(&file_name) {
            disk.delete(&file_name).map_err(|source| LogError::Failed { doing: "delete an old spare", source })?;
        } else if let Some(number) = SegmentNumber::parse(&file_name) {
            let size_bytes = disk.size(&file_name).map_err(LogError::Unreadable)?.unwrap_or(0);
            segments.push(Segment { number, file_name, size_bytes });
        } else if is_set_aside(&file_name) {
            set_aside.push(file_name);
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok((segments, set_aside))
}

pub(super) fn read(disk: &impl Disk, segment: &Segment) -> Result<Vec<u8>, LogError> {
    disk.read_at(&segment.file_name, 0, segment.size_bytes as usize).map_err(LogError::Unreadable)
}

fn replay_pieces(replay: &mut Replay, segment: SegmentNumber, pieces: &[Piece<'_>]) {
    for piece in pieces {
        match piece {
            Piece::Stray { sector, .. } => replay.damaged(segment, *sector),
            Piece::Record(record) => {
                if replay.follow(&record.header) {
                    replay.apply(record);
                }
            }
        }
    }
}

/// A planted bug: a record that fails its checks, and all that follows, counts as never written.
fn truncate_at_first_bad(pieces: &mut Vec<Piece<'_>>) {
    let is_bad = |piece: &Piece<'_>| match piece {
        Piece::Stray { .. } => true,
        Piece::Record(record) => record.named().is_none() || record.body().is_none(),
    };
    pieces.truncate(pieces.iter().position(is_bad).unwrap_or(pieces.len()));
}

/// Replays the last segment, the only one that may end in a torn record: the next segment is made when the last
/// record of the one before is synced.
fn replay_last(replay: &mut Replay, segment: SegmentNumber, pieces: &[Piece<'_>]) -> Tail {
    if let Some((Piece::Record(last), before)) = pieces.split_last()
        && last.has_unwritten_sector()
    {
        replay_pieces(replay, segment, before);
        if replay.is_sound_here() && replay.expects(&last.header) {
            replay.find(format!("{} was not completely written, and never acknowledged: removed", place(&last.header)));
            let start = last.header.sector as usize;
            return Tail::Torn { start, written: start..start + last.header.sectors() };
        }
        // Cutting it would destroy the proof that the damaged record before it was synced.
        replay_pieces(replay, segment, &pieces[before.len()..]);
        return Tail::Damaged;
    }
    let records_end = pieces.iter().rposition(|piece| matches!(piece, Piece::Record(_))).map_or(0, |last| last + 1);
    let (records, strays) = pieces.split_at(records_end);
    replay_pieces(replay, segment, records);
    let end = records.last().map_or(0, Piece::end);
    if replay.is_sound_here() {
        let (Some(first), Some(last)) = (strays.first(), strays.last()) else {
            return Tail::Whole(records.last().map_or(0, Piece::start)..end);
        };
        if is_torn(strays, end, replay.next()) {
            let finding = "a record was not completely written, and never acknowledged: removed";
            replay.find(format!("at sector {end} of segment {}, {finding}", segment.0));
            return Tail::Torn { start: end, written: first.start()..last.end() };
        }
    }
    replay_pieces(replay, segment, strays);
    if replay.report_damage() {
        replay.lose_all("the header of the last record is lost".to_owned(), segment);
        if let Some(next) = replay.next() {
            // The gap shows the loss at the next start.
            replay.set_next(Next { sequence: next.sequence.next(), ..next });
        }
    }
    Tail::Damaged
}

/// Whether sectors without a header at the end of the log belong to a record whose header was never written: the
/// header's sector is unwritten, and the tags of all these sectors mark them as later sectors of the very next record.
fn is_torn(strays: &[Piece<'_>], start: usize, next: Option<Next>) -> bool {
    let Some(next) = next else { return false };
    let is_of_next = |piece: &Piece<'_>| match piece {
        Piece::Stray { sector, tag } => *sector > start && *tag == Tag::later(next.sequence),
        Piece::Record(_) => false,
    };
    strays.iter().all(is_of_next)
}

/// Applies the decision to the disk. Returns the position of the next record.
fn settle(disk: &impl Disk, segment: &Segment, bytes: &[u8], tail: Tail) -> Result<u64, LogError> {
    let range = |sectors: Range<usize>| sectors.start * SECTOR_BYTES..sectors.end * SECTOR_BYTES;
    let overwrite = |offset: usize, bytes: &[u8]| {
        disk.write_at(&segment.file_name, offset as u64, bytes)
            .and_then(|()| disk.sync(&segment.file_name))
            .map_err(|source| LogError::Failed { doing: "settle the end of the log", source })
    };
    match tail {
        Tail::Whole(last) => {
            // It may have been read from the page cache after its sync had failed before the restart. Syncing again
            // would not help (Rebello et al., "Can Applications Recover from fsync Failures?"); writing again does.
            //
            // The zeros behind it may be only in the cache, too: an earlier start may have cut a torn record and ended
            // before the sync. That record must not come back behind later records, which may go into another segment.
            // This sync makes the zeros durable. If an earlier sync of them has failed, the sector that is written
            // again covers the torn record's header.
            let last = range(last);
            let end = (last.end + SECTOR_BYTES).min(bytes.len());
            overwrite(last.start, &bytes[last.start..end])?;
            Ok(last.end as u64)
        }
        Tail::Torn { start, written } => {
            // The zeros are synced before anything is written there; otherwise these sectors could be taken for parts
            // of a later record. A crash meanwhile leaves the record torn, because unwritten sectors stay unwritten.
            let written = range(written);
            overwrite(written.start, &vec![0; written.len()])?;
            Ok((start * SECTOR_BYTES) as u64)
        }
        Tail::Damaged => Ok(segment.size_bytes),
    }
}
