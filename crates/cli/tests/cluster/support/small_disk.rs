//! A small disk, which is soon full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const DISK_BYTES: u64 = 24 << 20;

/// A small disk mounted at a directory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` if this process may not mount.
    pub fn mount(directory: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(directory).unwrap();
        let size = format!("size={DISK_BYTES}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| SmallDisk(directory.to_owned()))
    }

    /// A file that takes space. Write it before the disk is filled, or not at all.
    pub fn ballast(&self) -> PathBuf {
        self.0.join(".ballast")
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The nodes may still be running.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}
