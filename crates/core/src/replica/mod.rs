//! One shard's copy on this node: a raft-rs group and what surrounds it.
//!
//! raft-rs implements the protocol. What it leaves open, or does wrong for our purposes, is here, one idea per file:
//!
//! | file | the idea |
//! |---|---|
//! | [`storage`] | the log as raft-rs reads it, in memory |
//! | [`election`] | election timeouts that are repeatable and do not collide |
//! | [`patience`] | how long to wait before a campaign when disks are slow |
//! | [`lease`] | until when the leader may serve reads without a quorum |
//! | [`reads`] | reads by ReadIndex, without a lease |
//! | [`proposals`] | which reply belongs to which entry |
//! | [`view`] | the map as readers on other threads see it |
//! | `inbound` | which messages a replica accepts, and what it does at a tick |
//! | `serve` | turning commands into entries, and answering queries |
//! | `ready` | turning Raft's outputs into effects, in order |
//! | `apply` | applying committed entries to the state machine |
//! | `membership` | reports to the controller, and its steps |
//! | `handover` | hand-over of leadership by a node that is stopping, or whose disk hangs |
//! | `snapshots`, [`restore`] | cutting, writing and installing the state |
//! | [`transfers`] | snapshots that are sent to other replicas |
//! | [`retention`] | which entries stay in memory, and when a snapshot is due |
//!
//! **The path of a write.** Commands collect until the turn ends, become one entry, and are proposed. `ready` sends the
//! entry to the followers and puts it into the node's batch for the log at the same time. When the log reports the
//! batch durable, the replica tells Raft, which commits the entry once it is durable on a quorum; the entry is applied
//! and the replies are sent.
//!
//! **What waits for the disk.** Until its batch is durable, a replica sends nothing that depends on it: append
//! responses, votes and vote requests wait with the batch. Pre-vote responses promise nothing and never wait. Heartbeat
//! responses depend only on the term and wait only if the term is not durable yet; otherwise a slow disk would cost the
//! leader its lease.

mod apply;
pub mod cut_files;
mod durability;
pub mod election;
mod handover;
mod inbound;
pub mod lease;
mod membership;
mod patience;
pub mod proposals;
pub mod reads;
mod ready;
pub mod receiving;
pub mod restore;
mod retention;
pub mod send_slots;
mod serve;
mod snapshots;
pub mod storage;
pub(crate) mod transfers;
pub use crate::divergence::{Marks, SETTLED_AFTER};
use crate::effects::{Effects, SnapshotWork};
use crate::kv::state::hash::hash;
use crate::kv::{Command, Machine, Query};
use crate::limits::*;
use crate::log::item::{Base, ReplicaState};
use crate::message::{RaftMessage, ShardReport};
use crate::mutation::Mutation;
use crate::request::{Action, Failure, Reply};
use crate::stopping::Unfinished;
use crate::system::{Group, SystemCommand, SystemMachine};
use crate::time::{HlcTimestamp, Moment, Ticks};
use crate::timing::Timing;
use crate::types::{LogIndex, NodeId, ReplicaId, ShardId, Term};
use crate::view::ShardView;
use bytes::Bytes;
use durability::Durability;
use lease::{LeaderLease, Promise};
use membership::Membership;
use patience::Patience;
use proposals::Proposals;
use raft::{RawNode, StateRole};
use reads::Reads;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::RaftStorage;

/// Whether leaders answer reads by lease, or ask a quorum each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReadMode {
    #[default]
    Lease,
    Quorum,
}

/// Settings that all replicas of a node share.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaConfig {
    /// Spreads election timeouts; the same on all nodes of a cluster, so that ranks agree.
    pub seed: u64,
    /// Different at every start of the process.
    pub boot_nonce: u64,
    pub read_mode: ReadMode,
    /// The cluster's timing, from the topology on this node's disk.
    pub timing: Timing,
    pub mutation: Mutation,
}

/// A command that waits for the end of the turn.
enum Write {
    Kv(Command),
    System(Box<SystemCommand>),
}

/// How a replica starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Created now: it has made no promise to any leader.
    Created,
    /// Restarted: before it stopped, it may have promised a leader not to vote.
    Restarted,
}

/// A replica's state machine.
pub enum StateMachine {
    /// A shard of the key space; readers access it through the view.
    Kv,
    System(SystemMachine),
}

/// The state from a snapshot, from which a replica starts or which it installs.
pub enum Restored {
    Kv(Machine),
    System(SystemMachine),
}

/// How far the state machine has applied the log.
struct Applied {
    index: LogIndex,
    term: Term,
    timestamp: HlcTimestamp,
    /// Index of the last configuration change.
    configuration: LogIndex,
}

/// One replica. See the module's header for which file does what.
///
/// Invariants:
/// - `applied` never exceeds what Raft has committed and what this node's log holds durably.
/// - the published lease is zero unless this replica leads and has applied an entry of its term.
pub struct Replica<T> {
    shard: ShardId,
    id: ReplicaId,
    config: ReplicaConfig,
    raft: RawNode<RaftStorage>,
    machine: StateMachine,
    view: Arc<ShardView>,
    membership: Membership,

    applied: Applied,

    incoming: Vec<(Write, T)>,
    proposals: Proposals<T>,
    reads: Reads<(Query, T)>,
    lease: LeaderLease,

    /// The role and term that the last turn ended in.
    role: (StateRole, u64),
    ticks: Ticks,
    /// The last index of the log, and the tick at which it was first seen.
    last_grown: (u64, Ticks),
    /// The promise that this replica has made to a leader, before or after its last restart.
    promise: Promise,
    patience: Patience,
    durability: Durability,
    snapshots: snapshots::Snapshots,
    transfers: transfers::Transfers,
    /// The leader's commit index in a heartbeat, and when it arrived; kept until that index is applied here.
    heard: Option<(u64, Moment)>,
    /// A hand-over in progress to a node whose disk answers.
    shedding: Option<handover::Shedding>,
    /// Hashes to compare with those of other replicas.
    marks: Marks,
}

impl<T> Replica<T> {
    /// Starts a replica from its data on disk, with the state at its base.
    ///
    /// # Panics
    /// If `state` is not one that a replica has written: the log checks what it recovers.
    pub fn new(
        shard: ShardId,
        id: ReplicaId,
        config: ReplicaConfig,
        state: ReplicaState,
        restored: Restored,
        origin: Origin,
        now: Moment,
    ) -> Replica<T> {
        let base = state.base.clone();
        let durable_commit = state.hard_state.commit;
        let storage = RaftStorage::new(state.hard_state, state.base, state.entries);
        let raft_config = raft::Config {
            id: id.0,
            election_tick: ELECTION_TICKS,
            max_election_tick: inbound::NEVER_TICKS + 1,
            heartbeat_tick: 1,
            applied: base.index.0,
            max_size_per_msg: MAX_APPEND_BYTES,
            max_inflight_msgs: MAX_INFLIGHT_APPENDS,
            check_quorum: true,
            pre_vote: true,
            read_only_option: raft::ReadOnlyOption::Safe,
            skip_bcast_commit: true,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES_PER_READY,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&raft_config, storage, &logger)
            .unwrap_or_else(|error| panic!("replica {id} of shard {shard} can't start from its log: {error}"));
        let (machine, map) = match restored {
            Restored::Kv(map) => (StateMachine::Kv, map),
            Restored::System(system) => (StateMachine::System(system), Machine::new()),
        };
        let last_timestamp = match &machine {
            StateMachine::Kv => map.last_timestamp(),
            StateMachine::System(system) => system.last_timestamp(),
        };
        let mut promise = Promise::default();
        if origin == Origin::Restarted && !config.mutation.is(Mutation::VoteAtBoot) {
            promise.make(now, config.timing);
        }
        let mut replica = Replica {
            shard,
            id,
            config,
            machine,
            view: Arc::new(ShardView::new(shard, id, map)),
            membership: Membership::default(),
            applied: Applied {
                index: base.index,
                term: base.term,
                timestamp: last_timestamp,
                configuration: base.index,
            },
            incoming: Vec::new(),
            proposals: Proposals::default(),
            reads: Reads::new(config.boot_nonce),
            lease: LeaderLease::new(config.timing),
            role: (StateRole::Follower, raft.raft.term),
            ticks: Ticks::default(),
            last_grown: (0, Ticks::default()),
            promise,
            patience: Patience::new(raft.raft.term, config.timing),
            durability: Durability::new(durable_commit),
            snapshots: snapshots::Snapshots::new(),
            transfers: transfers::Transfers::default(),
            heard: None,
            shedding: None,
            marks: Marks::default(),
            raft,
        };
        replica.learn_configurations();
        replica.campaign_if_alone();
        replica
    }

    pub fn shard(&self) -> ShardId {
        self.shard
    }

    pub fn id(&self) -> ReplicaId {
        self.id
    }

    pub fn view(&self) -> &Arc<ShardView> {
        &self.view
    }

    pub fn is_leader(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// What it still has to do before its node may end.
    pub fn unfinished(&self) -> Unfinished {
        Unfinished { led: self.is_leader().into(), unsettled: (!self.proposals.is_empty()).into() }
    }

    /// The system shard's state, if this is its replica.
    pub fn system(&self) -> Option<&SystemMachine> {
        match &self.machine {
            StateMachine::System(system) => Some(system),
            StateMachine::Kv => None,
        }
    }

    /// The node of the leader that this replica knows of.
    pub fn leader(&self) -> Option<NodeId> {
        let leader = self.raft.raft.leader_id;
        (leader != raft::INVALID_ID).then(|| ReplicaId(leader).node())
    }

    pub fn set_group(&mut self, group: Group) {
        self.membership.group = group;
    }

    /// The approximate size of a snapshot of the state.
    pub fn state_bytes(&self) -> usize {
        match &self.machine {
            StateMachine::Kv => self.view.size().1,
            StateMachine::System(system) => system.topology().encode().len(),
        }
    }

    /// Bytes of entries held in memory.
    pub fn log_bytes(&self) -> usize {
        self.storage().bytes()
    }

    /// This replica's position in its log, cheap enough to query after every turn.
    pub fn position(&self) -> Position {
        Position {
            is_leader: self.is_leader(),
            term: Term(self.raft.raft.term),
            applied: self.applied.index,
            committed: LogIndex(self.raft.raft.raft_log.committed),
            durable: LogIndex(self.raft.raft.raft_log.persisted),
            configuration: self.applied.configuration.0,
        }
    }

    /// The log in memory, for checks.
    pub fn log(&self) -> &RaftStorage {
        self.storage()
    }

    /// The voters of every active configuration, for checks.
    pub fn configurations(&self) -> &[Vec<ReplicaId>] {
        &self.membership.configurations
    }

    /// This replica's status.
    pub fn status(&self) -> ReplicaStatus {
        let raft = &self.raft.raft;
        let conf = raft.prs().conf();
        ReplicaStatus {
            shard: self.shard,
            replica: self.id,
            leader: self.leader(),
            is_leader: self.is_leader(),
            is_learner: !conf.voters().contains(self.id.0),
            term: raft.term,
            committed: raft.raft_log.committed,
            applied: self.applied.index.0,
            last: self.storage().last().max(raft.raft_log.last_index()),
            base: self.storage().base().index.0,
            report: self.is_leader().then(|| self.report()),
        }
    }

    /// Ends a replica that is removed from this node. Returns the snapshot files that are no longer needed.
    pub fn retire(mut self, out: &mut Effects<T>) -> Vec<String> {
        self.refuse_reads(out);
        let incoming = std::mem::take(&mut self.incoming);
        out.replies.extend(incoming.into_iter().map(|(_, responder)| (responder, Err(Failure::NotLeader(None)))));
        let proposed = self.proposals.drain();
        out.replies.extend(proposed.into_iter().map(|responder| (responder, Err(Failure::Unknown))));
        self.view.publish_lease(Moment::default());
        self.view.close();
        // Readers may still hold the view, but don't read the map once the view is closed.
        out.garbage.push(std::mem::take(&mut *self.view.machine_mut()));
        if let Some(cutting) = self.snapshots.cutting.take() {
            out.snapshots.push(SnapshotWork::Abandon { name: cutting.base().snapshot.clone() });
        }
        if self.is_leader() {
            out.leadership.push((self.shard, Term(self.raft.raft.term), false));
        }
        let retired = std::mem::take(&mut self.snapshots.retired).into_iter().map(|retired| retired.name);
        retired.chain([self.base().snapshot.clone()]).filter(|name| !name.is_empty()).collect()
    }

    /// Whether the file is a snapshot of this replica, or will be.
    pub fn has_snapshot(&self, name: &str) -> bool {
        self.base().snapshot == name || self.snapshots.has(name)
    }

    /// Whether a snapshot has shown that memory differs from what was written to it: the replica must end.
    pub fn is_damaged(&self) -> bool {
        self.snapshots.is_damaged
    }

    /// The hash of the current state, a function only of the applied log.
    pub fn state_hash(&self) -> u64 {
        match &self.machine {
            StateMachine::Kv => self.view.machine().hash(),
            StateMachine::System(system) => hash(&system.topology().encode()),
        }
    }

    /// Everything that a restart needs besides the snapshot.
    pub fn complete_state(&self) -> ReplicaState {
        let storage = self.storage();
        ReplicaState {
            hard_state: storage.hard_state().clone(),
            base: storage.base().clone(),
            entries: storage.entries_after_base(),
        }
    }

    fn storage(&self) -> &RaftStorage {
        self.raft.store()
    }

    fn base(&self) -> &Base {
        self.storage().base()
    }
}

/// A replica's position in its log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    pub is_leader: bool,
    pub term: Term,
    pub applied: LogIndex,
    pub committed: LogIndex,
    /// The last entry that this replica has on its disk, and may have acknowledged.
    pub durable: LogIndex,
    /// The index of the last configuration change that it has applied.
    pub configuration: u64,
}

/// A replica's status, for operators and for checks.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    pub shard: ShardId,
    pub replica: ReplicaId,
    pub leader: Option<NodeId>,
    pub is_leader: bool,
    pub is_learner: bool,
    pub term: u64,
    pub committed: u64,
    pub applied: u64,
    pub last: u64,
    pub base: u64,
    /// The leader's report on its shard's membership.
    pub report: Option<ShardReport>,
}
