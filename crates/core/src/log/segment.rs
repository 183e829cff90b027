//! Segments: their names, and how the next one is made.
//!
//! Zero-filling a segment takes as long as many syncs, so it is done ahead, on another thread, in a file with another
//! name: a spare. A spare is renamed to a segment just before its first record is written. Hence a file with a
//! segment's name always has its full size, and a spare is useless after a restart.
//!
//! A segment that the log no longer needs, but that holds records of a lost replica, is *set aside* under a third name.

use super::LogError;
use crate::disk::{Disk, SECTOR_BYTES};
use std::io;

/// Segments are numbered from 1 on, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentNumber(pub u64);

impl SegmentNumber {
    pub(super) const FIRST: SegmentNumber = SegmentNumber(1);

    pub(super) fn next(self) -> SegmentNumber {
        SegmentNumber(self.0 + 1)
    }

    pub(super) fn file_name(self) -> String {
        format!("log-{:020}.seg", self.0)
    }

    /// The segment's file name once it is set aside.
    pub(super) fn set_aside_name(self) -> String {
        format!("lost-{:020}.seg", self.0)
    }

    /// The number of the segment with this file name, if it is one.
    pub(super) fn parse(file_name: &str) -> Option<SegmentNumber> {
        let digits = file_name.strip_prefix("log-")?.strip_suffix(".seg")?;
        let number = SegmentNumber(digits.parse().ok()?);
        let is_number = number >= SegmentNumber::FIRST && number.0 < u64::MAX;
        (is_number && number.file_name() == file_name).then_some(number)
    }
}

pub(super) fn is_spare(file_name: &str) -> bool {
    file_name.starts_with("spare-") && file_name.ends_with(".seg")
}

pub(super) fn is_set_aside(file_name: &str) -> bool {
    file_name.starts_with("lost-") && file_name.ends_with(".seg")
}

/// An existing segment of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    pub number: SegmentNumber,
    pub file_name: String,
    pub size_bytes: u64,
}

/// A file to [`Disk::preallocate`] on another thread; the outcome goes to [`super::Log::spare_ready`].
#[derive(Clone, Debug, PartialEq)]
pub struct SpareRequest {
    pub name: String,
    pub size_bytes: u64,
}

/// Makes segments, from the spare if there is one.
pub(super) struct SegmentMaker {
    segment_bytes: u64,
    spare: Spare,
    /// Spare names are not reused: a request may still be in progress while another file is made.
    spares_named: u64,
}

enum Spare {
    Wanted,
    Asked(SpareRequest),
    Ready(SpareRequest),
    /// Not asked for again before a segment was needed: on a full disk, asking at once would be a busy loop.
    Failed,
}

impl SegmentMaker {
    pub(super) fn new(segment_bytes: u64) -> SegmentMaker {
        let is_whole = segment_bytes > 0 && segment_bytes.is_multiple_of(SECTOR_BYTES as u64);
        assert!(is_whole, "a segment is a positive number of whole sectors");
        SegmentMaker { segment_bytes, spare: Spare::Wanted, spares_named: 0 }
    }

    pub(super) fn spare_request(&mut self) -> Option<SpareRequest> {
        if !matches!(self.spare, Spare::Wanted) {
            return None;
        }
        let request = self.name_spare(self.segment_bytes);
        self.spare = Spare::Asked(request.clone());
        Some(request)
    }

    pub(super) fn is_making_spare(&self) -> bool {
        matches!(self.spare, Spare::Asked(_))
    }

    pub(super) fn spare_ready(&mut self, outcome: io::Result<()>) {
        let Spare::Asked(request) = std::mem::replace(&mut self.spare, Spare::Failed) else {
            panic!("a spare segment is ready that was not asked for");
        };
        if outcome.is_ok() {
            self.spare = Spare::Ready(request);
        }
    }

    /// Makes a segment for a first record of `record_bytes`. An oversized one gets a segment of just that size.
    pub(super) fn make(
        &mut self,
        disk: &impl Disk,
        number: SegmentNumber,
        record_bytes: u64,
        progress: &mut dyn FnMut(),
    ) -> Result<Segment, LogError> {
        let request = match &self.spare {
            Spare::Ready(spare) if spare.size_bytes >= record_bytes => {
                let spare = spare.clone();
                self.spare = Spare::Wanted;
                spare
            }
            _ => {
                if matches!(self.spare, Spare::Failed) {
                    self.spare = Spare::Wanted;
                }
                let request = self.name_spare(self.segment_bytes.max(record_bytes));
                disk.preallocate(&request.name, request.size_bytes, progress).map_err(LogError::NoSegment)?;
                request
            }
        };
        let file_name = number.file_name();
        disk.rename(&request.name, &file_name).map_err(|source| LogError::Failed { doing: "rename", source })?;
        Ok(Segment { number, file_name, size_bytes: request.size_bytes })
    }

    fn name_spare(&mut self, size_bytes: u64) -> SpareRequest {
        self.spares_named += 1;
        SpareRequest { name: format!("spare-{:020}.seg", self.spares_named), size_bytes }
    }
}
