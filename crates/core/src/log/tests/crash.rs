//! A synced record survives any crash, the unsynced one survives as a whole or not at all, and no crash makes a shard
//! suspect.

use super::model::*;
use super::*;
use crate::disk::SECTOR_BYTES;
use crate::disk::mem::MemDisk;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stops at the n-th call that changes something. That call still takes effect, as far as the following crash allows.
#[derive(Clone)]
struct StoppingDisk {
    disk: MemDisk,
    calls_left: Arc<AtomicU64>,
}

impl StoppingDisk {
    fn change(&self, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.calls_left.load(Ordering::Relaxed) {
            0 => Err(io::Error::other("stopped")),
            1 => {
                self.calls_left.store(0, Ordering::Relaxed);
                change()?;
                Err(io::Error::other("stopped"))
            }
            left => {
                self.calls_left.store(left - 1, Ordering::Relaxed);
                change()
            }
        }
    }
}

impl Disk for StoppingDisk {
    fn preallocate(&self, name: &str, size_bytes: u64, progress: &mut dyn FnMut()) -> io::Result<()> {
        self.change(|| self.disk.preallocate(name, size_bytes, progress))
    }
    fn create(&self, name: &str) -> io::Result<()> {
        self.change(|| self.disk.create(name))
    }
    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|| self.disk.write_at(name, offset, data))
    }
    fn sync(&self, name: &str) -> io::Result<()> {
        self.change(|| self.disk.sync(name))
    }
    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.disk.read_at(name, offset, len)
    }
    fn close(&self, _: &str) {}

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        self.disk.size(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|| self.disk.rename(from, to))
    }
    fn delete(&self, name: &str) -> io::Result<()> {
        self.change(|| self.disk.delete(name))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
}

/// Some records are written at once, and some in up to eight parts.
const PART_BYTES: u64 = 2 * SECTOR_BYTES as u64 + 100;

/// One life of a node: opens, checks, appends until the disk stops.
fn live(seed: u64, dice: &mut Dice, disk: StoppingDisk, synced: &mut Shards, unsynced: &mut Option<Shards>) {
    let Ok((mut log, recovery)) = open(disk.clone(), 8192) else { return };
    assert!(!recovery.shards_unknown, "seed {seed}: {:?}", recovery.findings);
    let is_new = unsynced.as_ref() == Some(&recovery.shards);
    assert!(
        is_new || *synced == recovery.shards,
        "seed {seed}: recovered {:#?}\nsynced {synced:#?}\nunsynced {unsynced:#?}\n{:?}",
        recovery.shards,
        recovery.findings
    );
    *synced = recovery.shards;
    *unsynced = None;
    loop {
        if dice.below(3) == 0
            && let Some(request) = log.spare_request()
        {
            log.spare_ready(disk.preallocate(&request.name, request.size_bytes, &mut || {}));
        }
        let mut after = synced.clone();
        let batch = random_batch(dice, &mut after);
        *unsynced = Some(after);
        if log.append_in_parts(&batch, PART_BYTES, &mut || {}).is_err() || log.sync().is_err() {
            return;
        }
        *synced = unsynced.take().unwrap();
    }
}

/// A start cuts a torn record and ends before the cut is synced. The next start sees zeros in the cache, and its first
/// record does not fit there, so it goes into another segment. When the power fails, the torn record must not come
/// back.
#[test]
fn a_cut_that_was_not_synced_is_made_again() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 8192).unwrap();
    commit(&mut log, &[state(0, 1, 1)]);
    log.append(&[entries(0, 1, 2, &[9000])]).unwrap();
    let mut is_header = true;
    disk.crash(&mut |_| u64::from(std::mem::take(&mut is_header)));

    let stopping = StoppingDisk { disk: disk.clone(), calls_left: Arc::new(AtomicU64::new(1)) };
    assert!(open(stopping, 8192).is_err(), "it ends after the zeros are written");
    let (mut log, _) = open(disk.clone(), 8192).unwrap();
    commit(&mut log, &[entries(0, 1, 2, &[20_000])]);
    disk.crash(&mut |_| 0);
    let (_, recovery) = open(disk, 8192).unwrap();
    assert_eq!(entry_count(&recovery, 0), Some(1), "{:?}", recovery.findings);
}

#[test]
fn a_crash_at_any_point_loses_nothing_synced() {
    for seed in 0..1500 {
        let dice = &mut Dice(seed);
        let disk = MemDisk::new();
        let (mut synced, mut unsynced) = (Shards::new(), None);
        for _ in 0..8 {
            let calls = 1 + if dice.below(3) == 0 { dice.below(8) } else { dice.below(80) };
            let stopping = StoppingDisk { disk: disk.clone(), calls_left: Arc::new(AtomicU64::new(calls)) };
            live(seed, dice, stopping, &mut synced, &mut unsynced);
            if dice.below(4) > 0 {
                disk.crash(&mut |n| dice.below(n));
            }
        }
    }
}

/// A crash may leave any subset of a record's sectors.
#[test]
fn any_part_of_the_unsynced_record_is_cut() {
    for rotates in [false, true] {
        for survivors in 0..1u32 << 6 {
            let disk = MemDisk::new();
            let (mut log, _) = open(disk.clone(), 4096).unwrap();
            commit(&mut log, &[state(1, 1, 1), entries(1, 1, 2, &[1500 * usize::from(rotates)])]);
            log.append(&[entries(1, 1, 3, &[2800])]).unwrap();
            assert_eq!(log.segments.len(), 1 + usize::from(rotates));
            let mut sector = 0;
            disk.crash(&mut |_| {
                sector += 1;
                u64::from(survivors >> (sector - 1) & 1)
            });
            assert_eq!(sector, 6, "the record has six sectors");
            let (mut log, recovery) = open(disk.clone(), 4096).unwrap();
            assert_eq!(entry_count(&recovery, 1), Some(1 + usize::from(survivors == 63)), "survivors {survivors:06b}");
            assert_eq!(recovery.findings.len(), usize::from(survivors != 63 && survivors != 0), "{recovery:?}");
            let next = if survivors == 63 { 4 } else { 3 };
            commit(&mut log, &[entries(1, 1, next, &[10])]);
            let (_, recovery) = open(disk, 4096).unwrap();
            assert_eq!(entry_count(&recovery, 1), Some(next as usize - 1), "survivors {survivors:06b}");
            assert_eq!(recovery.findings, [""; 0]);
        }
    }
}

/// A crash in the middle of a record that is written in parts leaves a torn record, whether it comes after a write or
/// after a sync.
#[test]
fn a_record_whose_parts_are_not_all_there_is_cut() {
    const PARTS: usize = 3;
    for (done, reached) in (0..PARTS).flat_map(|part| [(2 * part + 1, part), (2 * part + 2, part + 1)]) {
        let disk = MemDisk::new();
        let (mut log, _) = open(disk.clone(), 8192).unwrap();
        commit(&mut log, &[state(1, 1, 1), entries(1, 1, 2, &[100])]);
        disk.stop_after(Some(done as u64));
        let mut parts = 0;
        log.append_in_parts(&[entries(1, 1, 3, &[2800])], PART_BYTES, &mut || parts += 1).unwrap();
        log.sync().unwrap();
        assert_eq!(parts, PARTS - 1, "the last part is the sync's");
        disk.crash(&mut |_| 0);
        let (_, recovery) = open(disk, 8192).unwrap();
        let is_whole = reached == PARTS;
        assert_eq!(entry_count(&recovery, 1), Some(1 + usize::from(is_whole)), "{done} calls reached the disk");
        let is_torn = !is_whole && reached > 0;
        assert_eq!(recovery.findings.len(), usize::from(is_torn), "{done} calls: {:?}", recovery.findings);
    }
}

/// The page cache shows a record whose sync has failed; trusting it would acknowledge what the next crash loses.
#[test]
fn what_is_recovered_stays_recovered_after_a_failed_sync() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 4096).unwrap();
    commit(&mut log, &[state(1, 1, 1)]);
    log.append(&[entries(1, 1, 2, &[700])]).unwrap();
    disk.fail_sync(1);
    assert!(matches!(log.sync(), Err(LogError::Failed { .. })));
    let (mut log, recovery) = open(disk.clone(), 4096).unwrap();
    assert_eq!(entry_count(&recovery, 1), Some(1));
    commit(&mut log, &[entries(1, 1, 3, &[700])]);
    disk.crash(&mut |_| 0);
    let (_, recovery) = open(disk, 4096).unwrap();
    assert_eq!(entry_count(&recovery, 1), Some(2), "{:?}", recovery.findings);
}

#[test]
#[should_panic(expected = "a log that has failed is not used again")]
fn a_failed_sync_is_not_tried_again() {
    let disk = MemDisk::new();
    let (mut log, _) = open(disk.clone(), 4096).unwrap();
    log.append(&[state(1, 1, 1)]).unwrap();
    disk.fail_sync(1);
    assert!(log.sync().is_err());
    let _ = log.sync();
}

#[test]
#[should_panic(expected = "one record is unsynced at a time")]
fn a_second_unsynced_record_is_refused() {
    let (mut log, _) = open(MemDisk::new(), 4096).unwrap();
    log.append(&[state(1, 1, 1)]).unwrap();
    let _ = log.append(&[state(2, 1, 1)]);
}

#[test]
#[should_panic(expected = "must not come back")]
fn a_removed_replica_does_not_come_back() {
    let (mut log, _) = open(MemDisk::new(), 4096).unwrap();
    commit(&mut log, &[state(1, 7, 1), removed(1, 7)]);
    let _ = log.append(&[state(1, 7, 1)]);
}

#[test]
#[should_panic(expected = "do not fit")]
fn entries_that_leave_a_gap_are_refused() {
    let (mut log, _) = open(MemDisk::new(), 4096).unwrap();
    commit(&mut log, &[state(1, 7, 1)]);
    let _ = log.append(&[entries(1, 7, 3, &[1])]);
}
