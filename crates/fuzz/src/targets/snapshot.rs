//! Snapshots, as files and in transfers between nodes ([`ringfort_core::snapshot`]), and the states in them
//! ([`ringfort_core::kv::state`]).
//!
//! Frames have checksums, which no fuzzer guesses. So in addition to damaged files there are files whose frames have
//! contents from the input under correct checksums ([`mended`]), so that the code after the checksum is reached too.

use crate::allocation::{Bound, MAP_GROWTH, SMALL_THINGS, within};
use crate::codec::{Codec, check, encoding};
use crate::source::Source;
use crate::targets::{entry, system};
use bytes::Bytes;
use raft::eraftpb::ConfState;
use ringfort_core::disk::Disk;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::kv::state::{CutMeta, Machine};
use ringfort_core::replica::Restored;
use ringfort_core::replica::restore::load;
use ringfort_core::snapshot::{Received, SnapshotHeader, SnapshotReader, SnapshotWriter};
use ringfort_core::time::HlcTimestamp;
use ringfort_core::types::{LogIndex, ShardId, Term};
use std::sync::Arc;

pub struct Headers;
pub struct Metas;

impl Codec for Headers {
    type Value = SnapshotHeader;
    const CANONICAL: bool = true;
    /// Replicas take as much in memory as in the header, in vectors of their exact size.
    const BOUND: Bound = Bound { fixed: 64, per_byte: 1 };

    fn draw(source: &mut Source) -> SnapshotHeader {
        let (shard, index, term) = (system::shard(source), LogIndex(source.number()), Term(source.number()));
        SnapshotHeader { shard, index, term, conf_state: conf_state(source), meta: source.bytes() }
    }

    fn encode(header: &SnapshotHeader) -> Bytes {
        header.encode()
    }

    fn decode(bytes: Bytes) -> Option<SnapshotHeader> {
        SnapshotHeader::decode(&bytes).ok()
    }
}

impl Codec for Metas {
    type Value = CutMeta;
    const CANONICAL: bool = true;
    const BOUND: Bound = Bound { fixed: 0, per_byte: 0 };

    fn draw(source: &mut Source) -> CutMeta {
        let (revision, timestamp) = (source.number(), HlcTimestamp(source.number()));
        CutMeta { revision, timestamp, hash: source.number(), len: source.number() }
    }

    fn encode(meta: &CutMeta) -> Bytes {
        meta.encode()
    }

    fn decode(bytes: Bytes) -> Option<CutMeta> {
        CutMeta::decode(&bytes).ok()
    }
}

pub fn conf_state(source: &mut Source) -> ConfState {
    ConfState {
        voters: source.list(Source::number),
        learners: source.list(Source::number),
        voters_outgoing: source.list(Source::number),
        learners_next: source.list(Source::number),
        auto_leave: source.flag(),
        ..ConfState::default()
    }
}

/// A snapshot file is read frame by frame, with the memory of the disk's copy, the frame and the chunk. A key takes
/// five bytes or more, and is in a vector at first, then in a set.
const FILE_BOUND: Bound = Bound { fixed: SMALL_THINGS, per_byte: 4 }
    .and(Bound::of_elements::<Box<[u8]>>(5))
    .and(Bound { fixed: 0, per_byte: MAP_GROWTH * size_of::<Box<[u8]>>() / 5 })
    .and(system::TOPOLOGY_BOUND);

pub const NAME: &str = "snap-1-1.snap";

/// Checks that a file with any content is read to its end or to an error.
fn check_file(content: &[u8]) -> Option<(SnapshotHeader, Restored)> {
    let disk = disk_with(content);
    within(FILE_BOUND, content.len(), || load(&disk, NAME).ok())
}

fn disk_with(content: &[u8]) -> Arc<MemDisk> {
    let disk = Arc::new(MemDisk::new());
    put_file(&disk, content);
    disk
}

pub fn put_file(disk: &MemDisk, content: &[u8]) {
    disk.create(NAME).expect("the disk has space");
    disk.write_at(NAME, 0, content).expect("the disk has space");
}

/// A state of a shard, of the keyspace or of the system, written as a node writes it.
fn check_state(source: &mut Source) -> Vec<u8> {
    let (mut machine, mut topology) = (Machine::new(), None);
    let (meta, chunks): (CutMeta, Vec<Bytes>) = if source.flag() {
        let topology = topology.insert(system::topology(source));
        let meta = CutMeta { revision: 0, timestamp: HlcTimestamp(source.number()), hash: 0, len: 0 };
        (meta, vec![topology.encode()])
    } else {
        let commands = source.list(|source| (HlcTimestamp(source.number()), entry::command(source)));
        for (timestamp, command) in commands {
            command.apply(&mut machine.begin(timestamp, &mut |_| {}));
        }
        let meta = machine.begin_cut();
        (meta, std::iter::from_fn(|| machine.next_chunk(40)).collect())
    };
    let shard = if topology.is_some() { ShardId::SYSTEM } else { ShardId(source.number_u32() >> 1) };
    let header = SnapshotHeader { shard, meta: meta.encode(), ..Headers::draw(source) };
    let disk = Arc::new(MemDisk::new());
    let mut writer = SnapshotWriter::begin(disk.clone(), NAME, &header).expect("the disk has space");
    chunks.iter().for_each(|chunk| writer.chunk(chunk).expect("the disk has space"));
    writer.finish().expect("the disk has space");
    let content = read(&disk);
    let (found, state) = check_file(&content).expect("a state that was written comes back");
    assert_eq!(found, header);
    match state {
        Restored::Kv(restored) => assert_eq!((restored.hash(), restored.len()), (machine.hash(), machine.len())),
        Restored::System(restored) => assert_eq!(Some(restored.topology().as_ref()), topology.as_ref()),
    }
    assert_eq!(read(&send(&disk, &header)), content, "a snapshot is the same at the other end");
    content
}

/// Sends the frames to another node. Returns that node's disk.
fn send(disk: &Arc<MemDisk>, header: &SnapshotHeader) -> Arc<MemDisk> {
    let received = Arc::new(MemDisk::new());
    let mut reader = SnapshotReader::open(disk.clone(), NAME).expect("it was read before");
    let mut writer = SnapshotWriter::begin(received.clone(), NAME, header).expect("the disk has space");
    while let Some(frame) = reader.next_frame().expect("it was read before") {
        let end = writer.frame(&frame).expect("frames are taken as they are");
        assert_eq!(end == Received::End, frame.len() == FRAME_PREFIX_BYTES && frame[FRAME_PREFIX_BYTES - 1] == 3);
    }
    writer.finish().expect("the disk has space");
    received
}

fn read(disk: &Arc<MemDisk>) -> Vec<u8> {
    let size = disk.size(NAME).expect("the disk works").expect("the file is there");
    disk.read_at(NAME, 0, size as usize).expect("the disk works")
}

const FRAME_PREFIX_BYTES: usize = 13;
const CHUNK_PREFIX_BYTES: usize = 2;

/// A file of frames with correct checksums; kinds and contents come from the source.
pub fn mended(source: &mut Source) -> Vec<u8> {
    let mut file = b"RingSnap".to_vec();
    let mut header_checksum = 0;
    let mut header = if source.flag() { source.bytes().to_vec() } else { Headers::draw(source).encode().to_vec() };
    if source.flag() {
        let meta = Metas::draw(source);
        let shard = if source.flag() { ShardId::SYSTEM } else { ShardId(1) };
        header = SnapshotHeader { shard, meta: meta.encode(), ..Headers::draw(source) }.encode().to_vec();
    }
    let mut frames = vec![(1, header)];
    frames.extend(source.list(|source| {
        let kind = if source.byte() < 240 { 2 } else { source.byte() };
        let chunk = match source.below(3) {
            0 => source.bytes().to_vec(),
            1 => packed_entries(source),
            _ => system::topology(source).encode().to_vec(),
        };
        (kind, chunk)
    }));
    frames.push((3, Vec::new()));
    for (sequence, (kind, payload)) in frames.into_iter().enumerate() {
        let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
        frame.extend((sequence as u32).to_le_bytes());
        frame.push(kind);
        frame.extend(payload);
        let checksum = crc32c::crc32c_append(header_checksum, &frame);
        if sequence == 0 {
            header_checksum = checksum;
        }
        file.extend(checksum.to_le_bytes());
        file.extend(frame);
    }
    file
}

/// A chunk of a map, of entries whose numbers may be impossible.
fn packed_entries(source: &mut Source) -> Vec<u8> {
    // The version and the number of the table, as the current build writes them.
    let mut machine = Machine::new();
    machine.begin(HlcTimestamp(1), &mut |_| {}).put(b"k", b"v");
    machine.begin_cut();
    let mut chunk = machine.next_chunk(1).expect("an entry")[..CHUNK_PREFIX_BYTES].to_vec();
    if source.byte() == u8::MAX {
        chunk[CHUNK_PREFIX_BYTES - 1] = source.byte();
    }
    for entry in source.list(|source| {
        let key = source.bytes();
        let mut packed = vec![key.len() as u8 & 0x7f];
        packed.extend(key);
        // 1 is the only type that a value can have.
        packed.push(if source.byte() < 240 { 1 } else { source.byte() });
        packed.extend([source.byte(), source.byte(), source.byte()]);
        packed.extend(source.bytes());
        packed
    }) {
        chunk.push(entry.len() as u8 & 0x7f);
        chunk.extend(entry);
    }
    chunk
}

pub fn body(data: &[u8]) {
    let Some((&format, data)) = data.split_first() else { return };
    let mut source = Source::new(data);
    match format % 4 {
        0 => check::<Headers>(data),
        1 => check::<Metas>(data),
        2 => {
            check_file(data);
            let content = check_state(&mut source);
            let mut damaged = content.clone();
            Source::end_of(data).damage(&mut damaged);
            let state = check_file(&damaged);
            assert!(damaged == content || state.is_none(), "a file that was changed is not read");
        }
        _ => drop(check_file(&mended(&mut source))),
    }
}

pub fn seed(data: &[u8]) -> Bytes {
    let format = data.first().copied().unwrap_or_default() % 3;
    let encoded = match format {
        0 => encoding::<Headers>(data),
        1 => encoding::<Metas>(data),
        _ => check_state(&mut Source::new(data)).into(),
    };
    [&[format], &encoded[..]].concat().into()
}
