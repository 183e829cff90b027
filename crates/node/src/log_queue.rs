//! The way to the log thread, and the size of the log.

use crate::admission::AdmissionState;
use crate::events::{LogEvent, Mailbox};
use crossbeam_channel::Receiver;
use ringfort_core::log::{BatchSource, LogBatch};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The way to the log, for workers and gossip.
#[derive(Clone)]
pub struct LogQueue {
    events: Mailbox<LogEvent>,
    admission: Arc<AdmissionState>,
}

impl LogQueue {
    pub fn new(admission: Arc<AdmissionState>) -> (LogQueue, Receiver<LogEvent>) {
        let (events, received) = Mailbox::new();
        (LogQueue { events, admission }, received)
    }

    /// Hands a batch to the log thread.
    pub fn hand_in(&self, source: BatchSource, batch: LogBatch) {
        self.admission.unsynced(batch.new_entry_bytes());
        // The log thread outlives the workers. Gossip's last batch may come too late when the node stops: nothing in it
        // has been acknowledged.
        self.events.send(LogEvent::Batch { source, batch });
    }

    /// All workers have ended: ends the thread after the batches that it has.
    pub fn stop(&self) {
        self.events.send(LogEvent::Stop);
    }
}

/// How many bytes the log's segments take.
#[derive(Default)]
pub struct LogSize(AtomicU64);

impl LogSize {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For the log thread.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}
