//! Measures the costs of a large cluster: messages at rest, and moves when nodes come and go.
//!
//! This is the same simulation without faults, clients and checks; all nodes start together, with every replica where
//! it belongs. Bytes are those of the messages' fields on the wire and their framing in gRPC and HTTP/2; TCP and IP
//! come on top. Shards are empty: a move is measured by the number of replicas and the time that the protocol takes.

use super::node::{Message, Node};
use super::{Case, Cluster, LOOK};
use crate::network::Link;
use crate::options::{Faults, Options, ReadMode, TickPhases};
use ringfort_core::control::{codec, plan};
use ringfort_core::message::RaftMessage;
use ringfort_core::system::{SystemCommand, SystemMachine, Topology};
use ringfort_core::time::HlcTimestamp;
use ringfort_core::timing::Timing;
use ringfort_core::types::{ClusterId, Identity, NodeId, ShardId};
use ringfort_ring::ShardCount;
use std::collections::BTreeSet;
use std::time::Duration;

/// The header of a gRPC message, the header of an HTTP/2 frame, and a batch's own fields.
const BATCH_BYTES: u64 = 5 + 9 + 17;

/// The most simulated time that a measurement may take.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What nodes have sent to each other.
#[derive(Clone, Copy, Default, Debug)]
pub struct Traffic {
    /// Messages that are sent together count once.
    pub batches: u64,
    /// Raft messages, most of them heartbeats.
    pub raft: u64,
    pub control: u64,
    pub snapshots: u64,
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn count(&mut self, message: &Message) {
        match message {
            Message::Raft(messages) => {
                self.batches += 1;
                self.raft += messages.len() as u64;
                self.bytes += BATCH_BYTES + messages.iter().map(raft_bytes).sum::<u64>();
            }
            Message::Control { message, .. } => {
                self.batches += 1;
                self.control += 1;
                self.bytes += BATCH_BYTES + codec::encode(message).len() as u64;
            }
            Message::Snapshot { .. } => self.snapshots += 1,
            _ => {}
        }
    }

    fn since(&self, before: Traffic) -> Traffic {
        Traffic {
            batches: self.batches - before.batches,
            raft: self.raft - before.raft,
            control: self.control - before.control,
            snapshots: self.snapshots - before.snapshots,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// What happened until the cluster had settled again.
#[derive(Debug)]
pub struct Moved {
    /// Replicas that are now on other nodes than before.
    pub replicas: usize,
    /// The time until every shard had a leader again.
    pub leaders_after: Duration,
    /// The time until the first replica was placed elsewhere.
    pub begun_after: Duration,
    /// The time until the cluster had settled.
    pub settled_after: Duration,
    pub traffic: Traffic,
}

/// A large cluster at rest.
pub struct Scale {
    cluster: Cluster,
}

impl Scale {
    /// A cluster of this many nodes in three zones, and shards of three replicas each.
    pub fn new(nodes: usize, shards: u32, moves: usize, replace_after: Duration) -> Scale {
        let options = options(nodes, shards as usize, moves, replace_after);
        let mut cluster = Cluster::new(Case::of(options));
        cluster.traffic = Some(Traffic::default());
        let ids: Vec<NodeId> = (0..nodes).map(|_| cluster.make_node()).collect();
        let identity = |id: NodeId| Identity(u128::from(id.0));
        let count = ShardCount::new(shards).expect("a power of two");
        let first = cluster.nodes[&NodeId(1)].member(identity(NodeId(1)));
        let mut machine =
            SystemMachine::new(Topology::bootstrap(ClusterId(1), count, Timing::DEFAULT, first), HlcTimestamp(0));
        for &id in &ids[1..] {
            let member = cluster.nodes[&id].member(identity(id));
            machine.apply(HlcTimestamp(0), SystemCommand::Join { member, replaces: None, known_as: None });
        }
        let (based_on, groups) = (machine.topology().epoch, plan::changed_targets(machine.topology()));
        machine.apply(HlcTimestamp(0), SystemCommand::Place { based_on, groups });
        for (&shard, group) in &machine.topology().clone().groups {
            let target = group.target_replicas();
            for &replica in group.replicas.iter().filter(|replica| !target.contains(replica)) {
                machine.apply(HlcTimestamp(0), SystemCommand::Retire { shard, replica });
            }
        }
        for id in ids {
            let node = cluster.nodes.get_mut(&id).expect("it was just made");
            node.begin_with(machine.topology(), identity(id));
            cluster.start_node(id).expect("its disk is sound");
        }
        let mut scale = Scale { cluster };
        scale.run_until(Cluster::is_settled);
        scale.run(Duration::from_secs(5));
        scale
    }

    /// What all nodes send within this time.
    pub fn rest(&mut self, time: Duration) -> Traffic {
        let before = self.traffic();
        self.run(time);
        self.traffic().since(before)
    }

    pub fn join(&mut self) -> Moved {
        self.measure(|cluster| cluster.add_node().expect("its disk is sound"))
    }

    /// One node that leads and holds as much as any other is lost for good.
    pub fn death(&mut self) -> Moved {
        let last = *self.cluster.nodes.keys().next_back().expect("there are nodes");
        self.measure(|cluster| stop(cluster, last))
    }

    /// All nodes of a zone are lost for good.
    pub fn zone_loss(&mut self) -> Moved {
        let zone = self.cluster.nodes[&NodeId(1)].zone().to_owned();
        let lost: Vec<NodeId> =
            self.cluster.nodes.iter().filter(|(_, node)| node.zone() == zone).map(|(&id, _)| id).collect();
        self.measure(|cluster| lost.into_iter().for_each(|id| stop(cluster, id)))
    }

    fn measure(&mut self, change: impl FnOnce(&mut Cluster)) -> Moved {
        let (before, traffic, begun) = (self.placement(), self.traffic(), self.cluster.now);
        let epoch = self.cluster.topology().map(|topology| topology.epoch);
        change(&mut self.cluster);
        let leaders_after = self.run_until(has_leaders);
        let begun_after = self.run_until(|cluster| {
            // One epoch for the node itself, and one for the target placement.
            let now = cluster.topology().map(|topology| topology.epoch.0);
            now >= epoch.map(|epoch| epoch.0 + 2)
        });
        self.run_until(Cluster::is_settled);
        let settled_after = self.cluster.now.saturating_since(begun);
        let replicas = self.placement().difference(&before).count();
        let traffic = self.traffic().since(traffic);
        Moved { replicas, leaders_after, begun_after: leaders_after + begun_after, settled_after, traffic }
    }

    fn placement(&self) -> BTreeSet<(ShardId, NodeId)> {
        let topology = self.cluster.topology().expect("some node runs");
        let on = topology.groups.iter().flat_map(|(&shard, group)| group.target.iter().map(move |&node| (shard, node)));
        on.collect()
    }

    fn traffic(&self) -> Traffic {
        self.cluster.traffic.unwrap_or_default()
    }

    fn run(&mut self, time: Duration) {
        let end = self.cluster.now + time;
        self.cluster.run_until_moment(end).expect("nothing is checked");
    }

    fn run_until(&mut self, is_over: impl Fn(&mut Cluster) -> bool) -> Duration {
        let begun = self.cluster.now;
        while !is_over(&mut self.cluster) {
            assert!(self.cluster.now < begun + PATIENCE, "not within {PATIENCE:?}");
            self.run(LOOK);
        }
        self.cluster.now.saturating_since(begun)
    }
}

fn stop(cluster: &mut Cluster, id: NodeId) {
    let mut random = cluster.random.fork("stop");
    cluster.nodes.get_mut(&id).expect("there is such a node").crash(&mut random);
    cluster.faults.bury(id);
}

fn has_leaders(cluster: &mut Cluster) -> bool {
    let Some(topology) = cluster.topology() else { return false };
    let running = cluster.nodes.values().filter_map(Node::running);
    let led: BTreeSet<ShardId> = running
        .flat_map(|running| running.replicas())
        .filter(|replica| replica.is_leader())
        .map(|replica| replica.shard())
        .collect();
    led.len() == topology.groups.len()
}

/// The bytes of a message's fields in protobuf: a tag and a varint for each that is not zero.
fn raft_bytes(message: &RaftMessage) -> u64 {
    let RaftMessage { from, to, message, .. } = message;
    let numbers = [
        from.0,
        to.0,
        message.msg_type as u64,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
    ];
    let numbers = numbers.into_iter().filter(|&number| number != 0).map(|number| 1 + varint_bytes(number));
    let entries = message.entries.iter().map(|entry| (12 + entry.data.len() + entry.context.len()) as u64);
    let context = if message.context.is_empty() { 0 } else { 2 + message.context.len() as u64 };
    // The shard is a fixed word; the message itself has a tag and a length.
    5 + 2 + numbers.sum::<u64>() + entries.sum::<u64>() + context
}

fn varint_bytes(number: u64) -> u64 {
    u64::from((64 - number.leading_zeros()).div_ceil(7).max(1))
}

fn options(nodes: usize, shards: usize, moves: usize, replace_after: Duration) -> Options {
    Options {
        nodes,
        joins: 1,
        zones: 3,
        operations: 0,
        moves,
        replace_after,
        shards,
        workers: 1,
        clients: 0,
        read_mode: ReadMode::Lease,
        tick_phases: TickPhases::Spread,
        segment_bytes: 1 << 20,
        sync: Duration::from_micros(200)..=Duration::from_millis(1),
        link: Link::healthy(Duration::from_micros(100)..=Duration::from_micros(500)),
        faults: Faults::none(),
        ..Options::sample(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_begins_settled_follows_a_join_and_a_death() {
        let mut scale = Scale::new(6, 16, 8, Duration::from_secs(5));
        let rest = scale.rest(Duration::from_secs(2));
        assert!(rest.raft > 0 && rest.control > 0 && rest.snapshots == 0, "{rest:?}");
        let joined = scale.join();
        assert!((6..=8).contains(&joined.replicas), "a seventh of 48: {joined:?}");
        let died = scale.death();
        assert_eq!(died.replicas, joined.replicas, "what it had was elsewhere before: {died:?}");
        assert!(died.begun_after >= Duration::from_secs(5), "{died:?}");
    }

    #[test]
    fn sizes_are_those_of_protobuf() {
        assert_eq!([0, 1, 127, 128, 16_383, 16_384, u64::MAX].map(varint_bytes), [1, 1, 1, 2, 2, 3, 10]);
    }
}
