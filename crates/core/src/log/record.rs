//! A record as bytes: written by [`RecordBuffer`], read by [`Record`]. The module header of [`super`] shows the layout.
//!
//! A record fills whole sectors. Each begins with a tag, which says whether the sector is a record's first and which
//! record it belongs to, and is never zero. The header follows in the first sector. It fits into that sector and so is
//! written as a whole or not at all. The rest, without the tags, is the named shards and the body.

use super::codec::Sink;
use super::segment::SegmentNumber;
use crate::disk::SECTOR_BYTES;
use crate::types::{ReplicaId, ShardId};

/// Counts the records of a node's log, from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sequence(pub u64);

impl Sequence {
    pub(super) const FIRST: Sequence = Sequence(1);

    pub(super) fn next(self) -> Sequence {
        Sequence(self.0.saturating_add(1))
    }
}

const FIRST: u32 = 1 << 30;
const LATER: u32 = 2 << 30;
const TAG_BYTES: usize = 4;
const HEADER_BYTES: usize = 52;
const NAMED_BYTES: usize = 12;
const MAGIC: u32 = u32::from_le_bytes(*b"RFL1");

/// How much memory of the buffer is kept for the next record.
const KEPT_BYTES: usize = 8 << 20;

const _: () = assert!(HEADER_BYTES < SECTOR_BYTES);

/// The tag of a sector: its kind (never 0) and the low 30 bits of its record's sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u32);

impl Tag {
    pub(super) fn later(sequence: Sequence) -> Tag {
        Tag(LATER | Tag::low_bits(sequence))
    }

    pub(super) fn of(sector: &[u8]) -> Tag {
        Tag(u32_at(sector, 0))
    }

    fn first(sequence: Sequence) -> Tag {
        Tag(FIRST | Tag::low_bits(sequence))
    }

    fn low_bits(sequence: Sequence) -> u32 {
        sequence.0 as u32 & (FIRST - 1)
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Header {
    pub sequence: Sequence,
    /// The record's position, so that a record that a disk or an operator has moved is not mistaken for another.
    pub segment: SegmentNumber,
    pub sector: u32,
    /// The [`Header::checksum`] of the record before this one; 0 in the first.
    pub previous: u32,
    named: u32,
    body_bytes: u32,
    named_checksum: u32,
    body_checksum: u32,
    /// Covers all of the above, and so, through the other two checksums, the whole record.
    pub checksum: u32,
}

impl Header {
    /// The number of sectors in the record.
    pub(super) fn sectors(&self) -> usize {
        physical(self.named_len() + self.body_bytes as usize).div_ceil(SECTOR_BYTES)
    }

    fn named_len(&self) -> usize {
        self.named as usize * NAMED_BYTES
    }

    fn encode(&self, sector: &mut [u8]) -> u32 {
        sector[..4].copy_from_slice(&Tag::first(self.sequence).0.to_le_bytes());
        sector[8..16].copy_from_slice(&self.sequence.0.to_le_bytes());
        sector[16..24].copy_from_slice(&self.segment.0.to_le_bytes());
        sector[24..28].copy_from_slice(&self.sector.to_le_bytes());
        sector[28..32].copy_from_slice(&self.previous.to_le_bytes());
        sector[32..36].copy_from_slice(&self.named.to_le_bytes());
        sector[36..40].copy_from_slice(&self.body_bytes.to_le_bytes());
        sector[40..44].copy_from_slice(&self.named_checksum.to_le_bytes());
        sector[44..48].copy_from_slice(&self.body_checksum.to_le_bytes());
        sector[48..52].copy_from_slice(&MAGIC.to_le_bytes());
        let checksum = header_checksum(sector);
        sector[4..8].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    fn decode(sector: &[u8]) -> HeaderCheck {
        let checksum = u32_at(sector, 4);
        if checksum != header_checksum(sector) {
            return HeaderCheck::Bad;
        }
        if u32_at(sector, 48) != MAGIC {
            return HeaderCheck::UnknownFormat;
        }
        HeaderCheck::Good(Header {
            sequence: Sequence(u64_at(sector, 8)),
            segment: SegmentNumber(u64_at(sector, 16)),
            sector: u32_at(sector, 24),
            previous: u32_at(sector, 28),
            named: u32_at(sector, 32),
            body_bytes: u32_at(sector, 36),
            named_checksum: u32_at(sector, 40),
            body_checksum: u32_at(sector, 44),
            checksum,
        })
    }
}

/// The result of checking a sector that might begin a record.
#[derive(Debug, PartialEq)]
pub(super) enum HeaderCheck {
    Good(Header),
    /// Its checksum is right, but it has another version of the format.
    UnknownFormat,
    Bad,
}

/// A record whose header is intact; the rest may not be.
pub(super) struct Record<'a> {
    pub header: Header,
    /// From the header's sector on, up to the record's end or the file's, whichever comes first.
    pub sectors: &'a [u8],
}

impl<'a> Record<'a> {
    /// Looks for a record at the start of `sectors`, which is found in `segment` at `sector`.
    pub(super) fn find(sectors: &'a [u8], segment: SegmentNumber, sector: usize) -> Result<Record<'a>, HeaderCheck> {
        let header = match Header::decode(sectors) {
            HeaderCheck::Good(header) if header.segment == segment && header.sector as usize == sector => header,
            HeaderCheck::Good(_) => return Err(HeaderCheck::Bad),
            other => return Err(other),
        };
        let len = (header.sectors() * SECTOR_BYTES).min(sectors.len());
        Ok(Record { header, sectors: &sectors[..len] })
    }

    /// Whether some sector of the record was never written. Only this makes a record torn.
    ///
    /// A file that ends inside the record does not: segments have their full size before they are used.
    pub(super) fn has_unwritten_sector(&self) -> bool {
        !self.is_cut_short() && self.sectors.chunks_exact(SECTOR_BYTES).any(is_unwritten)
    }

    /// The shards with items in this record, each with its highest replica; `None` if their checksum is wrong.
    pub(super) fn named(&self) -> Option<Vec<(ShardId, ReplicaId)>> {
        let end = physical(self.header.named_len());
        let bytes = self.sectors.get(HEADER_BYTES..end)?;
        if crc32c::crc32c(bytes) != self.header.named_checksum {
            return None;
        }
        let named = self.gather(0, self.header.named_len());
        let shard = |name: &[u8]| (ShardId(u32_at(name, 0)), ReplicaId(u64_at(name, 4)));
        Some(named.chunks_exact(NAMED_BYTES).map(shard).collect())
    }

    /// The encoded items; `None` if their checksum is wrong.
    pub(super) fn body(&self) -> Option<Vec<u8>> {
        if self.is_cut_short() {
            return None;
        }
        let start = physical(self.header.named_len());
        if crc32c::crc32c(&self.sectors[start..]) != self.header.body_checksum {
            return None;
        }
        Some(self.unchecked_body())
    }

    /// The body without checking it. The record must be complete.
    pub(super) fn unchecked_body(&self) -> Vec<u8> {
        self.gather(self.header.named_len(), self.header.body_bytes as usize)
    }

    pub(super) fn is_cut_short(&self) -> bool {
        self.sectors.len() < self.header.sectors() * SECTOR_BYTES
    }

    /// `len` bytes after the header, from `start` on, without the tags between them.
    fn gather(&self, start: usize, len: usize) -> Vec<u8> {
        let mut gathered = Vec::with_capacity(len);
        let mut at = physical(start);
        while gathered.len() < len {
            if at.is_multiple_of(SECTOR_BYTES) {
                at += TAG_BYTES;
            }
            let until_end = SECTOR_BYTES - at % SECTOR_BYTES;
            let piece = until_end.min(len - gathered.len());
            gathered.extend_from_slice(&self.sectors[at..at + piece]);
            at += piece;
        }
        gathered
    }
}

/// Builds records, one after the other, in the same memory.
///
/// Used in this order: [`RecordBuffer::begin`] with the shards, any number of `put`s of the body,
/// [`RecordBuffer::finish`]. The size is known before `finish`, which needs the record's position.
#[derive(Default)]
pub(super) struct RecordBuffer {
    bytes: Vec<u8>,
    sequence: Sequence,
    named: u32,
    /// The number of bytes put so far, including the names.
    put_bytes: usize,
}

impl RecordBuffer {
    /// Starts a record that holds items of the shards `named`, each once.
    pub(super) fn begin(&mut self, sequence: Sequence, named: &[(ShardId, ReplicaId)]) {
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES, 0);
        self.sequence = sequence;
        self.named = u32::try_from(named.len()).expect("there are fewer than 2^32 shards");
        self.put_bytes = 0;
        for (shard, replica) in named {
            let mut name = [0; NAMED_BYTES];
            name[..4].copy_from_slice(&shard.0.to_le_bytes());
            name[4..].copy_from_slice(&replica.0.to_le_bytes());
            self.put(&name);
        }
    }

    /// Frees the memory of an unusually large record.
    pub(super) fn shrink(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
    }

    /// The size of the record if it ended here, in whole sectors.
    pub(super) fn size_bytes(&self) -> u64 {
        self.bytes.len().next_multiple_of(SECTOR_BYTES) as u64
    }

    /// Ends the record. Returns its bytes and its checksum, which the next record has to name.
    pub(super) fn finish(&mut self, segment: SegmentNumber, offset: u64, previous: u32) -> (&[u8], u32) {
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR_BYTES), 0);
        let named_len = self.named as usize * NAMED_BYTES;
        let named_end = physical(named_len);
        let header = Header {
            sequence: self.sequence,
            segment,
            sector: u32::try_from(offset / SECTOR_BYTES as u64).expect("a segment has fewer than 2^32 sectors"),
            previous,
            named: self.named,
            body_bytes: u32::try_from(self.put_bytes - named_len).expect("a batch is far below 4 GiB"),
            named_checksum: crc32c::crc32c(&self.bytes[HEADER_BYTES..named_end]),
            body_checksum: crc32c::crc32c(&self.bytes[named_end..]),
            checksum: 0,
        };
        debug_assert_eq!(header.sectors() * SECTOR_BYTES, self.bytes.len(), "the sizes in the header are right");
        let checksum = header.encode(&mut self.bytes);
        (&self.bytes, checksum)
    }
}

impl Sink for RecordBuffer {
    fn put(&mut self, mut bytes: &[u8]) {
        self.put_bytes += bytes.len();
        while !bytes.is_empty() {
            if self.bytes.len().is_multiple_of(SECTOR_BYTES) {
                self.bytes.extend_from_slice(&Tag::later(self.sequence).0.to_le_bytes());
            }
            let until_end = SECTOR_BYTES - self.bytes.len() % SECTOR_BYTES;
            let (piece, rest) = bytes.split_at(until_end.min(bytes.len()));
            self.bytes.extend_from_slice(piece);
            bytes = rest;
        }
    }
}

/// No sector of a record is all zero, and segments are zero before they are written.
pub(super) fn is_unwritten(sector: &[u8]) -> bool {
    sector == [0; SECTOR_BYTES]
}

/// The offset in the record at which the first `len` bytes after the header end, counting the tags between them.
fn physical(len: usize) -> usize {
    const IN_FIRST: usize = SECTOR_BYTES - HEADER_BYTES;
    const IN_LATER: usize = SECTOR_BYTES - TAG_BYTES;
    let tags = len.saturating_sub(IN_FIRST).div_ceil(IN_LATER);
    HEADER_BYTES + len + tags * TAG_BYTES
}

fn header_checksum(sector: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sector[..4]), &sector[8..HEADER_BYTES])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
