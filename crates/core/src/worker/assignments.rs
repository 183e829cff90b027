//! Which replicas run on this node: those that the topology assigns to it and that can be trusted.

use super::{Worker, worker_of};
use crate::divergence::QuarantineReason;
use crate::kv::state::Machine;
use crate::log::item::{Change, LogItem, ReplicaState};
use crate::replica::{Origin, Replica, Restored};
use crate::system::{SystemMachine, Topology};
use crate::time::{HlcTimestamp, Moment};
use crate::types::{ReplicaId, ShardId};
use std::sync::Arc;

impl<T> Worker<T> {
    /// Starts a replica from disk. Call it before the first `handle_topology`.
    pub fn restart_replica(
        &mut self,
        shard: ShardId,
        id: ReplicaId,
        state: ReplicaState,
        restored: Restored,
        now: Moment,
    ) {
        self.start(Replica::new(shard, id, self.config.replica, state, restored, Origin::Restarted, now));
    }

    /// Records that this node once held the replica and must not run it again: it was removed, or its log can't be
    /// trusted.
    pub fn never_again(&mut self, shard: ShardId, id: ReplicaId) {
        let highest = self.highest.entry(shard).or_default();
        *highest = id.max(*highest);
    }

    /// Marks a replica as suspect: it never runs again. Once the topology no longer names it, its removal is logged and
    /// its snapshots are deleted.
    pub fn quarantine(&mut self, shard: ShardId, id: ReplicaId, snapshots: Vec<String>) {
        self.never_again(shard, id);
        let latest = self.suspects.entry(shard).or_default();
        *latest = id.max(*latest);
        self.suspect_snapshots.entry(shard).or_default().extend(snapshots);
    }

    pub(super) fn start(&mut self, replica: Replica<T>) {
        let shard = replica.shard();
        assert_eq!(worker_of(shard, self.config.workers), self.config.index, "shard {shard} is another worker's");
        self.never_again(shard, replica.id());
        self.out.views.push((shard, Some(replica.view().clone())));
        if let Some(system) = replica.system() {
            self.out.topology = Some(system.topology().clone());
        }
        self.replicas.insert(shard, replica);
        self.dirty.insert(shard);
    }

    /// The replica can't be trusted for this reason: stops it if it still runs here.
    pub fn handle_quarantine(&mut self, shard: ShardId, id: ReplicaId, why: QuarantineReason) {
        if self.replicas.get(&shard).is_some_and(|replica| replica.id() == id) {
            tracing::error!(%shard, replica = %id, "replica stopped: {why}");
            self.stop(shard, id, why);
        }
    }

    /// Stops a replica that can't continue. Its data stays on disk and it counts as lost; the node asks for a new
    /// replica.
    pub(super) fn stop(&mut self, shard: ShardId, id: ReplicaId, why: QuarantineReason) {
        if let Some(replica) = self.replicas.remove(&shard) {
            self.transfers.retain(|(of, _)| *of != shard);
            let snapshots = replica.retire(&mut self.out);
            self.quarantine(shard, id, snapshots);
        }
        self.dirty.remove(&shard);
        self.out.views.push((shard, None));
        self.out.lost.push((shard, id, why));
    }

    /// Follows a newer topology: creates the replicas that this node should hold, removes those that were retired.
    pub fn handle_topology(&mut self, now: Moment, topology: Arc<Topology>) {
        for (&shard, group) in &topology.groups {
            if worker_of(shard, self.config.workers) != self.config.index {
                continue;
            }
            self.retire(shard, &topology);
            let assigned = group.replica_on(self.config.node);
            let highest = self.highest.get(&shard).copied().unwrap_or_default();
            if let Some(id) = assigned.filter(|&id| id > highest) {
                if self.replicas.contains_key(&shard) {
                    self.remove(shard);
                }
                self.create(now, shard, id, &topology);
            }
            if let Some(replica) = self.replicas.get_mut(&shard) {
                replica.set_group(group.clone());
            }
        }
        self.topology = Some(topology);
    }

    /// Removes the replicas that a newer topology no longer names, and applies nothing else of it: the node [must save
    /// it](crate::boot::assigns_anew) before it creates a replica, and may need their space to do so.
    pub fn handle_retirements(&mut self, topology: &Topology) {
        for &shard in topology.groups.keys() {
            if worker_of(shard, self.config.workers) == self.config.index {
                self.retire(shard, topology);
            }
        }
    }

    fn retire(&mut self, shard: ShardId, topology: &Topology) {
        // A topology older than the replica can't tell whether it was retired.
        let is_named = |id| topology.groups[&shard].replicas.contains(&id) || !topology.has_named(id);
        if self.replicas.get(&shard).is_some_and(|held| !is_named(held.id())) {
            self.remove(shard);
        }
        if let Some(id) = self.suspects.get(&shard).copied().filter(|&id| !is_named(id)) {
            self.suspects.remove(&shard);
            self.batch.items.push(LogItem { shard, replica: id, change: Change::Removed });
            let snapshots = self.suspect_snapshots.remove(&shard).unwrap_or_default();
            self.retired_snapshots.extend(snapshots.into_iter().map(|name| (self.batch.number, shard, name)));
        }
    }

    /// Creates an empty replica: the leader sends it a snapshot.
    fn create(&mut self, now: Moment, shard: ShardId, id: ReplicaId, topology: &Topology) {
        let restored = if shard == ShardId::SYSTEM {
            Restored::System(SystemMachine::new(topology.clone(), HlcTimestamp::default()))
        } else {
            Restored::Kv(Machine::new())
        };
        let state = ReplicaState::default();
        let change = Change::State(Box::new(state.clone()));
        self.batch.items.push(LogItem { shard, replica: id, change });
        self.start(Replica::new(shard, id, self.config.replica, state, restored, Origin::Created, now));
    }

    fn remove(&mut self, shard: ShardId) {
        let Some(replica) = self.replicas.remove(&shard) else { return };
        self.batch.items.push(LogItem { shard, replica: replica.id(), change: Change::Removed });
        self.out.views.push((shard, None));
        self.dirty.remove(&shard);
        self.transfers.retain(|(of, _)| *of != shard);
        let files = replica.retire(&mut self.out);
        self.retired_snapshots.extend(files.into_iter().map(|name| (self.batch.number, shard, name)));
    }
}
