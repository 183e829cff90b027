//! A disk in memory that can crash, fill up, fail to sync and corrupt data, for the simulator and the tests.
//!
//! A file is its current bytes and, for each sector written since the last sync, the old content that is still on the
//! disk. A sync drops the old contents; a crash restores any of them. After a *failed* sync the old contents stay,
//! while reads return the new ones. So does Linux, whose page cache keeps pages that it could not write and marks them
//! clean: a program that syncs again, or restarts and trusts what it reads, loses the data at the next crash. Only
//! writing again helps.

use super::{Disk, SECTOR_BYTES};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle to a disk; its clones are the same disk.
#[derive(Clone, Default)]
pub struct MemDisk {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    files: BTreeMap<String, File>,
    /// The maximum of the sum of all file sizes; `None` for no limit.
    capacity_bytes: Option<u64>,
    syncs_to_fail: u32,
    /// Files that can't be read.
    unreadable: BTreeSet<String>,
    /// Changes that still reach the disk before the machine stops.
    changes_left: Option<u64>,
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    /// The size that survives a crash.
    durable_size: usize,
    unsynced: BTreeMap<usize, Unsynced>,
}

struct Unsynced {
    /// The old content, which is still on the disk.
    durable: [u8; SECTOR_BYTES],
    /// A sync of this sector has failed, so later syncs skip it.
    given_up: bool,
}

impl MemDisk {
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// Simulates a power failure: each unsynced sector of each file keeps its new content or returns to its old one,
    /// and the size of a file that grew does likewise. `choose(n)` is uniform in `0..n`; the outcome depends on nothing
    /// else.
    pub fn crash(&self, choose: &mut dyn FnMut(u64) -> u64) {
        let mut shared = self.lock();
        shared.changes_left = None;
        shared.syncs_to_fail = 0;
        for file in shared.files.values_mut() {
            for (sector, unsynced) in std::mem::take(&mut file.unsynced) {
                if choose(2) == 0 {
                    let range = sector_range(sector, file.bytes.len());
                    let len = range.len();
                    file.bytes[range].copy_from_slice(&unsynced.durable[..len]);
                }
            }
            if file.durable_size < file.bytes.len() && choose(2) == 0 {
                file.bytes.truncate(file.durable_size);
            }
            file.durable_size = file.bytes.len();
        }
    }

    /// Bounds the sum of all file sizes. Writes beyond fail with [`io::ErrorKind::StorageFull`].
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    /// Makes the next `count` syncs fail.
    pub fn fail_sync(&self, count: u32) {
        self.lock().syncs_to_fail = count;
    }

    /// Sets whether this file can't be read.
    pub fn set_unreadable(&self, name: &str, is_unreadable: bool) {
        let mut shared = self.lock();
        match is_unreadable {
            true => drop(shared.unreadable.insert(name.to_owned())),
            false => drop(shared.unreadable.remove(name)),
        }
    }

    /// Stops the machine after `changes` more calls that change something, or never. Later calls change nothing, and
    /// report success to a program that will not get to act on it. The caller must crash the disk next.
    pub fn stop_after(&self, changes: Option<u64>) {
        self.lock().changes_left = changes;
    }

    /// Whether the machine has stopped.
    pub fn has_stopped(&self) -> bool {
        self.lock().changes_left == Some(0)
    }

    /// The sum of all file sizes.
    pub fn used_bytes(&self) -> u64 {
        self.lock().files.values().map(|file| file.bytes.len() as u64).sum()
    }

    /// Flips the bits of `mask` in one byte, on the disk itself. Panics if there is no such byte.
    pub fn corrupt(&self, name: &str, offset: u64, mask: u8) {
        let mut shared = self.lock();
        let file = shared.files.get_mut(name).expect("the file to corrupt is there");
        file.bytes[offset as usize] ^= mask;
    }

    /// Zeroes one sector, on the disk itself: a write that was acknowledged and lost. Panics if there is no such
    /// sector.
    pub fn erase_sector(&self, name: &str, sector: u64) {
        let mut shared = self.lock();
        let file = shared.files.get_mut(name).expect("the file to corrupt is there");
        let range = sector_range(sector as usize, file.bytes.len());
        file.bytes[range].fill(0);
    }

    /// Moves the content of sector `from` to sector `to`, on the disk itself, and leaves zeros behind: a misdirected
    /// write. Panics if there is no such file.
    pub fn misdirect_sector(&self, name: &str, from: u64, to: u64) {
        let mut shared = self.lock();
        let bytes = &mut shared.files.get_mut(name).expect("the file to corrupt is there").bytes;
        let (from, to) = (sector_range(from as usize, bytes.len()), sector_range(to as usize, bytes.len()));
        let moved = bytes[from.clone()].to_vec();
        bytes[from].fill(0);
        let len = moved.len().min(to.len());
        bytes[to.start..to.start + len].copy_from_slice(&moved[..len]);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Ignore poisoning: a panic elsewhere leaves the bytes as they are, and a test reads them afterwards.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Whether a call that changes something still takes effect.
    fn goes_on(&mut self) -> bool {
        match &mut self.changes_left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn size(&self, name: &str) -> u64 {
        self.files.get(name).map_or(0, |file| file.bytes.len() as u64)
    }

    fn check_space(&self, name: &str, size_bytes: u64) -> io::Result<()> {
        let others: u64 = self.files.values().map(|file| file.bytes.len() as u64).sum::<u64>() - self.size(name);
        match self.capacity_bytes {
            Some(capacity) if others + size_bytes > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Disk for MemDisk {
    fn preallocate(&self, name: &str, size_bytes: u64, _progress: &mut dyn FnMut()) -> io::Result<()> {
        let mut shared = self.lock();
        if !shared.goes_on() {
            return Ok(());
        }
        shared.files.remove(name);
        shared.check_space(name, size_bytes)?;
        let size = size_bytes as usize;
        let file = File { bytes: vec![0; size], durable_size: size, unsynced: BTreeMap::new() };
        shared.files.insert(name.to_owned(), file);
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<()> {
        let mut shared = self.lock();
        if shared.goes_on() {
            shared.files.insert(name.to_owned(), File::default());
        }
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut shared = self.lock();
        if !shared.goes_on() {
            return Ok(());
        }
        let end = offset + data.len() as u64;
        if end > shared.size(name) {
            shared.check_space(name, end)?;
        }
        let file = shared.file(name)?;
        let (start, end) = (offset as usize, end as usize);
        if end > file.bytes.len() {
            file.bytes.resize(end, 0);
        }
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let mut durable = [0; SECTOR_BYTES];
            let range = sector_range(sector, file.bytes.len());
            durable[..range.len()].copy_from_slice(&file.bytes[range]);
            file.unsynced.entry(sector).or_insert(Unsynced { durable, given_up: false }).given_up = false;
        }
        file.bytes[start..end].copy_from_slice(data);
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut shared = self.lock();
        if !shared.goes_on() {
            return Ok(());
        }
        let fails = shared.syncs_to_fail > 0;
        shared.syncs_to_fail = shared.syncs_to_fail.saturating_sub(1);
        let file = shared.file(name)?;
        if fails {
            file.unsynced.values_mut().for_each(|unsynced| unsynced.given_up = true);
            return Err(io::Error::other("injected: the sync failed"));
        }
        file.unsynced.retain(|_, unsynced| unsynced.given_up);
        file.durable_size = file.bytes.len();
        Ok(())
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut shared = self.lock();
        if shared.unreadable.contains(name) {
            return Err(io::Error::other("this file can't be read"));
        }
        let bytes = &shared.file(name)?.bytes;
        let start = (offset as usize).min(bytes.len());
        let end = start.saturating_add(len).min(bytes.len());
        Ok(bytes[start..end].to_vec())
    }

    fn close(&self, _: &str) {}

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.lock().files.get(name).map(|file| file.bytes.len() as u64))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut shared = self.lock();
        if !shared.goes_on() {
            return Ok(());
        }
        let file = shared.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        shared.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut shared = self.lock();
        if shared.goes_on() {
            shared.files.remove(name);
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().files.keys().cloned().collect())
    }
}

/// The bytes of a sector in a file of `size` bytes, whose last sector may be short.
fn sector_range(sector: usize, size: usize) -> std::ops::Range<usize> {
    let start = sector * SECTOR_BYTES;
    start.min(size)..(start + SECTOR_BYTES).min(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::disk::conformance::run(MemDisk::new);
    }

    #[test]
    fn a_crash_loses_unsynced_sectors_one_by_one() {
        let disk = MemDisk::new();
        disk.preallocate("f", 4 * 512, &mut || {}).unwrap();
        disk.write_at("f", 0, &[1; 512]).unwrap();
        disk.sync("f").unwrap();
        disk.write_at("f", 0, &[2; 4 * 512]).unwrap();
        let mut coins = [0, 1, 0, 1].into_iter();
        disk.crash(&mut |_| coins.next().unwrap());
        let bytes = disk.read_at("f", 0, 4 * 512).unwrap();
        assert_eq!([bytes[0], bytes[512], bytes[1024], bytes[1536]], [1, 2, 0, 2]);
    }

    #[test]
    fn a_crash_may_undo_an_unsynced_growth() {
        let disk = MemDisk::new();
        disk.create("f").unwrap();
        disk.write_at("f", 0, b"old").unwrap();
        disk.sync("f").unwrap();
        disk.write_at("f", 3, b" and new").unwrap();
        disk.crash(&mut |_| 0);
        assert_eq!(disk.read_at("f", 0, 100).unwrap(), b"old");
    }

    #[test]
    fn after_a_failed_sync_only_writing_again_helps() {
        let disk = MemDisk::new();
        disk.preallocate("f", 512, &mut || {}).unwrap();
        disk.write_at("f", 0, b"lost").unwrap();
        disk.fail_sync(1);
        assert!(disk.sync("f").is_err());
        disk.sync("f").unwrap();
        assert_eq!(disk.read_at("f", 0, 4).unwrap(), b"lost");
        disk.crash(&mut |_| 0);
        assert_eq!(disk.read_at("f", 0, 4).unwrap(), [0; 4]);
    }

    #[test]
    fn a_machine_that_stops_leaves_the_rest_undone() {
        let disk = MemDisk::new();
        disk.stop_after(Some(2));
        disk.create("f").unwrap();
        assert!(!disk.has_stopped());
        disk.write_at("f", 0, b"was").unwrap();
        assert!(disk.has_stopped());
        disk.write_at("f", 0, b"not").unwrap();
        disk.delete("f").unwrap();
        disk.crash(&mut |_| 1);
        assert_eq!(disk.read_at("f", 0, 3).unwrap(), b"was");
        disk.delete("f").unwrap();
        assert_eq!(disk.size("f").unwrap(), None);
    }

    #[test]
    fn a_misdirected_sector_is_missing_in_one_place_and_too_much_in_another() {
        let disk = MemDisk::new();
        disk.preallocate("f", 3 * 512, &mut || {}).unwrap();
        disk.write_at("f", 0, &[1; 512]).unwrap();
        disk.write_at("f", 512, &[2; 512]).unwrap();
        disk.misdirect_sector("f", 1, 0);
        let bytes = disk.read_at("f", 0, 3 * 512).unwrap();
        assert_eq!([bytes[0], bytes[512], bytes[1024]], [2, 0, 0]);
    }

    #[test]
    fn a_full_disk_says_so() {
        let disk = MemDisk::new();
        disk.set_capacity(Some(1024));
        disk.preallocate("f", 512, &mut || {}).unwrap();
        assert_eq!(disk.preallocate("g", 513, &mut || {}).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.size("g").unwrap(), None);
        assert_eq!(disk.write_at("f", 1024, b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.write_at("f", 1023, b"x").unwrap();
    }
}
