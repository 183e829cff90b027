//! A cluster of nodes that run the real core, on simulated clocks, disks and a simulated network.
//!
//! What ships is `ringfort-core`; what is simulated is its shell. A [`node::Node`] does what the shell's threads do,
//! with the same inputs and outputs: workers drain their inboxes and perform their effects in order, one log writer
//! merges the batches of all workers into a record and syncs it, snapshots are written and streamed. Where threads
//! would take time, an event is put on the agenda.
//!
//! A run has three parts. *Warm-up*: the first node bootstraps and the others join, until every shard is where it
//! should be. *Safety*: for the options' duration, clients work while the seed's faults happen ([`faults`]) and
//! operators have nodes come and go ([`operator`]). *Liveness*: all faults end, crashed nodes start again, pauses and
//! node drains are taken back, and within [`invariants::RECOVERY`] every shard must have its replicas, caught up, on
//! the present nodes. Then, with three nodes or more, one node's disk may be damaged, and what the node can't trust
//! must be replaced from the others. After that a bit may be flipped in a replica's memory, and the replica must be
//! replaced too. Before and after the damage to the disk, all nodes must hold the same eventual keyspace
//! ([`eventual`]). Finally each key must be read. Throughout the run, [`invariants`] are checked after every turn, and
//! at the end the clients' history must be linearizable.
//!
//! A run can leave out faults and operations by their numbers ([`Case`]), which is how a failing run is minimised, and
//! can record what happens in it ([`timeline`]).
//!
//! Clients talk to nodes over connections that lose messages but do not double them, as TCP does. Nodes talk to each
//! other over links with all the seed's faults: Raft must tolerate them, even those that the transport would hide.
//! Forwarded requests and the parts of snapshots are the exceptions, because they rely on connections. While workers
//! stall, readers continue beside them ([`readers`]).

mod case;
mod client;
mod eventual;
mod faults;
mod invariants;
mod node;
mod operator;
mod readers;
pub mod scale;
pub mod timeline;

pub use case::{Begun, Case, Replay, Without, replay, run, run_case, run_crashing_controller, run_diverging};

use crate::agenda::Agenda;
use crate::clock::{MAX_DRIFT_PPM, NodeClock};
use crate::history::{ClientId, OperationId};
use crate::invariant::{Invariant, Violation};
use crate::network::{Endpoint, Link, Network};
use crate::options::{Options, TickPhases};
use crate::random::Random;
use crate::seeds::Outcome;
use crate::trace::Trace;
use client::Clients;
use invariants::Invariants;
use node::{Message, Node, Running, Task};
use ringfort_core::mutation::Mutation;
use ringfort_core::system::Topology;
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use timeline::Timeline;

/// Diverged replicas are found within this time after the last write.
const WATCHED: Duration = Duration::from_secs(30);

/// How long a node is down after it was crashed because of its controller's action.
const CONTROLLER_DOWN: Duration = Duration::from_secs(1);

/// How often the parts of a run check whether they are over.
const LOOK: Duration = Duration::from_millis(100);

/// Without faults, a follower has applied everything that is committed within this time.
const FOLLOW: Duration = Duration::from_secs(1);

/// Clocks do not begin at zero, because zero often means "never".
const START: Moment = Moment(1_000_000_000);

/// An event on the agenda. Messages that arrive are not among them.
enum Wake {
    Node {
        node: NodeId,
        incarnation: u64,
        task: Task,
    },
    Client(ClientId),
    RequestTimedOut(ClientId, OperationId),
    RequestRetried(ClientId, OperationId),
    Fault(faults::Fault),
    /// A message is delivered to a node that was stalled when it arrived.
    Deliver {
        from: Endpoint,
        to: Endpoint,
        message: Box<Message>,
    },
    WriteEventually,
    ReadStale,
    ReadBeside(NodeId, Moment),
}

struct Cluster {
    options: Options,
    mutation: Mutation,
    without: Without,
    now: Moment,
    agenda: Agenda<Wake>,
    network: Network<Message>,
    nodes: BTreeMap<NodeId, Node>,
    clients: Clients,
    eventual: eventual::Eventual,
    faults: faults::Faults,
    invariants: Invariants,
    trace: Trace,
    /// The record of what happens, if it is requested.
    timeline: Option<Timeline>,
    random: Random,
    stale_reads: Random,
    readers: Random,
    /// Event counts, except faults and those that nodes count.
    counts: BTreeMap<&'static str, u64>,
    /// How many actions controllers have taken during the faults, and at which of them the node crashes.
    controller_acts: u64,
    crash_controller_at: Option<u64>,
    /// The traffic, in runs that measure instead of checking.
    traffic: Option<scale::Traffic>,
}

impl Cluster {
    fn new(Case { options, mutation, without, ignored }: Case) -> Cluster {
        let random = Random::new(options.seed);
        Cluster {
            mutation,
            without,
            now: START,
            agenda: Agenda::default(),
            network: Network::new(random.fork("network"), Link::healthy(options.link.delay.clone())),
            nodes: BTreeMap::new(),
            clients: Clients::new(&options, random.fork("workload")),
            eventual: eventual::Eventual::new(random.fork("eventual")),
            faults: faults::Faults::new(random.fork("faults")),
            invariants: Invariants::new(ignored),
            trace: Trace::default(),
            timeline: None,
            stale_reads: random.fork("stale reads"),
            readers: random.fork("readers"),
            counts: BTreeMap::new(),
            random: random.fork("cluster"),
            controller_acts: 0,
            crash_controller_at: None,
            traffic: None,
            options,
        }
    }

    fn outcome(&mut self) -> Outcome {
        let failure = self.run().err();
        Outcome { failure, ..self.outcome_so_far() }
    }

    fn outcome_so_far(&self) -> Outcome {
        Outcome {
            simulated: self.now.saturating_since(START),
            operations: self.clients.completed(),
            events: self.count_events(),
            fingerprint: self.trace.fingerprint(),
            failure: None,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        self.work()?;
        self.end()
    }

    fn diverge(&mut self) -> Result<(), Violation> {
        self.work()?;
        self.end_faults()?;
        self.end_eventual();
        self.run_until_moment(self.now + WATCHED)?;
        let is_whole = |cluster: &mut Cluster| {
            let differ = cluster.nodes.values().filter_map(Node::running).any(|running| running.divergences() > 0);
            !differ && cluster.is_settled()
        };
        self.must_recover(is_whole, "the alarms did not end")
    }

    /// The first nodes form a cluster, which then runs under faults.
    fn work(&mut self) -> Result<(), Violation> {
        self.add_node()?;
        self.must_recover(Cluster::is_settled, "the first node did not begin to serve")?;
        for _ in 1..self.options.nodes {
            self.add_node()?;
        }
        self.must_recover(Cluster::is_settled, "the first nodes did not form a cluster")?;

        self.begin_faults();
        self.clients.begin(self.now, &mut self.agenda);
        self.begin_eventual();
        self.begin_stale_reads();
        let end = self.now + self.options.duration;
        self.run_until_moment(end)
    }

    /// All faults end, and the cluster must recover.
    fn end(&mut self) -> Result<(), Violation> {
        self.note("all faults end");
        self.end_faults()?;
        self.end_eventual();
        self.must_recover(Cluster::tidy_up, "the cluster did not recover after all faults had ended")?;
        self.run_until_moment(self.now + invariants::REST)?;
        self.run_until(
            invariants::CATCH_UP,
            Invariant::GossipConvergence,
            |cluster| cluster.is_caught_up(),
            "clocks are further apart than they were set",
        )?;
        self.must_converge()?;
        self.invariants.judge(self.check_eventual())?;
        if self.damage_one()? {
            // The damaged node must find the damage before others can know of it.
            self.run_until_moment(self.now + FOLLOW)?;
            self.must_recover(Cluster::tidy_up, "the cluster did not replace what was damaged")?;
            self.must_converge()?;
            self.invariants.judge(self.check_eventual())?;
        }
        // Only one replica of a shard may be bad at a time, and the loss from the damaged disk may not have been
        // noticed yet.
        self.run_until_moment(self.now + invariants::REST)?;
        self.must_recover(Cluster::tidy_up, "the cluster does not stay recovered")?;
        if self.damage_memory() {
            self.must_recover(Cluster::is_healed, "the cluster did not replace the replica whose memory was damaged")?;
        }
        self.clients.read_everything(self.now, &mut self.agenda);
        self.must_recover(|cluster| cluster.clients.are_done(), "a key could not be read after all faults had ended")?;
        self.must_recover(Cluster::tidy_up, "the cluster did not stay as it should be")?;
        self.run_until_moment(self.now + FOLLOW)?;
        self.invariants.check_hashes(&self.nodes)?;
        self.invariants.judge(self.clients.acknowledged().check(&self.nodes))?;
        self.invariants.judge(self.clients.check())
    }

    /// Adds a line to the timeline, if there is one.
    fn note(&mut self, what: impl Into<String>) {
        if let Some(timeline) = &mut self.timeline {
            timeline.note(self.now, what.into());
        }
    }

    /// A new node: the first one bootstraps a cluster, later ones join it.
    fn add_node(&mut self) -> Result<(), Violation> {
        let id = self.make_node();
        self.start_node(id)
    }

    fn make_node(&mut self) -> NodeId {
        let id = NodeId(self.nodes.len() as u64 + 1);
        let drift = match self.options.faults.clock_drift {
            true => self.random.below(2 * MAX_DRIFT_PPM as u64 + 1) as i64 - MAX_DRIFT_PPM,
            false => 0,
        };
        let phase = match self.options.tick_phases {
            TickPhases::Aligned => Duration::ZERO,
            TickPhases::Spread => Duration::from_micros(self.random.below(50_000)),
        };
        let clock = NodeClock::new(self.now, START + phase, drift);
        let node = Node::new(id, clock, &self.options, self.mutation, self.random.fork(&format!("node {id}")));
        self.nodes.insert(id, node);
        id
    }

    fn run_until(
        &mut self,
        patience: Duration,
        invariant: Invariant,
        mut is_over: impl FnMut(&mut Cluster) -> bool,
        otherwise: &str,
    ) -> Result<(), Violation> {
        let end = self.now + patience;
        while !is_over(self) {
            if self.now >= end {
                return Err(invariant.broken(format!("{otherwise} within {patience:?}\n{}", self.describe())));
            }
            self.run_until_moment(self.now + LOOK)?;
        }
        Ok(())
    }

    fn run_until_moment(&mut self, end: Moment) -> Result<(), Violation> {
        while let Some(next) = [self.agenda.next_at(), self.network.next_at()].into_iter().flatten().min()
            && next <= end
        {
            self.now = self.now.max(next);
            while let Some(delivery) = self.network.deliver(self.now) {
                if let Some(traffic) = &mut self.traffic {
                    traffic.count(&delivery.message);
                } else {
                    self.trace.record(self.now, (delivery.from, delivery.to, delivery.message.digest()));
                }
                self.deliver(delivery.from, delivery.to, delivery.message)?;
            }
            while let Some((_, wake)) = self.agenda.take_due(self.now) {
                self.wake(wake)?;
            }
        }
        self.now = end;
        Ok(())
    }

    fn wake(&mut self, wake: Wake) -> Result<(), Violation> {
        match wake {
            Wake::Client(client) => self.begin_operation(client),
            Wake::RequestTimedOut(client, id) => self.clients.timed_out(client, id, self.now, &mut self.agenda),
            Wake::RequestRetried(client, id) => {
                self.clients.retry(client, id, self.now, &mut self.network, &self.nodes);
            }
            Wake::Fault(fault) => return self.inflict(fault),
            Wake::Deliver { from, to, message } => return self.deliver(from, to, *message),
            Wake::WriteEventually => self.write_eventually(),
            Wake::ReadStale => {
                let read = self.read_stale();
                return self.invariants.judge(read);
            }
            Wake::ReadBeside(id, until) => self.read_beside(id, until),
            Wake::Node { node, incarnation, task } => return self.run_task(node, incarnation, task),
        }
        Ok(())
    }

    /// Runs a node's task, unless the node has stopped since; a stalled node runs it when it wakes up.
    fn run_task(&mut self, id: NodeId, incarnation: u64, task: Task) -> Result<(), Violation> {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.incarnation == incarnation) else {
            return Ok(());
        };
        let free_at = node.free_at(&task);
        if self.now < free_at {
            self.agenda.put(free_at, Wake::Node { node: id, incarnation, task });
            return Ok(());
        }
        let acts = |node: &Node| node.counts.get(node::CONTROLLER_ACTS).copied().unwrap_or_default();
        let before = acts(node);
        let endpoints = self.options.nodes as u64 + self.options.joins as u64;
        node.run(task, &mut World { now: self.now, endpoints, agenda: &mut self.agenda, network: &mut self.network });
        if self.traffic.is_some() {
            return Ok(());
        }
        self.trace.record(self.now, (id, node.digest()));
        if let (Some(timeline), Some(running)) = (&mut self.timeline, node.running()) {
            for replica in running.replicas().filter(|replica| replica.is_leader()) {
                timeline.leads(self.now, replica.shard(), replica.position().term, id);
            }
        }
        let more = if self.faults.is_active() { acts(node) - before } else { 0 };
        self.restart_if_aborted(id);
        self.restart_if_stopped(id);
        self.crash_if_midway(id);
        let asked = self.controller_acts..self.controller_acts + more;
        self.controller_acts = asked.end;
        if self.crash_controller_at.is_some_and(|at| asked.contains(&at)) {
            self.crash_for(id, CONTROLLER_DOWN);
        }
        self.invariants.check(self.now, id, &self.nodes, &self.network)
    }

    fn deliver(&mut self, from: Endpoint, to: Endpoint, message: Message) -> Result<(), Violation> {
        match (to, message) {
            (Endpoint::Client(client), Message::Answer { id, answer }) => {
                let told = self.clients.answered(client, id, answer, self.now, &mut self.agenda);
                self.invariants.judge(self.clients.take_violation())?;
                if let (Some(timeline), true) = (&mut self.timeline, told) {
                    timeline.operation_ended(self.now, self.clients.operation(id));
                }
            }
            (Endpoint::Client(_), Message::WrittenEventually { id, timestamp, node }) => {
                self.eventual.written(id, timestamp, node);
            }
            (Endpoint::Client(_), _) => {}
            (Endpoint::Node(id), message) => {
                let endpoints = self.endpoints();
                let mut world =
                    World { now: self.now, endpoints, agenda: &mut self.agenda, network: &mut self.network };
                if let Some(node) = self.nodes.get_mut(&id) {
                    if self.now < node.stalled_until {
                        let wake = Wake::Deliver { from, to, message: Box::new(message) };
                        self.agenda.put(node.stalled_until, wake);
                        return Ok(());
                    }
                    node.receive(from, message, &mut world);
                    self.restart_if_aborted(id);
                    self.crash_if_midway(id);
                }
            }
        }
        Ok(())
    }

    fn begin_operation(&mut self, client: ClientId) {
        let without = &self.without;
        let begun = self.clients.invoke(client, self.now, without, &mut self.agenda, &mut self.network, &self.nodes);
        if let (Some(timeline), Some(id)) = (&mut self.timeline, begun) {
            timeline.operation_began(self.now, self.clients.operation(id));
        }
    }

    fn start_node(&mut self, id: NodeId) -> Result<(), Violation> {
        self.note(format!("node {id} starts"));
        let endpoints = self.endpoints();
        let mut world = World { now: self.now, endpoints, agenda: &mut self.agenda, network: &mut self.network };
        self.nodes.get_mut(&id).map_or(Ok(()), |node| node.start(&mut world))
    }

    fn endpoints(&self) -> u64 {
        (self.options.nodes + self.options.joins) as u64
    }

    /// The nodes that have not left and are not lost for good.
    fn present(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let is_present = |(id, node): &(&NodeId, &Node)| !node.is_gone() && !self.faults.is_dead(**id);
        self.nodes.iter().filter(is_present).map(|(&id, node)| (id, node))
    }

    /// The latest topology of all running nodes.
    fn topology(&self) -> Option<Arc<Topology>> {
        let topologies = self.nodes.values().filter_map(Node::running).map(Running::topology);
        topologies.max_by_key(|topology| topology.epoch).cloned()
    }

    /// All event counts of this run.
    fn count_events(&self) -> BTreeMap<&'static str, u64> {
        let mut events = self.faults.counts.clone();
        events.append(&mut self.counts.clone());
        for node in self.nodes.values() {
            for (name, count) in &node.counts {
                *events.entry(name).or_default() += count;
            }
        }
        events
    }

    /// The cluster's state in words, to find the reason of a failure.
    fn describe(&self) -> String {
        self.nodes.values().map(|node| format!("{}\n", node.describe(self.now))).collect()
    }
}

/// The environment that a node's shell needs.
struct World<'a> {
    now: Moment,
    /// Nodes have the endpoints from 1 to this number once all have joined.
    endpoints: u64,
    agenda: &'a mut Agenda<Wake>,
    network: &'a mut Network<Message>,
}
