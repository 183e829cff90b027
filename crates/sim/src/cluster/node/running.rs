//! A running node: workers, their inboxes, the log writer, snapshots, the controller.

mod control;
mod disk;
mod stop;
mod workers;

use super::divergence::SCRUB_BYTES_PER_SECOND;
use super::gossip::EventualResponder;
use super::requests::{Joiner, PendingRequests};
use super::snapshots::Files;
use super::{Message, Responder, Task};
use crate::network::Endpoint;
use crate::random::Random;
use ringfort_core::control::{Control, ControlConfig};
use ringfort_core::disk::Disk;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::divergence::{DivergenceDetector, QuarantineReason, Scrubber};
use ringfort_core::effects::SnapshotWork;
use ringfort_core::gossip::{Gossip, GossipConfig};
use ringfort_core::health::{Admission, DiskState, HealthConfig, HealthMonitor, HealthView, NodeHealth};
use ringfort_core::log::{BatchNumber, BatchSource, LogBatch, LogConfig};
use ringfort_core::log_writer::LogWriter;
use ringfort_core::message::{ControlMessage, RaftMessage, ShardReport, StepRequest};
use ringfort_core::mutation::Mutation;
use ringfort_core::replica::{Replica, ReplicaConfig, Restored};
use ringfort_core::request::Request;
use ringfort_core::start;
use ringfort_core::stopping::Stopping;
use ringfort_core::system::{Member, MemberState, SystemCommand, Topology};
use ringfort_core::time::{Moment, Now};
use ringfort_core::topology_store::TopologyStore;
use ringfort_core::types::{NodeId, ReplicaId, ShardId};
use ringfort_core::view::ShardView;
use ringfort_core::worker::{Worker, WorkerConfig, worker_of};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of entries that a worker keeps in memory before it takes snapshots: few, so that runs take many snapshots.
const ENTRY_BUDGET_BYTES: usize = 64 << 10;

/// The name of the counter of controller actions.
pub const CONTROLLER_ACTS: &str = "controller acts";

#[derive(Clone)]
pub struct Settings {
    pub workers: usize,
    pub log: LogConfig,
    pub replica: ReplicaConfig,
    pub control: ControlConfig,
    pub health: HealthConfig,
    /// The bandwidth for sending snapshots.
    pub bytes_per_second: u64,
}

/// When a task runs.
pub enum When {
    /// When the node's own clock says so.
    Local(Moment),
    /// As soon as a thread gets to it.
    Soon,
    /// When the disk has synced.
    Synced,
    After(Duration),
}

/// The effects of a node on its environment.
#[derive(Default)]
pub struct Outbox {
    pub messages: Vec<(Endpoint, Message)>,
    pub tasks: Vec<(When, Task)>,
    /// Events to count.
    pub events: Vec<&'static str>,
    /// The node is no longer a member.
    pub departure: Option<MemberState>,
    /// The contents of the disk are unknown: the process must end.
    pub aborted: bool,
    /// The node has stopped gracefully.
    pub stopped: bool,
}

/// An item in a worker's inbox.
pub(super) enum Input {
    Raft(Box<RaftMessage>),
    Request { request: Request, responder: Responder },
    Persisted(BatchNumber),
    Topology(Arc<Topology>),
    Retirements(Arc<Topology>),
    Health(HealthView),
    Step(StepRequest),
    ChunkWritten(ShardId),
    SnapshotWritten { shard: ShardId, name: String, written: bool },
    SnapshotSent { shard: ShardId, to: ReplicaId, arrived: bool },
    Snapshot(Box<(RaftMessage, String, Restored)>),
    LogPressure(ShardId),
    Quarantine { shard: ShardId, replica: ReplicaId, why: QuarantineReason },
    HandOver,
}

struct Slot {
    worker: Worker<Responder>,
    inbox: VecDeque<Input>,
    turn_planned: bool,
    tick_planned: Moment,
}

/// Bytes in memory that accumulate while other nodes or the disk lag behind.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Entries that are committed and durable, in all logs: only these can leave memory.
    pub entries: usize,
    /// Entries that have arrived and that no worker has handled.
    pub messages: usize,
    /// Batches on their way to the disk.
    pub unsynced: usize,
    /// Parts of snapshots that wait for the disk.
    pub snapshots: usize,
}

impl Held {
    pub fn total(self) -> usize {
        self.entries + self.messages + self.unsynced + self.snapshots
    }
}

pub struct Running {
    pub(super) node: NodeId,
    settings: Settings,
    pub(super) disk: Arc<MemDisk>,
    slots: Vec<Slot>,
    pub(super) control: Control,
    control_inbox: VecDeque<(NodeId, ControlMessage)>,
    control_planned: bool,
    control_tick: Moment,
    pub(super) gossip: Gossip<EventualResponder>,
    pub(super) writer: LogWriter<Arc<MemDisk>>,
    pub(super) log_queue: VecDeque<(BatchSource, LogBatch)>,
    /// A record waits for space, or is written and not durable yet.
    is_record_under_way: bool,
    /// As in the shell, while there is no space for the log, proposals wait, and new writes and entries are refused.
    health: HealthMonitor,
    said: NodeHealth,
    /// Bytes of entries that wait for a worker.
    inbox_bytes: u64,
    /// Bytes of the batches in `log_queue` and in the record under way.
    pub(super) unsynced_bytes: u64,
    /// The node's clocks at the event that is being handled.
    pub(super) now: Now,
    /// The disk does not answer: a sync that has begun does not end, nor does work on snapshots.
    pub(super) is_disk_hung: bool,
    sync_hangs: bool,
    /// The disk was healthy before the sync that hangs.
    was_healthy: bool,
    pub(super) hung_snapshots: Vec<SnapshotWork>,
    topologies: TopologyStore,
    /// The maps have reached their limit: puts are refused.
    pub(super) is_memory_full: bool,
    stopping: Option<Stopping>,
    /// The node serves clients.
    pub(super) is_serving: bool,
    pub(super) pending: PendingRequests,
    /// The nodes that last announced that they lead a shard.
    pub(super) told_leaders: BTreeMap<ShardId, NodeId>,
    pub(super) joiners: Vec<Joiner>,
    /// The topology that workers and other nodes get. The controller may know a later one, and the disk may have an
    /// older one.
    pub(super) routed: Arc<Topology>,
    pub(super) files: Files,
    pub(super) views: BTreeMap<ShardId, Arc<ShardView>>,
    pub(super) divergence: DivergenceDetector,
    pub(super) scrubber: Scrubber,
    pub(super) alarms: Vec<String>,
    pub(super) random: Random,
    /// Differs between restarts of the node.
    pub(super) life: u64,
    /// Snapshots received so far.
    pub(super) received: u64,
}

impl Running {
    pub fn new(
        start::Member { boot, node, topology }: start::Member<MemDisk>,
        settings: Settings,
        disk: Arc<MemDisk>,
        random: Random,
        now: Now,
    ) -> Running {
        let mut lost_snapshots = boot.lost_snapshots(&disk).unwrap_or_default();
        let topology = Arc::new(topology);
        let config = GossipConfig { mutation: settings.replica.mutation, ..GossipConfig::default() };
        let boot_nonce = settings.replica.boot_nonce;
        let life = if settings.replica.mutation.is(Mutation::ReplyAcrossLives) { 0 } else { boot_nonce };
        let gossip = Gossip::new(node, config, topology.clone(), boot.eventual, now, boot_nonce);
        let (started, now) = (now, now.moment);
        let mut slots: Vec<Slot> = (0..settings.workers)
            .map(|index| {
                let config = WorkerConfig {
                    node,
                    index,
                    workers: settings.workers,
                    replica: settings.replica,
                    entry_budget_bytes: ENTRY_BUDGET_BYTES,
                };
                let worker = Worker::new(config, now);
                Slot { worker, inbox: VecDeque::new(), turn_planned: true, tick_planned: Moment(0) }
            })
            .collect();
        for start in boot.replicas {
            let slot = &mut slots[worker_of(start.shard, settings.workers)];
            slot.worker.restart_replica(start.shard, start.replica, *start.state, start.restored, now);
        }
        for (shard, replica) in boot.removed {
            slots[worker_of(shard, settings.workers)].worker.never_again(shard, replica);
        }
        for &(shard, replica) in boot.lost.iter().chain(&boot.superseded) {
            let snapshots = lost_snapshots.remove(&shard).unwrap_or_default();
            slots[worker_of(shard, settings.workers)].worker.quarantine(shard, replica, snapshots);
        }
        let own = topology.nodes[&node].clone();
        let mut control = Control::new(node, topology.clone(), own, settings.control, now);
        for (shard, replica) in boot.lost {
            control.handle_lost_replica(now, shard, replica, QuarantineReason::Log);
        }
        Running {
            node,
            slots,
            control,
            control_inbox: VecDeque::new(),
            control_planned: true,
            control_tick: now,
            gossip,
            writer: LogWriter::new(boot.log, topology.timing, disk::SEGMENTS_BUDGET * settings.log.segment_bytes),
            log_queue: VecDeque::new(),
            is_record_under_way: false,
            health: HealthMonitor::new(settings.health, now),
            said: NodeHealth::default(),
            inbox_bytes: 0,
            unsynced_bytes: 0,
            now: started,
            is_disk_hung: false,
            sync_hangs: false,
            was_healthy: false,
            hung_snapshots: Vec::new(),
            topologies: TopologyStore::new(&*disk, node),
            is_memory_full: false,
            stopping: None,
            is_serving: true,
            pending: PendingRequests::default(),
            told_leaders: BTreeMap::new(),
            joiners: Vec::new(),
            routed: topology,
            files: Files::new(settings.bytes_per_second, disk.clone()),
            disk,
            views: BTreeMap::new(),
            divergence: DivergenceDetector::new(node),
            scrubber: Scrubber::new(SCRUB_BYTES_PER_SECOND, now),
            alarms: Vec::new(),
            random,
            life,
            received: 0,
            settings,
        }
    }

    pub fn gossip(&self) -> &Gossip<EventualResponder> {
        &self.gossip
    }

    /// The node's id in the cluster.
    pub fn id(&self) -> NodeId {
        self.node
    }

    pub fn topology(&self) -> &Arc<Topology> {
        self.control.topology()
    }

    pub fn replicas(&self) -> impl Iterator<Item = &Replica<Responder>> {
        self.slots.iter().flat_map(|slot| slot.worker.replicas())
    }

    pub fn view(&self, shard: ShardId) -> Option<&Arc<ShardView>> {
        self.views.get(&shard)
    }

    /// Replicas on this node whose snapshots were deleted while they were sent.
    pub fn gone_snapshots(&self) -> &[(ShardId, ReplicaId)] {
        self.files.gone()
    }

    /// The state of a shard's membership, if this node leads it.
    pub fn report(&self, shard: ShardId) -> Option<ShardReport> {
        self.replicas().find(|replica| replica.shard() == shard && replica.is_leader()).map(Replica::report)
    }

    pub fn run(&mut self, task: Task, now: Now, out: &mut Outbox) {
        self.now = now;
        match task {
            Task::Turn(worker) => self.turn(worker, now, out),
            Task::Control => self.turn_of_control(now.moment, out),
            Task::LogSynced if self.is_disk_hung => {
                self.sync_hangs = true;
                self.was_healthy = self.said.disk == DiskState::Healthy;
            }
            Task::LogSynced => self.log_synced(now, out),
            Task::SendSnapshot(id) => self.send_part(id, out),
            Task::SnapshotTimedOut(id) => self.snapshot_sent(id, false, out),
            Task::Gossip => self.tick_gossip(now, out),
            Task::Scrub => self.scrub(now, out),
            Task::LogRetry => self.append(out),
            Task::SaveTopology => self.save_unsaved_topology(out),
            Task::SendAgain(attempt) => self.send_again(attempt, out),
            Task::AttemptTimedOut(attempt) => self.attempt_timed_out(attempt, out),
            Task::LookForLeader(attempt) => self.look_for_leader(attempt, out),
            Task::Stop => self.step_stop(out),
            Task::AskToJoin => {}
        }
    }

    pub fn receive(&mut self, from: Endpoint, message: Message, now: Now, out: &mut Outbox) {
        self.now = now;
        match message {
            Message::Raft(messages) => {
                for message in messages {
                    if self.admission().takes(&message) {
                        self.inbox_bytes += message.entry_bytes();
                        self.give(message.shard, Input::Raft(Box::new(message)), out);
                    }
                }
            }
            Message::Control { from, to, message } => {
                if to == self.node {
                    self.control_inbox.push_back((from, message));
                    if !std::mem::replace(&mut self.control_planned, true) {
                        out.tasks.push((When::Soon, Task::Control));
                    }
                }
            }
            // The sender gives up after a while.
            Message::Snapshot { .. } if self.is_disk_hung => {}
            Message::Snapshot { id, message, part, .. } => self.receive_part(from, id, message, part, out),
            Message::SnapshotReceived { id, arrived } => self.snapshot_sent(id, arrived, out),
            Message::Propose(command) => self.propose(command, out),
            Message::Join { life, member, replace } => self.handle_join(from, life, member, replace, out),
            Message::Request { id, request, patience } => self.handle_request(from, id, request, patience, out),
            Message::Forward { id, request } => self.handle_forward(from, id, request, now, out),
            Message::ForwardReply { id, answer } => self.handle_forward_reply(id, answer, out),
            Message::Gossip { .. } | Message::WriteEventually { .. } => self.receive_gossip(from, message, now, out),
            Message::Welcome { .. } | Message::Answer { .. } | Message::WrittenEventually { .. } => {}
        }
    }

    /// The tasks that are due at some time by this node's clock.
    pub fn timed_tasks(&self) -> Vec<(When, Task)> {
        let ticks = self.slots.iter().enumerate();
        let ticks = ticks.map(|(index, slot)| (When::Local(slot.tick_planned), Task::Turn(index)));
        ticks.chain([(When::Local(self.control_tick), Task::Control)]).collect()
    }

    pub fn digest(&self) -> u64 {
        let mut digest = crate::trace::Absorber::default();
        for replica in self.replicas() {
            (replica.shard(), replica.id(), replica.position()).hash(&mut digest);
        }
        self.topology().epoch.hash(&mut digest);
        digest.finish()
    }

    pub fn describe(&self) -> String {
        let keyspace = self.gossip.keyspace();
        let mut text = format!(
            "{} at epoch {}, eventual keyspace {:016x} of {:?}",
            self.node,
            self.topology().epoch,
            keyspace.hash(),
            keyspace.all_seen()
        );
        for alarm in self.alarms() {
            text += &format!("\n  {alarm}");
        }
        for replica in self.replicas() {
            let (status, membership) = (replica.status(), replica.report());
            text += &format!(
                "\n  shard {}: {} in term {}, leader {:?}, base {}, applied {}, committed {}, last {}",
                replica.shard(),
                replica.id(),
                status.term,
                status.leader,
                status.base,
                status.applied,
                status.committed,
                status.last
            );
            text += &format!(
                "\n    voters {:?} outgoing {:?} learners {:?}",
                membership.voters, membership.outgoing, membership.learners
            );
            if status.is_leader {
                text += &format!(" caught up {:?}", membership.caught_up);
            }
            if let Some(group) = self.topology().groups.get(&replica.shard()) {
                text += &format!("; target {:?} of {:?}", group.target, group.replicas);
            }
        }
        text
    }
}
