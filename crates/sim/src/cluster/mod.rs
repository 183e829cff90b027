//! A cluster of nodes that run the real core, on simulated clocks, disks and a simulated network.
//!
//! What ships is `ringfort-core`; what is simulated is its shell. A [`node::Node`] does what the shell's threads do,
//! with the same inputs and outputs: workers drain their inboxes and perform their effects in order, one log writer
//! merges the batches of all workers into a record and syncs it, snapshots are written and streamed. Where threads
//! would take time, an event on the agenda does.
//!
//! A run has three parts. *Warm-up*: the first node bootstraps, the others join, until every shard is where it should
//! be. *Safety*: for the options' duration, clients work while the seed's faults happen ([`faults`]). *Liveness*: all
//! faults end, crashed nodes start again, and within [`RECOVERY`] every shard must have its replicas, caught up. Then
//! one node of three or more may find bits of its disk flipped, and what it can't trust must be replaced from the
//! others. Before and after that all nodes must hold the same of the eventual keyspace ([`eventual`]). At last each key
//! must be read. Throughout, [`invariants`] are checked after every drain, and in the end the clients' history must be
//! linearizable.
//!
//! Clients talk to nodes over connections that lose messages but do not double them, as TCP does. Nodes talk to each
//! other over links with all the seed's faults: Raft must bear them, whatever the transport would have hidden.

mod client;
mod eventual;
mod faults;
mod invariants;
mod node;

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
use node::{Message, Node, Task};
use ringfort_core::mutation::Mutation;
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Simulated time within which a cluster without faults must be as it should be.
const RECOVERY: Duration = Duration::from_secs(60);

/// How often the parts of a run look whether they are over.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the cluster that the options describe.
pub fn run(options: Options) -> Outcome {
    run_mutated(options, Mutation::None)
}

/// Runs it with a planted bug.
pub fn run_mutated(options: Options, mutation: Mutation) -> Outcome {
    let mut cluster = Cluster::new(options, mutation);
    let failure = cluster.run().err();
    Outcome {
        simulated: cluster.now.saturating_since(START),
        operations: cluster.clients.completed(),
        events: cluster.count_events(),
        fingerprint: cluster.trace.fingerprint(),
        failure,
    }
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
            options,
        }
    }

    fn run(&mut self) -> Result<(), String> {
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
        self.run_until_moment(end)?;

        self.end_faults()?;
        self.end_eventual();
        self.run_until(RECOVERY, Cluster::is_settled, "the cluster did not recover after all faults had ended")?;
        let unequal = "the nodes do not hold the same of the eventual keyspace";
        self.run_until_moment(self.now + eventual::REST)?;
        self.run_until(eventual::CATCH_UP, Cluster::is_caught_up, "clocks are further apart than they were set")?;
        self.run_until(eventual::CONVERGENCE, Cluster::is_converged, unequal)?;
        self.check_eventual()?;
        if self.corrupt_one()? {
            self.run_until(RECOVERY, Cluster::is_settled, "the cluster did not replace what was corrupted")?;
            self.run_until(eventual::CONVERGENCE, Cluster::is_converged, unequal)?;
            self.check_eventual()?;
        }
        self.clients.read_everything(self.now, &mut self.agenda);
        self.run_until(RECOVERY, Cluster::is_read, "a key could not be read after all faults had ended")?;
        self.invariants.check_replicas_agree(&self.nodes)?;
        self.clients.check()
    }

    /// A new node: the first one bootstraps a cluster, later ones join it.
    fn add_node(&mut self) -> Result<(), String> {
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
        self.start_node(id)
    }

    fn run_until(&mut self, patience: Duration, is_over: fn(&Cluster) -> bool, otherwise: &str) -> Result<(), String> {
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
        node.run(task, &mut World { now: self.now, agenda: &mut self.agenda, network: &mut self.network });
        self.trace.record(self.now, (id, node.digest()));
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
                let mut world = World { now: self.now, agenda: &mut self.agenda, network: &mut self.network };
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.receive(from, message, &mut world);
                }
            }
        }
    }

    fn start_node(&mut self, id: NodeId) -> Result<(), String> {
        let mut world = World { now: self.now, agenda: &mut self.agenda, network: &mut self.network };
        self.nodes.get_mut(&id).map_or(Ok(()), |node| node.start(&mut world))
    }

    /// Every node runs, knows the same topology, and every shard's leader reports what the topology wants.
    fn is_settled(&self) -> bool {
        let mut running = self.nodes.values().map(Node::running);
        let Some(Some(first)) = running.next() else { return false };
        let topology = first.topology().clone();
        let same = running.all(|other| other.is_some_and(|other| other.topology().epoch == topology.epoch));
        if !same || topology.nodes.len() != self.nodes.len() {
            return false;
        }
        topology.groups.iter().all(|(shard, group)| {
            let mut wanted = group.wanted_replicas();
            wanted.sort_unstable();
            let expected = self.nodes.len().min(3);
            wanted.len() >= expected
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

    fn is_read(&self) -> bool {
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
    agenda: &'a mut Agenda<Wake>,
    network: &'a mut Network<Message>,
}
