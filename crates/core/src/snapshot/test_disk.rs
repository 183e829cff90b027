//! A disk for this module's tests: a map. It models only two aspects of durability: syncs can be made to fail, and it
//! counts the bytes that a single sync had to make durable.

use crate::disk::Disk;
use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Default)]
pub struct TestDisk {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    syncs_fail: AtomicBool,
    unsynced_bytes: AtomicU64,
    largest_sync_bytes: AtomicU64,
}

impl TestDisk {
    pub fn fail_syncs(&self) {
        self.syncs_fail.store(true, Ordering::Relaxed);
    }

    /// The most bytes that were unsynced at any time.
    pub fn largest_sync_bytes(&self) -> u64 {
        self.largest_sync_bytes.load(Ordering::Relaxed)
    }

    fn with<T>(&self, action: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        action(&mut self.files.lock().expect("no test panics holding the lock"))
    }
}

impl Disk for TestDisk {
    fn preallocate(&self, _name: &str, _size_bytes: u64, _progress: &mut dyn FnMut()) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create(&self, name: &str) -> io::Result<()> {
        self.with(|files| files.insert(name.into(), Vec::new()));
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        let unsynced = self.unsynced_bytes.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
        self.largest_sync_bytes.fetch_max(unsynced, Ordering::Relaxed);
        self.with(|files| {
            let file = files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            let end = offset as usize + data.len();
            file.resize(file.len().max(end), 0);
            file[offset as usize..end].copy_from_slice(data);
            Ok(())
        })
    }

    fn sync(&self, _name: &str) -> io::Result<()> {
        self.unsynced_bytes.store(0, Ordering::Relaxed);
        if self.syncs_fail.load(Ordering::Relaxed) { Err(io::Error::other("a sync that fails")) } else { Ok(()) }
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.with(|files| {
            let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
            let start = file.len().min(offset as usize);
            Ok(file[start..file.len().min(start + len)].to_vec())
        })
    }

    fn close(&self, _: &str) {}

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.with(|files| files.get(name).map(|file| file.len() as u64)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|files| {
            let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            files.insert(to.into(), file);
            Ok(())
        })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.with(|files| files.remove(name));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|files| files.keys().cloned().collect()))
    }
}
