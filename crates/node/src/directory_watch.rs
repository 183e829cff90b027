//! Notices that a running node's directory was deleted or replaced.
//!
//! The system lets a process go on with files that have no name any more. Syncs succeed, and at the next start all that
//! they made durable is gone. So the process ends as soon as this is seen. A thread of its own looks: where the disk hangs,
//! looking takes as long.

use crate::disk::FileDisk;
use crate::seldom::Seldom;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::Duration;

/// How often to look. What is acknowledged in between may be on this disk alone.
const INTERVAL: Duration = Duration::from_secs(1);

static LOOK_FAILED: Seldom = Seldom::new();

/// Runs until the other end of `stopped` is dropped.
pub fn run(disk: Arc<FileDisk>, stopped: Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
        match disk.lost_name() {
            Ok(None) => {}
            Ok(Some(path)) => end(&path.display().to_string()),
            Err(error) if LOOK_FAILED.due().is_some() => {
                tracing::warn!("could not look whether the node's directory is still there: {error}");
            }
            Err(_) => {}
        }
    }
}

fn end(path: &str) -> ! {
    eprintln!(
        "ringfort: {path} was deleted or replaced while this node ran: what it acknowledges would not survive a restart, so \
         this process ends. Put the directory back as it was; or start the node with an empty --raft-dir, --join-addr, and \
         --replace instead of --bootstrap: it gets its data from the others"
    );
    std::process::exit(2);
}
