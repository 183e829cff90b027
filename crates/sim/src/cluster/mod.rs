//! A cluster of nodes that run the real core, on simulated clocks, disks and a simulated network.
//!
//! What ships is `ringfort-core`; what is simulated is its shell. A [`node::Node`] does what the shell's threads do,
//! with the same inputs and outputs: workers drain their inboxes and perform their effects in order, one log writer
//! merges the batches of all workers into a record and syncs it, snapshots are written and streamed. Where threads
//! would take time, an event on the agenda does.
//!
//! A run has three parts. *Warm-up*: the first node bootstraps, the others join, until every shard is where it should
//! be. *Safety*: for the options' duration, clients work while the seed's faults happen ([`faults`]) and operators have
//! nodes come and go ([`operator`]). *Liveness*: all faults end, crashed nodes start again, pauses and drains are taken
//! back, and within [`RECOVERY`] every shard must have its replicas, caught up, on the nodes that are there. Then
//! one node of three or more may find bits of its disk flipped, and what it can't trust must be replaced from the
//! others; so must be a replica in whose memory a bit is flipped after that. Before and after what happens to the disk all nodes must hold the same of the eventual keyspace ([`eventual`]). At last each key
//! must be read. Throughout, [`invariants`] are checked after every drain, and in the end the clients' history must be
//! linearizable.
//!
//! Clients talk to nodes over connections that lose messages but do not double them, as TCP does. Nodes talk to each
//! other over links with all the seed's faults: Raft must bear them, whatever the transport would have hidden.

mod client;
mod configurations;
mod eventual;
mod faults;
mod invariants;
mod node;
mod operator;
pub mod scale;

use crate::agenda::Agenda;
use crate::clock::{MAX_DRIFT_PPM, NodeClock};
use crate::history::{ClientId, OperationId};
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

/// Simulated time within which a cluster without faults must be as it should be.
const RECOVERY: Duration = Duration::from_secs(60);

/// Replicas that differ are found within this time after the last write.
const WATCHED: Duration = Duration::from_secs(30);

/// How long a node is down whose controller was to crash.
const CONTROLLER_DOWN: Duration = Duration::from_secs(1);

/// How often the parts of a run look whether they are over.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the cluster that the options describe.
pub fn run(options: Options) -> Outcome {
    run_mutated(options, Mutation::None)
}

/// Runs it with a planted bug.
pub fn run_mutated(options: Options, mutation: Mutation) -> Outcome {
    Cluster::new(options, mutation).outcome()
}

/// Runs it with a planted bug that makes replicas differ, until after the faults the watch has had time to find that and
/// the cluster is whole again. Histories and states are not checked. Returns what the watch found, too.
pub fn run_diverging(options: Options, mutation: Mutation) -> (Outcome, Vec<String>) {
    let mut cluster = Cluster::new(options, mutation);
    cluster.invariants.expects_divergence = true;
    let failure = cluster.diverge().err();
    let running = cluster.nodes.values().filter_map(Node::running);
    let alarms = running.flat_map(|running| running.alarms().to_vec()).collect();
    (Outcome { failure, ..cluster.outcome_so_far() }, alarms)
}

/// Runs it, and crashes the node whose controller asks for something for the `act`th time, right after that. Returns how
/// often one has asked, too.
pub fn run_crashing_controller(options: Options, act: u64) -> (Outcome, u64) {
    let mut cluster = Cluster::new(options, Mutation::None);
    cluster.crash_controller_at = Some(act);
    let outcome = cluster.outcome();
    (outcome, cluster.controller_acts)
}

/// Clocks do not begin at zero, which means "never" to many.
const START: Moment = Moment(1_000_000_000);

/// What happens at a moment, besides messages that arrive.
enum Wake {
    Node { node: NodeId, incarnation: u64, task: Task },
    Client(ClientId),
    RequestTimedOut(ClientId, OperationId),
    RequestRetried(ClientId, OperationId),
    Fault(faults::Fault),
    WriteEventually,
}

struct Cluster {
    options: Options,
    mutation: Mutation,
    now: Moment,
    agenda: Agenda<Wake>,
    network: Network<Message>,
    nodes: BTreeMap<NodeId, Node>,
    clients: Clients,
    eventual: eventual::Eventual,
    faults: faults::Faults,
    invariants: Invariants,
    trace: Trace,
    random: Random,
    /// How often a controller has asked for something during the faults, and at which time its node crashes.
    controller_acts: u64,
    crash_controller_at: Option<u64>,
    /// What is measured instead of checked, where that is what the run is for.
    traffic: Option<scale::Traffic>,
}

impl Cluster {
    fn new(options: Options, mutation: Mutation) -> Cluster {
        let random = Random::new(options.seed);
        Cluster {
            mutation,
            now: START,
            agenda: Agenda::default(),
            network: Network::new(random.fork("network"), Link::healthy(options.link.delay.clone())),
            nodes: BTreeMap::new(),
            clients: Clients::new(&options, random.fork("workload")),
            eventual: eventual::Eventual::new(random.fork("eventual")),
            faults: faults::Faults::new(random.fork("faults")),
            invariants: Invariants::default(),
            trace: Trace::default(),
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

    fn run(&mut self) -> Result<(), String> {
        self.work()?;
        self.end()
    }

    fn diverge(&mut self) -> Result<(), String> {
        self.work()?;
        self.end_faults()?;
        self.end_eventual();
        self.run_until_moment(self.now + WATCHED)?;
        let is_whole = |cluster: &mut Cluster| {
            let differ = cluster.nodes.values().filter_map(Node::running).any(|running| running.divergences() > 0);
            !differ && cluster.is_settled()
        };
        self.run_until(RECOVERY, is_whole, "the watch's alarms did not end")
    }

    /// The first nodes form a cluster, which works under faults.
    fn work(&mut self) -> Result<(), String> {
        self.add_node()?;
        self.run_until(RECOVERY, Cluster::is_settled, "the first node did not begin to serve")?;
        for _ in 1..self.options.nodes {
            self.add_node()?;
        }
        self.run_until(RECOVERY, Cluster::is_settled, "the first nodes did not form a cluster")?;

        self.begin_faults();
        self.clients.begin(self.now, &mut self.agenda);
        self.begin_eventual();
        let end = self.now + self.options.duration;
        self.run_until_moment(end)
    }

    /// All faults end, and everything must be as it should.
    fn end(&mut self) -> Result<(), String> {
        self.end_faults()?;
        self.end_eventual();
        self.run_until(RECOVERY, Cluster::tidy_up, "the cluster did not recover after all faults had ended")?;
        let unequal = "the nodes do not hold the same of the eventual keyspace";
        self.run_until_moment(self.now + eventual::REST)?;
        self.run_until(
            eventual::CATCH_UP,
            |cluster| cluster.is_caught_up(),
            "clocks are further apart than they were set",
        )?;
        self.run_until(eventual::CONVERGENCE, |cluster| cluster.is_converged(), unequal)?;
        self.check_eventual()?;
        if self.corrupt_one()? {
            self.run_until(RECOVERY, Cluster::tidy_up, "the cluster did not replace what was corrupted")?;
            self.run_until(eventual::CONVERGENCE, |cluster| cluster.is_converged(), unequal)?;
            self.check_eventual()?;
        }
        // What was corrupted a moment ago may not be missed yet: one replica of a shard at a time.
        self.run_until_moment(self.now + eventual::REST)?;
        self.run_until(RECOVERY, Cluster::tidy_up, "the cluster does not stay recovered")?;
        if self.damage_memory() {
            self.run_until(
                RECOVERY,
                Cluster::is_healed,
                "the cluster did not replace the replica whose memory was damaged",
            )?;
        }
        self.clients.read_everything(self.now, &mut self.agenda);
        self.run_until(RECOVERY, Cluster::is_read, "a key could not be read after all faults had ended")?;
        self.invariants.check_replicas_agree(&self.nodes)?;
        self.clients.check()
    }

    /// A new node: the first one bootstraps a cluster, later ones join it.
    fn add_node(&mut self) -> Result<(), String> {
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
        mut is_over: impl FnMut(&mut Cluster) -> bool,
        otherwise: &str,
    ) -> Result<(), String> {
        let end = self.now + patience;
        while !is_over(self) {
            if self.now >= end {
                return Err(format!("{otherwise} within {patience:?}\n{}", self.describe()));
            }
            self.run_until_moment(self.now + LOOK)?;
        }
        Ok(())
    }

    fn run_until_moment(&mut self, end: Moment) -> Result<(), String> {
        while let Some(next) = [self.agenda.next_at(), self.network.next_at()].into_iter().flatten().min()
            && next <= end
        {
            self.now = self.now.max(next);
            while let Some(delivery) = self.network.deliver(self.now) {
                if let Some(traffic) = &mut self.traffic {
                    traffic.count(&delivery.message);
                    self.deliver(delivery.from, delivery.to, delivery.message);
                    continue;
                }
                self.trace.record(self.now, (delivery.from, delivery.to, delivery.message.digest()));
                self.deliver(delivery.from, delivery.to, delivery.message);
            }
            while let Some((_, wake)) = self.agenda.take_due(self.now) {
                self.wake(wake)?;
            }
        }
        self.now = end;
        Ok(())
    }

    fn wake(&mut self, wake: Wake) -> Result<(), String> {
        match wake {
            Wake::Client(client) => {
                self.clients.invoke(client, self.now, &mut self.agenda, &mut self.network, &self.nodes);
            }
            Wake::RequestTimedOut(client, id) => self.clients.timed_out(client, id, self.now, &mut self.agenda),
            Wake::RequestRetried(client, id) => {
                self.clients.retry(client, id, self.now, &mut self.network, &self.nodes);
            }
            Wake::Fault(fault) => return self.inflict(fault),
            Wake::WriteEventually => self.write_eventually(),
            Wake::Node { node, incarnation, task } => return self.run_task(node, incarnation, task),
        }
        Ok(())
    }

    /// Runs a task of a node, unless it has stopped since; a stalled node does it when it wakes up.
    fn run_task(&mut self, id: NodeId, incarnation: u64, task: Task) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.incarnation == incarnation) else {
            return Ok(());
        };
        if self.now < node.stalled_until {
            self.agenda.put(node.stalled_until, Wake::Node { node: id, incarnation, task });
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
        let more = if self.faults.is_active() { acts(node) - before } else { 0 };
        let asked = self.controller_acts..self.controller_acts + more;
        self.controller_acts = asked.end;
        if self.crash_controller_at.is_some_and(|at| asked.contains(&at)) {
            self.crash_for(id, CONTROLLER_DOWN);
        }
        self.invariants.check(self.now, id, &self.nodes)
    }

    fn deliver(&mut self, from: Endpoint, to: Endpoint, message: Message) {
        match (to, message) {
            (Endpoint::Client(client), Message::Answer { id, answer }) => {
                self.clients.answered(client, id, answer, self.now, &mut self.agenda);
            }
            (Endpoint::Client(_), Message::WrittenEventually { id, stamp, node }) => {
                self.eventual.written(id, stamp, node);
            }
            (Endpoint::Client(_), _) => {}
            (Endpoint::Node(id), message) => {
                let endpoints = self.endpoints();
                let mut world =
                    World { now: self.now, endpoints, agenda: &mut self.agenda, network: &mut self.network };
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.receive(from, message, &mut world);
                }
            }
        }
    }

    fn start_node(&mut self, id: NodeId) -> Result<(), String> {
        let endpoints = self.endpoints();
        let mut world = World { now: self.now, endpoints, agenda: &mut self.agenda, network: &mut self.network };
        self.nodes.get_mut(&id).map_or(Ok(()), |node| node.start(&mut world))
    }

    fn endpoints(&self) -> u64 {
        (self.options.nodes + self.options.joins) as u64
    }

    /// The nodes that have not left and are not dead for good.
    fn present(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let is_present = |(id, node): &(&NodeId, &Node)| !node.is_gone() && !self.faults.is_dead(**id);
        self.nodes.iter().filter(is_present).map(|(&id, node)| (id, node))
    }

    /// The latest topology that a node has that runs.
    fn topology(&self) -> Option<Arc<Topology>> {
        let topologies = self.nodes.values().filter_map(Node::running).map(Running::topology);
        topologies.max_by_key(|topology| topology.epoch).cloned()
    }

    /// Every node that is present runs, and knows the same topology, which has exactly these nodes; and every shard's
    /// leader reports what the topology wants.
    fn is_settled(&mut self) -> bool {
        let Some(topology) = self.topology() else { return false };
        let knows = |node: &Node| node.running().is_some_and(|running| running.topology().epoch == topology.epoch);
        let present = self.present().count();
        if topology.nodes.len() != present || !topology.standings.is_empty() || topology.paused {
            return false;
        }
        if !self.present().all(|(_, node)| knows(node)) {
            return false;
        }
        topology.groups.iter().all(|(shard, group)| {
            let mut wanted = group.wanted_replicas();
            wanted.sort_unstable();
            wanted.len() >= present.min(3)
                && group.replicas.len() == wanted.len()
                && self.nodes.values().filter_map(Node::running).any(|running| {
                    running.report(*shard).is_some_and(|report| {
                        report.voters == wanted
                            && report.learners.is_empty()
                            && report.outgoing.is_empty()
                            && report.caught_up.len() == wanted.len()
                    })
                })
        })
    }

    /// How often what has happened in this run.
    fn count_events(&self) -> BTreeMap<&'static str, u64> {
        let mut events = self.faults.counts.clone();
        for node in self.nodes.values() {
            for (name, count) in &node.counts {
                *events.entry(name).or_default() += count;
            }
        }
        events
    }

    fn is_read(&mut self) -> bool {
        self.clients.are_done()
    }

    /// How the cluster stands, for whoever looks for the reason of a failure.
    fn describe(&self) -> String {
        self.nodes.values().map(|node| format!("{}\n", node.describe(self.now))).collect()
    }
}

/// What a node's shell needs of the world around it.
struct World<'a> {
    now: Moment,
    /// Nodes are at 1 to this one, once all have joined.
    endpoints: u64,
    agenda: &'a mut Agenda<Wake>,
    network: &'a mut Network<Message>,
}
