//! The log writer: how many batches share a record, what happens when the disk is full, and when shards are asked to
//! shrink the log.
//!
//! **Records.** While a record is synced, the next batches gather: the sync in flight is the batching window, and there
//! is no artificial delay. On a disk of modest bandwidth, a burst that became one record would look like a hang. So
//! batches are combined up to [`record_bytes`]. One batch may be larger, since it may hold the complete state of a
//! large shard: such a record is written in parts of that size.
//!
//! **No space.** A full disk is detected before anything is written. The record waits, nothing is lost and nothing
//! acknowledged, and the append is retried after a pause that doubles. Meanwhile the node's health reports the disk as
//! full, so that new writes are refused and leadership moves to nodes that have space.
//!
//! **The budget.** When the log exceeds its budget, the shards that pin its oldest segment are asked to log their
//! complete states again. They are asked again after [`PRESSURE_INTERVAL`], or when a segment has been released. For a
//! replica that no longer runs, its worker returns the task ([`LogBatch::read_back`]), and the state is read from the
//! log.
//!
//! The shell repeats: [`add`](LogWriter::add) the batches that have arrived while there [is room](LogWriter::has_room),
//! [`append`](LogWriter::append) until it succeeds, [`sync`](LogWriter::sync), then report what is durable, and ask the
//! shards that [`pressed`](LogWriter::pressed) names.

use crate::disk::Disk;
use crate::limits::{SLOW_DISK_BYTES_A_MS, SYNCED_PART_BYTES};
use crate::log::item::LogItem;
use crate::log::{BatchNumber, BatchSource, Log, LogBatch, LogError};
use crate::time::Moment;
use crate::timing::Timing;
use crate::types::ShardId;
use std::io;
use std::time::Duration;

/// A record that has reached this size takes no further batch. It is well over what a fast disk writes in the time of
/// one sync.
const MAX_RECORD_BYTES: u64 = 4 << 20;

/// The pause before an append to a full disk is retried. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The shards that pin the oldest segment are asked again after this long, or when a segment has been released.
const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);

/// How many bytes a slow disk can write before it counts as hung.
const fn patience_bytes(timing: Timing) -> u64 {
    timing.disk_patience().as_millis() as u64 * SLOW_DISK_BYTES_A_MS
}

/// The size from which a record takes no further batch, and the size of the parts in which a larger record is written,
/// in a cluster with this timing. It is two fifths of what a slow disk can write before it counts as hung, and at most
/// [`MAX_RECORD_BYTES`].
pub const fn record_bytes(timing: Timing) -> u64 {
    let bytes = patience_bytes(timing) * 2 / 5;
    if bytes < MAX_RECORD_BYTES { bytes } else { MAX_RECORD_BYTES }
}

// A part of a record may have to wait for a part of a snapshot or of a spare segment.
const _: () = assert!(record_bytes(Timing::SHORTEST) + SYNCED_PART_BYTES < patience_bytes(Timing::SHORTEST));

/// The log, and the batches on their way to it from the workers and gossip ([`BatchSource`]).
pub struct LogWriter<D> {
    log: Log<D>,
    record_bytes: u64,
    budget_bytes: u64,
    record: Record,
    /// The pause before the next attempt, while there is no space.
    pause: Option<Duration>,
    /// When shards were last asked, and the size of the log then.
    asked: Option<(Moment, u64)>,
}

/// The batches gathered for one record.
#[derive(Default)]
struct Record {
    items: Vec<LogItem>,
    /// Shards whose states are read back from the log and added.
    read_back: Vec<ShardId>,
    /// The sources of its batches, each with its last batch.
    batches: Vec<(BatchSource, BatchNumber)>,
    /// The bytes of all entries in it.
    bytes: u64,
    /// The bytes that its items add to the unsynced bytes.
    unsynced_bytes: u64,
}

/// The outcome of an attempt to append the record.
#[derive(Debug)]
pub enum Appended {
    /// It must be synced next. `had_no_space`: an earlier attempt found no space.
    Written { had_no_space: bool },
    /// There is no space. The record waits; retry after this pause.
    NoSpace { error: io::Error, pause: Duration },
}

/// A record that is durable.
#[derive(Debug, PartialEq)]
pub struct Synced {
    /// The sources of its batches, each with its last batch, which implies the earlier ones.
    pub batches: Vec<(BatchSource, BatchNumber)>,
    pub items: usize,
    /// The bytes that no longer count as unsynced.
    pub unsynced_bytes: u64,
}

impl<D: Disk> LogWriter<D> {
    pub fn new(log: Log<D>, timing: Timing, budget_bytes: u64) -> LogWriter<D> {
        let record_bytes = record_bytes(timing);
        LogWriter { log, record_bytes, budget_bytes, record: Record::default(), pause: None, asked: None }
    }

    pub fn log(&self) -> &Log<D> {
        &self.log
    }

    pub fn log_mut(&mut self) -> &mut Log<D> {
        &mut self.log
    }

    /// Whether another batch fits into the record.
    pub fn has_room(&self) -> bool {
        self.record.bytes < self.record_bytes
    }

    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.record.batches.is_empty()
    }

    /// The bytes of all entries in the record.
    pub fn gathered_bytes(&self) -> u64 {
        self.record.bytes
    }

    /// Adds a batch to the record.
    pub fn add(&mut self, source: BatchSource, batch: LogBatch) {
        let record = &mut self.record;
        record.bytes += batch.entry_bytes();
        record.unsynced_bytes += batch.new_entry_bytes();
        record.items.extend(batch.items);
        record.read_back.extend(batch.read_back);
        match record.batches.iter_mut().find(|(known, _)| *known == source) {
            Some((_, number)) => *number = batch.number,
            None => record.batches.push((source, batch.number)),
        }
    }

    /// Writes the record. Calls `progress` after each part that is durable. After any other error than a lack of space
    /// the process must end, because the content of the disk is unknown.
    pub fn append(&mut self, progress: &mut dyn FnMut()) -> Result<Appended, LogError> {
        self.read_back(progress);
        match self.log.append_in_parts(&self.record.items, self.record_bytes, progress) {
            Ok(()) => Ok(Appended::Written { had_no_space: self.pause.take().is_some() }),
            Err(LogError::NoSegment(error)) => {
                let pause = self.pause.map_or(FIRST_PAUSE, |pause| (2 * pause).min(LONGEST_PAUSE));
                self.pause = Some(pause);
                Ok(Appended::NoSpace { error, pause })
            }
            Err(error) => Err(error),
        }
    }

    /// Adds what the log holds of replicas that no longer run. A shard that is left out is asked again.
    fn read_back(&mut self, progress: &mut dyn FnMut()) {
        let Record { items, read_back, .. } = &mut self.record;
        for shard in read_back.drain(..) {
            // What the record itself has of the shard is not in the log yet.
            if items.iter().any(|item| item.shard == shard) {
                continue;
            }
            match self.log.read_back(shard, progress) {
                Ok(item) => items.extend(item),
                Err(error) => {
                    tracing::warn!(%shard, "what is left of a lost replica keeps the log from shrinking: {error}");
                }
            }
        }
    }

    /// Makes the record durable, and starts an empty one.
    pub fn sync(&mut self) -> Result<Synced, LogError> {
        self.log.sync()?;
        let Record { items, batches, unsynced_bytes, .. } = &mut self.record;
        let synced = Synced {
            batches: std::mem::take(batches),
            items: items.len(),
            unsynced_bytes: std::mem::take(unsynced_bytes),
        };
        items.clear();
        self.record.bytes = 0;
        Ok(synced)
    }

    /// The shards that must log their complete states now. Call it after each sync.
    pub fn pressed(&mut self, now: Moment) -> Vec<ShardId> {
        let size = self.log.size_bytes();
        let was_asked = |(at, before)| size >= before && now < at + PRESSURE_INTERVAL;
        if size <= self.budget_bytes || self.asked.is_some_and(was_asked) {
            return Vec::new();
        }
        self.asked = Some((now, size));
        self.log.pinned_by().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mem::MemDisk;
    use crate::log::item::{Change, ReplicaState};
    use crate::log::{LogConfig, RecoveredShard};
    use crate::types::ReplicaId;
    use raft::eraftpb::{Entry, HardState};
    use std::sync::Arc;

    const SECOND: Duration = Duration::from_secs(1);

    fn entry(index: u64, bytes: u64) -> Entry {
        Entry { index, term: 1, data: vec![0; bytes as usize].into(), ..Entry::default() }
    }

    fn item(shard: u32, change: Change) -> LogItem {
        LogItem { shard: ShardId(shard), replica: ReplicaId(1), change }
    }

    /// A batch with one entry of a shard.
    fn batch(number: u64, shard: u32, bytes: u64) -> LogBatch {
        let change = Change::Entries(vec![entry(number, bytes)]);
        LogBatch { number: BatchNumber(number), items: vec![item(shard, change)], ..LogBatch::default() }
    }

    /// A batch with a shard's complete state, with entries of this many bytes.
    fn state(number: u64, shard: u32, bytes: u64) -> LogBatch {
        let entries = (1..=bytes >> 10).map(|index| entry(index, 1 << 10)).collect();
        let change = Change::State(Box::new(ReplicaState { entries, ..ReplicaState::default() }));
        LogBatch { number: BatchNumber(number), items: vec![item(shard, change)], ..LogBatch::default() }
    }

    fn writer(budget_bytes: u64) -> (Arc<MemDisk>, LogWriter<Arc<MemDisk>>) {
        let disk = Arc::new(MemDisk::new());
        let (log, _) = Log::open(disk.clone(), LogConfig { segment_bytes: 1 << 16, ..LogConfig::default() }).unwrap();
        (disk, LogWriter::new(log, Timing::DEFAULT, budget_bytes))
    }

    fn write(writer: &mut LogWriter<Arc<MemDisk>>, batch: LogBatch) -> Synced {
        writer.add(BatchSource::Worker(0), batch);
        assert!(matches!(writer.append(&mut || {}), Ok(Appended::Written { .. })));
        writer.sync().unwrap()
    }

    #[test]
    fn a_burst_becomes_several_records_and_small_batches_one() {
        let (_, mut writer) = writer(u64::MAX);
        writer.add(BatchSource::Worker(0), batch(1, 1, MAX_RECORD_BYTES / 2));
        assert!(writer.has_room());
        writer.add(BatchSource::Worker(0), batch(2, 1, MAX_RECORD_BYTES / 2));
        assert!(!writer.has_room(), "the next batch waits for the next record");
        assert_eq!(
            writer.record.batches,
            [(BatchSource::Worker(0), BatchNumber(2))],
            "a later batch stands for the earlier ones"
        );
        let small = |writer: &mut LogWriter<_>| {
            (1..=500).for_each(|number| writer.add(BatchSource::Worker(1), batch(number, 1, 128)))
        };
        writer.record = Record::default();
        small(&mut writer);
        writer.add(BatchSource::Worker(0), batch(7, 1, 128));
        assert!(writer.has_room());
        assert_eq!(
            (writer.record.items.len(), &writer.record.batches[..]),
            (501, &[(BatchSource::Worker(1), BatchNumber(500)), (BatchSource::Worker(0), BatchNumber(7))][..])
        );
        assert_eq!([Timing::SHORTEST, Timing::LONGEST].map(record_bytes), [800_000, MAX_RECORD_BYTES]);
    }

    /// If they became one record, the health monitor would consider the disk hung.
    #[test]
    fn the_states_of_many_shards_become_several_records_and_count_as_synced() {
        let (_, mut writer) = writer(u64::MAX);
        let mut count = 0;
        while writer.has_room() {
            count += 1;
            writer.add(BatchSource::Worker(0), state(count, count as u32, 1 << 20));
        }
        assert_eq!((count, writer.gathered_bytes(), writer.record.unsynced_bytes), (4, MAX_RECORD_BYTES, 0));
    }

    #[test]
    fn a_record_waits_for_space_for_longer_and_longer_and_is_not_lost() {
        let (disk, mut writer) = writer(u64::MAX);
        write(&mut writer, state(1, 1, 1 << 10));
        disk.set_capacity(Some(disk.used_bytes()));
        writer.add(BatchSource::Worker(0), batch(2, 1, 1 << 17));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let Ok(Appended::NoSpace { pause, .. }) = writer.append(&mut || {}) else { panic!("it is full") };
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        disk.set_capacity(None);
        assert!(matches!(writer.append(&mut || {}), Ok(Appended::Written { had_no_space: true })));
        let synced = writer.sync().unwrap();
        assert_eq!(
            (synced.batches, synced.items, synced.unsynced_bytes),
            (vec![(BatchSource::Worker(0), BatchNumber(2))], 1, 1 << 17)
        );
        assert!(writer.is_empty());
        writer.add(BatchSource::Worker(0), batch(3, 1, 1));
        assert!(matches!(writer.append(&mut || {}), Ok(Appended::Written { had_no_space: false })));
    }

    /// Its memory is damaged, say, and a restart may run it again.
    #[test]
    fn the_state_of_a_replica_that_no_longer_runs_is_read_back_from_the_log() {
        for is_damaged in [false, true] {
            let (disk, mut writer) = writer(2 << 16);
            write(&mut writer, state(1, 1, 1 << 10));
            write(&mut writer, state(2, 2, 2 << 10));
            write(
                &mut writer,
                LogBatch { items: vec![item(2, Change::Entries(vec![entry(3, 1000)]))], ..batch(3, 1, 1) },
            );
            let hard_state = HardState { term: 1, commit: 3, ..HardState::default() };
            write(
                &mut writer,
                LogBatch { items: vec![item(2, Change::HardState(hard_state.clone()))], ..batch(4, 1, 1) },
            );
            let mut last = 1;
            let mut fill = |writer: &mut LogWriter<_>| {
                for _ in 0..10 {
                    last += 1;
                    write(writer, batch(last, 1, 1 << 15));
                }
                write(writer, state(last + 1, 1, last << 10));
            };
            fill(&mut writer);
            assert!(writer.log().size_bytes() > 2 << 16);
            assert_eq!(writer.pressed(Moment(0)), [ShardId(2)]);
            if is_damaged {
                disk.corrupt("log-00000000000000000001.seg", 2500, 1);
            }
            for _ in 0..3 {
                writer.add(
                    BatchSource::Worker(1),
                    LogBatch { number: BatchNumber(1), read_back: vec![ShardId(2)], ..Default::default() },
                );
                assert!(matches!(writer.append(&mut || {}), Ok(Appended::Written { .. })));
                assert_eq!(writer.sync().unwrap().batches, [(BatchSource::Worker(1), BatchNumber(1))]);
                assert!(writer.log().size_bytes() <= 2 << 16, "its segments have gone");
                fill(&mut writer);
            }
            let (_, recovery) = Log::open(disk.clone(), LogConfig::default()).unwrap();
            let RecoveredShard::Recovered { replica, state } = &recovery.shards[&ShardId(2)] else {
                assert!(is_damaged, "{recovery:?}");
                continue;
            };
            assert!(!is_damaged);
            assert_eq!((*replica, &state.hard_state), (ReplicaId(1), &hard_state));
            assert_eq!(
                state.entries.iter().map(|entry| entry.data.len()).collect::<Vec<_>>(),
                [1 << 10, 1 << 10, 1000]
            );
        }
    }

    #[test]
    fn shards_that_keep_a_log_over_its_budget_are_asked_at_intervals_and_when_a_segment_has_gone() {
        let (_, mut writer) = writer(2 << 16);
        let begun = Moment(0) + SECOND;
        write(&mut writer, state(1, 1, 1 << 10));
        write(&mut writer, state(2, 2, 2 << 10));
        assert_eq!(writer.pressed(begun), [], "within its budget");
        for number in 3..9 {
            write(&mut writer, batch(number, 2, 1 << 15));
        }
        assert_eq!(writer.pressed(begun), [ShardId(1), ShardId(2)]);
        assert_eq!(writer.pressed(begun + SECOND / 2), [], "they have been asked");
        assert_eq!(writer.pressed(begun + SECOND), [ShardId(1), ShardId(2)]);
        write(&mut writer, state(9, 2, 1 << 10));
        assert_eq!(writer.pressed(begun + SECOND), [], "the other one keeps the oldest segment");
        write(&mut writer, state(10, 1, 1 << 10));
        assert!(writer.log().size_bytes() <= 2 << 16, "the segments have gone");
        assert_eq!(writer.pressed(begun + SECOND), []);
    }
}
