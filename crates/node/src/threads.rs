//! Threads that the node can't go on without, and what it says when it ends.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle, panicking};
use std::time::Duration;

/// The last line that a process writes may take this long.
const LAST_LINE_PATIENCE: Duration = Duration::from_secs(1);

/// Starts a thread. If it panics the process aborts: half a node would look alive and be none.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        let guard = AbortOnPanic;
        run();
        drop(guard);
    })
}

/// Writes a line to stderr before the process ends. The caller goes on even if nobody can write it: stderr may be a file on
/// the disk that hangs, or a full pipe.
pub fn last_line(message: String) {
    let (written_tx, written) = mpsc::channel::<()>();
    let writer = Builder::new().name("last-line".into()).spawn(move || {
        eprintln!("ringfort: {message}");
        drop(written_tx);
    });
    if writer.is_ok() {
        let _ = written.recv_timeout(LAST_LINE_PATIENCE);
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if panicking() {
            last_line("a thread panicked, so the process ends; its data is safe on disk and in its replicas".into());
            std::process::abort();
        }
    }
}
