//! [`Disk`] as the files of one directory.
//!
//! A write is one `pwrite`, a sync one `fdatasync`, on a handle that stays open until the file is closed: opening a
//! file costs as much as a small write. Files that are only read are opened for each read, since there are many of them
//! and few descriptors. Names are made durable by syncing the directory, so creating, renaming and deleting a file are
//! slow (a sync each) and meant to be rare.

mod faulty;
#[cfg(test)]
pub mod slow;

use faulty::FaultyDisk;
use ringfort_core::disk::Disk;
use ringfort_core::limits::SYNCED_PART_BYTES;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Opens a node's directory. Returns the disk to use, which injects the faults set by the file `faults` if it is given,
/// and the underlying files.
pub fn open(directory: &Path, faults: Option<&Path>) -> io::Result<(Arc<dyn Disk>, Arc<FileDisk>)> {
    let files = Arc::new(FileDisk::open(directory)?);
    let disk: Arc<dyn Disk> = match faults {
        None => files.clone(),
        Some(file) => {
            tracing::warn!("{} makes the disk fail (--disk-faults): for tests only", file.display());
            Arc::new(FaultyDisk::new(files.clone(), file))
        }
    };
    Ok((disk, files))
}

/// The files directly inside one directory.
///
/// - `open` has a handle for each file that was created or written to and not closed, under its present name: creating,
///   renaming and deleting a file replace, move and drop its handle while holding the lock.
/// - Nothing slow happens under the lock, because each write to the log takes it. Freeing the bytes of a large file may
///   take seconds. So a file that loses its name is [held](FileDisk::hold) until the lock is released.
pub struct FileDisk {
    path: PathBuf,
    directory: File,
    open: Mutex<BTreeMap<String, Arc<File>>>,
}

impl FileDisk {
    /// Opens an existing directory.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<FileDisk> {
        let path = path.into();
        let directory = File::open(&path)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(FileDisk { path, directory, open: Mutex::default() })
    }

    /// The path of the directory or of an open file, if that path now leads to another file or to none.
    pub fn lost_name(&self) -> io::Result<Option<PathBuf>> {
        if !is_at(&self.directory, &self.path)? {
            return Ok(Some(self.path.clone()));
        }
        // The files are checked without the lock. If one has lost its name, this process may have removed or replaced
        // it, and has then changed the handle too. So the file is checked again under the lock, under which names and
        // handles change together.
        let known: Vec<_> = self.handles().iter().map(|(name, file)| (name.clone(), file.clone())).collect();
        for (name, file) in known {
            let path = self.path.join(&name);
            if is_at(&file, &path)? {
                continue;
            }
            if let Some(file) = self.handles().get(&name)
                && !is_at(file, &path)?
            {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    fn path_of(&self, name: &str) -> io::Result<PathBuf> {
        let is_plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if is_plain {
            Ok(self.path.join(name))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a plain file name")))
        }
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<String, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, name: &str) -> io::Result<Arc<File>> {
        let mut handles = self.handles();
        if let Some(file) = handles.get(name) {
            return Ok(file.clone());
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(self.path_of(name)?)?);
        handles.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    /// Keeps the bytes of a file that is about to lose its name from being freed until the result is dropped. Call it
    /// before locking the handles, and drop the result after unlocking them.
    fn hold(&self, name: &str) -> io::Result<Option<Arc<File>>> {
        let path = self.path_of(name)?;
        let known = self.handles().get(name).cloned();
        // If there is no such file, or no descriptor is left, nothing is held: deleting files must work even then.
        Ok(known.or_else(|| File::open(path).ok().map(Arc::new)))
    }

    fn make(&self, name: &str) -> io::Result<Arc<File>> {
        let path = self.path_of(name)?;
        let _older = self.hold(name)?;
        let mut handles = self.handles();
        // Truncating the older file would free its bytes now.
        remove(&path)?;
        let file = Arc::new(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?);
        handles.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    /// Removes a file's name and its handle. Returns whether the file existed, and a handle that holds its bytes.
    fn unlink(&self, name: &str) -> io::Result<(bool, Option<Arc<File>>)> {
        let path = self.path_of(name)?;
        let held = self.hold(name)?;
        let mut handles = self.handles();
        handles.remove(name);
        Ok((remove(&path)?, held))
    }
}

impl Disk for FileDisk {
    fn preallocate(&self, name: &str, size_bytes: u64, progress: &mut dyn FnMut()) -> io::Result<()> {
        let file = self.make(name)?;
        let filled = write_zeros(&file, size_bytes, progress).and_then(|()| file.sync_all());
        if let Err(error) = filled {
            // The first error is the one to report; a file that cannot be deleted either is replaced next time.
            let _ = self.delete(name);
            return Err(error);
        }
        self.directory.sync_all()
    }

    fn create(&self, name: &str) -> io::Result<()> {
        self.make(name)?;
        self.directory.sync_all()
    }

    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        self.handle(name)?.write_all_at(data, offset)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.handle(name)?.sync_data()
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let known = self.handles().get(name).cloned();
        let file = known.map_or_else(|| File::open(self.path_of(name)?).map(Arc::new), Ok)?;
        let left = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; len.min(usize::try_from(left).unwrap_or(usize::MAX))];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn close(&self, name: &str) {
        self.handles().remove(name);
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.path_of(name)?) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_path, to_path) = (self.path_of(from)?, self.path_of(to)?);
        let _older = self.hold(to)?;
        let mut handles = self.handles();
        fs::rename(from_path, to_path)?;
        handles.remove(to);
        if let Some(file) = handles.remove(from) {
            handles.insert(to.to_owned(), file);
        }
        drop(handles);
        self.directory.sync_all()
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let (existed, held) = self.unlink(name)?;
        drop(held);
        if existed { self.directory.sync_all() } else { Ok(()) }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Removes a file if it exists. Returns whether it existed.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a path leads to this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_zeros(file: &File, size_bytes: u64, progress: &mut dyn FnMut()) -> io::Result<()> {
    let zeros = vec![0; size_bytes.min(SYNCED_PART_BYTES) as usize];
    let mut offset = 0;
    while offset < size_bytes {
        let len = (size_bytes - offset).min(SYNCED_PART_BYTES);
        file.write_all_at(&zeros[..len as usize], offset)?;
        file.sync_data()?;
        progress();
        offset += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::Entry;
    use ringfort_core::log::item::{Change, LogItem, ReplicaState};
    use ringfort_core::log::{Log, LogConfig, RecoveredShard};
    use ringfort_core::types::{ReplicaId, ShardId};

    #[test]
    fn conforms() {
        let parent = tempfile::tempdir().unwrap();
        let mut count = 0;
        ringfort_core::disk::conformance::run(|| {
            count += 1;
            let path = parent.path().join(count.to_string());
            fs::create_dir(&path).unwrap();
            FileDisk::open(path).unwrap()
        });
    }

    #[test]
    fn keeps_files_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        disk.preallocate("a", 1024, &mut || {}).unwrap();
        disk.write_at("a", 10, b"hello").unwrap();
        disk.sync("a").unwrap();
        drop(disk);
        let disk = FileDisk::open(directory.path()).unwrap();
        assert_eq!(disk.list().unwrap(), ["a"]);
        assert_eq!(disk.read_at("a", 10, 5).unwrap(), b"hello");
    }

    #[test]
    fn a_log_goes_on_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let item = |change| LogItem { shard: ShardId(1), replica: ReplicaId(2), change };
        let entry = |index| Entry { index, data: vec![b'x'; 3000].into(), ..Default::default() };
        let mut state = ReplicaState::default();
        let open = || {
            Log::open(
                FileDisk::open(directory.path()).unwrap(),
                LogConfig { segment_bytes: 8192, ..LogConfig::default() },
            )
            .unwrap()
        };
        let (mut log, _) = open();
        log.append(&[item(Change::State(Box::new(state.clone())))]).unwrap();
        log.sync().unwrap();
        for index in 1..20 {
            let (mut log, recovery) = open();
            assert_eq!(recovery.findings, [""; 0]);
            let recovered = RecoveredShard::Recovered { replica: ReplicaId(2), state: Box::new(state.clone()) };
            assert_eq!(recovery.shards[&ShardId(1)], recovered);
            log.append(&[item(Change::Entries(vec![entry(index)]))]).unwrap();
            log.sync().unwrap();
            state.entries.push(entry(index));
        }
    }

    #[test]
    fn names_do_not_leave_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        for name in ["", ".", "..", "../a", "/tmp/a", "a/b", "a\0b"] {
            assert_eq!(disk.create(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
            assert_eq!(disk.read_at(name, 0, 1).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn files_and_directories_that_lose_their_names_are_noticed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("node");
        fs::create_dir(&path).unwrap();
        let disk = FileDisk::open(&path).unwrap();
        disk.create("a").unwrap();
        disk.rename("a", "b").unwrap();
        disk.create("gone").unwrap();
        disk.delete("gone").unwrap();
        assert_eq!(disk.lost_name().unwrap(), None, "the disk's own changes");
        fs::remove_file(path.join("b")).unwrap();
        assert_eq!(disk.lost_name().unwrap(), Some(path.join("b")));
        fs::write(path.join("b"), "another").unwrap();
        assert_eq!(disk.lost_name().unwrap(), Some(path.join("b")));
        disk.close("b");
        assert_eq!(disk.lost_name().unwrap(), None);
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(disk.lost_name().unwrap(), Some(path.clone()));
        fs::create_dir(&path).unwrap();
        assert_eq!(disk.lost_name().unwrap(), Some(path.clone()), "another directory has its name");
    }

    /// Freeing a large file may take seconds, and each write to the log takes the lock.
    #[test]
    fn the_bytes_of_a_deleted_file_are_freed_when_no_lock_is_held() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        for is_open in [true, false] {
            disk.preallocate("large", 1 << 20, &mut || {}).unwrap();
            if !is_open {
                disk.close("large");
            }
            let (existed, held) = disk.unlink("large").unwrap();
            assert!(existed);
            assert!(disk.open.try_lock().is_ok_and(|handles| !handles.contains_key("large")));
            assert_eq!(disk.size("large").unwrap(), None);
            let held = held.unwrap().metadata().unwrap();
            assert_eq!((held.nlink(), held.len()), (0, 1 << 20), "its bytes are still there");
            assert!(held.blocks() > 0);
        }
    }

    /// The log's own syncs wait behind each of these syncs.
    #[test]
    fn a_file_is_filled_in_parts() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        let mut parts = 0;
        disk.preallocate("a", 2 * SYNCED_PART_BYTES + 1, &mut || parts += 1).unwrap();
        assert_eq!(parts, 3);
        assert_eq!(disk.size("a").unwrap(), Some(2 * SYNCED_PART_BYTES + 1));
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(FileDisk::open(file.path()).err().unwrap().kind(), io::ErrorKind::NotADirectory);
        assert!(FileDisk::open("/nonexistent/directory").is_err());
    }
}
