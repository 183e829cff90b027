//! The thread that writes the log: the batches that wait become one record and one sync, for all shards.
//!
//! While a sync runs, the workers' next batches gather: the sync under way is the batching window, and nothing waits on
//! purpose. A failed write or sync ends the process, since what is on the disk is no longer known. A disk without space
//! is met before anything is written: the batches wait, nothing is lost and nothing acknowledged. Until there is space
//! again new writes are refused, and leadership goes to nodes that have some.
//!
//! The health monitor ([`ringfort_core::health`]) gets the time that each record takes, and while there is nothing to
//! log, the time that a [`probe`] takes. A disk of modest bandwidth would seem to hang if a burst became one record. So
//! batches are combined up to [`record_bytes`]. One batch may be larger, since it may hold the complete state of a
//! large shard: such a record is written in parts of that size, and each part counts as a record for the health
//! monitor.

use crate::clock;
use crate::files;
use crate::gossip_thread::GossipEvent;
use crate::inbox::{DRAIN_BYTES, Event};
use crate::seldom::Seldom;
use crate::shell::Shell;
use crate::spare_segments::SpareSegments;
use crate::stderr::last_line;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;
use ringfort_core::boot::PROBE_FILE;
use ringfort_core::disk::{Disk, SECTOR_BYTES};
use ringfort_core::health::HealthMonitor;
use ringfort_core::limits::{LOG_BUDGET_BYTES, SLOW_DISK_BYTES_A_MS, SYNCED_PART_BYTES};
use ringfort_core::log::LogBatch;
use ringfort_core::log::item::LogItem;
use ringfort_core::log::{Log, LogError};
use ringfort_core::timing::Timing;
use ringfort_core::types::ShardId;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// The pause before a full disk is tried again. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The shards that pin the oldest segment are asked again after this long, or when a segment has gone.
const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);

/// A record of this size takes no further batch. It is well over what a fast disk writes in the time of one sync.
const MAX_RECORD_BYTES: u64 = 4 << 20;

/// How many bytes a slow disk can write before it counts as hung.
const fn patience_bytes(timing: Timing) -> u64 {
    timing.disk_patience().as_millis() as u64 * SLOW_DISK_BYTES_A_MS
}

/// The size from which a record takes no further batch, and the size of the parts in which a larger record is written,
/// in a cluster with this timing. It is two fifths of what a slow disk can write before it counts as hung, and at most
/// [`MAX_RECORD_BYTES`].
const fn record_bytes(timing: Timing) -> u64 {
    let bytes = patience_bytes(timing) * 2 / 5;
    if bytes < MAX_RECORD_BYTES { bytes } else { MAX_RECORD_BYTES }
}

// The last batch of a record has the messages and the requests of one turn.
const _: () = assert!(record_bytes(Timing::DEFAULT) >= 2 * DRAIN_BYTES);
// A part of a record may have to wait for a part of a snapshot or of a spare segment.
const _: () = assert!(record_bytes(Timing::SHORTEST) + SYNCED_PART_BYTES < patience_bytes(Timing::SHORTEST));

/// After this long with nothing to log, the disk is probed. That is soon enough for operators and for nodes that send a
/// snapshot here, and does not wear out a disk.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// In place of a worker's number, the gossip thread's.
pub const GOSSIP: usize = usize::MAX;

pub enum LogEvent {
    Batch {
        worker: usize,
        batch: LogBatch,
    },
    /// Sent when all workers have ended.
    Stop,
}

/// What has gathered for one record.
#[derive(Default)]
struct Gathered {
    items: Vec<LogItem>,
    /// The workers' batches in it.
    batches: Vec<(usize, u64)>,
    /// The bytes of all entries in it.
    bytes: u64,
    /// What the items add to the unsynced bytes.
    unsynced_bytes: u64,
    stop: bool,
}

/// Runs until [`LogEvent::Stop`].
pub fn run(shell: Arc<Shell>, mut log: Log<Arc<dyn Disk>>, events: Receiver<LogEvent>) {
    let mut pressed: Option<(Instant, u64)> = None;
    let mut gathered = Gathered::default();
    let spares = SpareSegments::new(shell.disk.clone());
    let record_bytes = record_bytes(shell.routing.topology().timing);
    while !gathered.stop {
        shell.log_bytes.store(log.size_bytes(), Ordering::Relaxed);
        spares.make(&mut log);
        match gathered.fill(&events, record_bytes, PROBE_INTERVAL) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                probe(&*shell.disk, &shell.health);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        spares.wait(&mut log, gathered.bytes, &shell.health);
        if !append(&shell, &mut log, &gathered.items, record_bytes) {
            return;
        }
        let begun = Instant::now();
        if let Err(error) = log.sync() {
            abort(&error);
        }
        shell.health.lock().record_ended(clock::moment());
        shell.admission.synced(std::mem::take(&mut gathered.unsynced_bytes));
        shell.metrics.log_sync_seconds.observe(begun.elapsed().as_secs_f64());
        shell.metrics.log_record_items.observe(gathered.items.len() as f64);
        gathered.items.clear();
        gathered.bytes = 0;
        for (worker, number) in gathered.batches.drain(..) {
            match worker {
                GOSSIP => drop(shell.gossip.send(GossipEvent::Persisted(number))),
                worker => shell.workers[worker].push_event(Event::Persisted(number)),
            }
        }
        relieve(&shell, &log, &mut pressed);
    }
}

impl Gathered {
    /// Waits up to `patience` for an event, then takes the events that have gathered, up to a record of `record_bytes`.
    fn fill(
        &mut self,
        events: &Receiver<LogEvent>,
        record_bytes: u64,
        patience: Duration,
    ) -> Result<(), RecvTimeoutError> {
        self.add(events.recv_timeout(patience)?);
        while self.bytes < record_bytes
            && let Ok(next) = events.try_recv()
        {
            self.add(next);
        }
        Ok(())
    }

    fn add(&mut self, event: LogEvent) {
        match event {
            LogEvent::Batch { worker, batch } => {
                self.bytes += batch.entry_bytes();
                self.unsynced_bytes += batch.new_entry_bytes();
                self.items.extend(batch.items);
                // A later batch of a worker stands for the earlier ones.
                match self.batches.iter_mut().find(|(known, _)| *known == worker) {
                    Some((_, number)) => *number = batch.number,
                    None => self.batches.push((worker, batch.number)),
                }
            }
            LogEvent::Stop => self.stop = true,
        }
    }
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
        // The next record fails in the same way, and is handled then.
        tracing::debug!("the disk can't be probed: {error}");
    }
}

/// Hands a batch of a worker, or of gossip, to the log thread.
pub fn hand_in(shell: &Shell, worker: usize, batch: LogBatch) {
    shell.admission.unsynced(batch.new_entry_bytes());
    // The log thread outlives its callers, so no batch is lost.
    let _ = shell.log.send(LogEvent::Batch { worker, batch });
}

/// Writes the items, waiting for disk space for as long as it takes. False where the node stops meanwhile.
fn append(shell: &Shell, log: &mut Log<Arc<dyn Disk>>, items: &[LogItem], part_bytes: u64) -> bool {
    static FULL: Seldom = Seldom::new();
    let mut pause = FIRST_PAUSE;
    let mut is_said = false;
    loop {
        match append_in_parts(log, items, part_bytes, &shell.health) {
            Ok(()) => {
                if pause > FIRST_PAUSE {
                    shell.health.lock().set_full(clock::moment(), false);
                    shell.admission.set_disk_full(false);
                    shell.admission.set_without_files(false);
                }
                if is_said {
                    tracing::info!(
                        "the log has room again: writes go on, and this node leads again when that has lasted for a while"
                    );
                }
                return true;
            }
            Err(LogError::NoSegment(error)) => {
                let lacks_files = files::are_used_up(&error);
                // A disk at the edge of full has room and none in turn.
                if !is_said && FULL.due().is_some() {
                    is_said = true;
                    match lacks_files {
                        true => tracing::warn!(
                            "no file descriptor for the log ({error}): no writes until there is one; raise the limit on \
                             open files (ulimit -n)"
                        ),
                        false => {
                            tracing::warn!(
                                "no space for the log ({error}): no writes until there is; free some disk space"
                            )
                        }
                    }
                }
                // Without descriptors the node can't log either, and must not lead.
                shell.health.lock().set_full(clock::moment(), true);
                shell.admission.set_disk_full(!lacks_files);
                shell.admission.set_without_files(lacks_files);
                if shell.stopping.load(Ordering::Relaxed) {
                    return false;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                thread::sleep(pause);
            }
            Err(error) => abort(&error),
        }
    }
}

/// Begins a record for the health monitor and appends the items. The caller ends the record after the log's sync. Each
/// part that becomes durable before that counts as a record of its own.
fn append_in_parts(
    log: &mut Log<Arc<dyn Disk>>,
    items: &[LogItem],
    part_bytes: u64,
    health: &Mutex<HealthMonitor>,
) -> Result<(), LogError> {
    health.lock().record_begun(clock::moment());
    log.append_in_parts(items, part_bytes, &mut || {
        let mut health = health.lock();
        health.record_ended(clock::moment());
        health.record_begun(clock::moment());
    })
}

/// Over its budget, the log asks the shards that pin its oldest segment to write their state anew.
fn relieve(shell: &Shell, log: &Log<Arc<dyn Disk>>, pressed: &mut Option<(Instant, u64)>) {
    let size = log.size_bytes();
    if size <= LOG_BUDGET_BYTES {
        return;
    }
    if pressed.is_some_and(|(at, before)| size >= before && at.elapsed() < PRESSURE_INTERVAL) {
        return;
    }
    *pressed = Some((Instant::now(), size));
    for shard in log.pinned_by() {
        match shard {
            ShardId::EVENTUAL => drop(shell.gossip.send(GossipEvent::LogPressure)),
            shard => shell.worker(shard).push_event(Event::LogPressure(shard)),
        }
    }
}

/// Ends the process: what the disk holds is not known, and to go on could be to lie.
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
    use ringfort_core::health::DiskState;
    use ringfort_core::log::LogConfig;
    use ringfort_core::log::item::{Change, ReplicaState};
    use ringfort_core::types::ReplicaId;

    const RECORD_BYTES: u64 = MAX_RECORD_BYTES;

    /// A batch of one worker with one entry.
    fn batch(number: u64, bytes: u64) -> LogEvent {
        let entry = Entry { index: number, term: 1, data: vec![0; bytes as usize].into(), ..Entry::default() };
        let item = LogItem { shard: ShardId(1), replica: ReplicaId(1), change: Change::Entries(vec![entry]) };
        LogEvent::Batch { worker: 0, batch: LogBatch { number, items: vec![item] } }
    }

    /// A shard's complete state, with entries of this many bytes.
    fn state(shard: u32, bytes: u64) -> LogItem {
        let entry = |index| Entry { index, term: 1, data: vec![0; 1 << 10].into(), ..Entry::default() };
        let state = ReplicaState { entries: (1..=bytes >> 10).map(entry).collect(), ..ReplicaState::default() };
        LogItem { shard: ShardId(shard), replica: ReplicaId(1), change: Change::State(Box::new(state)) }
    }

    #[test]
    fn a_burst_becomes_several_records_and_small_batches_one() {
        let (sender, events) = crossbeam_channel::unbounded();
        (1..=12).for_each(|number| sender.send(batch(number, 1 << 20)).unwrap());
        (13..=500).for_each(|number| sender.send(batch(number, 128)).unwrap());
        sender.send(LogEvent::Stop).unwrap();
        for last in [4, 8, 12] {
            let mut gathered = Gathered::default();
            gathered.fill(&events, RECORD_BYTES, Duration::ZERO).unwrap();
            assert_eq!((gathered.bytes, &gathered.batches[..]), (RECORD_BYTES, &[(0, last)][..]));
            assert!(!gathered.stop);
        }
        let mut rest = Gathered::default();
        rest.fill(&events, RECORD_BYTES, Duration::ZERO).unwrap();
        assert_eq!((rest.items.len(), &rest.batches[..], rest.stop), (488, &[(0, 500)][..], true));
        assert_eq!([Timing::SHORTEST, Timing::LONGEST].map(record_bytes), [800_000, MAX_RECORD_BYTES]);
        let nothing = Gathered::default().fill(&events, RECORD_BYTES, Duration::from_millis(1));
        assert_eq!(nothing, Err(RecvTimeoutError::Timeout), "time to probe the disk");
    }

    /// The health monitor would take the disk for one that hangs.
    #[test]
    fn the_states_of_many_shards_become_several_records() {
        let (sender, events) = crossbeam_channel::unbounded();
        for number in 1..=12 {
            let batch = LogBatch { number: number.into(), items: vec![state(number, 1 << 20)] };
            sender.send(LogEvent::Batch { worker: 0, batch }).unwrap();
        }
        let mut gathered = Gathered::default();
        gathered.fill(&events, RECORD_BYTES, Duration::ZERO).unwrap();
        assert_eq!((gathered.bytes, gathered.unsynced_bytes, gathered.items.len()), (RECORD_BYTES, 0, 4));
    }

    #[test]
    fn a_large_state_on_a_slow_disk_is_no_hang() {
        const STATE_BYTES: u64 = 24 << 20;
        let timing = Timing::new(Duration::from_millis(200)).unwrap();
        let (disk, health): (Arc<dyn Disk>, _) = (Arc::new(SlowDisk::default()), monitor(timing));
        let config = LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() };
        let (mut log, _) = Log::open(disk, config).unwrap();
        let begun = Instant::now();
        let worst = watched(&health, timing, || {
            append_in_parts(&mut log, &[state(1, STATE_BYTES)], record_bytes(timing), &health).unwrap();
            log.sync().unwrap();
            health.lock().record_ended(clock::moment());
        });
        assert!(begun.elapsed() > 3 * timing.disk_patience(), "the disk took much longer than a record may");
        assert!(worst <= DiskState::Slow, "{worst:?}");
    }
}
