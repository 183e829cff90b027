//! The bytes of a record must stay readable for every later version.

use super::*;
use crate::disk::SECTOR_BYTES;
use crate::disk::mem::MemDisk;
use crate::log::record::is_unwritten;
use proptest::prelude::*;
use raft::eraftpb::EntryType;

const FIRST_SEGMENT: &str = "log-00000000000000000001.seg";

fn sample() -> Vec<LogItem> {
    let conf_state = ConfState {
        voters: vec![7, 300],
        learners: vec![9],
        voters_outgoing: vec![7],
        learners_next: vec![],
        auto_leave: true,
        ..Default::default()
    };
    let base = Base { index: LogIndex(5), term: Term(2), conf_state, snapshot: "snap".to_owned() };
    let entry = |index, entry_type, data: &'static [u8], context: &'static [u8]| Entry {
        entry_type,
        term: 200,
        index,
        data: data.into(),
        context: context.into(),
        ..Default::default()
    };
    let hard_state = HardState { term: 3, vote: 7, commit: 5, ..Default::default() };
    let entries = vec![entry(6, EntryType::EntryNormal, b"abc", b"")];
    vec![
        item(1, 7, Change::State(Box::new(ReplicaState { hard_state: hard_state.clone(), base, entries }))),
        item(1, 7, Change::Entries(vec![entry(7, EntryType::EntryConfChangeV2, b"", b"x")])),
        item(1, 7, Change::HardState(hard_state)),
        removed(u32::MAX, 1 << 40),
    ]
}

#[test]
fn the_bytes_of_a_record_do_not_change() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 4096).unwrap();
    commit(&mut log, &sample());
    let bytes = disk.read_at(FIRST_SEGMENT, 0, 4096).unwrap();
    let hex: String = bytes[..141].iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        // tag: the first sector of record 1; header checksum
        "01000040 39e7e269",
        // sequence, segment, sector, previous record's checksum
        "0100000000000000 0100000000000000 00000000 00000000",
        // shards, body bytes, checksums of the shards and of the body, RFL1
        "02000000 41000000 8f30a1cb 34109b29 52464c31",
        "01000000 0700000000000000 ffffffff 0000000000010000",
        // directory: complete, no shards
        "05 01 00",
        // state: hard state, index and term, conf state, snapshot, one entry from index 6 on
        "01 01 07 030705 05 02 0207ac02 0109 0107 00 01 04736e6170 01 06 00c8010361626300",
        // entries
        "02 01 07 01 07 02c801000178",
        // hard state
        "03 01 07 030705",
        // removed: varints of five and six bytes
        "04 ffffffff0f 808080808020",
    ];
    assert_eq!(hex, expected.concat().replace(' ', ""));
    assert!(bytes[141..].iter().all(|byte| *byte == 0), "the rest is padding and unwritten");
}

/// What makes torn records detectable: no sector in the written part of a segment is all zeros, even if all data is.
#[test]
fn no_written_sector_is_zero() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 1 << 20).unwrap();
    commit(&mut log, &[state(1, 1, 1)]);
    for index in 2..50 {
        let entry = Entry { index, data: vec![0; 300 * index as usize].into(), ..Default::default() };
        commit(&mut log, &[item(1, 1, Change::Entries(vec![entry]))]);
    }
    let written = disk.read_at(FIRST_SEGMENT, 0, log.offset as usize).unwrap();
    assert!(!written.chunks_exact(SECTOR_BYTES).any(is_unwritten));
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 4096).unwrap();
    commit(&mut log, &[state(1, 1, 1)]);
    let mut sector = disk.read_at(FIRST_SEGMENT, 0, 512).unwrap();
    sector[51] = b'2';
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&sector[..4]), &sector[8..52]);
    sector[4..8].copy_from_slice(&checksum.to_le_bytes());
    disk.write_at(FIRST_SEGMENT, 0, &sector).unwrap();
    assert!(matches!(open(disk.clone(), 4096), Err(LogError::UnknownFormat { .. })));
    assert_eq!(disk.read_at(FIRST_SEGMENT, 0, 512).unwrap(), sector);
}

proptest! {
    /// Neither random files nor mutated ones make a start panic, and a log continues after either.
    #[test]
    fn any_bytes_are_recovered_from(
        random in prop::collection::vec(any::<u8>(), 0..3000),
        flips in prop::collection::vec((0..8192usize, any::<u8>()), 0..6),
        cut in 0..4097u64,
        first in 1..4u64,
    ) {
        let disk = MemDisk::new();
        let (mut log, _) = open(disk.clone(), 4096).unwrap();
        commit(&mut log, &sample());
        commit(&mut log, &[entries(1, 7, 8, &[900, 10])]);
        commit(&mut log, &[entries(1, 7, 10, &[2900])]);
        let file = |number| format!("log-{number:020}.seg");
        for (at, mask) in flips {
            disk.corrupt(&file(1 + at / 4096), at as u64 % 4096, mask);
        }
        let kept = disk.read_at(&file(2), 0, cut as usize).unwrap();
        disk.create(&file(2)).unwrap();
        disk.write_at(&file(2), 0, &kept).unwrap();
        disk.create(&file(2 + first as usize)).unwrap();
        disk.write_at(&file(2 + first as usize), 0, &random).unwrap();
        let (mut log, _) = open(disk.clone(), 4096).unwrap();
        commit(&mut log, &[state(5, 1 << 50, 1), entries(5, 1 << 50, 2, &[10])]);
        let (_, recovery) = open(disk, 4096).unwrap();
        prop_assert_eq!(entry_count(&recovery, 5), Some(1));
    }
}
