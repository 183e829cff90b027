//! Measures what a durable write costs on this machine: overwrites and syncs of 4 KiB, one after the other.

use super::measurement::{histogram, record};
use hdrhistogram::Histogram;
use rustix::fs::fstatfs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 4096;

/// The file's blocks are overwritten in turn, like a log whose space was allocated ahead of use.
const BLOCKS: u64 = 1024;

/// Statfs types of file systems in memory, from linux/magic.h: tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error(
        "{0} is a file system in memory, where a sync costs nothing: choose a --floor-dir on the disk of the nodes"
    )]
    InMemory(PathBuf),
    #[error("can't measure the disk in {directory}: {source}")]
    Io { directory: PathBuf, source: io::Error },
}

/// An unnamed file, which disappears when this is dropped.
pub struct Disk {
    file: File,
    directory: PathBuf,
}

impl Disk {
    pub fn open(directory: &Path) -> Result<Disk, DiskError> {
        let failed = |source| DiskError::Io { directory: directory.to_owned(), source };
        let file = tempfile::tempfile_in(directory).map_err(failed)?;
        let kind = fstatfs(&file).map_err(|source| failed(source.into()))?.f_type;
        if IN_MEMORY.contains(&(kind as u64)) {
            return Err(DiskError::InMemory(directory.to_owned()));
        }
        let disk = Disk { file, directory: directory.to_owned() };
        disk.fill().map_err(failed)?;
        Ok(disk)
    }

    /// Latencies in nanoseconds of a write and its fdatasync.
    pub fn measure(&self, duration: Duration) -> Result<Histogram<u64>, DiskError> {
        let (begun, mut latencies) = (Instant::now(), histogram());
        for number in 0.. {
            let began = Instant::now();
            let written = self.write(number % BLOCKS, number as u8).and_then(|()| self.file.sync_data());
            written.map_err(|source| DiskError::Io { directory: self.directory.clone(), source })?;
            record(&mut latencies, began.elapsed());
            if begun.elapsed() >= duration {
                break;
            }
        }
        Ok(latencies)
    }

    fn fill(&self) -> io::Result<()> {
        (0..BLOCKS).try_for_each(|block| self.write(block, 0))?;
        self.file.sync_all()
    }

    fn write(&self, block: u64, byte: u8) -> io::Result<()> {
        self.file.write_all_at(&[byte; BLOCK_BYTES], block * BLOCK_BYTES as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_no_disk() {
        // Without such a file system there is nothing to test.
        let shared_memory = Path::new("/dev/shm");
        if shared_memory.is_dir() {
            assert!(matches!(Disk::open(shared_memory), Err(DiskError::InMemory(_))));
        }
        assert!(matches!(Disk::open(Path::new("/no such directory")), Err(DiskError::Io { .. })));
    }
}
