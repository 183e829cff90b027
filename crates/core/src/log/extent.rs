//! The extent of the log: the number of its last segment, which tells a lost log from a new one.
//!
//! Each segment proves that the earlier ones existed, but nothing proves that the last ones did: if the last segments
//! or all of them were missing, the rest would look like an older log, or a new one. So a file of one sector, written
//! in place, holds the number of the last segment that was begun. The segment is renamed first, then its number is
//! written to the extent, then its first record is written. Hence every synced record is in a segment that the extent
//! covers, and every segment that the extent covers has existed.
//!
//! If only the extent is damaged, nothing is lost: the segments are trusted, and the extent is written again. A
//! directory of an earlier version has no extent, and gets one.

use super::LogError;
use super::segment::SegmentNumber;
use crate::disk::{Disk, SECTOR_BYTES};

pub(super) const EXTENT_FILE: &str = "log-extent";

/// Checksum (4), the number of the last segment (8), zeros. A new file is all zeros and stands for no segment.
const CHECKED_BYTES: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// There is no such file.
    Missing,
    Damaged,
    /// The last segment that was begun; none for a new log.
    Known(Option<SegmentNumber>),
}

impl Extent {
    pub(super) fn read(disk: &impl Disk) -> Result<Extent, LogError> {
        if disk.size(EXTENT_FILE).map_err(LogError::Unreadable)?.is_none() {
            return Ok(Extent::Missing);
        }
        let bytes = disk.read_at(EXTENT_FILE, 0, SECTOR_BYTES).map_err(LogError::Unreadable)?;
        if bytes.len() == SECTOR_BYTES && bytes.iter().all(|&byte| byte == 0) {
            return Ok(Extent::Known(None));
        }
        let Some((checksum, number)) = bytes.get(..CHECKED_BYTES).and_then(|checked| checked.split_first_chunk())
        else {
            return Ok(Extent::Damaged);
        };
        if u32::from_le_bytes(*checksum) != crc32c::crc32c(number) {
            return Ok(Extent::Damaged);
        }
        let number = u64::from_le_bytes(number.try_into().expect("eight bytes follow the checksum"));
        let is_number = (SegmentNumber::FIRST.0..u64::MAX).contains(&number);
        Ok(if is_number { Extent::Known(Some(SegmentNumber(number))) } else { Extent::Damaged })
    }
}

/// Creates the file, for a log that has begun no segment. Durable when this returns.
pub(super) fn make(disk: &impl Disk) -> Result<(), LogError> {
    disk.preallocate(EXTENT_FILE, SECTOR_BYTES as u64, &mut || {}).map_err(LogError::NoSegment)
}

/// Records that a segment has been begun. Durable when this returns; after [`LogError::NoSegment`] it may be recorded
/// or not.
pub(super) fn advance(disk: &impl Disk, last: SegmentNumber) -> Result<(), LogError> {
    let number = last.0.to_le_bytes();
    let mut sector = [0; SECTOR_BYTES];
    sector[..4].copy_from_slice(&crc32c::crc32c(&number).to_le_bytes());
    sector[4..CHECKED_BYTES].copy_from_slice(&number);
    disk.write_at(EXTENT_FILE, 0, &sector).map_err(LogError::NoSegment)?;
    disk.sync(EXTENT_FILE).map_err(|source| LogError::Failed { doing: "sync the log's extent", source })
}
