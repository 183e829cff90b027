//! Missing segments are detected wherever they were, and a lost log is not taken for a new one.

use super::*;
use crate::disk::mem::MemDisk;
use crate::log::extent::EXTENT_FILE;

const SEGMENT: u64 = 4096;

fn segment_name(number: u64) -> String {
    format!("log-{number:020}.seg")
}

/// Two shards whose states are in the first of four segments.
fn four_segments() -> MemDisk {
    let disk = MemDisk::new();
    let (mut log, recovery) = open(disk.clone(), SEGMENT).unwrap();
    assert!(recovery.shards.is_empty() && !recovery.shards_unknown && recovery.findings.is_empty(), "it is new");
    commit(&mut log, &[state(1, 1, 1), state(2, 1, 1)]);
    for first in [2, 3, 4] {
        commit(&mut log, &[entries(1, 1, first, &[3600])]);
    }
    assert!(disk.size(&segment_name(4)).unwrap().is_some());
    disk
}

/// Opens the log twice, and everything must be suspect each time; then new replicas heal it.
#[track_caller]
fn assert_is_suspect(disk: MemDisk, what: &str) {
    for start in 0..2 {
        let (mut log, recovery) = open(disk.clone(), SEGMENT).unwrap();
        assert!(recovery.shards_unknown, "{what}, start {start}: {:?}", recovery.findings);
        assert!(start > 0 || !recovery.findings.is_empty());
        assert!([1, 2].iter().all(|&shard| entry_count(&recovery, shard).is_none()), "{what}: {:?}", recovery.shards);
        commit(&mut log, &[state(9, 1 + start, 1)]);
    }
    let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
    commit(&mut log, &[state(1, 7, 1), state(2, 7, 1)]);
    log.declare_complete();
    commit(&mut log, &[entries(1, 7, 2, &[3600])]);
    let (_, healed) = open(disk, SEGMENT).unwrap();
    assert_eq!((entry_count(&healed, 1), entry_count(&healed, 2)), (Some(1), Some(0)), "{what}");
    assert!(!healed.shards_unknown, "{what}: {:?}", healed.findings);
}

#[test]
fn a_log_that_has_lost_its_last_segments_is_no_older_log() {
    for lost in [4..=4, 3..=4, 2..=4, 1..=4] {
        let disk = four_segments();
        lost.clone().for_each(|number| disk.delete(&segment_name(number)).unwrap());
        assert_is_suspect(disk, &format!("segments {lost:?} are missing"));
    }
}

#[test]
fn a_log_that_has_lost_everything_is_no_new_one_where_something_beside_it_tells() {
    let (lost, new) = (four_segments(), MemDisk::new());
    (1..=4).for_each(|number| lost.delete(&segment_name(number)).unwrap());
    lost.delete(EXTENT_FILE).unwrap();
    let config = LogConfig { segment_bytes: SEGMENT, has_begun: true, ..LogConfig::default() };
    let (_, recovery) = Log::open(lost.clone(), config.clone()).unwrap();
    assert!(recovery.shards_unknown);
    assert_is_suspect(lost, "a log that is lost and was opened once since");
    open(new.clone(), SEGMENT).unwrap();
    let (_, recovery) = Log::open(new, config).unwrap();
    assert!(!recovery.shards_unknown, "it was opened before there was something beside it, and never written");
}

#[test]
fn segments_are_believed_where_only_the_extent_is_lost() {
    let losses: [fn(&MemDisk); 3] = [
        |disk| disk.delete(EXTENT_FILE).unwrap(),
        |disk| disk.corrupt(EXTENT_FILE, 5, 1),
        |disk| disk.erase_sector(EXTENT_FILE, 0),
    ];
    for lose in losses {
        let disk = four_segments();
        lose(&disk);
        let (log, recovery) = open(disk.clone(), SEGMENT).unwrap();
        drop(log);
        assert_eq!(entry_count(&recovery, 1), Some(3), "{:?}", recovery.findings);
        assert!(!recovery.shards_unknown);
        disk.delete(&segment_name(4)).unwrap();
        assert_is_suspect(disk, "the extent is there again");
    }
}

#[test]
fn a_segment_without_a_record_is_not_missed_after_a_crash() {
    for changes in 0..6 {
        let disk = four_segments();
        let (mut log, _) = open(disk.clone(), SEGMENT).unwrap();
        disk.stop_after(Some(changes));
        let _ = log.append(&[entries(1, 1, 5, &[3600])]);
        disk.crash(&mut |_| 0);
        let (_, recovery) = open(disk, SEGMENT).unwrap();
        assert_eq!(entry_count(&recovery, 1), Some(3), "after {changes} changes: {:?}", recovery.findings);
        assert!(!recovery.shards_unknown);
    }
}
