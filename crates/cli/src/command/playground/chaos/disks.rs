//! Slow and hung disks, set through the file that a node's `--disk-faults` names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    None,
    /// Each sync takes this much longer.
    Slow(Duration),
    /// No sync returns.
    Hung,
}

impl DiskFault {
    /// The fault of a node's disk, in words.
    pub fn of(self, node: &str) -> String {
        match self {
            DiskFault::None => format!("disk of {node} healthy"),
            DiskFault::Slow(delay) => format!("syncs of {node} {} ms slower", delay.as_millis()),
            DiskFault::Hung => format!("disk of {node} hung"),
        }
    }

    fn word(self) -> String {
        match self {
            DiskFault::None => String::new(),
            DiskFault::Slow(delay) => delay.as_millis().to_string(),
            DiskFault::Hung => "hang".to_owned(),
        }
    }
}

/// The file for node `number`, counted from 0, of the cluster in `directory`.
pub fn control_file(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("node{}.disk-faults", number + 1))
}

/// Sets the fault of the node's disk, replacing any other.
pub fn set(directory: &Path, number: usize, fault: DiskFault) -> io::Result<()> {
    // Renaming is atomic: the node must not read half a word.
    let (file, new) = (control_file(directory, number), directory.join("disk-faults.new"));
    fs::write(&new, fault.word())?;
    fs::rename(new, file)
}
