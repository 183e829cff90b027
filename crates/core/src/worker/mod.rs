//! The loop that runs many replicas and combines their work into few effects.
//!
//! A worker owns a disjoint set of a node's shards, without locks between workers. The shell repeats these steps:
//!
//! 1. pass it everything that has arrived (`handle_*`), with the time;
//! 2. [`flush`](Worker::flush) once, and perform the [`Effects`] in their order;
//! 3. wait for more input, or for [`next_tick`](Worker::next_tick).
//!
//! A turn is the unit of batching: commands for one shard become one entry, log items of all shards one record, and
//! messages to one node one message. There is no artificial delay.
//!
//! **Ticks** have the same phase for all shards, so that heartbeats to a node are sent together. After a stall, a
//! worker makes up for one tick only. If it made up for all missed ticks, its followers would campaign at once, before
//! handling the heartbeats that wait in the inbox.

mod allowance;
mod assignments;

use crate::divergence::QuarantineReason;
use crate::effects::{Effects, SnapshotWork};
use crate::health::{DiskState, HealthView, can_lead};
use crate::kv::state::Machine;
use crate::limits::RETAINED_SHARE;
use crate::log::item::{Change, LogItem};
use crate::log::{BatchNumber, LogBatch};
use crate::message::{RaftMessage, Step, StepRequest};
use crate::mutation::Mutation;
use crate::replica::transfers::{TransferPermit, is_empty_state};
use crate::replica::{Replica, ReplicaConfig, ReplicaStatus, Restored};
use crate::request::{Failure, Request};
use crate::stopping::Unfinished;
use crate::system::Topology;
use crate::time::{Moment, Now};
use crate::timing::Timing;
use crate::types::{NodeId, ReplicaId, ShardId};
use allowance::SnapshotAllowance;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How many leaderships a worker hands over in a tick while its node's disk hangs.
const HAND_OVERS_A_TICK: usize = 8;

/// At most one warning about entries that can't be read is logged in this time: the leader sends them again and again.
const UNREADABLE_WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Which of a node's workers owns a shard.
pub fn worker_of(shard: ShardId, workers: usize) -> usize {
    if shard == ShardId::SYSTEM { 0 } else { shard.0 as usize % workers }
}

/// A worker's index and settings.
#[derive(Clone, Copy, Debug)]
pub struct WorkerConfig {
    pub node: NodeId,
    pub index: usize,
    pub workers: usize,
    pub replica: ReplicaConfig,
    /// This worker's share of the node's budget for entries in memory.
    pub entry_budget_bytes: usize,
}

/// A batch that has been handed to the log and is not durable yet.
struct Unsynced {
    number: BatchNumber,
    handed_over: Moment,
    shards: Vec<ShardId>,
}

/// Runs many replicas, one at a time. `T` is the shell's responder for a request, returned with the reply.
pub struct Worker<T> {
    config: WorkerConfig,
    replicas: BTreeMap<ShardId, Replica<T>>,
    /// The highest replica id that this node has ever held for each shard, running or not.
    highest: BTreeMap<ShardId, ReplicaId>,
    /// Suspect replicas. The log keeps their data until the topology no longer names them.
    suspects: BTreeMap<ShardId, ReplicaId>,
    topology: Option<Arc<Topology>>,
    health: HealthView,
    dirty: BTreeSet<ShardId>,
    next_tick: Moment,
    next_unreadable_warning: Moment,
    batch: LogBatch,
    /// Batches handed to the log, oldest first.
    unsynced: VecDeque<Unsynced>,
    /// How long the log took for the latest durable batch.
    last_sync: Duration,
    /// Files of removed replicas, which are deleted when the removal is durable.
    retired_snapshots: Vec<(BatchNumber, ShardId, String)>,
    /// Snapshots of suspect replicas, kept for an operator to inspect as long as the topology names these replicas.
    suspect_snapshots: BTreeMap<ShardId, Vec<String>>,
    snapshot_allowance: SnapshotAllowance,
    /// Snapshots of this worker's replicas that are being sent, each with its receiver.
    transfers: Vec<(ShardId, ReplicaId)>,
    out: Effects<T>,
}

impl<T> Worker<T> {
    pub fn new(config: WorkerConfig, now: Moment) -> Worker<T> {
        Worker {
            config,
            replicas: BTreeMap::new(),
            highest: BTreeMap::new(),
            suspects: BTreeMap::new(),
            topology: None,
            health: HealthView::default(),
            dirty: BTreeSet::new(),
            next_tick: next_phase(now, config.replica.timing),
            next_unreadable_warning: now,
            batch: LogBatch { number: BatchNumber::FIRST, ..LogBatch::default() },
            unsynced: VecDeque::new(),
            last_sync: Duration::ZERO,
            retired_snapshots: Vec::new(),
            suspect_snapshots: BTreeMap::new(),
            snapshot_allowance: SnapshotAllowance::new(config.workers, config.replica.timing),
            transfers: Vec::new(),
            out: Effects::default(),
        }
    }

    /// When [`handle_tick`](Worker::handle_tick) is due.
    pub fn next_tick(&self) -> Moment {
        self.next_tick
    }

    /// Ticks all replicas, if a tick is due.
    pub fn handle_tick(&mut self, now: Moment) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = next_phase(now, self.config.replica.timing);
        let sync = self.sync_time(now);
        self.replicas.values_mut().for_each(|replica| replica.tick(now, sync));
        self.dirty.extend(self.replicas.keys());
        for replica in self.replicas.values_mut() {
            self.out.reports.extend(replica.due_report());
        }
        self.keep_entry_budget();
        self.shed();
    }

    /// Hands leadership over while this node's disk does not answer or has no space. A few shards at a time, because
    /// each may need an election.
    fn shed(&mut self) {
        if !self.can_not_log() || self.config.replica.mutation.is(Mutation::IgnoreHungDisk) {
            return;
        }
        // The system shard has the last id and goes first: the other shards may need its leader.
        let mut handed_over = 0;
        for replica in self.replicas.values_mut().rev() {
            if handed_over < HAND_OVERS_A_TICK {
                handed_over += usize::from(replica.shed(&self.health));
            }
        }
    }

    /// How long the log took for the latest durable batch, or has taken so far for the oldest unsynced one, whichever
    /// is longer.
    ///
    /// Elections need this rather than the health monitor's latency, which is rounded up, falls only slowly after a
    /// spike, and lacks the time that a batch waits for the sync before it.
    fn sync_time(&self, now: Moment) -> Duration {
        let so_far = self.unsynced.front().map(|oldest| now.saturating_since(oldest.handed_over));
        self.last_sync.max(so_far.unwrap_or_default())
    }

    /// If the entries after the last snapshots exceed the budget, lets the replica with the most of them take a
    /// snapshot; otherwise one quiet replica at a time. Then releases entries in memory until they fit the budget.
    fn keep_entry_budget(&mut self) {
        self.snapshot_allowance.tick();
        let budget = self.config.entry_budget_bytes;
        let after_base: usize = self.replicas.values().map(Replica::bytes_after_base).sum();
        let chosen = if after_base > budget {
            self.replicas.values().max_by_key(|replica| replica.bytes_relieved_by_snapshot())
        } else if self.replicas.values().any(Replica::is_cutting) {
            None
        } else {
            self.replicas.values().find(|replica| replica.is_quiet())
        };
        if let Some(shard) = chosen.map(Replica::shard) {
            self.with(shard, |replica, _, out| replica.begin_snapshot(out));
        }
        for replica in self.replicas.values_mut() {
            replica.release_covered_entries(budget / RETAINED_SHARE);
        }
        let mut held: usize = self.replicas.values().map(Replica::log_bytes).sum();
        for spare_followers in [true, false] {
            while held > budget {
                let most = self.replicas.values_mut().max_by_key(|replica| replica.releasable_bytes(spare_followers));
                let Some(replica) = most else { return };
                let before = replica.log_bytes();
                replica.release_entries(spare_followers, before.saturating_sub(held - budget));
                if replica.log_bytes() == before {
                    break;
                }
                held -= before - replica.log_bytes();
            }
        }
    }

    /// Handles messages from other nodes' replicas. Messages for a replica that is not here are dropped.
    pub fn handle_raft(&mut self, now: Moment, messages: impl IntoIterator<Item = RaftMessage>) {
        for RaftMessage { shard, from, to, mut message } in messages {
            if is_empty_state(shard, &message) {
                let message = RaftMessage { shard, from, to, message };
                self.handle_snapshot(message, String::new(), Restored::Kv(Machine::new()));
                continue;
            }
            let Some(replica) = self.replicas.get_mut(&shard).filter(|replica| replica.id() == to) else { continue };
            self.dirty.insert(shard);
            if let Err(unreadable) = replica.keep_readable(&mut message)
                && now >= self.next_unreadable_warning
            {
                self.next_unreadable_warning = now + UNREADABLE_WARNING_INTERVAL;
                let hint = "if another node runs a newer version of Ringfort, upgrade this node";
                tracing::warn!(%shard, replica = %to, "the replica falls behind: {unreadable}; {hint}");
            }
            if let Err(fault) = replica.step(now, from, message) {
                tracing::error!(%shard, replica = %to, "replica stopped: {fault}");
                // After a restart it would otherwise vote, and could elect a leader that lacks what this replica had
                // acknowledged.
                self.batch.items.push(LogItem { shard, replica: to, change: Change::Suspect });
                self.stop(shard, to, QuarantineReason::Log);
            }
        }
    }

    fn can_not_log(&self) -> bool {
        let disk = self.health.get(&self.config.node).map(|own| own.disk);
        matches!(disk, Some(DiskState::Hung | DiskState::Full))
    }

    /// Handles the reported health of all nodes, including this one.
    pub fn handle_health(&mut self, health: HealthView) {
        self.health = health;
        if !self.can_not_log() {
            self.replicas.values_mut().for_each(Replica::stop_shedding);
        }
    }

    /// The node could not be reached: what was sent to its replicas may be lost.
    pub fn handle_unreachable(&mut self, node: NodeId) {
        let Some(topology) = self.topology.clone() else { return };
        for (shard, replica) in &mut self.replicas {
            if let Some(to) = topology.replica(*shard, node) {
                replica.report_unreachable(to);
                self.dirty.insert(*shard);
            }
        }
    }

    /// Handles a request. The reply is in the effects of this turn or a later one.
    pub fn handle_request(&mut self, now: Moment, request: Request, responder: T) {
        let shard = request.shard();
        let Some(replica) = self.replicas.get_mut(&shard) else {
            self.out.replies.push((responder, Err(Failure::NotLeader(None))));
            return;
        };
        replica.handle_request(now, request.into_action(), responder, &mut self.out);
        self.dirty.insert(shard);
    }

    /// The log holds all batches of this worker up to `number` durably.
    pub fn handle_persisted(&mut self, now: Moment, number: BatchNumber) {
        while let Some(batch) = self.unsynced.pop_front_if(|batch| batch.number <= number) {
            self.last_sync = now.saturating_since(batch.handed_over);
            for shard in batch.shards {
                if let Some(replica) = self.replicas.get_mut(&shard) {
                    replica.persisted(number, &mut self.out);
                    self.dirty.insert(shard);
                }
            }
        }
        for (_, shard, name) in self.retired_snapshots.extract_if(.., |(batch, ..)| *batch <= number) {
            // A later replica of the shard may have written a snapshot of the same index.
            if self.replicas.get(&shard).is_none_or(|replica| !replica.has_snapshot(&name)) {
                self.out.snapshots.push(SnapshotWork::Delete { name });
            }
        }
    }

    /// Carries out a step of the controller, or ignores it: the controller decides again on the next report.
    pub fn handle_step(&mut self, request: &StepRequest) {
        // A disk that hung recently is no reason to refuse: the controller knows whether another node's disk is better.
        if let Step::TransferLeadership(to) = request.step
            && !can_lead(&self.health, to.node())
        {
            tracing::debug!(shard = %request.shard, %to, "refused to give leadership to a node that can't lead");
            return;
        }
        if let Some(replica) = self.replicas.get_mut(&request.shard) {
            self.dirty.insert(request.shard);
            if let Err(refused) = replica.step_membership(request) {
                tracing::debug!(shard = %request.shard, step = ?request.step, "step not taken: {refused}");
            }
        }
    }

    /// Begins to hand over all leaderships, because this node is about to stop. The shell calls it again until
    /// [`leads`](Worker::leads) is zero or its time is up.
    pub fn hand_over(&mut self) {
        for (shard, replica) in &mut self.replicas {
            if replica.hand_over(&self.health) {
                self.dirty.insert(*shard);
            }
        }
    }

    /// What its replicas still have to do before the node may end.
    pub fn unfinished(&self) -> Unfinished {
        self.replicas.values().map(Replica::unfinished).sum()
    }

    /// The snapshot thread has written a chunk of this shard's cut.
    pub fn handle_snapshot_chunk_written(&mut self, shard: ShardId) {
        self.with(shard, |replica, _, out| replica.snapshot_chunk_written(out));
    }

    /// The file `name` of this shard's cut is complete and durable, or could not be written.
    pub fn handle_snapshot_written(&mut self, shard: ShardId, name: &str, written: bool) {
        self.snapshot_allowance.ended(written);
        let unwritten_bytes = self.with(shard, |replica, _, _| replica.snapshot_written(name, written));
        self.snapshot_allowance.refund(unwritten_bytes.unwrap_or_default());
    }

    /// The transfer of a snapshot to the replica `to` has ended.
    pub fn handle_snapshot_sent(&mut self, shard: ShardId, to: ReplicaId, arrived: bool) {
        self.with(shard, |replica, _, out| replica.snapshot_sent(to, arrived, out));
    }

    /// A snapshot has arrived from another node: its file is durable under `name` (there is none if that is empty), its
    /// state is built, and `message` is the leader's MsgSnapshot.
    pub fn handle_snapshot(&mut self, message: RaftMessage, name: String, restored: Restored) {
        let RaftMessage { shard, from, to, message } = message;
        if self.replicas.get(&shard).is_some_and(|replica| replica.id() == to) {
            self.with(shard, |replica, _, out| replica.install(from, message, name, restored, out));
        } else if !name.is_empty() {
            self.out.snapshots.push(SnapshotWork::Delete { name });
        }
    }

    /// The log is over its budget, and this shard pins its oldest segment.
    pub fn handle_log_pressure(&mut self, shard: ShardId) {
        let asked = self.with(shard, |replica, _, out| replica.release_log(out));
        if asked.is_none() && self.suspects.contains_key(&shard) {
            self.batch.read_back.push(shard);
        }
    }

    fn with<R>(
        &mut self,
        shard: ShardId,
        act: impl FnOnce(&mut Replica<T>, &mut LogBatch, &mut Effects<T>) -> R,
    ) -> Option<R> {
        let replica = self.replicas.get_mut(&shard)?;
        replica.permit_transfers(TransferPermit::beside(&self.transfers, self.config.workers));
        replica.permit_snapshot(self.snapshot_allowance.is_left());
        let (transfers, was_cutting) = (replica.transfers().len(), replica.is_cutting());
        let result = act(replica, &mut self.batch, &mut self.out);
        if replica.transfers().len() != transfers {
            self.transfers.retain(|(of, _)| *of != shard);
            self.transfers.extend(replica.transfers().map(|to| (shard, to)));
        }
        if replica.is_cutting() && !was_cutting {
            self.snapshot_allowance.spend(replica.state_bytes());
        }
        self.dirty.insert(shard);
        Some(result)
    }

    /// The status of this worker's replicas.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        self.replicas.values().map(Replica::status).collect()
    }

    /// The replicas themselves, for checks.
    pub fn replicas(&self) -> impl Iterator<Item = &Replica<T>> {
        self.replicas.values()
    }

    /// Ends a turn. Returns its effects, and whether there is more to do at once: then the next turn follows without
    /// waiting for input.
    pub fn flush(&mut self, now: Now) -> (Effects<T>, bool) {
        let mut more = false;
        for shard in std::mem::take(&mut self.dirty) {
            let flush = |replica: &mut Replica<T>, batch: &mut LogBatch, out: &mut Effects<T>| {
                (replica.flush(now, batch, out), replica.is_damaged().then_some(replica.id()))
            };
            let Some((has_more, damaged)) = self.with(shard, flush) else { continue };
            match has_more {
                true => more = true,
                false => drop(self.dirty.remove(&shard)),
            }
            if let Some(id) = damaged {
                self.handle_quarantine(shard, id, QuarantineReason::Memory);
            }
        }
        if !self.batch.items.is_empty() || !self.batch.read_back.is_empty() {
            self.snapshot_allowance.earn(self.batch.new_entry_bytes() as usize);
            let next = LogBatch { number: self.batch.number.next(), ..LogBatch::default() };
            let batch = std::mem::replace(&mut self.batch, next);
            let shards: BTreeSet<ShardId> = batch.items.iter().map(|item| item.shard).collect();
            let shards = shards.into_iter().collect();
            self.unsynced.push_back(Unsynced { number: batch.number, handed_over: now.moment, shards });
            self.out.log = Some(batch);
        }
        (std::mem::take(&mut self.out), more)
    }
}

/// The next multiple of the tick: the same phase for all workers of a node.
fn next_phase(now: Moment, timing: Timing) -> Moment {
    let tick = timing.tick().as_nanos() as u64;
    Moment((now.0 / tick + 1) * tick)
}

#[cfg(test)]
mod tests;
