//! Wall clocks that can be set, one for each node.

use super::Node;
use std::path::PathBuf;
use std::process::Command;

/// The library of faketime (Debian's package `faketime`), which shows a program a false time of day.
pub struct WallClock(PathBuf);

impl WallClock {
    /// `None` if it is not installed.
    pub fn find() -> Option<WallClock> {
        let candidates = std::fs::read_dir("/usr/lib").ok()?.map_while(Result::ok).map(|entry| entry.path());
        let mut libraries = candidates.map(|path| path.join("faketime/libfaketime.so.1"));
        libraries.find(|path| path.exists()).map(WallClock)
    }

    /// Makes a command start the node with the clock that has been [set](WallClock::set) for it.
    pub fn take_effect(&self, command: &mut Command, node: &Node) {
        command.env("LD_PRELOAD", &self.0).env("FAKETIME_TIMESTAMP_FILE", offset_file(node));
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    }

    /// Sets a node's clock to this many seconds from true time.
    pub fn set(&self, node: &Node, seconds: i32) {
        std::fs::write(offset_file(node), format!("{seconds:+}\n")).unwrap();
    }
}

fn offset_file(node: &Node) -> PathBuf {
    node.directory.with_extension("offset")
}
