//! A simulated node: a shell around the core that uses events where a thread would take time.

mod damage;
mod divergence;
mod faults;
mod gossip;
mod message;
mod requests;
mod running;
mod snapshots;

use super::{Wake, World};
use crate::clock::NodeClock;
use crate::invariant::{Invariant, Violation};
use crate::network::Endpoint;
use crate::options::{Options, ReadMode};
use crate::random::Random;
use damage::Damage;
pub(super) use message::{Answer, Message, Responder};
use message::{CallId, Transport};
use ringfort_core::boot::{self, Boot, Owner};
use ringfort_core::control::ControlConfig;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::health::HealthConfig;
use ringfort_core::log::LogConfig;
use ringfort_core::mutation::Mutation;
use ringfort_core::replica::{self, ReplicaConfig};
use ringfort_core::request::Failure;
use ringfort_core::start::{self, Newcomer, Refusal, Start};
use ringfort_core::system::{Member, MemberState, Topology};
use ringfort_core::time::Moment;
use ringfort_core::timing::Timing;
use ringfort_core::types::{ClusterId, Identity, NodeId, ReplicaId, ShardId};
use ringfort_ring::ShardCount;
use running::Settings;
pub(super) use running::{CONTROLLER_ACTS, Running};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// A node repeats its join request after this long without an answer.
const JOIN_INTERVAL: Duration = Duration::from_millis(500);

/// How long after an absence or a hung disk a node leads again: short, so that it can lead and fail again within a run.
const LEAD_AFTER: Duration = Duration::from_secs(2);

/// A disk that has not answered for this long ends its node.
const DISK_TIMEOUT: Duration = Duration::from_secs(20);

/// Something that a node does at a given moment.
#[derive(Debug)]
pub(super) enum Task {
    Turn(usize),
    Control,
    LogSynced,
    SendSnapshot(CallId),
    SnapshotTimedOut(CallId),
    AskToJoin,
    Gossip,
    Scrub,
    LogRetry,
    SaveTopology,
    /// By the number of the attempt.
    SendAgain(u64),
    AttemptTimedOut(u64),
    LookForLeader(u64),
    Stop,
}

pub(super) struct Node {
    /// The node's place in the network. Its id in the cluster may differ, if nodes joined in another order.
    endpoint: NodeId,
    /// Counts starts and crashes, so that tasks planned before one are not run after it.
    pub incarnation: u64,
    pub clock: NodeClock,
    /// The whole process is paused until then.
    pub stalled_until: Moment,
    /// Its workers are stalled until then, while everything else continues.
    pub workers_stalled_until: Moment,
    /// How long its disk takes to sync.
    pub sync: RangeInclusive<Duration>,
    disk: Arc<MemDisk>,
    shards: ShardCount,
    /// The timing of a cluster that it creates.
    timing: Timing,
    settings: Settings,
    random: Random,
    zone: String,
    /// It has created the cluster once, and never does so again.
    has_begun: bool,
    /// Its disk was lost: it replaces the member of its own name.
    is_wiped: bool,
    /// Its disk was damaged.
    is_damaged: bool,
    /// Replicas that it may quarantine: it joined with a directory that may have held them.
    quarantined: BTreeSet<(ShardId, ReplicaId)>,
    /// It has aborted, and the cluster has not handled that yet.
    aborted: bool,
    /// It has stopped gracefully, and the cluster has not handled that yet.
    stopped: bool,
    /// Event counts of this node.
    pub counts: BTreeMap<&'static str, u64>,
    state: State,
}

enum State {
    Down,
    Joining(Box<Joining>),
    Running(Box<Running>),
    /// It was told that it has left.
    Gone,
}

/// A node that asks to join.
struct Joining {
    member: Member,
    newcomer: Newcomer<MemDisk>,
}

impl Node {
    pub fn new(endpoint: NodeId, clock: NodeClock, options: &Options, mutation: Mutation, random: Random) -> Node {
        Node {
            endpoint,
            incarnation: 0,
            clock,
            stalled_until: Moment(0),
            workers_stalled_until: Moment(0),
            sync: options.sync.clone(),
            disk: Arc::new(MemDisk::new()),
            shards: ShardCount::new(options.shards as u32).expect("shards are sampled as powers of two"),
            timing: options.timing,
            settings: Settings {
                workers: options.workers,
                log: LogConfig { segment_bytes: options.segment_bytes, mutation, ..LogConfig::default() },
                replica: ReplicaConfig {
                    seed: options.seed,
                    boot_nonce: 0,
                    read_mode: match options.read_mode {
                        ReadMode::Lease => replica::ReadMode::Lease,
                        ReadMode::Quorum => replica::ReadMode::Quorum,
                    },
                    // Replaced by the topology's timing when the node starts.
                    timing: Timing::DEFAULT,
                    mutation,
                },
                control: ControlConfig {
                    moves: options.moves,
                    replace_after: options.replace_after,
                    lead_after: LEAD_AFTER,
                    proven_after: options.proven_after,
                    mutation,
                },
                health: HealthConfig { return_after: LEAD_AFTER, give_up_after: DISK_TIMEOUT, timing: Timing::DEFAULT },
                bytes_per_second: options.bytes_per_second,
            },
            random,
            zone: if options.zones > 1 { (endpoint.0 as usize % options.zones).to_string() } else { String::new() },
            has_begun: false,
            is_wiped: false,
            is_damaged: false,
            quarantined: BTreeSet::new(),
            aborted: false,
            stopped: false,
            counts: BTreeMap::new(),
            state: State::Down,
        }
    }

    /// The node as a member of the cluster.
    pub fn member(&self, identity: Identity) -> Member {
        Member {
            name: format!("node{}", self.endpoint),
            identity,
            raft_address: self.endpoint.to_string(),
            grpc_address: self.endpoint.to_string(),
            zone: self.zone.clone(),
        }
    }

    /// Makes the node one of the nodes that a cluster begins with, with its replicas of the topology.
    pub fn begin_with(&mut self, topology: &Topology, identity: Identity) {
        self.has_begun = true;
        let owner = Owner { identity, name: format!("node{}", self.endpoint) };
        boot::set_owner(&*self.disk, &owner).expect("the disk of a node that begins works");
        boot::bootstrap(&self.disk, self.settings.log.clone(), topology, self.endpoint)
            .expect("the disk of a node that begins works");
    }

    /// Starts the node from its disk. The first node creates a cluster, the others ask to join.
    pub fn start(&mut self, world: &mut World) -> Result<(), Violation> {
        if self.is_gone() {
            return Ok(());
        }
        self.incarnation += 1;
        let endpoint = self.endpoint;
        let fail =
            |refusal: Refusal| Invariant::BoundedRecovery.broken(format!("node {endpoint} can't start: {refusal:?}"));
        match start::clear_if_given_up(&*self.disk) {
            Ok(false) => {}
            Ok(true) => self.count("given up and joined anew", 1),
            Err(Refusal::Departed) => {
                self.state = State::Gone;
                return Ok(());
            }
            Err(refusal) => return Err(fail(refusal)),
        }
        let name = format!("node{}", self.endpoint);
        let random = &mut self.random;
        let new_identity = || Identity(u128::from(random.next_u64()));
        let log = self.settings.log.clone();
        let found = start::open(&self.disk, log, &name, &self.endpoint.to_string(), new_identity).map_err(fail)?;
        let newcomer = match found {
            Start::Member(member) => {
                self.check_trust(&member.boot)?;
                self.run_from(member, world);
                return Ok(());
            }
            Start::Newcomer(newcomer) => newcomer,
        };
        let member = self.member(newcomer.owner().identity);
        if self.endpoint == NodeId(1) && !std::mem::replace(&mut self.has_begun, true) && newcomer.may_begin() {
            let topology =
                Topology::bootstrap(ClusterId(self.random.next_u64()), self.shards, self.timing, member.clone());
            let begun = newcomer.begin(&topology).map_err(fail)?;
            self.run_from(begun, world);
            return Ok(());
        }
        self.state = State::Joining(Box::new(Joining { member, newcomer }));
        self.plan(Task::AskToJoin, world.now, world);
        Ok(())
    }

    /// All synced data must be there, unless the run has damaged or deleted it.
    fn check_trust(&self, boot: &Boot<MemDisk>) -> Result<(), Violation> {
        if !self.is_damaged && !boot.lost.iter().all(|lost| self.quarantined.contains(lost)) {
            let what = format!("node {} quarantines {:?} after a crash: {:?}", self.endpoint, boot.lost, boot.findings);
            return Err(Invariant::DurableLog.broken(what));
        }
        if boot.eventual.lost && !self.is_damaged {
            let what = format!("node {} quarantines the eventual keyspace: {:?}", self.endpoint, boot.findings);
            return Err(Invariant::DurableLog.broken(what));
        }
        Ok(())
    }

    fn run_from(&mut self, started: start::Member<MemDisk>, world: &mut World) {
        self.count("replicas quarantined", started.boot.lost.len() as u64);
        self.count("eventual keyspaces quarantined", started.boot.eventual.lost.into());
        let mut settings = self.settings.clone();
        settings.replica.boot_nonce = self.random.next_u64();
        let forgets = self.incarnation > 1 && settings.replica.mutation.is(Mutation::ForgetTiming);
        let timing = if forgets { Timing::SHORTEST } else { started.topology.timing };
        (settings.replica.timing, settings.health.timing) = (timing, timing);
        let random = self.random.fork(&format!("incarnation {}", self.incarnation));
        let running = Running::new(started, settings, self.disk.clone(), random, self.clock.read(world.now));
        self.state = State::Running(Box::new(running));
        self.plan(Task::Control, world.now, world);
        self.plan(Task::Gossip, world.now, world);
        self.plan(Task::Scrub, world.now, world);
        for worker in 0..self.settings.workers {
            self.plan(Task::Turn(worker), world.now, world);
        }
    }

    /// The power fails.
    pub fn crash(&mut self, random: &mut Random) {
        self.incarnation += 1;
        self.state = State::Down;
        self.stalled_until = Moment(0);
        self.workers_stalled_until = Moment(0);
        self.disk.crash(&mut |n| random.below(n));
        self.mend_disk();
    }

    /// The process aborts. What it has written stays with the operating system.
    fn abort(&mut self) {
        self.aborted = true;
        self.end();
    }

    /// Begins a graceful stop. False if it does not run.
    pub fn stop(&mut self, world: &mut World) -> bool {
        let now = self.clock.read(world.now);
        let State::Running(running) = &mut self.state else { return false };
        let mut outbox = running::Outbox::default();
        running.stop(now, &mut outbox);
        self.perform(outbox, world);
        true
    }

    /// Ends a stopping node, whatever is left to do. False if it is not stopping.
    pub fn end_stop(&mut self) -> bool {
        let is_stopping = self.running().is_some_and(Running::is_stopping);
        if is_stopping {
            self.end();
        }
        is_stopping
    }

    /// The process ends gracefully. What it has written stays with the operating system.
    fn end(&mut self) {
        self.incarnation += 1;
        self.state = State::Down;
        self.mend_disk();
    }

    /// Whether it has stopped gracefully since the last call.
    pub fn take_stopped(&mut self) -> bool {
        std::mem::take(&mut self.stopped)
    }

    /// Whether it has aborted since the last call.
    pub fn take_aborted(&mut self) -> bool {
        std::mem::take(&mut self.aborted)
    }

    /// When the node can run a task that is due.
    pub fn free_at(&self, task: &Task) -> Moment {
        match task {
            Task::Turn(_) => self.stalled_until.max(self.workers_stalled_until),
            _ => self.stalled_until,
        }
    }

    pub fn hand_over(&mut self, world: &mut World) {
        if let State::Running(running) = &mut self.state {
            let mut outbox = running::Outbox::default();
            running.hand_over(&mut outbox);
            self.perform(outbox, world);
        }
    }

    /// Its monotonic clock continues at another rate; tasks that are due by that clock are rescheduled.
    pub fn set_drift(&mut self, drift_ppm: i64, world: &mut World) {
        self.clock.set_drift(world.now, drift_ppm);
        if let State::Running(running) = &mut self.state {
            let tasks = running.timed_tasks();
            self.perform(running::Outbox { tasks, ..running::Outbox::default() }, world);
        }
    }

    /// Whether it has left the cluster and knows it.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    pub fn zone(&self) -> &str {
        &self.zone
    }

    fn count(&mut self, name: &'static str, count: u64) {
        *self.counts.entry(name).or_default() += count;
    }

    pub fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            State::Down | State::Joining(_) | State::Gone => None,
        }
    }

    pub fn run(&mut self, task: Task, world: &mut World) {
        let now = self.clock.read(world.now);
        match (&mut self.state, task) {
            (State::Joining(joining), Task::AskToJoin) => {
                let others: Vec<u64> = (1..=world.endpoints).filter(|&other| other != self.endpoint.0).collect();
                let other = NodeId(*self.random.pick(&others));
                let member = joining.member.clone();
                let message = Message::Join { life: self.incarnation, member, replace: self.is_wiped };
                world.network.send(world.now, Endpoint::Node(self.endpoint), Endpoint::Node(other), message);
                self.plan(Task::AskToJoin, world.now + JOIN_INTERVAL, world);
            }
            (State::Running(running), task) => {
                let mut outbox = running::Outbox::default();
                running.run(task, now, &mut outbox);
                self.perform(outbox, world);
            }
            (State::Down | State::Joining(_) | State::Gone, _) => {}
        }
    }

    pub fn receive(&mut self, from: Endpoint, message: Message, world: &mut World) {
        match (&mut self.state, message) {
            (State::Joining(joining), Message::Welcome { life, topology })
                if life == self.incarnation
                    && topology.node_named(&joining.member.name).is_some_and(|(_, known)| *known == joining.member) =>
            {
                let State::Joining(joining) = std::mem::replace(&mut self.state, State::Down) else { return };
                let joined = joining.newcomer.join(Topology::clone(&topology));
                let joined =
                    joined.unwrap_or_else(|refusal| panic!("the disk of a node that joins works: {refusal:?}"));
                self.quarantined.extend(&joined.boot.lost);
                self.run_from(joined, world);
            }
            (State::Running(running), message) => {
                let mut outbox = running::Outbox::default();
                running.receive(from, message, self.clock.read(world.now), &mut outbox);
                self.perform(outbox, world);
            }
            // No process listens there: the sender learns that at once.
            (State::Gone, Message::Request { id, .. }) => {
                let answer = Message::Answer { id, answer: Err(Failure::NotLeader(None)) };
                world.network.send(world.now, Endpoint::Node(self.endpoint), from, answer);
            }
            (State::Down | State::Joining(_) | State::Gone, _) => {}
        }
    }

    fn perform(&mut self, outbox: running::Outbox, world: &mut World) {
        // The node has crashed meanwhile; messages that it had sent may be lost, as any message may.
        if self.disk.has_stopped() {
            return;
        }
        if outbox.aborted {
            return self.abort();
        }
        for name in outbox.events {
            self.count(name, 1);
        }
        for (to, message) in outbox.messages {
            let from = Endpoint::Node(self.endpoint);
            match message.transport() {
                Transport::Datagram => world.network.send(world.now, from, to, message),
                Transport::Call => world.network.send_once(world.now, from, to, message),
                Transport::Stream => world.network.send_in_stream(world.now, from, to, message),
            }
        }
        for (after, task) in outbox.tasks {
            let at = match after {
                running::When::Local(local) => self.clock.true_time_of(local).max(world.now),
                running::When::Soon => world.now + Duration::from_micros(self.random.below(200)),
                running::When::Synced => world.now + self.random.duration(&self.sync),
                running::When::After(duration) => world.now + duration,
            };
            self.plan(task, at, world);
        }
        if let Some(why) = outbox.departure {
            return self.depart(why, world);
        }
        if outbox.stopped {
            self.stopped = true;
            self.end();
        }
    }

    /// As in the shell: a node that was declared dead joins as a new node, and one that was asked to leave ends.
    fn depart(&mut self, why: MemberState, world: &mut World) {
        // A node that can't save its departure ends, and learns of it again after a restart.
        if boot::set_departure(&*self.disk, why).is_err() {
            return self.abort();
        }
        self.mend_disk();
        self.incarnation += 1;
        if why == MemberState::Dead {
            self.start(world).expect("a node that was given up starts anew");
        } else {
            self.state = State::Gone;
            self.count("left", 1);
        }
    }

    fn plan(&self, task: Task, at: Moment, world: &mut World) {
        world.agenda.put(at, Wake::Node { node: self.endpoint, incarnation: self.incarnation, task });
    }

    /// A digest of the parts of the node's state that matter for the trace.
    pub fn digest(&self) -> u64 {
        self.running().map_or(0, Running::digest)
    }

    pub fn describe(&self, now: Moment) -> String {
        let state = match &self.state {
            State::Down => "down".to_owned(),
            State::Joining(_) => "joining".to_owned(),
            State::Gone => "gone".to_owned(),
            State::Running(running) => running.describe(),
        };
        let stalled = if now < self.stalled_until { ", stalled" } else { "" };
        format!("node {}{stalled}: {state}", self.endpoint)
    }
}
