//! Nodes whose disks are slow, hang or fail on demand.

use super::Node;
use std::path::PathBuf;
use std::time::Duration;

impl Node {
    /// Enables the methods below to set faults of the node's disk, from its next start on.
    pub fn take_disk_faults(&mut self) {
        let flag = format!("--disk-faults={}", self.disk_faults().display());
        self.set(&flag);
    }

    /// From now on each sync takes this much longer, including one under way.
    pub fn slow_disk(&self, delay: Duration) {
        self.set_disk_fault(&delay.as_millis().to_string());
    }

    /// From now on no sync returns until the disk is healed.
    pub fn hang_disk(&self) {
        self.set_disk_fault("hang");
    }

    /// From now on each sync fails.
    pub fn fail_disk(&self) {
        self.set_disk_fault("fail");
    }

    /// Ends the fault, also for syncs under way.
    pub fn heal_disk(&self) {
        self.set_disk_fault("0");
    }

    /// Replaces the file atomically: it is read all the time.
    fn set_disk_fault(&self, fault: &str) {
        let (path, new) = (self.disk_faults(), self.directory.with_extension("faults.new"));
        std::fs::write(&new, fault).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn disk_faults(&self) -> PathBuf {
        self.directory.with_extension("faults")
    }
}
