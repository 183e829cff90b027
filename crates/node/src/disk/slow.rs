//! For tests: a disk whose syncs take time for each byte that they make durable, and the health monitor's view of it.

use crate::clock;
use parking_lot::Mutex;
use ringfort_core::disk::Disk;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::health::{DiskState, HealthConfig, HealthMonitor};
use ringfort_core::limits::SYNCED_PART_BYTES;
use ringfort_core::timing::Timing;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// 20 MB/s: twice as fast as a disk must be, since the machine that runs the tests is busy.
const BYTES_A_MS: u64 = 20_000;

#[derive(Default)]
pub struct SlowDisk {
    disk: MemDisk,
    unsynced_bytes: AtomicU64,
}

impl SlowDisk {
    fn make_durable(&self, bytes: u64) {
        thread::sleep(Duration::from_millis(bytes / BYTES_A_MS));
    }
}

impl Disk for SlowDisk {
    fn preallocate(&self, name: &str, size_bytes: u64, progress: &mut dyn FnMut()) -> io::Result<()> {
        for _ in 0..size_bytes / SYNCED_PART_BYTES {
            self.make_durable(SYNCED_PART_BYTES);
            progress();
        }
        self.make_durable(size_bytes % SYNCED_PART_BYTES);
        self.disk.preallocate(name, size_bytes, &mut || {})
    }

    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        self.unsynced_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.disk.write_at(name, offset, data)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.make_durable(self.unsynced_bytes.swap(0, Ordering::Relaxed));
        self.disk.sync(name)
    }

    fn create(&self, name: &str) -> io::Result<()> {
        self.disk.create(name)
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.disk.read_at(name, offset, len)
    }

    fn close(&self, name: &str) {
        self.disk.close(name);
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        self.disk.size(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.disk.delete(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
}

/// A monitor with usual times, in a cluster with this timing.
pub fn monitor(timing: Timing) -> Mutex<HealthMonitor> {
    let (return_after, give_up_after) = (Duration::from_secs(30), Duration::from_secs(60));
    let config = HealthConfig { return_after, give_up_after, timing };
    Mutex::new(HealthMonitor::new(config, clock::moment()))
}

/// Runs `what`, and meanwhile checks the disk once a tick, as the disk watch does. Returns the worst state seen.
pub fn watched(health: &Mutex<HealthMonitor>, timing: Timing, what: impl FnOnce() + Send) -> DiskState {
    thread::scope(|scope| {
        let doing = scope.spawn(what);
        let mut worst = DiskState::Healthy;
        loop {
            let is_last = doing.is_finished();
            worst = worst.max(health.lock().look(clock::moment()).health.disk);
            if is_last {
                return worst;
            }
            thread::sleep(timing.tick());
        }
    })
}
