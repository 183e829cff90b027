//! The thread that writes the log: all waiting batches, of all shards, become one record with one sync.
//!
//! [`LogWriter`] decides how batches are written. A failed write or sync ends the process, because the contents of the
//! disk are then unknown. The health monitor ([`ringfort_core::health`]) gets the time that each record takes and,
//! while there is nothing to log, the time that a [`probe`] takes. It counts each part of a large record as a record.

use crate::admission::AdmissionState;
use crate::clock;
use crate::events::{GossipEvent, LogEvent, Mailbox};
use crate::files;
use crate::inbox::{DRAIN_BYTES, Event};
use crate::lifecycle::Lifecycle;
use crate::log_queue::LogSize;
use crate::metrics::Metrics;
use crate::seldom::Seldom;
use crate::spare_segments::SpareSegments;
use crate::stderr::last_line;
use crate::workers::Workers;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;
use ringfort_core::boot::PROBE_FILE;
use ringfort_core::disk::{Disk, SECTOR_BYTES};
use ringfort_core::health::HealthMonitor;
use ringfort_core::limits::LOG_BUDGET_BYTES;
use ringfort_core::log::{BatchSource, Log, LogError};
use ringfort_core::log_writer::{Appended, LogWriter, Synced, record_bytes};
use ringfort_core::timing::Timing;
use ringfort_core::types::ShardId;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

// The last batch of a record has the messages and the requests of one turn.
const _: () = assert!(record_bytes(Timing::DEFAULT) >= 2 * DRAIN_BYTES);

/// After this long with nothing to log, the disk is probed. That is soon enough for operators and for nodes that send a
/// snapshot here, and does not wear out a disk.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// What the thread uses of its node.
pub struct LogThread {
    pub disk: Arc<dyn Disk>,
    pub timing: Timing,
    pub workers: Arc<Workers>,
    pub gossip: Mailbox<GossipEvent>,
    pub health: Arc<Mutex<HealthMonitor>>,
    pub admission: Arc<AdmissionState>,
    pub lifecycle: Arc<Lifecycle>,
    pub size: Arc<LogSize>,
    pub metrics: Arc<Metrics>,
}

impl LogThread {
    /// Runs until [`LogEvent::Stop`].
    pub fn run(self, log: Log<Arc<dyn Disk>>, events: Receiver<LogEvent>) {
        let mut writer = LogWriter::new(log, self.timing, LOG_BUDGET_BYTES);
        let spares = SpareSegments::new(self.disk.clone());
        let mut is_stopping = false;
        while !is_stopping {
            self.size.set(writer.log().size_bytes());
            spares.make(writer.log_mut());
            is_stopping = match fill(&mut writer, &events, PROBE_INTERVAL) {
                Ok(is_stopping) => is_stopping,
                Err(RecvTimeoutError::Timeout) => {
                    probe(&*self.disk, &self.health);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let gathered_bytes = writer.gathered_bytes();
            spares.wait(writer.log_mut(), gathered_bytes, &self.health);
            if !self.append(&mut writer) {
                return;
            }
            let begun = Instant::now();
            let Synced { batches, items, unsynced_bytes } = writer.sync().unwrap_or_else(|error| abort(&error));
            self.health.lock().record_ended(clock::moment());
            self.admission.synced(unsynced_bytes);
            self.metrics.log_sync_seconds.observe(begun.elapsed().as_secs_f64());
            self.metrics.log_record_items.observe(items as f64);
            for (source, number) in batches {
                match source {
                    BatchSource::Gossip => {
                        self.gossip.send(GossipEvent::Persisted(number));
                    }
                    BatchSource::Worker(worker) => self.workers.inbox(worker).push_event(Event::Persisted(number)),
                }
            }
            for shard in writer.pressed(clock::moment()) {
                match shard {
                    ShardId::EVENTUAL => {
                        self.gossip.send(GossipEvent::LogPressure);
                    }
                    shard => self.workers.of(shard).push_event(Event::LogPressure(shard)),
                }
            }
        }
    }

    /// Writes the record, waiting for disk space for as long as it takes. Returns false if the node stops meanwhile.
    fn append(&self, writer: &mut LogWriter<Arc<dyn Disk>>) -> bool {
        static FULL: Seldom = Seldom::new();
        let mut is_said = false;
        loop {
            match append_once(writer, &self.health).unwrap_or_else(|error| abort(&error)) {
                Appended::Written { had_no_space } => {
                    if had_no_space {
                        self.health.lock().set_full(clock::moment(), false);
                        self.admission.set_disk_full(false);
                        self.admission.set_without_files(false);
                    }
                    if is_said {
                        tracing::info!(
                            "the log has space again: writes continue, and this node leads again when the disk has \
                             been healthy for a while"
                        );
                    }
                    return true;
                }
                Appended::NoSpace { error, pause } => {
                    let lacks_files = files::are_used_up(&error);
                    // An almost full disk alternates between having room and having none.
                    if !is_said && FULL.due().is_some() {
                        is_said = true;
                        match lacks_files {
                            true => tracing::warn!(
                                "no file descriptor for the log ({error}): this node writes nothing until there is \
                                 one; raise the limit on open files (ulimit -n)"
                            ),
                            false => {
                                tracing::warn!(
                                    "no space for the log ({error}): this node writes nothing until there is; free \
                                     some disk space"
                                )
                            }
                        }
                    }
                    // Without file descriptors the node can't log either, and must not lead.
                    self.health.lock().set_full(clock::moment(), true);
                    self.admission.set_disk_full(!lacks_files);
                    self.admission.set_without_files(lacks_files);
                    if self.lifecycle.is_stopping() {
                        return false;
                    }
                    thread::sleep(pause);
                }
            }
        }
    }
}

/// Waits up to `patience` for an event, then takes the waiting events that fit into the record. Returns whether the
/// thread is to stop after the record.
fn fill<D: Disk>(
    writer: &mut LogWriter<D>,
    events: &Receiver<LogEvent>,
    patience: Duration,
) -> Result<bool, RecvTimeoutError> {
    let mut next = Some(events.recv_timeout(patience)?);
    while let Some(event) = next {
        match event {
            LogEvent::Batch { source, batch } => writer.add(source, batch),
            LogEvent::Stop => return Ok(true),
        }
        next = if writer.has_room() { events.try_recv().ok() } else { None };
    }
    Ok(false)
}

/// Writes and syncs a file of one sector, which counts as a record, so that a node notices a hung disk even if it logs
/// nothing.
fn probe(disk: &dyn Disk, health: &Mutex<HealthMonitor>) {
    let write = || -> io::Result<()> {
        if disk.size(PROBE_FILE)?.is_none() {
            disk.create(PROBE_FILE)?;
        }
        disk.write_at(PROBE_FILE, 0, &[0; SECTOR_BYTES])?;
        disk.sync(PROBE_FILE)
    };
    health.lock().record_begun(clock::moment());
    let outcome = write();
    health.lock().record_ended(clock::moment());
    if let Err(error) = outcome {
        // The next record will fail in the same way, and that failure is handled.
        tracing::debug!("the disk can't be probed: {error}");
    }
}

/// Begins a record for the health monitor and appends it. The caller ends the record after the log's sync. Each part
/// that becomes durable before that counts as a record of its own.
fn append_once<D: Disk>(writer: &mut LogWriter<D>, health: &Mutex<HealthMonitor>) -> Result<Appended, LogError> {
    health.lock().record_begun(clock::moment());
    writer.append(&mut || {
        let mut health = health.lock();
        health.record_ended(clock::moment());
        health.record_begun(clock::moment());
    })
}

/// Ends the process: the contents of the disk are unknown, and continuing could acknowledge writes that are lost.
fn abort(error: &LogError) -> ! {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    last_line(&format!("{message}. Check the disk, then start the node again: its log is recovered at the start"));
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::slow::{SlowDisk, monitor, watched};
    use raft::eraftpb::Entry;
    use ringfort_core::disk::mem::MemDisk;
    use ringfort_core::health::DiskState;
    use ringfort_core::log::item::{Change, LogItem, ReplicaState};
    use ringfort_core::log::{BatchNumber, LogBatch, LogConfig};
    use ringfort_core::types::ReplicaId;

    /// A batch with a shard's complete state and entries of this many bytes.
    fn batch(number: u64, shard: u32, bytes: u64) -> LogBatch {
        let entry = |index| Entry { index, term: 1, data: vec![0; 1 << 10].into(), ..Entry::default() };
        let state = ReplicaState { entries: (1..=bytes >> 10).map(entry).collect(), ..ReplicaState::default() };
        let change = Change::State(Box::new(state));
        LogBatch {
            number: BatchNumber(number),
            items: vec![LogItem { shard: ShardId(shard), replica: ReplicaId(1), change }],
            ..LogBatch::default()
        }
    }

    fn writer<D: Disk>(disk: D, timing: Timing) -> LogWriter<D> {
        let config = LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() };
        LogWriter::new(Log::open(disk, config).unwrap().0, timing, u64::MAX)
    }

    #[test]
    fn what_has_gathered_is_taken_as_far_as_a_record_has_room() {
        let (sender, events) = crossbeam_channel::unbounded();
        let mut writer = writer(Arc::new(MemDisk::new()), Timing::DEFAULT);
        let nothing = fill(&mut writer, &events, Duration::from_millis(1));
        assert_eq!(nothing, Err(RecvTimeoutError::Timeout), "time to probe the disk");
        for number in 1..=5 {
            sender
                .send(LogEvent::Batch { source: BatchSource::Worker(0), batch: batch(number, number as u32, 1 << 20) })
                .unwrap();
        }
        sender.send(LogEvent::Stop).unwrap();
        assert_eq!(fill(&mut writer, &events, Duration::ZERO), Ok(false));
        assert!(matches!(append_once(&mut writer, &monitor(Timing::DEFAULT)), Ok(Appended::Written { .. })));
        assert_eq!(writer.sync().unwrap().batches, [(BatchSource::Worker(0), BatchNumber(4))]);
        assert_eq!(fill(&mut writer, &events, Duration::ZERO), Ok(true));
        assert!(!writer.is_empty(), "what came before is still written");
    }

    #[test]
    fn a_large_state_on_a_slow_disk_is_no_hang() {
        const STATE_BYTES: u64 = 24 << 20;
        let timing = Timing::new(Duration::from_millis(200)).unwrap();
        let (disk, health): (Arc<dyn Disk>, _) = (Arc::new(SlowDisk::default()), monitor(timing));
        let mut writer = writer(disk, timing);
        writer.add(BatchSource::Worker(0), batch(1, 1, STATE_BYTES));
        let begun = Instant::now();
        let worst = watched(&health, timing, || {
            append_once(&mut writer, &health).unwrap();
            writer.sync().unwrap();
            health.lock().record_ended(clock::moment());
        });
        assert!(begun.elapsed() > 3 * timing.disk_patience(), "the disk took much longer than a record may");
        assert!(worst <= DiskState::Slow, "{worst:?}");
    }
}
