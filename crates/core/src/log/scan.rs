//! Finding the records in a segment, however damaged.
//!
//! A record is found by its header alone: by the checksum of its first sector, which also covers its position. So a
//! damaged record does not hide others: after it, each sector is tried in turn.

use super::record::{HeaderCheck, Record, Tag, is_unwritten};
use super::segment::SegmentNumber;
use crate::disk::SECTOR_BYTES;

/// A part of a segment other than unwritten sectors.
pub(super) enum Piece<'a> {
    Record(Record<'a>),
    /// A written sector that belongs to no record with an intact header.
    Stray {
        sector: usize,
        tag: Tag,
    },
}

impl Piece<'_> {
    /// Its first sector.
    pub(super) fn start(&self) -> usize {
        match self {
            Piece::Record(record) => record.header.sector as usize,
            Piece::Stray { sector, .. } => *sector,
        }
    }

    /// The first sector behind this piece.
    pub(super) fn end(&self) -> usize {
        match self {
            Piece::Record(record) => record.header.sector as usize + record.sectors.len() / SECTOR_BYTES,
            Piece::Stray { sector, .. } => sector + 1,
        }
    }
}

/// The segment has a record of a later version of this program.
pub(super) struct UnknownFormat;

/// Splits a segment's bytes into pieces, in order.
pub(super) fn scan(number: SegmentNumber, bytes: &[u8]) -> Result<Vec<Piece<'_>>, UnknownFormat> {
    // Segments consist of whole sectors; the log did not write any bytes beyond them.
    let bytes = &bytes[..bytes.len() - bytes.len() % SECTOR_BYTES];
    let mut pieces = Vec::new();
    let mut sector = 0;
    while sector * SECTOR_BYTES < bytes.len() {
        let rest = &bytes[sector * SECTOR_BYTES..];
        if is_unwritten(&rest[..SECTOR_BYTES]) {
            sector += 1;
            continue;
        }
        let piece = match Record::find(rest, number, sector) {
            Ok(record) => Piece::Record(record),
            Err(HeaderCheck::UnknownFormat) => return Err(UnknownFormat),
            Err(_) => Piece::Stray { sector, tag: Tag::of(rest) },
        };
        sector = piece.end();
        pieces.push(piece);
    }
    Ok(pieces)
}
