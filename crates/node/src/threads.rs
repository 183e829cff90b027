//! Threads that the node can't go on without.

use crate::stderr::last_line;
use std::io;
use std::thread::{Builder, JoinHandle, panicking};

/// Starts a thread. If it panics the process aborts: a node without one of its threads would look alive but not work.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        let guard = AbortOnPanic;
        run();
        drop(guard);
    })
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if panicking() {
            last_line("a thread panicked, so the process ends; its data is safe on disk and in its replicas");
            std::process::abort();
        }
    }
}
