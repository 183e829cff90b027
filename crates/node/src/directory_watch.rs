//! Notices that a running node's directory was deleted or replaced.
//!
//! A process can keep using files that have been unlinked. Syncs succeed, and at the next start everything that they
//! made durable is gone. So the process ends as soon as it notices. The check runs on its own thread, because it blocks
//! while the disk hangs.

use crate::disk::FileDisk;
use crate::seldom::Seldom;
use crate::stderr::last_line;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::Duration;

/// How often to check. Writes that are acknowledged before the next check may be lost with these files.
const INTERVAL: Duration = Duration::from_secs(1);

static LOOK_FAILED: Seldom = Seldom::new();

/// Runs until the sender of `stopped` is dropped.
pub fn run(disk: Arc<FileDisk>, stopped: Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
        match disk.lost_name() {
            Ok(None) => {}
            Ok(Some(path)) => end(&path.display().to_string()),
            Err(error) if LOOK_FAILED.due().is_some() => {
                tracing::warn!("could not check that the node's directory still exists, and will try again: {error}");
            }
            Err(_) => {}
        }
    }
}

fn end(path: &str) -> ! {
    last_line(&format!(
        "{path} was deleted or replaced while this node ran: what it acknowledges would not survive a \
         restart, so this process ends. If the directory was moved, move it back; never use an older copy. Otherwise \
         start the node with an empty --raft-dir, with --join-addr, and with --replace instead of --bootstrap: it gets \
         its data from the others"
    ));
    std::process::exit(2);
}
