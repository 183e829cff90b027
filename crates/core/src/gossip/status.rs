//! What a node knows of the others through gossip, for `status` and the metrics.

use super::Gossip;
use super::node_state::Fact;
use crate::liveness::Liveness;
use crate::time::Moment;
use crate::types::NodeId;
use crate::version::{Incarnation, Version, VersionVector};

/// How a node stands.
#[derive(Clone, Debug)]
pub struct GossipStatus {
    /// All members, in order.
    pub members: Vec<MemberStatus>,
    /// Versions of the eventual keyspace that other nodes have shown to have and that are missing here.
    pub missing: u64,
    pub keys: usize,
    pub tombstones: usize,
    /// What the eventual keyspace takes.
    pub bytes: usize,
    pub hash: u64,
    /// Members whose eventual keyspace differs from this one and does not come to agree.
    pub diverged: Vec<NodeId>,
}

/// What is known of a member.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    pub node: NodeId,
    /// None for the node itself.
    pub liveness: Option<Liveness>,
    /// Its latest heartbeat here.
    pub incarnation: Incarnation,
    pub heartbeat: Version,
    pub facts: Vec<Fact>,
    /// How far its wall clock was ahead of the one here at the last exchange, in microseconds.
    pub clock_ahead_us: Option<i64>,
    /// Versions of the eventual keyspace that are here, or somewhere, and that it has not shown to have. None where it
    /// has not shown anything yet.
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
