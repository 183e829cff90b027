//! Disks whose syncs take as long as a test says, one for each node: a disk that is slow, and one that hangs.

use super::{Node, program};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A library that makes syncs wait, for LD_PRELOAD.
pub struct SlowDisk(PathBuf);

impl SlowDisk {
    /// Nothing where there is no C compiler.
    pub fn compile(directory: &Path) -> Option<SlowDisk> {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/support/slow_sync.c");
        let library = directory.join("slow_sync.so");
        let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]).output();
        let made = made.ok()?;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(SlowDisk(library))
    }

    /// The program under test for [`Node::start_by`], whose syncs wait as it is set for this node.
    pub fn program(&self, node: &Node) -> Command {
        let mut command = program();
        command.env("LD_PRELOAD", &self.0).env("TEST_SYNC_DELAY_FILE", delay_file(node));
        command
    }

    /// From now on each sync of the node takes this much longer, the one under way included.
    pub fn delay(&self, node: &Node, delay: Duration) {
        set(node, &delay.as_millis().to_string());
    }

    /// From now on no sync of the node ends, until it is healed.
    pub fn hang(&self, node: &Node) {
        set(node, "hang");
    }

    /// Lets the node's syncs take what they take, and ends the ones that wait.
    pub fn heal(&self, node: &Node) {
        set(node, "0");
    }
}

/// Replaces the file as a whole: it is read all the time.
fn set(node: &Node, text: &str) {
    let (path, new) = (delay_file(node), node.directory.with_extension("delay.new"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn delay_file(node: &Node) -> PathBuf {
    node.directory.with_extension("delay")
}
