//! What a node knows about the other nodes through gossip, for `status` and the metrics.

use super::Gossip;
use super::node_state::Fact;
use crate::liveness::Liveness;
use crate::time::Moment;
use crate::types::NodeId;
use crate::version::{Incarnation, Version, VersionVector};

/// The gossip status of a node.
#[derive(Clone, Debug)]
pub struct GossipStatus {
    /// All members, in order.
    pub members: Vec<MemberStatus>,
    /// The number of versions of the eventual keyspace that other nodes' digests claim and that are missing here.
    pub missing: u64,
    pub keys: usize,
    pub tombstones: usize,
    /// Memory that the eventual keyspace uses.
    pub bytes: usize,
    pub hash: u64,
    /// Members whose eventual keyspace has differed from this one for longer than repair should take.
    pub diverged: Vec<NodeId>,
}

/// What this node knows about a member.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    pub node: NodeId,
    /// None for the node itself.
    pub liveness: Option<Liveness>,
    /// The latest heartbeat of it that this node knows.
    pub incarnation: Incarnation,
    pub heartbeat: Version,
    pub facts: Vec<Fact>,
    /// How far its wall clock was ahead of this node's at the last exchange, in microseconds.
    pub clock_ahead_us: Option<i64>,
    /// The number of versions of the eventual keyspace that some node has and that its digests have not claimed. None
    /// if no digest has arrived yet.
    pub lag: Option<u64>,
}

impl<T> Gossip<T> {
    pub fn status(&self, now: Moment) -> GossipStatus {
        let own = self.eventual.keyspace().all_seen();
        let mut highest = own.clone();
        for seen in self.topology.nodes.keys().filter_map(|&node| self.eventual.claimed(node)) {
            for (origin, version) in seen {
                let known = highest.entry(*origin).or_default();
                *known = (*known).max(*version);
            }
        }
        let lag = |seen: &VersionVector| -> u64 {
            let lacks = |(origin, version): (_, &Version)| version.0 - seen.get(origin).map_or(0, |seen| seen.0);
            highest.iter().map(lacks).sum()
        };
        let member = |&node: &NodeId| {
            let (incarnation, heartbeat) = self.node_states.heard(node);
            let claimed = if node == self.node { Some(&own) } else { self.eventual.claimed(node) };
            MemberStatus {
                node,
                liveness: self.liveness(node, now),
                incarnation,
                heartbeat,
                facts: self.facts(node).collect(),
                clock_ahead_us: self.offsets.get(&node).copied(),
                lag: claimed.map(lag),
            }
        };
        GossipStatus {
            members: self.topology.nodes.keys().map(member).collect(),
            missing: lag(&own),
            keys: self.eventual.keyspace().keys(),
            tombstones: self.eventual.keyspace().tombstones(),
            bytes: self.eventual.keyspace().bytes(),
            hash: self.eventual.keyspace().hash(),
            diverged: self.diverged(now).collect(),
        }
    }
}
