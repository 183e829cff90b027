//! How many periods gossip takes to bring one write to every node, and what it costs when there is no news.
//!
//!     cargo run --release -p ringfort-core --example gossip_rounds [fan-out]
//!
//! Messages arrive at once and all of them; each figure is over 20 runs (5 from 100 nodes on). At last, how many
//! periods after a partition of five nodes all are equal again, when both sides have written the same 1,000 keys
//! meanwhile.

use bytes::Bytes;
use ringfort_core::eventual::journal;
use ringfort_core::gossip::node_state::{Fact, Load};
use ringfort_core::gossip::{Gossip, GossipConfig};
use ringfort_core::system::{Member, SystemCommand, SystemMachine, Topology};
use ringfort_core::time::{HlcTimestamp, Moment, Now, Wall};
use ringfort_core::timing::Timing;
use ringfort_core::types::{ClusterId, Identity, NodeId};
use ringfort_ring::ShardCount;
use std::sync::Arc;

/// Periods over which the cost at rest is taken.
const RESTING_PERIODS: u64 = 50;

fn main() {
    let fan_out = std::env::args().nth(1).map_or(1, |fan_out| fan_out.parse().expect("a number of nodes"));
    let config = GossipConfig { fan_out, ..GossipConfig::default() };
    println!("fan-out {fan_out}, a period of {:?}", config.period);
    println!(
        "{:>5} {:>14} {:>12} {:>24} {:>18}",
        "nodes", "periods, mean", "most", "sent at rest, B/s/node", "largest message, B"
    );
    for nodes in [3, 10, 30, 100, 300] {
        let runs = if nodes < 100 { 20 } else { 5 };
        let outcomes: Vec<Outcome> = (0..runs).map(|seed| run(nodes, config, seed)).collect();
        let mean = outcomes.iter().map(|outcome| outcome.periods).sum::<u64>() as f64 / runs as f64;
        let most = outcomes.iter().map(|outcome| outcome.periods).max().unwrap_or(0);
        let bytes = outcomes.iter().map(|outcome| outcome.bytes).sum::<usize>() as f64 / runs as f64;
        let rate = bytes / nodes as f64 / (RESTING_PERIODS as f64 * config.period.as_secs_f64());
        let largest = outcomes.iter().map(|outcome| outcome.largest).max().unwrap_or(0);
        println!("{nodes:>5} {mean:>14.1} {most:>12} {rate:>24.0} {largest:>18}");
    }
    let healed: Vec<u64> = (0..20).map(|seed| heal(config, seed)).collect();
    let mean = healed.iter().sum::<u64>() as f64 / healed.len() as f64;
    let most = healed.iter().max().unwrap_or(&0);
    println!("5 nodes, 1,000 keys after a partition: {mean:.1} periods, at most {most}");
}

/// Periods until all are equal after a partition.
fn heal(config: GossipConfig, seed: u64) -> u64 {
    let mut cluster = Cluster::new(5, config, seed);
    cluster.is_cut = true;
    for key in 0..1_000 {
        for node in [key % 2, key % 3 + 2] {
            cluster.write(node, format!("key{key}"));
        }
    }
    (0..20).for_each(|_| cluster.period());
    assert!(!cluster.is_converged(), "the sides have written something else");
    cluster.is_cut = false;
    let begun = cluster.periods;
    while !cluster.is_converged() {
        cluster.period();
    }
    cluster.periods - begun
}

struct Outcome {
    periods: u64,
    bytes: usize,
    largest: usize,
}

struct Cluster {
    nodes: Vec<Gossip<()>>,
    config: GossipConfig,
    periods: u64,
    bytes: usize,
    largest: usize,
    /// Whether the first two nodes hear nothing of the others.
    is_cut: bool,
}

fn run(nodes: u64, config: GossipConfig, seed: u64) -> Outcome {
    let mut cluster = Cluster::new(nodes, config, seed);
    // Each node has an origin, and all know each other.
    for node in 0..cluster.nodes.len() {
        cluster.write(node, "first");
    }
    while !cluster.is_converged() {
        cluster.period();
    }
    (0..20).for_each(|_| cluster.period());
    (cluster.bytes, cluster.largest) = (0, 0);
    (0..RESTING_PERIODS).for_each(|_| cluster.period());
    let (bytes, largest) = (cluster.bytes, cluster.largest);

    cluster.write(seed as usize % cluster.nodes.len(), "news");
    let begun = cluster.periods;
    while !cluster.is_converged() {
        cluster.period();
    }
    Outcome { periods: cluster.periods - begun, bytes, largest }
}

fn now(config: GossipConfig, periods: u64) -> Now {
    let since = config.period * periods as u32;
    Now { moment: Moment(1) + since, wall: Wall(1_700_000_000_000_000 + since.as_micros() as u64) }
}

impl Cluster {
    fn new(nodes: u64, config: GossipConfig, seed: u64) -> Cluster {
        let member = |node: u64| Member {
            name: format!("node{node}"),
            identity: Identity(u128::from(node)),
            raft_address: format!("10.0.0.{node}:12001"),
            grpc_address: format!("10.0.0.{node}:50051"),
            zone: String::new(),
        };
        let topology =
            Topology::bootstrap(ClusterId(1), ShardCount::new(64).expect("a power of two"), Timing::DEFAULT, member(1));
        let mut machine = SystemMachine::new(topology, HlcTimestamp(0));
        for node in 2..=nodes {
            machine
                .apply(HlcTimestamp(0), SystemCommand::Join { member: member(node), replaces: None, known_as: None });
        }
        let topology: Arc<Topology> = machine.topology().clone();
        let start = |node: u64| {
            let recovered = journal::recover(None).expect("nothing can be read");
            let mut gossip =
                Gossip::new(NodeId(node), config, topology.clone(), recovered, now(config, 0), seed * 1000 + node);
            gossip.say(&Fact::Build("0.1.0".into()));
            gossip.say(&Fact::Load(Load { replicas: 20, keys: 1 << 20, key_value_bytes: 1 << 30, log_bytes: 1 << 28 }));
            gossip
        };
        let nodes = (1..=nodes).map(start).collect();
        Cluster { nodes, config, periods: 1, bytes: 0, largest: 0, is_cut: false }
    }

    fn write(&mut self, node: usize, key: impl Into<Bytes>) {
        let now = now(self.config, self.periods);
        self.nodes[node].handle_write(now, key.into(), Some("value".into()), ());
        self.settle(node);
    }

    fn period(&mut self) {
        self.periods += 1;
        let now = now(self.config, self.periods);
        for node in 0..self.nodes.len() {
            self.nodes[node].handle_tick(now);
            self.settle(node);
        }
    }

    /// Performs what a node wants done, and what others want done because of it.
    fn settle(&mut self, node: usize) {
        let now = now(self.config, self.periods);
        let mut waiting = vec![node];
        while let Some(node) = waiting.pop() {
            let effects = self.nodes[node].take_effects();
            if let Some(batch) = effects.log {
                self.nodes[node].handle_persisted(now, batch.number);
                waiting.push(node);
            }
            for (to, bytes) in effects.messages {
                self.bytes += bytes.len();
                self.largest = self.largest.max(bytes.len());
                let to = to.0 as usize - 1;
                if self.is_cut && (node < 2) != (to < 2) {
                    continue;
                }
                let taken = self.nodes[to].handle_message(now, NodeId(node as u64 + 1), &bytes);
                assert_eq!(taken, Ok(()));
                waiting.push(to);
            }
        }
    }

    fn is_converged(&self) -> bool {
        let hash = self.nodes[0].keyspace().hash();
        self.nodes.iter().all(|node| node.keyspace().hash() == hash)
    }
}
