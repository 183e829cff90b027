//! Segments are released, and the log survives a full disk.

use super::*;
use crate::disk::SECTOR_BYTES;
use crate::disk::mem::MemDisk;

const SEGMENT: u64 = 4096;

fn restated(log_end: u64, shard: u32) -> LogItem {
    state(shard, 1, log_end)
}

#[test]
fn the_size_stays_bounded_while_an_idle_shard_is_restated() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    commit(&mut log, &[state(1, 1, 1), state(2, 1, 1), state(3, 1, 1), removed(3, 1)]);
    for last in 2..500 {
        commit(&mut log, &[entries(1, 1, last, &[300])]);
        while log.size_bytes() > 4 * SEGMENT {
            let shard = log.pinned_by().next().expect("somebody pins the oldest segment");
            let end = if shard == ShardId(1) { last } else { 1 };
            commit(&mut log, &[restated(end, shard.0)]);
        }
        assert_eq!(
            disk.used_bytes(),
            log.size_bytes() + SECTOR_BYTES as u64,
            "nothing beside the segments and the extent"
        );
    }
    let (_, recovery) = open(disk, SEGMENT).unwrap();
    assert_eq!(recovery.findings, [""; 0]);
    assert!(!recovery.shards_unknown);
    assert_eq!(entry_count(&recovery, 2), Some(0));
    assert!(entry_count(&recovery, 1).is_some());
    assert_eq!(recovery.shards[&ShardId(3)], RecoveredShard::Removed(ReplicaId(1)), "although its record is long gone");
}

/// The files that hold what is left of lost replicas.
fn set_aside(disk: &MemDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.starts_with("lost-")).collect()
}

/// Writes entries of shard 1, and its state when it keeps the oldest segment of a large log.
fn write_on(log: &mut Log<MemDisk>, last: &mut u64) {
    for _ in 0..100 {
        *last += 1;
        commit(log, &[entries(1, 1, *last, &[300])]);
        while log.size_bytes() > 4 * SEGMENT {
            let pinned_by: Vec<ShardId> = log.pinned_by().collect();
            assert_eq!(pinned_by, [ShardId(1)], "a lost replica can't write its state");
            commit(log, &[restated(*last, 1)]);
        }
    }
}

#[test]
fn what_is_left_of_a_lost_replica_is_kept_without_the_log_after_it() {
    for is_damaged in [false, true] {
        let disk = MemDisk::new();
        let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
        commit(&mut log, &[state(1, 1, 1), state(2, 1, 1)]);
        commit(&mut log, &[entries(2, 1, 2, &[3000])]);
        let offset = log.offset;
        commit(&mut log, &[entries(2, 1, 3, &[1000])]);
        let second = log.segments.back().unwrap().file_name.clone();
        let content = |name: &str| disk.read_at(name, 0, SEGMENT as usize).unwrap();
        if is_damaged {
            disk.corrupt(&log.segments.front().unwrap().file_name, offset - 600, 1);
            drop(log);
            (log, _) = open(disk.clone(), SEGMENT).unwrap();
        } else {
            commit(&mut log, &[item(2, 1, Change::Suspect)]);
        }
        let remains = content(&second);
        let mut last = 1;
        write_on(&mut log, &mut last);
        let kept = set_aside(&disk);
        assert_eq!(kept.len(), 2, "the segments with its records, and no later ones: {kept:?}");
        assert_eq!(content(&kept[1])[..1024], remains[..1024]);
        for _ in 0..3 {
            let recovery;
            (log, recovery) = open(disk.clone(), SEGMENT).unwrap();
            assert_eq!(recovery.shards[&ShardId(2)], suspect(1), "{:?}", recovery.findings);
            assert!(entry_count(&recovery, 1).is_some() && !recovery.shards_unknown);
            write_on(&mut log, &mut last);
            assert_eq!(set_aside(&disk), kept, "a restart adds nothing");
        }
        log.append(&[state(2, 2, 1)]).unwrap();
        assert_eq!(set_aside(&disk), kept, "its successor is not durable");
        log.sync().unwrap();
        assert_eq!(set_aside(&disk), [""; 0]);
        let (_, recovery) = open(disk, SEGMENT).unwrap();
        assert_eq!(entry_count(&recovery, 2), Some(0));
    }
}

#[test]
fn a_rename_that_is_done_but_not_durable_is_made_again() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    commit(&mut log, &[state(1, 1, 1), state(2, 1, 1)]);
    commit(&mut log, &[item(2, 1, Change::Suspect)]);
    let mut last = 1;
    while log.segments.len() == 1 {
        last += 1;
        commit(&mut log, &[entries(1, 1, last, &[300])]);
    }
    let oldest = log.segments.front().unwrap();
    let (number, set_aside_name) = (oldest.number, oldest.number.set_aside_name());
    disk.rename(&oldest.file_name, &set_aside_name).unwrap();
    write_on(&mut log, &mut last);
    assert!(log.segments.front().unwrap().number > number, "the log goes on without it");
    assert_eq!(set_aside(&disk)[0], set_aside_name);
}

#[test]
fn a_record_of_unknown_shards_may_hold_remains_of_each_of_them() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    commit(&mut log, &[state(1, 1, 1), state(2, 1, 1)]);
    commit(&mut log, &[entries(2, 1, 2, &[3500])]);
    let names: Vec<_> = log.segments.iter().map(|segment| segment.number.set_aside_name()).collect();
    disk.corrupt(&log.segments[1].file_name, 20, 1);
    let (mut log, recovery) = open(disk.clone(), SEGMENT).unwrap();
    assert_eq!(recovery.shards[&ShardId(1)], suspect(1));
    commit(&mut log, &[state(1, 2, 1)]);
    assert_eq!((names.len(), set_aside(&disk)), (2, names));
}

/// After a crash, a segment is still in the log or set aside.
#[test]
fn what_is_left_of_a_lost_replica_survives_crashes() {
    for changes in 0..40 {
        let disk = MemDisk::new();
        let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
        commit(&mut log, &[state(1, 1, 1), state(2, 1, 1)]);
        commit(&mut log, &[entries(2, 1, 2, &[3000])]);
        commit(&mut log, &[entries(2, 1, 3, &[1000]), item(2, 1, Change::Suspect)]);
        let first = log.segments.front().unwrap().number;
        for last in 2..6 {
            commit(&mut log, &[entries(1, 1, last, &[1500])]);
        }
        disk.stop_after(Some(changes));
        commit(&mut log, &[restated(5, 1)]);
        commit(&mut log, &[entries(1, 1, 6, &[3500])]);
        disk.crash(&mut |_| 0);
        for _ in 0..2 {
            let (_, recovery) = open(disk.clone(), SEGMENT).unwrap();
            assert_eq!(recovery.shards[&ShardId(2)], suspect(1), "after {changes} changes: {:?}", recovery.findings);
            assert!(entry_count(&recovery, 1).is_some(), "after {changes} changes: {:?}", recovery.findings);
            for number in [first, first.next()] {
                let is_there = |name: &str| disk.size(name).unwrap().is_some();
                assert!(is_there(&number.file_name()) || is_there(&number.set_aside_name()), "after {changes} changes");
            }
        }
    }
}

/// The files that were set aside are all that shows that there was a log.
#[test]
fn a_log_whose_segments_are_all_gone_but_those_set_aside_is_lost() {
    let disk = MemDisk::new();
    disk.create("lost-00000000000000000001.seg").unwrap();
    let (_, recovery) = open(disk.clone(), SEGMENT).unwrap();
    assert!(recovery.shards_unknown);
    assert_eq!(set_aside(&disk).len(), 1, "whose remains it holds is not known");
}

#[test]
fn a_removal_is_kept_without_any_live_shard() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    commit(&mut log, &[state(1, 4, 1), removed(1, 4)]);
    for round in 0..20 {
        commit(&mut log, &[state(2, 5 + round, 1), entries(2, 5 + round, 2, &[2000]), removed(2, 5 + round)]);
    }
    assert_eq!(log.size_bytes(), SEGMENT, "nothing pins anything");
    let (_, recovery) = open(disk, SEGMENT).unwrap();
    assert_eq!(recovery.shards[&ShardId(1)], RecoveredShard::Removed(ReplicaId(4)));
    assert_eq!(recovery.shards[&ShardId(2)], RecoveredShard::Removed(ReplicaId(24)));
}

/// The new segment's directory is not durable yet: the removal is only in the old segment.
#[test]
fn a_removal_survives_a_crash_at_the_turn_of_segments() {
    for survives in [0, 1] {
        let disk = MemDisk::new();
        let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
        commit(&mut log, &[state(1, 4, 1), removed(1, 4)]);
        log.append(&[state(2, 1, 1), entries(2, 1, 2, &[3300])]).unwrap();
        disk.crash(&mut |_| survives);
        let (log, _) = open(disk.clone(), SEGMENT).unwrap();
        drop(log);
        let (_, recovery) = open(disk, SEGMENT).unwrap();
        assert_eq!(recovery.shards[&ShardId(1)], RecoveredShard::Removed(ReplicaId(4)));
        assert_eq!(recovery.shards.len(), 1 + survives as usize);
    }
}

#[test]
fn the_spare_is_used_and_asked_for_again() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    let spare = log.spare_request().unwrap();
    assert_eq!(spare.size_bytes, SEGMENT);
    assert_eq!(log.spare_request(), None);
    commit(&mut log, &[state(1, 1, 1)]);
    assert_eq!(log.spare_request(), None, "the first segment was made without it");
    log.spare_ready(disk.preallocate(&spare.name, spare.size_bytes, &mut || {}));
    commit(&mut log, &[entries(1, 1, 2, &[5000])]);
    assert_eq!(log.spare_request(), None, "the oversized one, too");
    commit(&mut log, &[entries(1, 1, 3, &[3000])]);
    assert_eq!(disk.size(&spare.name).unwrap(), None, "it has become a segment");
    let second = log.spare_request().unwrap();
    assert_ne!(second.name, spare.name);
    disk.preallocate(&second.name, second.size_bytes, &mut || {}).unwrap();
    let (_, recovery) = open(disk.clone(), SEGMENT).unwrap();
    assert_eq!(entry_count(&recovery, 1), Some(2));
    assert_eq!(disk.size(&second.name).unwrap(), None, "a spare of an earlier start is not trusted");
}

#[test]
fn a_record_that_needs_the_spare_waits_while_it_is_made() {
    const SEGMENT: u64 = 1 << 20;
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    assert!(!log.waits_for_spare(SEGMENT), "none is being made");
    commit(&mut log, &[state(1, 1, 1)]);
    let spare = log.spare_request().unwrap();
    assert!(!log.waits_for_spare(1000), "the segment has room");
    assert!(log.waits_for_spare(SEGMENT));
    log.spare_ready(disk.preallocate(&spare.name, spare.size_bytes, &mut || {}));
    assert!(!log.waits_for_spare(SEGMENT), "the spare is there");
}

#[test]
fn a_full_disk_refuses_a_batch_and_takes_it_later() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    commit(&mut log, &[state(1, 1, 1), state(2, 1, 1)]);
    disk.set_capacity(Some(2 * SEGMENT + SECTOR_BYTES as u64));
    let mut last = 1;
    let refused = loop {
        match log.append(&[entries(1, 1, last + 1, &[1000])]) {
            Ok(()) => log.sync().unwrap(),
            Err(error) => break error,
        }
        last += 1;
    };
    assert!(matches!(&refused, LogError::NoSegment(source) if source.kind() == std::io::ErrorKind::StorageFull));
    assert!(last > 3);
    let spare = log.spare_request().unwrap();
    log.spare_ready(disk.preallocate(&spare.name, spare.size_bytes, &mut || {}));
    assert_eq!(log.spare_request(), None, "not before a segment is needed");
    assert!(log.append(&[entries(1, 1, last + 1, &[1000])]).is_err());
    commit(&mut log, &[hard_state(2, 1, 7, 1)]);
    assert!(log.spare_request().is_some());
    disk.set_capacity(None);
    commit(&mut log, &[entries(1, 1, last + 1, &[1000])]);
    disk.crash(&mut |_| 0);
    let (_, recovery) = open(disk, SEGMENT).unwrap();
    assert_eq!(recovery.findings, [""; 0]);
    assert_eq!(entry_count(&recovery, 1), Some(last as usize));
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    commit(&mut log, &[state(1, 1, 1)]);
    commit(&mut log, &[entries(1, 1, 2, &[100_000, 50_000])]);
    assert!(log.size_bytes() > 150_000 && log.size_bytes() < 160_000);
    commit(&mut log, &[entries(1, 1, 4, &[10])]);
    let (mut log, recovery) = open(disk, SEGMENT).unwrap();
    assert_eq!(entry_count(&recovery, 1), Some(3));
    assert_eq!(recovery.findings, [""; 0]);
    commit(&mut log, &[restated(4, 1)]);
    assert_eq!(log.size_bytes(), SEGMENT, "it is given back like any other");
}

#[test]
fn other_files_are_left_alone() {
    let disk = MemDisk::new();
    for name in ["identity", "log-1.seg", "log-0000000000000000000x.seg", "snapshot-1"] {
        disk.create(name).unwrap();
    }
    let (mut log, recovery) = open(disk.clone(), SEGMENT).unwrap();
    assert_eq!(recovery, Recovery { shards: Default::default(), shards_unknown: false, findings: vec![] });
    commit(&mut log, &[state(1, 1, 1)]);
    assert_eq!(disk.list().unwrap().len(), 6, "a segment and the extent have come");
}
