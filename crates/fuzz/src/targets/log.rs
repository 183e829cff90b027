//! The write-ahead log ([`ringfort_core::log`]): records in segments, and the items in them.
//!
//! Whatever is on the disk, the log opens or reports why it can't. If it opens, it opens again with the same states,
//! and these can be written to another log and recovered from it.
//!
//! Records have checksums, so items are also damaged *before* they are put into a record, by a second implementation of
//! the format in that module's header ([`record`]).

use super::{snapshot, system};
use crate::allocation::{Bound, MAP_GROWTH, SMALL_THINGS, within};
use crate::source::Source;
use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState};
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::disk::{Disk, SECTOR_BYTES};
use ringfort_core::log::item::{Base, Change, LogItem, ReplicaState};
use ringfort_core::log::{Log, LogConfig, RecoveredShard, Recovery};
use ringfort_core::types::{LogIndex, ReplicaId, ShardId, Term};
use std::collections::BTreeMap;
use std::sync::Arc;

const SEGMENT_BYTES: u64 = 4096;
const FIRST_SEGMENT: &str = "log-00000000000000000001.seg";
const HEADER_BYTES: usize = 52;
const NAMED_BYTES: usize = 12;

/// The segment, the record's body, and the decoded items: entries (of four bytes at least), which are appended to
/// others, items (of three), and for each shard its state (of fifteen) and places in three maps.
pub const BOUND: Bound = Bound { fixed: 4 * SMALL_THINGS, per_byte: 4 }
    .and(Bound::of_elements::<Entry>(4))
    .and(Bound::of_elements::<Entry>(4))
    .and(Bound::of_elements::<(ShardId, ReplicaId, Box<ReplicaState>, ReplicaId)>(3))
    .and(Bound { fixed: 0, per_byte: size_of::<ReplicaState>() / 15 })
    .and(Bound { fixed: 0, per_byte: 3 * MAP_GROWTH * size_of::<(ShardId, [u64; 5])>() / 3 });

pub fn config() -> LogConfig {
    LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() }
}

type Shards = BTreeMap<ShardId, RecoveredShard>;

/// Opens the log on this disk twice, and returns what it recovers.
fn check_disk(disk: &Arc<MemDisk>) -> Option<Recovery> {
    let bytes = disk.used_bytes() as usize;
    let (log, recovery) = within(BOUND, bytes, || Log::open(disk.clone(), config())).ok()?;
    drop(log);
    let (_, again) = Log::open(disk.clone(), config()).expect("what was opened opens again");
    assert_eq!((&again.shards, again.shards_unknown), (&recovery.shards, recovery.shards_unknown));
    check_states(&recovery.shards);
    Some(recovery)
}

/// Checks that recovered states can be written to another log and read from there.
fn check_states(shards: &Shards) {
    let state = |(&shard, recovered): (&ShardId, &RecoveredShard)| match recovered {
        RecoveredShard::Recovered { replica, state } => {
            Some(LogItem { shard, replica: *replica, change: Change::State(state.clone()) })
        }
        _ => None,
    };
    let items: Vec<LogItem> = shards.iter().filter_map(state).collect();
    let written = reopened(&[&items]);
    let live = shards.iter().filter(|(_, recovered)| matches!(recovered, RecoveredShard::Recovered { .. }));
    assert!(written.iter().eq(live), "states that were written come back");
}

/// The shards recovered after these batches were written.
fn reopened(batches: &[&[LogItem]]) -> Shards {
    let (_, recovery) = Log::open(written(batches), config()).expect("a log that was written opens");
    assert_eq!((recovery.shards_unknown, recovery.findings), (false, Vec::new()), "nothing is damaged");
    recovery.shards
}

pub fn written(batches: &[&[LogItem]]) -> Arc<MemDisk> {
    let disk = Arc::new(MemDisk::new());
    let (mut log, _) = Log::open(disk.clone(), config()).expect("an empty disk is a log");
    for batch in batches {
        log.append(batch).expect("the disk has space");
        log.sync().expect("the disk works");
    }
    disk
}

/// Batches that a node could write, and the shards that must be recovered afterwards.
fn batches(source: &mut Source) -> ([Vec<LogItem>; 2], Shards) {
    let mut shards = Shards::new();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..1 + source.below(4) {
        let (shard, replica) = (system::shard(source), ReplicaId(source.number()));
        if shards.contains_key(&shard) {
            continue;
        }
        let mut state = state(source);
        let item = |change| LogItem { shard, replica, change };
        first.push(item(Change::State(Box::new(state.clone()))));
        match source.below(4) {
            0 => {}
            1 => {
                let last = state.base.index.0 + state.entries.len() as u64;
                let entries = entries(source, last + 1);
                if !entries.is_empty() {
                    state.entries.extend(entries.clone());
                    second.push(item(Change::Entries(entries)));
                }
            }
            2 => {
                state.hard_state.vote = source.number();
                second.push(item(Change::HardState(state.hard_state.clone())));
            }
            _ => second.push(item(Change::Removed)),
        }
        let recovered = match second.last() {
            Some(LogItem { shard: removed, change: Change::Removed, .. }) if *removed == shard => {
                RecoveredShard::Removed(replica)
            }
            _ => RecoveredShard::Recovered { replica, state: Box::new(state) },
        };
        shards.insert(shard, recovered);
    }
    ([first, second], shards)
}

pub fn state(source: &mut Source) -> ReplicaState {
    let index = LogIndex(source.number() >> 1);
    let entries = entries(source, index.0 + 1);
    let commit = index.0 + source.below(entries.len() + 1) as u64;
    ReplicaState {
        hard_state: HardState { term: source.number(), vote: source.number(), commit, ..HardState::default() },
        base: Base {
            index,
            term: Term(source.number()),
            conf_state: snapshot::conf_state(source),
            snapshot: source.text(40),
        },
        entries,
    }
}

fn entries(source: &mut Source, first: u64) -> Vec<Entry> {
    let mut index = first;
    source.list(|source| {
        let types = [EntryType::EntryNormal, EntryType::EntryConfChange, EntryType::EntryConfChangeV2];
        let entry_type = types[source.below(3)];
        let (data, context) = (source.bytes(), source.bytes());
        let entry = Entry { index, term: source.number(), entry_type, data, context, ..Entry::default() };
        index += 1;
        entry
    })
}

/// A record in the format of that module's header, which begins in `sector` of the first segment.
fn record(sequence: u64, sector: u32, previous: u32, named: &[u8], body: &[u8]) -> (Vec<u8>, u32) {
    let tag = |kind: u32| (kind << 30 | sequence as u32 & 0x3fff_ffff).to_le_bytes();
    let mut bytes = tag(1).to_vec();
    bytes.resize(HEADER_BYTES, 0);
    let mut put = |payload: &[u8]| {
        for byte in payload {
            if bytes.len().is_multiple_of(SECTOR_BYTES) {
                bytes.extend(tag(2));
            }
            bytes.push(*byte);
        }
        bytes.len()
    };
    let named_end = put(named);
    put(body);
    bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
    bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
    bytes[16..24].copy_from_slice(&1u64.to_le_bytes());
    let checksums = [crc32c::crc32c(&bytes[HEADER_BYTES..named_end]), crc32c::crc32c(&bytes[named_end..])];
    let counts = [(named.len() / NAMED_BYTES) as u32, body.len() as u32];
    let fields = [sector, previous, counts[0], counts[1], checksums[0], checksums[1], u32::from_le_bytes(*b"RFL1")];
    for (field, place) in fields.iter().zip(bytes[24..HEADER_BYTES].chunks_exact_mut(4)) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..HEADER_BYTES]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    (bytes, checksum)
}

/// The names and the body of the record at the start of a segment, and its size.
fn taken_apart(segment: &[u8]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let number = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().expect("four bytes")) as usize;
    if segment.len() < SECTOR_BYTES || number(48) != u32::from_le_bytes(*b"RFL1") as usize {
        return None;
    }
    let (named, body) = (number(32) * NAMED_BYTES, number(36));
    let mut payload = Vec::new();
    let mut at = HEADER_BYTES;
    while payload.len() < named + body {
        at += if at.is_multiple_of(SECTOR_BYTES) { 4 } else { 0 };
        payload.push(segment[at]);
        at += 1;
    }
    let body = payload.split_off(named);
    Some((payload, body, at.next_multiple_of(SECTOR_BYTES)))
}

/// The same log with damaged items under correct checksums.
pub fn damaged_items(segment: &[u8], source: &mut Source) -> Vec<u8> {
    let mut rebuilt: Vec<u8> = Vec::new();
    let (mut rest, mut previous, mut sequence) = (segment, 0, 1);
    while let Some((mut named, mut body, size)) = taken_apart(rest) {
        match source.below(4) {
            0 => body = source.bytes().to_vec(),
            1 => {
                source.damage(&mut named);
                named.truncate(named.len() / NAMED_BYTES * NAMED_BYTES);
            }
            2 => source.damage(&mut body),
            _ => {}
        }
        let sector = (rebuilt.len() / SECTOR_BYTES) as u32;
        let (bytes, checksum) = record(sequence, sector, previous, &named, &body);
        rebuilt.extend(bytes);
        (rest, previous, sequence) = (&rest[size..], checksum, sequence + 1);
    }
    rebuilt.resize(rebuilt.len().max(SEGMENT_BYTES as usize), 0);
    rebuilt
}

pub fn first_segment(disk: &MemDisk) -> Vec<u8> {
    let size = disk.size(FIRST_SEGMENT).expect("the disk works").unwrap_or(0);
    disk.read_at(FIRST_SEGMENT, 0, size as usize).unwrap_or_default()
}

pub fn disk_with(segment: &[u8]) -> Arc<MemDisk> {
    let disk = Arc::new(MemDisk::new());
    put_segment(&disk, segment);
    disk
}

pub fn put_segment(disk: &MemDisk, segment: &[u8]) {
    disk.create(FIRST_SEGMENT).expect("the disk has space");
    disk.write_at(FIRST_SEGMENT, 0, segment).expect("the disk has space");
    disk.sync(FIRST_SEGMENT).expect("the disk works");
}

pub fn body(data: &[u8]) {
    check_disk(&disk_with(data));
    let (batches, expected) = batches(&mut Source::new(data));
    assert_eq!(reopened(&[&batches[0], &batches[1]]), expected, "what was written comes back");
    let segment = first_segment(&written(&[&batches[0], &batches[1]]));
    let mut end = Source::end_of(data);
    if end.flag() {
        check_disk(&disk_with(&damaged_items(&segment, &mut end)));
    } else {
        let mut damaged = segment;
        end.damage(&mut damaged);
        check_damaged(&disk_with(&damaged), &[expected, reopened(&[&batches[0]])]);
    }
}

/// Checks that the state of a shard on a damaged disk is one that it had: after the last batch, or before it if that
/// was cut off as torn.
fn check_damaged(disk: &Arc<MemDisk>, possible: &[Shards]) {
    for (shard, recovered) in check_disk(disk).into_iter().flat_map(|recovery| recovery.shards) {
        let was_said = possible.iter().any(|shards| shards.get(&shard) == Some(&recovered));
        let is_suspect = matches!(recovered, RecoveredShard::Suspect { .. });
        assert!(was_said || is_suspect, "nothing else is made of damage: {shard} {recovered:?}");
    }
}

/// A whole segment.
pub fn seed(data: &[u8]) -> Bytes {
    let (batches, _) = batches(&mut Source::new(data));
    first_segment(&written(&[&batches[0], &batches[1]])).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_apart_and_put_together_as_the_log_does_it() {
        for length in 0..200u8 {
            let data: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37)).collect();
            let segment = seed(&data);
            // These decisions change nothing: 3 mod 4 means "unchanged".
            let unchanged = damaged_items(&segment, &mut Source::new(&[3; 8]));
            assert_eq!(unchanged, segment);
        }
    }
}
