//! Link faults: partitions into two groups, one-way cuts, bridges (one node hears both groups), and flapping links.

use super::super::Cluster;
use super::Then;
use crate::history::ClientId;
use crate::network::Endpoint;
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A node that hears both groups, and the group that it will no longer hear in the end.
#[derive(Clone)]
pub struct Bridge {
    node: NodeId,
    lost: Vec<Endpoint>,
}

/// How long a bridge takes to restart.
const RESTART: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(30);

/// How long a bridge stalls.
const STALL: RangeInclusive<Duration> = Duration::from_millis(300)..=Duration::from_millis(900);

/// How long the bridge does not hear the side that it has lost.
const DEAF: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_millis(1_500);

/// How long flapping links stay cut or working.
const FLAP: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(400);

impl Cluster {
    pub(super) fn partition(&mut self, length: Duration) {
        let (one, other) = self.split();
        self.note(format!("partition: {one:?} | {other:?}"));
        self.network.partition(&[&one, &other]);
        self.later(length, Then::Heal);
    }

    pub(super) fn cut_one_way(&mut self, length: Duration) {
        let (one, other) = self.split();
        self.note(format!("nothing arrives from {one:?} at {other:?}"));
        self.network.cut_one_way(&one, &other);
        self.later(length, Then::Heal);
    }

    pub(super) fn heal(&mut self) {
        self.note("all links work");
        self.faults.bridge = None;
        self.network.heal();
    }

    pub(super) fn bridge(&mut self, length: Duration) {
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        self.faults.random.shuffle(&mut nodes);
        let Some(node) = nodes.pop().filter(|_| nodes.len() > 1) else { return };
        let at = 1 + self.faults.random.below(nodes.len() as u64 - 1) as usize;
        let endpoints = |nodes: &[NodeId]| nodes.iter().map(|&id| Endpoint::Node(id)).collect::<Vec<_>>();
        let (lost, other) = (endpoints(&nodes[..at]), endpoints(&nodes[at..]));
        self.note(format!("node {node} is a bridge between {lost:?} and {other:?}"));
        self.network.partition(&[&lost, &other]);
        self.faults.bridge = Some(Bridge { node, lost });
        let ends = [Then::Heal, Then::BridgeRestarts, Then::BridgeStalls];
        let end = *self.faults.random.pick(&ends);
        self.later(length, end);
    }

    pub(super) fn restart_bridge(&mut self) {
        if let Some(Bridge { node, .. }) = self.faults.bridge {
            let down = self.faults.random.duration(&RESTART);
            self.crash_for(node, down);
            self.later(down, Then::BridgeIsBack);
        }
    }

    pub(super) fn stall_bridge(&mut self) {
        if let Some(Bridge { node, .. }) = self.faults.bridge {
            let length = self.faults.random.duration(&STALL);
            self.stall(node, length);
            self.later(length, Then::BridgeIsBack);
        }
    }

    pub(super) fn deafen_bridge(&mut self) {
        if let Some(Bridge { node, lost }) = self.faults.bridge.take() {
            self.note(format!("nothing arrives from {lost:?} at the bridge, node {node}"));
            self.network.cut_one_way(&lost, &[Endpoint::Node(node)]);
        }
        let deaf = self.faults.random.duration(&DEAF);
        self.later(deaf, Then::Heal);
    }

    pub(super) fn begin_flapping(&mut self, length: Duration) {
        self.faults.flapping = self.split();
        self.flap(true, self.now + length);
    }

    pub(super) fn flap(&mut self, cut: bool, until: Moment) {
        if self.now >= until {
            return self.heal();
        }
        if cut {
            let (one, other) = self.faults.flapping.clone();
            self.note(format!("flapping: {one:?} | {other:?}"));
            self.network.partition(&[&one, &other]);
        } else {
            self.heal();
        }
        let after = self.faults.random.duration(&FLAP);
        self.later(after, Then::Flap { cut: !cut, until });
    }

    /// Splits all endpoints into two groups, with a node in each if there are at least two.
    fn split(&mut self) -> (Vec<Endpoint>, Vec<Endpoint>) {
        let mut nodes: Vec<Endpoint> = self.nodes.keys().map(|&id| Endpoint::Node(id)).collect();
        let mut clients: Vec<Endpoint> =
            (0..self.options.clients).map(|client| Endpoint::Client(ClientId(client as u32))).collect();
        self.faults.random.shuffle(&mut nodes);
        self.faults.random.shuffle(&mut clients);
        let at = 1 + self.faults.random.below(nodes.len() as u64) as usize;
        let other_nodes = nodes.split_off(at.min(nodes.len() - usize::from(nodes.len() > 1)));
        let other_clients = clients.split_off(self.faults.random.below(clients.len() as u64 + 1) as usize);
        (nodes.into_iter().chain(clients).collect(), other_nodes.into_iter().chain(other_clients).collect())
    }
}
