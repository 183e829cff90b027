//! The thread that writes the log: the batches that wait become one record and one sync, for all shards.
//!
//! While a sync runs, the workers' next batches gather: the sync under way is the batching window, and nothing waits on
//! purpose. A failed write or sync ends the process, since what is on the disk is no longer known. A disk without space
//! is met before anything is written: the batches wait, nothing is lost and nothing acknowledged. Until there is space
//! again new writes are refused, and leadership goes to nodes that have some.
//!
//! The time that each record takes goes to the health monitor ([`ringfort_core::health`]). So a record is bounded
//! ([`RECORD_BYTES`]): a disk of modest bandwidth would seem to hang if a burst became one record.

use crate::clock;
use crate::files;
use crate::gossip_thread::GossipEvent;
use crate::inbox::Event;
use crate::shell::Shell;
use crate::threads;
use crossbeam_channel::{Receiver, Sender};
use ringfort_core::disk::Disk;
use ringfort_core::effects::LogBatch;
use ringfort_core::limits::LOG_BUDGET_BYTES;
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

/// No further batch is added to a record that has as much: well over what a fast disk writes in one sync's time, and little
/// enough for a slow one (10 MB/s) to write it before it counts as hung, at the default election timeout.
const RECORD_BYTES: u64 = 4 << 20;

const _: () = assert!(RECORD_BYTES * 1000 / 10_000_000 < Timing::DEFAULT.disk_patience().as_millis() as u64);

/// A spare segment that is needed may take this long. From then on the time counts as that of a record: the disk may hang.
const FILL_PATIENCE: Duration = Duration::from_secs(5);

/// In place of a worker's number, the gossip thread's.
pub const GOSSIP: usize = usize::MAX;

pub enum LogEvent {
    Batch {
        worker: usize,
        batch: LogBatch,
        /// What it adds to the unsynced bytes.
        bytes: u64,
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
    /// What the items add to the unsynced bytes.
    bytes: u64,
    stop: bool,
}

/// Runs until [`LogEvent::Stop`].
pub fn run(shell: Arc<Shell>, mut log: Log<Arc<dyn Disk>>, events: Receiver<LogEvent>) {
    let mut pressed: Option<(Instant, u64)> = None;
    let mut gathered = Gathered::default();
    // How the spare segments that were asked for came out.
    let (spares_tx, spares) = crossbeam_channel::unbounded();
    while !gathered.stop {
        shell.log_bytes.store(log.size_bytes(), Ordering::Relaxed);
        make_spare(&shell, &mut log, &spares_tx);
        if !gathered.fill(&events) {
            return;
        }
        spares.try_iter().for_each(|outcome| log.spare_ready(outcome));
        if log.waits_for_spare(gathered.bytes) {
            let outcome = spares.recv_timeout(FILL_PATIENCE).or_else(|_| {
                shell.health.lock().record_begun(clock::moment());
                spares.recv()
            });
            outcome.into_iter().for_each(|outcome| log.spare_ready(outcome));
        }
        if !append(&shell, &mut log, &gathered.items) {
            return;
        }
        let begun = Instant::now();
        if let Err(error) = log.sync() {
            abort(&error);
        }
        shell.health.lock().record_ended(clock::moment());
        shell.pressure.synced(std::mem::take(&mut gathered.bytes));
        shell.metrics.log_sync_seconds.observe(begun.elapsed().as_secs_f64());
        shell.metrics.log_record_items.observe(gathered.items.len() as f64);
        gathered.items.clear();
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
    /// Waits for an event and takes those that have gathered, up to [`RECORD_BYTES`]. False where nobody sends any more.
    fn fill(&mut self, events: &Receiver<LogEvent>) -> bool {
        let Ok(first) = events.recv() else { return false };
        self.add(first);
        while self.bytes < RECORD_BYTES
            && let Ok(next) = events.try_recv()
        {
            self.add(next);
        }
        true
    }

    fn add(&mut self, event: LogEvent) {
        match event {
            LogEvent::Batch { worker, batch, bytes } => {
                self.bytes += bytes;
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

/// Hands a batch of a worker, or of gossip, to the log thread.
pub fn hand_in(shell: &Shell, worker: usize, batch: LogBatch) {
    let bytes = batch.size_bytes();
    shell.pressure.unsynced(bytes);
    // The log thread outlives its callers, so no batch is lost.
    let _ = shell.log.send(LogEvent::Batch { worker, batch, bytes });
}

/// Writes the items, waiting for disk space for as long as it takes. False where the node stops meanwhile.
fn append(shell: &Shell, log: &mut Log<Arc<dyn Disk>>, items: &[LogItem]) -> bool {
    let mut pause = FIRST_PAUSE;
    loop {
        shell.health.lock().record_begun(clock::moment());
        match log.append(items) {
            Ok(()) => {
                if pause > FIRST_PAUSE {
                    shell.health.lock().set_full(false);
                    shell.pressure.set_disk_full(false);
                    shell.pressure.set_without_files(false);
                    tracing::info!("the log has room again: writes go on");
                }
                return true;
            }
            Err(LogError::NoSegment(error)) => {
                let lacks_files = files::are_used_up(&error);
                if pause == FIRST_PAUSE {
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
                shell.health.lock().set_full(true);
                shell.pressure.set_disk_full(!lacks_files);
                shell.pressure.set_without_files(lacks_files);
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

/// Has the next segment filled ahead of its use, on a thread of its own: it takes as long as many syncs.
fn make_spare(shell: &Shell, log: &mut Log<Arc<dyn Disk>>, outcomes: &Sender<io::Result<()>>) {
    let Some(request) = log.wanted_spare() else { return };
    let (disk, outcomes) = (shell.disk.clone(), outcomes.clone());
    let started = threads::spawn("spare-segment", move || {
        let outcome = disk.preallocate(&request.name, request.size_bytes);
        // The node may have stopped.
        let _ = outcomes.send(outcome);
    });
    if let Err(error) = started {
        log.spare_ready(Err(error));
    }
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
    eprintln!("ringfort: {message}. Check the disk, then start the node again: its log is recovered at the start");
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::Entry;
    use ringfort_core::log::item::Change;
    use ringfort_core::types::ReplicaId;

    /// A batch of one worker with one entry.
    fn batch(number: u64, bytes: u64) -> LogEvent {
        let entry = Entry { index: number, term: 1, data: vec![0; bytes as usize].into(), ..Entry::default() };
        let item = LogItem { shard: ShardId(1), replica: ReplicaId(1), change: Change::Entries(vec![entry]) };
        let batch = LogBatch { number, items: vec![item] };
        LogEvent::Batch { worker: 0, batch, bytes }
    }

    #[test]
    fn a_burst_becomes_several_records_and_small_batches_one() {
        let (sender, events) = crossbeam_channel::unbounded();
        (1..=12).for_each(|number| sender.send(batch(number, 1 << 20)).unwrap());
        (13..=500).for_each(|number| sender.send(batch(number, 128)).unwrap());
        sender.send(LogEvent::Stop).unwrap();
        for last in [4, 8, 12] {
            let mut gathered = Gathered::default();
            assert!(gathered.fill(&events));
            assert_eq!((gathered.bytes, &gathered.batches[..]), (RECORD_BYTES, &[(0, last)][..]));
            assert!(!gathered.stop);
        }
        let mut rest = Gathered::default();
        assert!(rest.fill(&events));
        assert_eq!((rest.items.len(), &rest.batches[..], rest.stop), (488, &[(0, 500)][..], true));
    }
}
