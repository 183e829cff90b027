//! Small groups of workers, driven by hand: tests of what raft-rs leaves open.
//!
//! Messages are delivered at once unless cut, and a batch is durable when the test says so.

mod hung_disk;
mod inbound;
mod membership;
mod order;
mod promises;
mod reads;
mod snapshots;

use super::*;
use crate::boot;
use crate::kv::{Get, Put, Query, QueryReply, Scan};
use crate::limits::{ELECTION_TICKS, MAX_ELECTION_TICKS, QUIET_AFTER, SILENT_TICKS, SMALL_LOG_BYTES};
use crate::log::item::Base;
use crate::log::item::ReplicaState;
use crate::message::{ShardReport, Step};
use crate::mutation::Mutation;
use crate::replica::Origin;
use crate::replica::ReadMode;
use crate::request::{Action, Reply};
use crate::system::{Member, SystemCommand, SystemMachine};
use crate::time::HlcTimestamp;
use crate::time::Wall;
use crate::timing::Timing;
use crate::types::{ClusterId, Identity, LogIndex, Term};
use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType};
use ringfort_ring::ShardCount;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const TICK: Duration = Timing::DEFAULT.tick();
const QUIET_TICKS: u64 = Timing::DEFAULT.ticks(QUIET_AFTER).0;

const SHARD: ShardId = ShardId(0);

/// All keys map to this shard.
const ONE_SHARD: ShardCount = match ShardCount::new(1) {
    Ok(one) => one,
    Err(_) => unreachable!(),
};
const REPLICAS: [ReplicaId; 3] = [id(1), id(2), id(3)];

const fn id(node: u64) -> ReplicaId {
    ReplicaId(node << 32 | node)
}

type Answer = Result<Reply, Failure>;

/// A shard with three replicas, each on a worker of its own.
struct Group {
    timing: Timing,
    workers: BTreeMap<NodeId, Worker<u32>>,
    now: Moment,
    /// Pairs between which nothing is delivered, in this direction.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose log does not sync for now, with the batches that wait.
    slow: BTreeMap<NodeId, Vec<BatchNumber>>,
    under_way: VecDeque<(NodeId, NodeId, RaftMessage)>,
    answers: BTreeMap<u32, Answer>,
    /// Everything that was sent, for tests that inspect it.
    sent: Vec<(NodeId, RaftMessage)>,
    /// Pending work on snapshot files, and maps to drop.
    snapshots: Vec<(NodeId, SnapshotWork)>,
    garbage: Vec<Machine>,
}

fn config(node: NodeId, boot_nonce: u64) -> WorkerConfig {
    let replica = ReplicaConfig {
        seed: 3,
        boot_nonce,
        read_mode: ReadMode::Lease,
        timing: Timing::DEFAULT,
        mutation: Mutation::None,
    };
    WorkerConfig { node, index: 0, workers: 1, replica, entry_budget_bytes: usize::MAX }
}

fn initial_state() -> ReplicaState {
    let voters = REPLICAS.iter().map(|replica| replica.0).collect();
    let conf_state = ConfState { voters, ..ConfState::default() };
    let base = Base { index: LogIndex::BASE, term: Term::FIRST, conf_state, snapshot: String::new() };
    let hard_state = HardState { term: 1, commit: 1, ..HardState::default() };
    ReplicaState { hard_state, base, entries: Vec::new() }
}

/// A step that the controller decided on this report.
fn step_request(report: &ShardReport, step: Step) -> StepRequest {
    let ShardReport { shard, leader, term, configuration, .. } = *report;
    StepRequest { shard, leader, term, configuration, step }
}

impl Group {
    fn new() -> Group {
        Group::starting_from(initial_state())
    }

    fn starting_from(state: ReplicaState) -> Group {
        Group::with_timing(state, Timing::DEFAULT)
    }

    fn with_timing(state: ReplicaState, timing: Timing) -> Group {
        let now = Moment(1_000_000_000);
        let mut group = Group {
            timing,
            workers: BTreeMap::new(),
            now,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            under_way: VecDeque::new(),
            answers: BTreeMap::new(),
            sent: Vec::new(),
            snapshots: Vec::new(),
            garbage: Vec::new(),
        };
        for replica in REPLICAS {
            let config = group.config(replica.node(), 1);
            let mut worker = Worker::new(config, now);
            let restored = Restored::Kv(Machine::new());
            let replica = Replica::new(SHARD, replica, config.replica, state.clone(), restored, Origin::Created, now);
            worker.start(replica);
            group.workers.insert(NodeId(group.workers.len() as u64 + 1), worker);
        }
        group
    }

    fn config(&self, node: NodeId, boot_nonce: u64) -> WorkerConfig {
        let mut config = config(node, boot_nonce);
        config.replica.timing = self.timing;
        config
    }

    /// With a leader that has applied an entry of its term everywhere.
    fn with_leader() -> (Group, NodeId) {
        let mut group = Group::new();
        let leader = group.wait_for_leader(&[]);
        group.ticks(2);
        (group, leader)
    }

    fn wait_for_leader(&mut self, not: &[NodeId]) -> NodeId {
        for _ in 0..200 {
            if let Some(leader) = self.leader(not) {
                return leader;
            }
            self.ticks(1);
        }
        panic!("nobody was elected");
    }

    fn leader(&self, not: &[NodeId]) -> Option<NodeId> {
        let leads = |node: &NodeId| self.workers[node].unfinished().led == 1 && !not.contains(node);
        self.workers.keys().copied().find(leads)
    }

    fn others(&self, node: NodeId) -> Vec<NodeId> {
        self.workers.keys().copied().filter(|other| *other != node).collect()
    }

    fn isolate(&mut self, node: NodeId) {
        for other in self.others(node) {
            self.cut.insert((node, other));
            self.cut.insert((other, node));
        }
    }

    fn ticks(&mut self, count: u32) {
        for _ in 0..count {
            self.now = self.now + self.timing.tick();
            for node in self.workers.keys().copied().collect::<Vec<_>>() {
                self.tick(node);
            }
            self.run();
        }
    }

    fn tick(&mut self, node: NodeId) {
        self.workers.get_mut(&node).unwrap().handle_tick(self.now);
        self.turn(node);
    }

    /// Runs one turn of a node; its batch is durable at once, unless the node is slow.
    fn turn(&mut self, node: NodeId) {
        loop {
            let now = Now { moment: self.now, wall: Wall(self.now.0 / 1000) };
            let worker = self.workers.get_mut(&node).unwrap();
            let (effects, more) = worker.flush(now);
            for (to, messages) in effects.messages {
                for message in messages {
                    self.sent.push((node, message.clone()));
                    self.under_way.push_back((node, to, message));
                }
            }
            self.answers.extend(effects.replies);
            self.snapshots.extend(effects.snapshots.into_iter().map(|work| (node, work)));
            self.garbage.extend(effects.garbage);
            if let Some(batch) = effects.log {
                match self.slow.get_mut(&node) {
                    Some(waiting) => waiting.push(batch.number),
                    None => {
                        self.workers.get_mut(&node).unwrap().handle_persisted(self.now, batch.number);
                        continue;
                    }
                }
            }
            if !more {
                return;
            }
        }
    }

    /// Delivers until nothing is under way.
    fn run(&mut self) {
        for node in self.workers.keys().copied().collect::<Vec<_>>() {
            self.turn(node);
        }
        while let Some((from, to, message)) = self.under_way.pop_front() {
            if !self.cut.contains(&(from, to)) && self.workers.contains_key(&to) {
                self.workers.get_mut(&to).unwrap().handle_raft(self.now, [message]);
                self.turn(to);
            }
        }
    }

    fn sync(&mut self, node: NodeId) {
        for number in self.slow.remove(&node).unwrap_or_default() {
            self.workers.get_mut(&node).unwrap().handle_persisted(self.now, number);
        }
        self.run();
    }

    fn request(&mut self, node: NodeId, request: Request, id: u32) {
        self.workers.get_mut(&node).unwrap().handle_request(self.now, request, id);
        self.turn(node);
    }

    fn put(&mut self, node: NodeId, id: u32) {
        let put = Put { key: Bytes::from_static(b"k"), value: vec![id as u8].into() };
        self.request(node, Request::command(ONE_SHARD, put).unwrap(), id);
    }

    fn get(&mut self, node: NodeId, id: u32) {
        self.request(node, Request::query(ONE_SHARD, Get { key: Bytes::from_static(b"k") }).unwrap(), id);
    }

    fn lease(&self, node: NodeId) -> bool {
        self.now < self.replica(node).view().lease_until()
    }

    fn replica(&self, node: NodeId) -> &Replica<u32> {
        self.workers[&node].replicas().next().expect("the replica runs")
    }

    fn applied(&self, id: u32) -> bool {
        matches!(self.answers.get(&id), Some(Ok(Reply::Command(_))))
    }

    /// The controller's step for the shard that `leader` leads, decided on its present report.
    fn step(&mut self, leader: NodeId, step: Step) {
        let request = step_request(&self.replica(leader).report(), step);
        self.workers.get_mut(&leader).unwrap().handle_step(&request);
    }

    fn deliver(&mut self, to: NodeId, from: ReplicaId, message: Message) {
        let own = self.replica(to).id();
        let message = RaftMessage { shard: SHARD, from, to: own, message };
        self.workers.get_mut(&to).unwrap().handle_raft(self.now, [message]);
        self.turn(to);
    }

    fn message(&self, to: NodeId, from: ReplicaId, kind: MessageType, term: Term) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (from.0, self.replica(to).id().0, term.0);
        message
    }

    fn restart(&mut self, node: NodeId) {
        let replica = self.replica(node);
        let (replica, item) = (replica.id(), replica.complete_state());
        let mut worker = Worker::new(self.config(node, 2), self.now);
        worker.restart_replica(SHARD, replica, item, Restored::Kv(Machine::new()), self.now);
        self.workers.insert(node, worker);
        self.turn(node);
    }
}

fn many_shards(count: u32) -> Topology {
    let member = Member {
        name: "one".into(),
        identity: Identity(1),
        raft_address: "one:1".into(),
        grpc_address: "one:2".into(),
        zone: String::new(),
    };
    Topology::bootstrap(ClusterId(1), ShardCount::new(count).unwrap(), Timing::DEFAULT, member)
}
