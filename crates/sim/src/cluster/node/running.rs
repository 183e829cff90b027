//! A node that runs: workers, their inboxes, the log writer, snapshots, the controller.

use super::gossip::{EventualTicket, GOSSIP};
use super::requests::Forwarded;
use super::snapshots::Files;
use super::watch::SCRUB_BYTES_PER_SECOND;
use super::{Message, Task, Ticket};
use crate::network::Endpoint;
use crate::random::Random;
use ringfort_core::boot::{self, Boot};
use ringfort_core::control::{Control, ControlConfig};
use ringfort_core::disk::Disk;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::effects::{Effects, LogBatch, SnapshotWork};
use ringfort_core::gossip::{Gossip, GossipConfig, detector};
use ringfort_core::health::{Admission, DiskState, HealthConfig, HealthMonitor, HealthView, NodeHealth};
use ringfort_core::log::item::LogItem;
use ringfort_core::log::{Log, LogConfig, LogError};
use ringfort_core::message::{ControlMessage, RaftMessage, ShardReport, StepRequest};
use ringfort_core::mutation::Mutation;
use ringfort_core::replica::{Replica, ReplicaConfig, Restored, ShardView, Write};
use ringfort_core::system::{Member, Standing, SystemCommand, Topology};
use ringfort_core::time::{Moment, Now};
use ringfort_core::types::{NodeId, ReplicaId, ShardId};
use ringfort_core::watch::{Distrust, Scrubber, Watch};
use ringfort_core::worker::{Request, Worker, WorkerConfig, worker_of};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// Entries that a worker keeps in memory before it takes snapshots: little, so that runs take many.
const ENTRY_BUDGET_BYTES: usize = 64 << 10;

/// Bytes that may wait for the disk: little, so that disks that are slow or hang reach the bound.
const MAX_UNSYNCED_BYTES: u64 = 64 << 10;

/// Segments that a log may have before shards are asked to release the oldest.
const SEGMENTS_BUDGET: u64 = 6;

/// What is counted whenever the controller asks for something.
pub const CONTROLLER_ACTS: &str = "controller acts";

/// A full disk is tried again after this long.
const LOG_RETRY: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub struct Settings {
    pub workers: usize,
    pub log: LogConfig,
    pub replica: ReplicaConfig,
    pub control: ControlConfig,
    pub health: HealthConfig,
    /// At which snapshots are sent.
    pub bytes_per_second: u64,
}

/// When something is to be done.
pub enum When {
    /// When the node's own clock says so.
    Local(Moment),
    /// As soon as a thread gets to it.
    Soon,
    /// When the disk has synced.
    Synced,
    After(Duration),
}

/// What a node wants of the world.
#[derive(Default)]
pub struct Outbox {
    pub messages: Vec<(Endpoint, Message)>,
    pub tasks: Vec<(When, Task)>,
    /// What has happened that is worth counting.
    pub events: Vec<&'static str>,
    /// The node is no member any more.
    pub departure: Option<Standing>,
    /// What the disk holds is not known: the process must end.
    pub aborted: bool,
}

/// What comes into a worker's inbox.
pub(super) enum Input {
    Raft(Box<RaftMessage>),
    Request { shard: ShardId, request: Request, ticket: Ticket },
    Persisted(u64),
    Topology(Arc<Topology>),
    Health(HealthView),
    Step(StepRequest),
    ChunkWritten(ShardId),
    SnapshotWritten { shard: ShardId, name: String, written: bool },
    SnapshotSent { shard: ShardId, to: ReplicaId, arrived: bool },
    Snapshot(Box<(RaftMessage, String, Restored)>),
    LogPressure(ShardId),
    Distrust { shard: ShardId, replica: ReplicaId, why: Distrust },
    HandOver,
}

struct Slot {
    worker: Worker<Ticket>,
    inbox: VecDeque<Input>,
    drain_planned: bool,
    tick_planned: Moment,
}

/// Bytes in memory that grow with what others lack, or a disk.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Entries that are committed and durable, in all logs: no others can leave memory.
    pub entries: usize,
    /// Entries that have come and that no worker has looked at.
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
    pub(super) gossip: Gossip<EventualTicket>,
    log: Log<Arc<MemDisk>>,
    pub(super) log_queue: VecDeque<(usize, LogBatch)>,
    log_under_way: Vec<(usize, u64)>,
    /// As in the shell: while there is no space for the log, what was proposed waits; writes and entries are refused.
    health: HealthMonitor,
    said: NodeHealth,
    /// Bytes of entries that wait for a worker.
    inbox_bytes: u64,
    /// Bytes of the batches in `log_queue` and under way.
    pub(super) unsynced_bytes: u64,
    /// The node's clocks in the event that is being handled.
    now: Now,
    log_retry_planned: bool,
    /// The disk does not answer: a sync that has begun goes on for ever, and so does work on snapshots.
    pub(super) is_disk_hung: bool,
    sync_hangs: bool,
    /// The sync that hangs is one of a disk that was healthy until then.
    was_healthy: bool,
    pub(super) hung_snapshots: Vec<SnapshotWork>,
    hung_topology: Option<Arc<Topology>>,
    /// The maps hold as much as they may: puts are refused.
    pub(super) is_memory_full: bool,
    pub(super) forwarded: Forwarded,
    pub(super) files: Files,
    pub(super) views: BTreeMap<ShardId, Arc<ShardView>>,
    pub(super) watch: Watch,
    pub(super) scrubber: Scrubber,
    pub(super) alarms: Vec<String>,
    pub(super) random: Random,
    /// Differs between restarts of the node.
    pub(super) life: u64,
    /// Snapshots so far.
    pub(super) received: u64,
}

impl Running {
    /// None where the topology does not know the node.
    pub fn new(
        boot: Boot<MemDisk>,
        settings: Settings,
        disk: Arc<MemDisk>,
        random: Random,
        now: Now,
    ) -> Option<Running> {
        let node = boot.node()?;
        let topology = Arc::new(boot.topology?);
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
                Slot { worker, inbox: VecDeque::new(), drain_planned: true, tick_planned: Moment(0) }
            })
            .collect();
        for start in boot.replicas {
            let slot = &mut slots[worker_of(start.shard, settings.workers)];
            slot.worker.restart_replica(start.shard, start.replica, *start.state, start.restored, now);
        }
        for &(shard, replica) in boot.removed.iter().chain(&boot.lost) {
            slots[worker_of(shard, settings.workers)].worker.never_again(shard, replica);
        }
        let own = topology.nodes.get(&node)?.clone();
        let mut control = Control::new(node, topology, own, settings.control, now);
        for (shard, replica) in boot.lost {
            control.handle_lost_replica(shard, replica, Distrust::Log);
        }
        Some(Running {
            node,
            disk,
            slots,
            control,
            control_inbox: VecDeque::new(),
            control_planned: true,
            control_tick: now,
            gossip,
            log: boot.log,
            log_queue: VecDeque::new(),
            log_under_way: Vec::new(),
            health: HealthMonitor::new(settings.health, now),
            said: NodeHealth::default(),
            inbox_bytes: 0,
            unsynced_bytes: 0,
            now: started,
            log_retry_planned: false,
            is_disk_hung: false,
            sync_hangs: false,
            was_healthy: false,
            hung_snapshots: Vec::new(),
            hung_topology: None,
            is_memory_full: false,
            forwarded: Forwarded::default(),
            files: Files::new(settings.bytes_per_second),
            views: BTreeMap::new(),
            watch: Watch::new(node),
            scrubber: Scrubber::new(SCRUB_BYTES_PER_SECOND, now),
            alarms: Vec::new(),
            random,
            life,
            received: 0,
            settings,
        })
    }

    pub fn gossip(&self) -> &Gossip<EventualTicket> {
        &self.gossip
    }

    /// Under which id the cluster knows the node.
    pub fn id(&self) -> NodeId {
        self.node
    }

    pub fn topology(&self) -> &Arc<Topology> {
        self.control.topology()
    }

    pub fn replicas(&self) -> impl Iterator<Item = &Replica<Ticket>> {
        self.slots.iter().flat_map(|slot| slot.worker.replicas())
    }

    pub fn view(&self, shard: ShardId) -> Option<&Arc<ShardView>> {
        self.views.get(&shard)
    }

    /// Replicas on this node whose snapshots were deleted while they were sent.
    pub fn gone_snapshots(&self) -> &[(ShardId, ReplicaId)] {
        self.files.gone()
    }

    /// How the membership of a shard stands, if this node leads it.
    pub fn report(&self, shard: ShardId) -> Option<ShardReport> {
        self.replicas().find(|replica| replica.shard() == shard && replica.is_leader()).map(Replica::report)
    }

    pub fn run(&mut self, task: Task, now: Now, out: &mut Outbox) {
        self.now = now;
        match task {
            Task::Drain(worker) => self.drain(worker, now, out),
            Task::Control => self.drain_control(now.moment, out),
            Task::LogSynced if self.is_disk_hung => {
                self.sync_hangs = true;
                self.was_healthy = self.said.disk == DiskState::Healthy;
            }
            Task::LogSynced => self.log_synced(now, out),
            Task::SendSnapshot(id) => self.send_part(id, out),
            Task::SnapshotTimedOut(id) => self.snapshot_sent(id, false, out),
            Task::Gossip => self.tick_gossip(now, out),
            Task::Scrub => self.scrub(now, out),
            Task::LogRetry => {
                self.log_retry_planned = false;
                self.write_log(out);
            }
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
            // Whoever sends gives up after a while.
            Message::Snapshot { .. } if self.is_disk_hung => {}
            Message::Snapshot { id, number, message, part } => self.receive_part(from, id, number, message, part, out),
            Message::SnapshotReceived { id, arrived } => self.snapshot_sent(id, arrived, out),
            Message::Propose(command) => self.propose(command, Ticket::Nobody, out),
            Message::Join { member, replace, .. } if replace && self.is_named_node_heard(&member) => {}
            Message::Join { member, replace, reply_to } => {
                if self.control.leader(ShardId::SYSTEM) == Some(self.node) {
                    self.propose(
                        SystemCommand::Join { member, replace, known_as: None },
                        Ticket::Join { reply_to },
                        out,
                    );
                } else if let Some(leader) = self.endpoint_of_leader() {
                    out.messages.push((leader, Message::Join { member, replace, reply_to }));
                }
            }
            Message::Request { id, request } => self.handle_request(from, id, request, now, out),
            Message::Forward { id, request } => self.handle_forward(from, id, request, now, out),
            Message::ForwardReply { id, answer } => self.handle_forward_reply(id, answer, out),
            Message::Gossip { .. } | Message::WriteEventually { .. } => self.receive_gossip(from, message, now, out),
            Message::Welcome(_) | Message::Answer { .. } | Message::WrittenEventually { .. } => {}
        }
    }

    pub(super) fn give(&mut self, shard: ShardId, input: Input, out: &mut Outbox) {
        self.give_to(worker_of(shard, self.settings.workers), input, out);
    }

    fn give_to(&mut self, worker: usize, input: Input, out: &mut Outbox) {
        let slot = &mut self.slots[worker];
        slot.inbox.push_back(input);
        if !std::mem::replace(&mut slot.drain_planned, true) {
            out.tasks.push((When::Soon, Task::Drain(worker)));
        }
    }

    pub(super) fn give_to_all(&mut self, input: impl Fn() -> Input, out: &mut Outbox) {
        for worker in 0..self.slots.len() {
            self.give_to(worker, input(), out);
        }
    }

    fn drain(&mut self, index: usize, now: Now, out: &mut Outbox) {
        let slot = &mut self.slots[index];
        slot.drain_planned = false;
        let mut handled_bytes = 0;
        for input in std::mem::take(&mut slot.inbox) {
            let worker = &mut slot.worker;
            match input {
                Input::Raft(message) => {
                    handled_bytes += message.entry_bytes();
                    worker.handle_raft(now.moment, [*message]);
                }
                Input::Request { shard, request, ticket } => worker.handle_request(now.moment, shard, request, ticket),
                Input::Persisted(number) => worker.handle_persisted(now.moment, number),
                Input::Health(health) => worker.handle_health(health),
                Input::Topology(topology) => worker.handle_topology(now.moment, topology),
                Input::Step(step) => worker.handle_step(&step),
                Input::ChunkWritten(shard) => worker.handle_snapshot_chunk_written(shard),
                Input::SnapshotWritten { shard, name, written } => {
                    worker.handle_snapshot_written(shard, &name, written);
                }
                Input::SnapshotSent { shard, to, arrived } => worker.handle_snapshot_sent(shard, to, arrived),
                Input::Snapshot(snapshot) => {
                    let (message, name, restored) = *snapshot;
                    worker.handle_snapshot(message, name, restored);
                }
                Input::LogPressure(shard) => worker.handle_log_pressure(shard),
                Input::Distrust { shard, replica, why } => worker.handle_distrust(shard, replica, why),
                Input::HandOver => worker.hand_over(),
            }
        }
        slot.worker.handle_tick(now.moment);
        let (effects, more) = slot.worker.flush(now);
        if more && !std::mem::replace(&mut slot.drain_planned, true) {
            out.tasks.push((When::Soon, Task::Drain(index)));
        }
        if slot.worker.next_tick() != slot.tick_planned {
            slot.tick_planned = slot.worker.next_tick();
            out.tasks.push((When::Local(slot.tick_planned), Task::Drain(index)));
        }
        self.perform(index, effects, out);
        self.inbox_bytes -= handled_bytes;
    }

    fn perform(&mut self, worker: usize, effects: Effects<Ticket>, out: &mut Outbox) {
        for (node, messages) in effects.messages {
            if let Some(to) = self.endpoint_of(node) {
                out.messages.push((to, Message::Raft(messages)));
            }
        }
        if let Some(batch) = effects.log {
            self.unsynced_bytes += batch.size_bytes();
            self.log_queue.push_back((worker, batch));
            self.write_log(out);
        }
        for work in effects.snapshots {
            self.snapshot(work, out);
        }
        for (shard, view) in effects.views {
            match view {
                Some(view) => self.views.insert(shard, view),
                None => self.views.remove(&shard),
            };
        }
        if let Some(topology) = effects.topology {
            self.control.handle_topology(topology);
        }
        for (ticket, answer) in effects.replies {
            self.reply(ticket, answer, out);
        }
        for report in effects.reports {
            self.control.handle_local_report(report);
        }
        for (shard, term, leads) in effects.leadership {
            out.events.extend(leads.then_some("elections won"));
            self.control.handle_leadership(shard, term, leads);
        }
        for (shard, replica, why) in effects.lost {
            if why != Distrust::Log {
                self.alarms.push(format!("replica {replica} of shard {shard} ended: {why}"));
            }
            self.control.handle_lost_replica(shard, replica, why);
        }
        self.perform_control(out);
    }

    fn drain_control(&mut self, now: Moment, out: &mut Outbox) {
        self.control_planned = false;
        for (from, message) in std::mem::take(&mut self.control_inbox) {
            self.control.handle_message(from, message);
        }
        if now >= self.control_tick {
            self.watch_disk(out);
            self.control.handle_tick(now);
            // The disk is looked at on the same occasion, and its monitor wants to look every few ticks.
            let look = now + 2 * self.settings.health.timing.tick();
            self.control_tick = self.control.next_tick(now).min(look);
            out.tasks.push((When::Local(self.control_tick), Task::Control));
        }
        self.perform_control(out);
    }

    fn perform_control(&mut self, out: &mut Outbox) {
        let effects = self.control.take_effects();
        if let Some(topology) = effects.topology {
            self.save_topology(topology, out);
        }
        for (node, message) in effects.messages {
            if matches!(message, ControlMessage::Step(_)) {
                out.events.push(CONTROLLER_ACTS);
            }
            if let Some(to) = self.endpoint_of(node) {
                out.messages.push((to, Message::Control { from: self.node, to: node, message }));
            }
        }
        out.departure = out.departure.or(effects.departure);
        if self.control.leader(ShardId::SYSTEM) == Some(self.node) {
            out.events.extend(effects.steps.iter().map(|_| CONTROLLER_ACTS));
            out.events.extend(effects.proposals.iter().map(|_| CONTROLLER_ACTS));
        }
        for command in effects.proposals {
            if self.control.leader(ShardId::SYSTEM) == Some(self.node) {
                self.propose(command, Ticket::Nobody, out);
            } else if let Some(leader) = self.endpoint_of_leader() {
                out.messages.push((leader, Message::Propose(command)));
            }
        }
        for step in effects.steps {
            self.give(step.shard, Input::Step(step), out);
        }
    }

    /// Saves a topology and gives it to the workers then, as a thread of the shell does.
    fn save_topology(&mut self, topology: Arc<Topology>, out: &mut Outbox) {
        if self.is_disk_hung {
            self.hung_topology = Some(topology);
            return;
        }
        // Without it an older one serves as well at the next start.
        if boot::save_topology(&*self.disk, &topology).is_err() {
            out.events.push("topologies not saved");
        }
        self.give_to_all(|| Input::Topology(topology.clone()), out);
    }

    fn propose(&mut self, command: SystemCommand, ticket: Ticket, out: &mut Outbox) {
        let shard = ShardId::SYSTEM;
        self.give(shard, Input::Request { shard, request: Request::Write(Write::System(command)), ticket }, out);
    }

    pub(super) fn endpoint_of(&self, node: NodeId) -> Option<Endpoint> {
        let topology = self.topology();
        let departed = || topology.departed.get(&node).map(|departed| &departed.raft_address);
        let address = topology.nodes.get(&node).map(|member| &member.raft_address).or_else(departed)?;
        address.parse().ok().map(|at| Endpoint::Node(NodeId(at)))
    }

    /// Whether a node runs that has the member's name and is another one: as in the shell, its name is not given away. A
    /// request to join may be one of a former life, whose disk was lost since.
    fn is_named_node_heard(&self, member: &Member) -> bool {
        let named = self.topology().node_named(&member.name).filter(|(_, known)| known.identity != member.identity);
        let is_heard = |node| {
            let liveness = self.gossip.liveness(node, self.now.moment).filter(|liveness| liveness.was_heard);
            liveness.is_some_and(|liveness| liveness.standing == detector::Standing::Alive)
        };
        named.is_some_and(|(node, _)| node == self.node || is_heard(node))
    }

    fn endpoint_of_leader(&self) -> Option<Endpoint> {
        self.endpoint_of(self.control.leader(ShardId::SYSTEM)?)
    }

    pub(super) fn write_log(&mut self, out: &mut Outbox) {
        if !self.log_under_way.is_empty() || self.log_queue.is_empty() {
            return;
        }
        if let Some(spare) = self.log.wanted_spare() {
            self.log.spare_ready(self.disk.preallocate(&spare.name, spare.size_bytes, &mut || {}));
        }
        let items: Vec<LogItem> = self.log_queue.iter().flat_map(|(_, batch)| batch.items.iter().cloned()).collect();
        match self.log.append(&items) {
            Ok(()) => {
                self.health.set_full(false);
                self.health.record_begun(self.now.moment);
                self.log_under_way = self.log_queue.drain(..).map(|(worker, batch)| (worker, batch.number)).collect();
                out.tasks.push((When::Synced, Task::LogSynced));
            }
            Err(LogError::NoSegment(_)) => {
                if self.disk() != DiskState::Full {
                    out.events.push("times without space for the log");
                }
                self.health.set_full(true);
                if !std::mem::replace(&mut self.log_retry_planned, true) {
                    out.tasks.push((When::After(LOG_RETRY), Task::LogRetry));
                }
            }
            Err(_) => out.aborted = true,
        }
    }

    /// Evaluates the disk, as a thread of the shell does, and tells gossip.
    fn watch_disk(&mut self, out: &mut Outbox) {
        let report = self.health.look(self.now.moment);
        out.aborted |= report.must_end;
        if report.health != std::mem::replace(&mut self.said, report.health) {
            if report.health.disk == DiskState::Hung {
                out.events.push("times that a disk hung");
            }
            self.gossip.announce(self.now, report.health);
            self.perform_gossip(out);
        }
    }

    fn disk(&self) -> DiskState {
        self.health.report(self.now.moment).health.disk
    }

    /// What there is no room for now.
    pub(super) fn admission(&self) -> Admission {
        let disk = self.disk();
        Admission {
            is_disk_hung: disk == DiskState::Hung,
            is_disk_full: disk == DiskState::Full,
            is_without_files: false,
            is_memory_full: self.is_memory_full,
            unsynced_bytes: self.unsynced_bytes + self.inbox_bytes,
            max_unsynced_bytes: MAX_UNSYNCED_BYTES,
            mutation: self.settings.replica.mutation,
        }
    }

    /// What the node last said of its health.
    pub fn said(&self) -> NodeHealth {
        self.said
    }

    /// Whether a sync hangs, of a disk that was healthy until then.
    pub fn has_sync_that_hangs(&self) -> bool {
        self.sync_hangs && self.was_healthy
    }

    /// Bytes that are held beside the maps, by what they are for.
    pub fn held(&self) -> Held {
        let entries = |replica: &Replica<Ticket>| {
            let position = replica.position();
            replica.log_bytes() - replica.log().bytes_after(position.committed.min(position.durable))
        };
        let chunks = self.hung_snapshots.iter().map(|work| match work {
            SnapshotWork::Chunk { payload, .. } => payload.len(),
            _ => 0,
        });
        Held {
            entries: self.replicas().map(entries).sum(),
            messages: self.inbox_bytes as usize,
            unsynced: self.unsynced_bytes as usize,
            snapshots: chunks.sum(),
        }
    }

    /// The most that may be held, where each of them is as large as it may be.
    pub fn may_hold_bytes(&self) -> usize {
        let entries = self.slots.len() * ENTRY_BUDGET_BYTES;
        // The last message that is taken holds no more than what its leader keeps.
        let unsynced = MAX_UNSYNCED_BYTES as usize + ENTRY_BUDGET_BYTES;
        let snapshots: usize = self.replicas().map(Replica::state_bytes).sum();
        entries + unsynced + snapshots
    }

    fn log_synced(&mut self, now: Now, out: &mut Outbox) {
        if self.log.sync().is_err() {
            out.aborted = true;
            return;
        }
        self.health.record_ended(now.moment);
        self.unsynced_bytes = self.log_queue.iter().map(|(_, batch)| batch.size_bytes()).sum();
        for (worker, number) in std::mem::take(&mut self.log_under_way) {
            match worker {
                GOSSIP => self.gossip.handle_persisted(now, number),
                worker => self.give_to(worker, Input::Persisted(number), out),
            }
        }
        if self.log.size_bytes() > SEGMENTS_BUDGET * self.settings.log.segment_bytes {
            let pinning: Vec<ShardId> = self.log.pinned_by().collect();
            for shard in pinning {
                match shard {
                    ShardId::EVENTUAL => self.gossip.handle_log_pressure(),
                    shard => self.give(shard, Input::LogPressure(shard), out),
                }
            }
        }
        self.write_log(out);
        self.perform_gossip(out);
    }

    pub fn hand_over(&mut self, out: &mut Outbox) {
        self.give_to_all(|| Input::HandOver, out);
    }

    /// From now on the disk does not answer.
    pub fn hang_disk(&mut self) {
        self.is_disk_hung = true;
    }

    /// The disk answers again: what it was asked meanwhile is done.
    pub fn release_disk(&mut self, out: &mut Outbox) {
        self.is_disk_hung = false;
        if std::mem::take(&mut self.sync_hangs) {
            out.tasks.push((When::Soon, Task::LogSynced));
        }
        for work in std::mem::take(&mut self.hung_snapshots) {
            self.snapshot(work, out);
        }
        if let Some(topology) = self.hung_topology.take() {
            self.save_topology(topology, out);
        }
    }

    pub fn is_disk_hung(&self) -> bool {
        self.is_disk_hung
    }

    pub fn set_memory_full(&mut self, is_full: bool) {
        self.is_memory_full = is_full;
    }

    /// What is to be done at some time by this node's clock.
    pub fn timed_tasks(&self) -> Vec<(When, Task)> {
        let ticks = self.slots.iter().enumerate();
        let ticks = ticks.map(|(index, slot)| (When::Local(slot.tick_planned), Task::Drain(index)));
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
                text += &format!("; wanted {:?} of {:?}", group.wanted, group.replicas);
            }
        }
        text
    }
}
