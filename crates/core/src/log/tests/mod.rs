//! The log as its users see it, on a disk that crashes, fills up and corrupts data.

mod corruption;
mod crash;
mod format;
mod missing;
mod model;
mod reclaim;

use super::item::{Base, Change, LogItem, ReplicaState};
use super::{Log, LogConfig, LogError, RecoveredShard, Recovery};
use crate::disk::Disk;
use crate::types::{LogIndex, ReplicaId, ShardId, Term};
use raft::eraftpb::{ConfState, Entry, HardState};

fn open<D: Disk>(disk: D, segment_bytes: u64) -> Result<(Log<D>, Recovery), LogError> {
    Log::open(disk, LogConfig { segment_bytes, ..LogConfig::default() })
}

fn commit<D: Disk>(log: &mut Log<D>, items: &[LogItem]) {
    log.append(items).unwrap();
    log.sync().unwrap();
}

fn item(shard: u32, replica: u64, change: Change) -> LogItem {
    LogItem { shard: ShardId(shard), replica: ReplicaId(replica), change }
}

/// A replica without entries, whose log begins at `base`.
fn state(shard: u32, replica: u64, base: u64) -> LogItem {
    let conf_state = ConfState { voters: vec![1, 2, replica], ..Default::default() };
    let base = Base { index: LogIndex(base), term: Term(1), conf_state, snapshot: format!("snapshot-{shard}-{base}") };
    item(shard, replica, Change::State(Box::new(ReplicaState { base, ..Default::default() })))
}

fn entries(shard: u32, replica: u64, first: u64, sizes: &[usize]) -> LogItem {
    let entry = |(offset, size): (usize, &usize)| Entry {
        index: first + offset as u64,
        term: 3,
        data: vec![b'd'; *size].into(),
        ..Default::default()
    };
    item(shard, replica, Change::Entries(sizes.iter().enumerate().map(entry).collect()))
}

fn hard_state(shard: u32, replica: u64, term: u64, commit: u64) -> LogItem {
    item(shard, replica, Change::HardState(HardState { term, vote: replica, commit, ..Default::default() }))
}

fn removed(shard: u32, replica: u64) -> LogItem {
    item(shard, replica, Change::Removed)
}

fn suspect(replica: u64) -> RecoveredShard {
    RecoveredShard::Suspect { replica: ReplicaId(replica) }
}

/// The number of a shard's entries; `None` if it is not recovered.
fn entry_count(recovery: &Recovery, shard: u32) -> Option<usize> {
    match recovery.shards.get(&ShardId(shard)) {
        Some(RecoveredShard::Recovered { state, .. }) => Some(state.entries.len()),
        _ => None,
    }
}
