//! The interface to the disk: a flat directory of named files.
//!
//! Two implementations exist: files of the operating system (`ringfort-node`) and [`mem::MemDisk`], which the
//! simulator crashes. Both pass [`conformance`].
//!
//! **What survives a crash.** Bytes written with [`Disk::write_at`] survive once a later [`Disk::sync`] of that file
//! has returned; until then any 512-byte sector of them may or may not have reached the disk. A created, renamed or
//! deleted name survives once the call has returned: these calls are rare and sync the directory themselves.

pub mod conformance;
pub mod mem;

use std::io;
use std::sync::Arc;

/// The unit in which a disk writes: a crash leaves each sector old or new, never a mixture.
pub const SECTOR_BYTES: usize = 512;

/// A flat directory of files. Methods take `&self`: a spare segment is prepared while the log is written.
pub trait Disk: Send + Sync + 'static {
    /// Makes a file of `size_bytes` zero bytes, actually written, so that its space is secured; replaces an older one.
    /// The file and its name are durable when this returns. Fails with [`io::ErrorKind::StorageFull`] if there is no
    /// space, leaving no file. Calls `progress` each time the disk has made a part of it durable.
    fn preallocate(&self, name: &str, size_bytes: u64, progress: &mut dyn FnMut()) -> io::Result<()>;

    /// Makes an empty file; replaces an older one.
    fn create(&self, name: &str) -> io::Result<()>;

    /// Writes `data` at `offset`, extending the file if necessary.
    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes all earlier writes to this file durable. After an error their state is unknown: never retry, abort.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Closes the cached handle of a file that is not written to for now. The file may be used again.
    fn close(&self, name: &str);

    /// The size of a file in bytes, or `None` if there is no such file.
    fn size(&self, name: &str) -> io::Result<Option<u64>>;

    /// Renames a file over `to`, atomically, and makes the new name durable.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Deletes a file. It is no error if the file does not exist.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
}

/// A shared disk is a disk.
impl<D: Disk + ?Sized> Disk for Arc<D> {
    fn preallocate(&self, name: &str, size_bytes: u64, progress: &mut dyn FnMut()) -> io::Result<()> {
        (**self).preallocate(name, size_bytes, progress)
    }

    fn create(&self, name: &str) -> io::Result<()> {
        (**self).create(name)
    }

    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        (**self).write_at(name, offset, data)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        (**self).sync(name)
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        (**self).read_at(name, offset, len)
    }

    fn close(&self, name: &str) {
        (**self).close(name);
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        (**self).size(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (**self).rename(from, to)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        (**self).delete(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        (**self).list()
    }
}
