//! Whatever is corrupted in a synced record, exactly its shards are suspect; nothing acknowledged is cut.

use super::model::*;
use super::*;
use crate::disk::SECTOR_BYTES;
use crate::disk::mem::MemDisk;
use std::collections::BTreeMap;
use std::ops::Range;

const SEGMENT: u64 = 8192;
const HEADER_BYTES: u64 = 52;

/// A record as it was written.
struct Written {
    items: Vec<LogItem>,
    /// Each shard with its highest replica. In the first record of a segment, removed shards are named again.
    named: BTreeMap<ShardId, ReplicaId>,
    /// What is known of the shards if it is the oldest record, from its directory alone.
    listed: Shards,
    is_first: bool,
    file_name: String,
    bytes: Range<u64>,
}

impl Written {
    fn restates(&self, shard: &ShardId) -> bool {
        let is_new = |item: &LogItem| matches!(item.change, Change::State(_) | Change::Removed);
        self.items.iter().any(|item| item.shard == *shard && is_new(item))
    }
}

/// Records of the shard are lost.
fn lose(held: &mut RecoveredShard) {
    if let RecoveredShard::Recovered { replica, .. } = held {
        *held = RecoveredShard::Suspect { replica: *replica };
    }
}

/// A log in which every shard has a state in the first record, and random batches follow.
fn history(dice: &mut Dice, disk: &MemDisk) -> Vec<Written> {
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    let mut shards = Shards::new();
    let mut records: Vec<Written> = Vec::new();
    for _ in 0..10 + dice.below(20) {
        let mut named = BTreeMap::new();
        let removed = shards.iter().filter_map(|(shard, held)| match held {
            RecoveredShard::Removed(replica) => Some((*shard, *replica)),
            _ => None,
        });
        let removed: Vec<_> = removed.collect();
        let mut listed = shards.clone();
        listed.values_mut().for_each(lose);
        let items = if records.is_empty() {
            let items: Vec<LogItem> = (0..SHARDS).map(|shard| state(shard, 1, 1)).collect();
            items.iter().for_each(|item| apply(&mut shards, item));
            items
        } else {
            random_batch(dice, &mut shards)
        };
        commit(&mut log, &items);
        let file_name = log.segments.back().unwrap().file_name.clone();
        let is_first = records.last().is_none_or(|record| record.file_name != file_name);
        let start = if is_first { 0 } else { records.last().unwrap().bytes.end };
        let repeated = if is_first { removed } else { Vec::new() };
        for (shard, replica) in items.iter().map(|item| (item.shard, item.replica)).chain(repeated) {
            let highest = named.entry(shard).or_insert(replica);
            *highest = replica.max(*highest);
        }
        records.push(Written { items, named, listed, is_first, file_name, bytes: start..log.offset });
    }
    records.retain(|record| disk.size(&record.file_name).unwrap().is_some());
    records
}

/// The expected outcome, by the design, when one of these records is damaged, in its header or elsewhere.
fn expected(records: &[Written], victim: usize, header_is_lost: bool) -> Shards {
    let mut shards = records[0].listed.clone();
    for (position, record) in records.iter().enumerate() {
        if position != victim {
            record.items.iter().for_each(|item| apply(&mut shards, item));
        } else if header_is_lost {
            shards.values_mut().for_each(lose);
        } else {
            for (shard, replica) in &record.named {
                match shards.get(shard) {
                    Some(RecoveredShard::Removed(removed)) if removed >= replica => {}
                    _ => {
                        shards.insert(*shard, RecoveredShard::Suspect { replica: *replica });
                    }
                }
            }
        }
    }
    shards
}

/// Damages one record of a random log and checks the outcome. `damage` returns whether it hit the header.
fn check(seeds: Range<u64>, mut damage: impl FnMut(&mut Dice, &MemDisk, &Written, bool) -> bool) {
    let mut suspects = 0;
    for seed in seeds {
        let dice = &mut Dice(seed);
        let disk = MemDisk::new();
        let records = history(dice, &disk);
        // The history begins with the first record of the oldest segment: its shards count from there on.
        let victim = 1 + dice.below(records.len() as u64 - 1) as usize;
        let header_is_lost = damage(dice, &disk, &records[victim], victim + 1 == records.len());
        let expected = expected(&records, victim, header_is_lost);
        let (log, recovery) = open(disk.clone(), SEGMENT).unwrap();
        drop(log);
        assert!(!recovery.findings.is_empty(), "seed {seed}");
        let is_known_later = records[victim + 1..].iter().any(|record| record.is_first);
        assert_eq!(recovery.shards_unknown, header_is_lost && !is_known_later, "seed {seed}: {:?}", recovery.findings);
        for (shard, held) in &recovery.shards {
            suspects += u64::from(matches!(held, RecoveredShard::Suspect { .. }));
            let known = expected.get(shard);
            // A shard that the lost record created or removed must at least be suspect. A later directory may still
            // show that it was removed.
            let is_quarantined = (header_is_lost || matches!(held, RecoveredShard::Removed(_)))
                && records[victim].restates(shard)
                && !matches!(held, RecoveredShard::Recovered { .. })
                && !matches!(known, Some(RecoveredShard::Recovered { .. }));
            assert!(is_quarantined || known == Some(held), "seed {seed}: {shard:?} is {held:#?}\nnot {known:#?}");
        }
        assert!(expected.keys().all(|shard| recovery.shards.contains_key(shard)), "seed {seed}");

        // A second start finds the same, before and after something is appended; new replicas heal the log.
        let (mut log, again) = open(disk.clone(), SEGMENT).unwrap();
        assert_eq!(again.shards, recovery.shards, "seed {seed}");
        commit(&mut log, &[state(100, 1, 1)]);
        drop(log);
        let (mut log, mut again) = open(disk.clone(), SEGMENT).unwrap();
        assert!(matches!(again.shards.remove(&ShardId(100)), Some(RecoveredShard::Recovered { .. })), "seed {seed}");
        assert_eq!(again.shards, recovery.shards, "seed {seed}");
        let anew: Vec<LogItem> = (0..SHARDS).map(|shard| state(shard, 1000, 1)).collect();
        commit(&mut log, &anew);
        let (_, healed) = open(disk, SEGMENT).unwrap();
        let is_recovered = |held: &RecoveredShard| matches!(held, RecoveredShard::Recovered { .. });
        assert!(healed.shards.values().all(is_recovered), "seed {seed}");
        assert_eq!(healed.shards.len(), SHARDS as usize + 1);
    }
    assert!(suspects > 100, "the test makes shards suspect");
}

#[test]
fn a_flipped_bit_makes_exactly_the_named_shards_suspect() {
    check(0..400, |dice, disk, record, _| {
        let body = record.bytes.start + HEADER_BYTES + 12 * record.named.len() as u64;
        let at = body + dice.below(record.bytes.end - body);
        disk.corrupt(&record.file_name, at, 1 << dice.below(8));
        false
    });
}

#[test]
fn a_flipped_bit_in_the_header_makes_all_shards_suspect() {
    check(0..400, |dice, disk, record, _| {
        let at = record.bytes.start + dice.below(HEADER_BYTES + 12 * record.named.len() as u64);
        disk.corrupt(&record.file_name, at, 1 << dice.below(8));
        true
    });
}

/// A zero sector means torn only at the very end; anywhere else, later records prove that it was written.
#[test]
fn an_erased_sector_is_no_torn_record() {
    check(0..400, |dice, disk, record, is_last| {
        if is_last {
            disk.corrupt(&record.file_name, record.bytes.end - 1, 1);
            return record.bytes.end - record.bytes.start <= 52;
        }
        let first = record.bytes.start / SECTOR_BYTES as u64;
        let sectors = record.bytes.end / SECTOR_BYTES as u64 - first;
        let lost = dice.below(sectors);
        disk.erase_sector(&record.file_name, first + lost);
        lost == 0
    });
}

fn first_segments() -> [String; 3] {
    [1, 2, 3].map(|number| format!("log-{number:020}.seg"))
}

/// Four shards, the last one idle; each record has a segment of its own.
fn three_segments() -> (MemDisk, Log<MemDisk>) {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 4096).unwrap();
    commit(&mut log, &[state(1, 1, 1), state(2, 1, 1), state(3, 1, 1), state(4, 1, 1)]);
    commit(&mut log, &[entries(1, 1, 2, &[3600])]);
    commit(&mut log, &[state(3, 1, 1), entries(2, 1, 2, &[2000])]);
    (disk, log)
}

#[test]
fn a_missing_segment_in_the_middle_makes_all_before_it_suspect() {
    let (disk, _) = three_segments();
    disk.delete(&first_segments()[1]).unwrap();
    let (_, recovery) = open(disk, 4096).unwrap();
    let held: Vec<_> = recovery.shards.values().collect();
    assert_eq!(held[..2], [&suspect(1), &suspect(1)], "{:?}", recovery.findings);
    assert_eq!(entry_count(&recovery, 3), Some(0), "its state in the last segment is complete");
    assert!(!recovery.shards_unknown, "the last segment's directory names them all");
}

#[test]
fn a_missing_first_segment_is_noticed_by_the_directory_of_the_next() {
    let (disk, _) = three_segments();
    disk.delete(&first_segments()[0]).unwrap();
    let (_, recovery) = open(disk, 4096).unwrap();
    let held: Vec<_> = recovery.shards.values().collect();
    assert_eq!(held[..2], [&suspect(1), &suspect(1)], "{:?}", recovery.findings);
    assert_eq!(entry_count(&recovery, 3), Some(0));
    assert_eq!(held[3], &suspect(1), "which only that directory still knows");
}

/// No record follows whose sequence number would show the gap.
#[test]
fn a_missing_segment_before_an_empty_one_is_noticed() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 4096).unwrap();
    commit(&mut log, &[state(1, 1, 1)]);
    commit(&mut log, &[entries(1, 1, 2, &[3600])]);
    log.append(&[entries(1, 1, 3, &[3600])]).unwrap();
    disk.crash(&mut |_| 0);
    disk.delete(&first_segments()[1]).unwrap();
    for _ in 0..2 {
        let (_, recovery) = open(disk.clone(), 4096).unwrap();
        assert_eq!(recovery.shards[&ShardId(1)], suspect(1), "{:?}", recovery.findings);
        assert!(recovery.shards_unknown);
    }
}

/// The numbers fit, only the previous record's checksum does not.
#[test]
fn a_segment_of_another_log_is_not_believed() {
    let (disk, _) = three_segments();
    let other = MemDisk::new();
    let (mut log, _) = open(other.clone(), 4096).unwrap();
    commit(&mut log, &[state(1, 1, 1), state(2, 1, 1), state(3, 1, 9)]);
    commit(&mut log, &[entries(1, 1, 2, &[3600])]);
    let name = &first_segments()[1];
    disk.write_at(name, 0, &other.read_at(name, 0, 4096).unwrap()).unwrap();
    let (_, recovery) = open(disk, 4096).unwrap();
    assert_eq!(recovery.shards[&ShardId(1)], suspect(1), "{:?}", recovery.findings);
}

#[test]
fn a_truncated_segment_is_corrupt_and_not_torn() {
    let (disk, _) = three_segments();
    let name = &first_segments()[2];
    let bytes = disk.read_at(name, 0, 1024).unwrap();
    disk.create(name).unwrap();
    disk.write_at(name, 0, &bytes).unwrap();
    let (_, recovery) = open(disk.clone(), 4096).unwrap();
    let held: Vec<_> = recovery.shards.values().collect();
    assert_eq!(held[1..3], [&suspect(1), &suspect(1)], "{:?}", recovery.findings);
    assert_eq!(entry_count(&recovery, 1), Some(1));
    assert_eq!(disk.read_at(name, 0, 1024).unwrap(), bytes);
}

/// The damaged record would itself look torn once the torn one behind it, which proves that it was synced, is cut.
#[test]
fn a_torn_record_behind_a_damaged_one_is_not_cut() {
    for case in 0..6 {
        let (erased, torn_header_survives) = ([0..1, 1..2, 0..3][case / 2].clone(), case % 2 == 0);
        let disk = MemDisk::new();
        let (mut log, _) = open(disk.clone(), 1 << 16).unwrap();
        commit(&mut log, &[state(1, 1, 1)]);
        let damaged = log.offset / SECTOR_BYTES as u64;
        commit(&mut log, &[entries(1, 1, 2, &[1200])]);
        log.append(&[entries(1, 1, 3, &[1200])]).unwrap();
        let mut sector = 0;
        disk.crash(&mut |_| {
            sector += 1;
            u64::from(sector == 2 || (sector == 1 && torn_header_survives))
        });
        for sector in erased {
            disk.erase_sector(&first_segments()[0], damaged + sector);
        }
        for start in 0..3 {
            let (_, recovery) = open(disk.clone(), 1 << 16).unwrap();
            assert_eq!(recovery.shards[&ShardId(1)], suspect(1), "start {start}: {:?}", recovery.findings);
        }
    }
}

/// Its sectors all look like later sectors of the next record, but the first sector of a torn record would be
/// unwritten.
#[test]
fn a_header_that_rots_into_a_later_sector_is_not_torn() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 4096).unwrap();
    commit(&mut log, &[state(1, 1, 1)]);
    let damaged = log.offset;
    commit(&mut log, &[entries(1, 1, 2, &[1200])]);
    disk.corrupt(&first_segments()[0], damaged + 3, 0xc0);
    let (_, recovery) = open(disk, 4096).unwrap();
    assert_eq!(recovery.shards[&ShardId(1)], suspect(1), "{:?}", recovery.findings);
}

/// A replica that only the lost record named must not be created again under its id, at this start or a later one.
#[test]
fn unknown_shards_stay_unknown_until_the_caller_knows() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 4096).unwrap();
    commit(&mut log, &[state(1, 1, 1)]);
    let lost = log.offset;
    commit(&mut log, &[state(2, 1, 1)]);
    disk.corrupt(&first_segments()[0], lost + 20, 1);
    let (mut log, recovery) = open(disk.clone(), 4096).unwrap();
    assert!(recovery.shards_unknown);
    commit(&mut log, &[state(1, 5, 1), entries(1, 5, 2, &[3000])]);
    commit(&mut log, &[entries(1, 5, 3, &[3000])]);
    drop(log);
    let (mut log, recovery) = open(disk.clone(), 4096).unwrap();
    assert!(recovery.shards_unknown, "though later segments have directories");
    assert_eq!(entry_count(&recovery, 1), Some(2));
    log.declare_complete();
    commit(&mut log, &[removed(2, 1), entries(1, 5, 4, &[3000])]);
    let (_, recovery) = open(disk, 4096).unwrap();
    assert!(!recovery.shards_unknown);
    assert_eq!(recovery.shards[&ShardId(2)], RecoveredShard::Removed(ReplicaId(1)));
}

/// The lost record created the replica; only what was written later names it.
#[test]
fn entries_without_a_state_make_a_shard_suspect() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 4096).unwrap();
    commit(&mut log, &[state(1, 1, 1)]);
    let lost = log.offset;
    commit(&mut log, &[state(2, 6, 1)]);
    commit(&mut log, &[entries(2, 6, 2, &[10])]);
    disk.corrupt(&first_segments()[0], lost + 20, 1);
    let (_, recovery) = open(disk, 4096).unwrap();
    assert_eq!(recovery.shards[&ShardId(2)], suspect(6), "{:?}", recovery.findings);
}

#[test]
fn a_record_in_another_place_is_not_taken_for_one() {
    let (disk, _) = three_segments();
    let [first, second, _] = first_segments();
    let record = disk.read_at(&second, 0, 512).unwrap();
    disk.write_at(&first, 3584, &record).unwrap();
    let (_, recovery) = open(disk, 4096).unwrap();
    assert_eq!(recovery.findings.len(), 1, "the damage is reported, and nothing is missing: {:?}", recovery.findings);
    assert_eq!((1..4).map(|shard| entry_count(&recovery, shard).unwrap()).collect::<Vec<_>>(), [1, 1, 0]);
}
