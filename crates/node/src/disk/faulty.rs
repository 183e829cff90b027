//! A disk that is slow, hangs or fails as a control file says: for tests, and for `ringfort playground --chaos`.
//!
//! The file holds one word. If it is missing or empty, the disk works normally.
//!
//! | word | |
//! |---|---|
//! | a number | each sync takes this many milliseconds longer |
//! | `hang` | no sync returns until the file says something else |
//! | `fail` | each sync fails |
//!
//! This applies to every method that syncs, including those that sync the directory. A sync under way reads the file
//! repeatedly, so that it ends when the file changes.

use ringfort_core::disk::Disk;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How often a sync under way reads the file.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A disk with the faults that a file sets.
pub struct FaultyDisk<D> {
    disk: D,
    file: PathBuf,
}

enum Fault {
    Delay(Duration),
    Hang,
    Fail,
}

impl<D: Disk> FaultyDisk<D> {
    pub fn new(disk: D, file: impl Into<PathBuf>) -> FaultyDisk<D> {
        FaultyDisk { disk, file: file.into() }
    }

    /// Applies the fault before a sync.
    fn suffer(&self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            match self.fault()? {
                Fault::Delay(delay) if begun.elapsed() >= delay => return Ok(()),
                Fault::Fail => return Err(io::Error::other(format!("{} asks for a failed sync", self.file.display()))),
                Fault::Delay(_) | Fault::Hang => thread::sleep(LOOK_PAUSE),
            }
        }
    }

    fn fault(&self) -> io::Result<Fault> {
        let text = match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Fault::Delay(Duration::ZERO)),
            text => text?,
        };
        match text.trim() {
            "" => Ok(Fault::Delay(Duration::ZERO)),
            "hang" => Ok(Fault::Hang),
            "fail" => Ok(Fault::Fail),
            number => number.parse().map(|number| Fault::Delay(Duration::from_millis(number))).map_err(|_| {
                let advice = "give a number of milliseconds, `hang` or `fail`";
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {advice}", self.file.display()))
            }),
        }
    }
}

impl<D: Disk> Disk for FaultyDisk<D> {
    fn preallocate(&self, name: &str, size_bytes: u64, progress: &mut dyn FnMut()) -> io::Result<()> {
        self.suffer()?;
        self.disk.preallocate(name, size_bytes, progress)
    }

    fn create(&self, name: &str) -> io::Result<()> {
        self.suffer()?;
        self.disk.create(name)
    }

    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(name, offset, data)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.suffer()?;
        self.disk.sync(name)
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
        self.suffer()?;
        self.disk.rename(from, to)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.suffer()?;
        self.disk.delete(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_core::disk::conformance;
    use ringfort_core::disk::mem::MemDisk;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tempfile::TempDir;

    fn faulty() -> (FaultyDisk<MemDisk>, PathBuf, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("faults");
        let disk = FaultyDisk::new(MemDisk::new(), &file);
        disk.create("a").unwrap();
        (disk, file, directory)
    }

    #[test]
    fn is_a_disk_as_long_as_no_fault_is_asked_for() {
        conformance::run(|| FaultyDisk::new(MemDisk::new(), "/nonexistent/faults"));
    }

    #[test]
    fn syncs_take_longer_or_fail() {
        let (disk, file, _directory) = faulty();
        fs::write(&file, "30\n").unwrap();
        let begun = Instant::now();
        disk.sync("a").unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(30));
        fs::write(&file, "fail").unwrap();
        assert!(
            disk.sync("a").is_err()
                && disk.rename("a", "b").is_err()
                && disk.preallocate("c", 512, &mut || {}).is_err()
        );
        assert_eq!(disk.list().unwrap(), ["a"]);
        fs::write(&file, "slow").unwrap();
        assert_eq!(disk.sync("a").unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::remove_file(&file).unwrap();
        disk.sync("a").unwrap();
    }

    #[test]
    fn a_sync_that_hangs_ends_when_the_file_changes() {
        let (disk, file, _directory) = faulty();
        fs::write(&file, "hang").unwrap();
        let has_ended = Arc::new(AtomicBool::new(false));
        let syncing = thread::spawn({
            let has_ended = has_ended.clone();
            move || {
                disk.sync("a").unwrap();
                has_ended.store(true, Ordering::Relaxed);
            }
        });
        thread::sleep(5 * LOOK_PAUSE);
        assert!(!has_ended.load(Ordering::Relaxed));
        fs::write(&file, "0").unwrap();
        syncing.join().unwrap();
    }
}
