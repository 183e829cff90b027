//! Reads a snapshot, to install it or to send it to another node.

use super::SnapshotError;
use super::frame::{self, Kind, MAGIC, PREFIX_BYTES, Place};
use super::header::SnapshotHeader;
use crate::disk::Disk;
use bytes::Bytes;
use std::sync::Arc;

/// A snapshot being read from beginning to end. After an error it is unusable: drop it.
pub struct SnapshotReader<D: Disk + ?Sized> {
    disk: Arc<D>,
    name: String,
    size_bytes: u64,
    header: SnapshotHeader,
    offset: u64,
    /// The position of the next frame.
    place: Place,
    at_end: bool,
}

impl<D: Disk + ?Sized> SnapshotReader<D> {
    /// Opens a finished snapshot and reads its header.
    pub fn open(disk: Arc<D>, name: &str) -> Result<SnapshotReader<D>, SnapshotError> {
        let size_bytes = disk.size(name)?.ok_or_else(|| SnapshotError::Missing(name.into()))?;
        if disk.read_at(name, 0, MAGIC.len())? != MAGIC {
            return Err(SnapshotError::Corrupt("the file is no snapshot"));
        }
        let offset = MAGIC.len() as u64;
        let first = read_frame(&*disk, name, offset, size_bytes)?;
        let place = Place { header_checksum: 0, sequence: 0 };
        let (Kind::Header, payload) = frame::decode(place, &first)? else {
            return Err(SnapshotError::Corrupt("the first frame is no header"));
        };
        let header = SnapshotHeader::decode(&Bytes::copy_from_slice(payload))?;
        let place = Place { header_checksum: frame::checksum(&first)?, sequence: 1 };
        let offset = offset + first.len() as u64;
        Ok(SnapshotReader { disk, name: name.into(), size_bytes, header, offset, place, at_end: false })
    }

    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The size of the file.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The next chunk's payload, or `None` after the last one, when nothing was missing.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        match self.read_next()? {
            Some((Kind::Chunk, frame)) => Ok(Some(frame.slice(PREFIX_BYTES..))),
            _ => Ok(None),
        }
    }

    /// The next frame for [`SnapshotWriter::frame`](super::SnapshotWriter::frame) on another node: all chunks, then the
    /// footer, then `None`.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        Ok(self.read_next()?.map(|(_, frame)| frame))
    }

    fn read_next(&mut self) -> Result<Option<(Kind, Bytes)>, SnapshotError> {
        if self.at_end {
            return Ok(None);
        }
        let frame = read_frame(&*self.disk, &self.name, self.offset, self.size_bytes)?;
        self.offset += frame.len() as u64;
        let (kind, _) = frame::decode(self.place, &frame)?;
        match kind {
            Kind::Chunk => {}
            Kind::Footer => {
                if self.offset != self.size_bytes {
                    return Err(SnapshotError::Corrupt("the file goes on after its footer"));
                }
                self.at_end = true;
            }
            Kind::Header => return Err(SnapshotError::Corrupt("a second header")),
        }
        self.place.sequence += 1;
        Ok(Some((kind, frame.into())))
    }
}

fn read_frame<D: Disk + ?Sized>(disk: &D, name: &str, offset: u64, size_bytes: u64) -> Result<Vec<u8>, SnapshotError> {
    let prefix = disk.read_at(name, offset, PREFIX_BYTES)?;
    let len = PREFIX_BYTES + frame::payload_len(&prefix)?;
    if offset + len as u64 > size_bytes {
        return Err(SnapshotError::Corrupt("the file ends inside a frame"));
    }
    Ok(disk.read_at(name, offset, len)?)
}

#[cfg(test)]
mod tests {
    use super::super::test_disk::TestDisk;
    use super::super::{Received, SnapshotWriter};
    use super::*;
    use crate::disk::mem::MemDisk;
    use crate::limits::{SNAPSHOT_CHUNK_BYTES, SYNCED_PART_BYTES};
    use crate::types::{LogIndex, ShardId, Term};
    use proptest::prelude::*;
    use raft::eraftpb::ConfState;

    const NAME: &str = "snap-1-9.snap";

    fn header(index: u64) -> SnapshotHeader {
        let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        SnapshotHeader { shard: ShardId(1), index: LogIndex(index), term: Term(2), conf_state, meta: "meta".into() }
    }

    fn write(index: u64, chunks: &[&[u8]]) -> Arc<TestDisk> {
        let disk = Arc::new(TestDisk::default());
        let mut writer = SnapshotWriter::begin(disk.clone(), NAME, &header(index)).expect("begin");
        chunks.iter().for_each(|chunk| writer.chunk(chunk).expect("chunk"));
        let size_bytes = writer.finish().expect("finish");
        assert_eq!(disk.size(NAME).expect("size"), Some(size_bytes));
        disk
    }

    fn read(disk: &Arc<TestDisk>) -> Result<Vec<Bytes>, SnapshotError> {
        let mut reader = SnapshotReader::open(disk.clone(), NAME)?;
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            chunks.push(chunk);
        }
        assert!(reader.next_chunk()?.is_none());
        assert_eq!(reader.header(), &header(9));
        Ok(chunks)
    }

    fn frames(disk: &Arc<TestDisk>) -> Vec<Bytes> {
        let mut reader = SnapshotReader::open(disk.clone(), NAME).expect("open");
        std::iter::from_fn(|| reader.next_frame().expect("intact")).collect()
    }

    #[test]
    fn file_is_pinned() {
        let file = write(9, &[b"one"]).read_at(NAME, 0, 1000).expect("read");
        let header = header(9).encode();
        let (magic, rest) = file.split_at(8);
        assert_eq!(magic, b"RingSnap");
        let (first, rest) = rest.split_at(13 + header.len());
        assert_eq!(first[4..], [&[header.len() as u8, 0, 0, 0, 0, 0, 0, 0, 1][..], &header].concat());
        let first_checksum = crc32c::crc32c(&first[4..]);
        assert_eq!(first[..4], first_checksum.to_le_bytes());
        let (chunk, footer) = rest.split_at(16);
        assert_eq!(&chunk[4..], b"\x03\0\0\0\x01\0\0\0\x02one");
        assert_eq!(chunk[..4], crc32c::crc32c_append(first_checksum, &chunk[4..]).to_le_bytes());
        assert_eq!(&footer[4..], b"\0\0\0\0\x02\0\0\0\x03");
    }

    #[test]
    fn chunks_come_back() {
        let chunks: [&[u8]; 3] = [b"one", b"", &[7; 300_000]];
        assert_eq!(read(&write(9, &chunks)).expect("intact"), chunks);
        assert!(read(&write(9, &[])).expect("intact").is_empty());
    }

    #[test]
    fn a_snapshot_has_its_name_only_when_it_is_durable() {
        let disk = Arc::new(TestDisk::default());
        let mut writer = SnapshotWriter::begin(disk.clone(), NAME, &header(9)).expect("begin");
        writer.chunk(b"one").expect("chunk");
        assert!(matches!(read(&disk), Err(SnapshotError::Missing(_))));
        disk.fail_syncs();
        assert!(matches!(writer.finish(), Err(SnapshotError::Disk(_))));
        assert!(matches!(read(&disk), Err(SnapshotError::Missing(_))));
    }

    /// The log's syncs wait behind the snapshot's, whether it is cut here or comes from another node.
    #[test]
    fn no_sync_of_a_large_snapshot_has_much_to_do() {
        const CHUNK: &[u8] = &[7; SNAPSHOT_CHUNK_BYTES];
        let most = SYNCED_PART_BYTES + 2 * SNAPSHOT_CHUNK_BYTES as u64;
        let disk = write(9, &[CHUNK; 20]);
        assert!(disk.largest_sync_bytes() <= most, "{}", disk.largest_sync_bytes());
        let there = Arc::new(TestDisk::default());
        let mut writer = SnapshotWriter::begin(there.clone(), NAME, &header(9)).expect("begin");
        for frame in frames(&disk) {
            writer.frame(&frame).expect("intact");
        }
        writer.finish().expect("finish");
        assert!(there.largest_sync_bytes() <= most, "{}", there.largest_sync_bytes());
        assert_eq!(read(&there).expect("intact").len(), 20);
    }

    #[test]
    fn an_abandoned_snapshot_leaves_nothing() {
        let disk = Arc::new(TestDisk::default());
        SnapshotWriter::begin(disk.clone(), NAME, &header(9)).expect("begin").abandon().expect("abandon");
        assert!(disk.list().expect("list").is_empty());
    }

    #[test]
    fn a_snapshot_that_the_disk_does_not_take_leaves_nothing() {
        let write = |disk: &Arc<MemDisk>| -> Result<u64, SnapshotError> {
            let mut writer = SnapshotWriter::begin(disk.clone(), NAME, &header(9))?;
            writer.chunk(b"one").expect("the capacity ends before or after it");
            writer.finish()
        };
        let size_bytes = write(&Arc::new(MemDisk::new())).expect("there is space");
        let failing = |make: &dyn Fn(&MemDisk)| {
            let disk = Arc::new(MemDisk::new());
            make(&disk);
            assert!(matches!(write(&disk), Err(SnapshotError::Disk(_))));
            disk.list().expect("list")
        };
        assert_eq!(failing(&|disk| disk.set_capacity(Some(1))), [""; 0], "the header");
        assert_eq!(failing(&|disk| disk.set_capacity(Some(size_bytes - 1))), [""; 0], "the footer");
        assert_eq!(failing(&|disk| disk.fail_sync(1)), [""; 0], "the last sync");
    }

    #[test]
    fn frames_make_the_same_file_elsewhere() {
        let disk = write(9, &[b"one", b"two"]);
        let there = Arc::new(TestDisk::default());
        let mut writer = SnapshotWriter::begin(there.clone(), NAME, &header(9)).expect("begin");
        let received: Vec<_> = frames(&disk).iter().map(|frame| writer.frame(frame).expect("intact")).collect();
        assert_eq!(received, [Received::Chunk, Received::Chunk, Received::End]);
        writer.finish().expect("finish");
        assert_eq!(there.read_at(NAME, 0, 1000).expect("read"), disk.read_at(NAME, 0, 1000).expect("read"));
    }

    #[test]
    fn frames_that_are_missing_doubled_damaged_or_of_another_snapshot_are_refused() {
        let disk = write(9, &[b"one", b"two"]);
        let frames = frames(&disk);
        let mut writer = SnapshotWriter::begin(disk.clone(), "elsewhere", &header(9)).expect("begin");
        let mut refuses = |frame: &[u8]| assert!(writer.frame(frame).is_err());
        refuses(&frames[1]);
        refuses(&frames[2]);
        refuses(&frames[0][..5]);
        refuses(&self::frames(&write(10, &[b"one", b"two"]))[0]);
        writer.frame(&frames[0]).expect("the first one after all");
        assert!(writer.frame(&frames[0]).is_err());
    }

    #[test]
    fn what_follows_the_footer_is_an_error() {
        let disk = write(9, &[b"one"]);
        let end = disk.size(NAME).expect("size").expect("there");
        disk.write_at(NAME, end, b"!").expect("write");
        assert!(read(&disk).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_bit_or_a_missing_end_is_an_error_and_never_a_panic(
            at in any::<prop::sample::Index>(),
            bit in 0..8u32,
        ) {
            let file = write(9, &[b"one", b"two"]).read_at(NAME, 0, 1000).expect("read");
            let at = at.index(file.len());
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            for damaged in [&changed[..], &file[..at]] {
                let disk = Arc::new(TestDisk::default());
                disk.create(NAME).expect("create");
                disk.write_at(NAME, 0, damaged).expect("write");
                prop_assert!(read(&disk).is_err());
            }
        }
    }
}
