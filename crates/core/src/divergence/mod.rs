//! The divergence detector: whether replicas that applied the same entries hold the same state, and whether memory
//! still holds what was written to it.
//!
//! # Between replicas
//!
//! A shard's state is a function only of its log up to an index, and so is the state's hash. If the hashes of two
//! replicas differ at *the same index*, the replicas serve different data. Without a bug or damage they never differ,
//! whatever is lost, delayed, restarted or moved, because a snapshot carries the state of its index with its hash. An
//! alarm is never a matter of timing.
//!
//! 1. Each replica takes its hash at the same indexes as all others, multiples of powers of four, and where its log has
//!    come to rest ([`marks`]). It publishes one of these hashes, chosen so that other replicas publish the same index.
//! 2. The points of a node's replicas travel as facts in gossip, an eighth of the shards each round: [`fact`]. On idle
//!    shards they do not change, so they cost nothing.
//! 3. Every node keeps the last [`POINTS_KEPT`] of each replica, and compares those of equal index:
//!    [`DivergenceDetector::compare`]. Every node raises the alarm; only the node of the wrong replica acts on it.
//!
//! **Which replica is wrong.** If more than half of *all* replicas of the shard in the topology agree at the index, the
//! others are wrong: [`Event::Minority`]. This takes at least three replicas. Otherwise it is unknown which are wrong,
//! and all continue to serve: stopping some would be a guess, and stopping all would stop the correct ones as well.
//! That alarm is for the operator.
//!
//! # Within a replica
//!
//! The maintained hash cannot detect damaged memory. A [`Scrubber`] walks over the entries of one shard after the other
//! at a bounded rate, and every snapshot is checked against the hash that it began with
//! ([`scrub`](crate::kv::state::Scrubbed), `kv/state/cut.rs`). These checks are conclusive without another replica.
//!
//! # Consequences
//!
//! A replica in the minority, or a damaged one, ends at once: its map answers no reads of any kind, it no longer leads,
//! and what it was about to log or send as a snapshot is abandoned. Its node treats it as lost, like one whose log was
//! damaged, and the system shard assigns a new one, which gets its state from the others ([`QuarantineReason`]). No
//! acknowledged write is lost: the log is intact, and a quorum has it.

mod marks;
mod scrubber;

pub use marks::{Marks, SETTLED_AFTER};
pub use scrubber::Scrubber;

use crate::gossip::Gossip;
use crate::gossip::node_state::Fact;
use crate::limits::{MAX_POINTS, POINT_PARTS};
use crate::system::Topology;
use crate::types::{LogIndex, NodeId, Point, ReplicaId, ShardId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// The number of points of each replica that are kept for comparison.
pub const POINTS_KEPT: usize = 8;

/// Why a replica must no longer run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum QuarantineReason {
    /// Its log is damaged, or lacks entries that it acknowledged.
    Log,
    /// Its memory differs from what was written to it.
    Memory,
    /// Most replicas of the shard have another state at the same index.
    Minority,
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuarantineReason::Log => "its log is damaged, or lacks what it acknowledged",
            QuarantineReason::Memory => {
                "its memory differs from what was written to it; have the memory of this machine checked"
            }
            QuarantineReason::Minority => {
                "most replicas have another state at the same index, so there is a bug or bad memory here"
            }
        })
    }
}

/// Replicas of a shard that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    pub shard: ShardId,
    /// The index at which they were first seen to differ.
    pub index: LogIndex,
    /// The hashes compared there.
    pub hashes: BTreeMap<ReplicaId, u64>,
    /// The replicas that a majority contradicts; empty if there is no majority.
    pub minority: BTreeSet<ReplicaId>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the replicas of shard {} differ at index {}:", self.shard, self.index)?;
        for (replica, hash) in &self.hashes {
            write!(f, " node {} has {hash:016x},", replica.node())?;
        }
        if self.minority.is_empty() {
            return f.write_str(
                " and there is no majority to tell which is wrong: see \"Replicas that differ\" in docs/operating.md",
            );
        }
        let nodes: Vec<String> = self.minority.iter().map(|replica| replica.node().to_string()).collect();
        write!(f, " so node {} is wrong: it stops serving the shard and gets it from the others", nodes.join(" and "))
    }
}

/// Something that the detector has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An alarm for the operator, raised once, and again when it is known which replica is wrong.
    Alarm(Divergence),
    /// This node's replica is in the minority: it must end.
    Minority { shard: ShardId, replica: ReplicaId },
    /// The replicas that differed are gone, or agree again.
    Over(ShardId),
}

/// One node's comparison of all replicas.
pub struct DivergenceDetector {
    node: NodeId,
    round: u64,
    shards: BTreeMap<ShardId, Compared>,
}

#[derive(Default)]
struct Compared {
    points: BTreeMap<ReplicaId, VecDeque<(LogIndex, u64)>>,
    divergence: Option<Divergence>,
}

/// The group of shards that a round gossips, and its points in the order of shards.
fn fact(round: u64, points: impl Iterator<Item = Point>) -> (u8, Vec<Point>) {
    let part = (round % u64::from(POINT_PARTS)) as u8;
    let mut points: Vec<Point> = points.filter(|point| part_of(point.shard) == part).collect();
    points.sort_unstable_by_key(|point| point.shard);
    points.truncate(MAX_POINTS);
    (part, points)
}

fn part_of(shard: ShardId) -> u8 {
    (shard.0 % u32::from(POINT_PARTS)) as u8
}

impl DivergenceDetector {
    pub fn new(node: NodeId) -> DivergenceDetector {
        DivergenceDetector { node, round: 0, shards: BTreeMap::new() }
    }

    /// Called once a gossip round: reports the group of this node's points that is due, and compares the points of all
    /// nodes.
    pub fn handle_round<T>(
        &mut self,
        gossip: &mut Gossip<T>,
        topology: &Topology,
        own: impl Iterator<Item = Point>,
    ) -> Vec<Event> {
        if std::mem::replace(&mut self.round, gossip.rounds()) == gossip.rounds() {
            return Vec::new();
        }
        let (part, points) = fact(self.round, own);
        gossip.say(&Fact::Points(part, points));
        let points = |fact| match fact {
            Fact::Points(_, points) => points,
            _ => Vec::new(),
        };
        let said =
            topology.nodes.keys().flat_map(|&node| gossip.facts(node).flat_map(points).map(move |point| (node, point)));
        self.compare(topology, said)
    }

    /// The present divergences, by shard.
    pub fn divergences(&self) -> impl Iterator<Item = &Divergence> {
        self.shards.values().filter_map(|compared| compared.divergence.as_ref())
    }

    /// Handles the points that nodes, including this one, report for their replicas, and compares them. Repeated points
    /// are ignored.
    pub(crate) fn compare(
        &mut self,
        topology: &Topology,
        said: impl IntoIterator<Item = (NodeId, Point)>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        self.forget(topology, &mut events);
        for (node, point) in said {
            let held = topology.groups.get(&point.shard).map(|group| &group.replicas[..]).unwrap_or_default();
            if point.replica.node() != node || !held.contains(&point.replica) {
                continue;
            }
            let compared = self.shards.entry(point.shard).or_default();
            if compared.take(&point) {
                compared.judge(self.node, &point, held.len(), &mut events);
            }
        }
        events
    }

    /// Drops the points of replicas that the topology no longer has.
    fn forget(&mut self, topology: &Topology, events: &mut Vec<Event>) {
        for (&shard, compared) in &mut self.shards {
            let held = topology.groups.get(&shard).map(|group| &group.replicas[..]).unwrap_or_default();
            compared.points.retain(|replica, _| held.contains(replica));
            let is_over = |divergence: &mut Divergence| {
                let are_gone = |replicas: &BTreeSet<ReplicaId>| replicas.iter().all(|replica| !held.contains(replica));
                let mut here = divergence.hashes.iter().filter(|(replica, _)| held.contains(replica));
                let first = here.next().map(|(_, hash)| hash);
                let none_differ = here.all(|(_, hash)| Some(hash) == first);
                if divergence.minority.is_empty() { none_differ } else { are_gone(&divergence.minority) }
            };
            if compared.divergence.take_if(is_over).is_some() {
                events.push(Event::Over(shard));
            }
        }
        self.shards.retain(|_, compared| !compared.points.is_empty());
    }
}

impl Compared {
    /// Keeps a point. False if it is already known.
    fn take(&mut self, point: &Point) -> bool {
        let points = self.points.entry(point.replica).or_default();
        if points.contains(&(point.index, point.hash)) {
            return false;
        }
        points.push_back((point.index, point.hash));
        if points.len() > POINTS_KEPT {
            points.pop_front();
        }
        true
    }

    /// Compares all known hashes at the index of `point`.
    fn judge(&mut self, own: NodeId, point: &Point, replicas: usize, events: &mut Vec<Event>) {
        let at_index = |(replica, points): (&ReplicaId, &VecDeque<(LogIndex, u64)>)| {
            points.iter().rev().find(|(index, _)| *index == point.index).map(|(_, hash)| (*replica, *hash))
        };
        let hashes: BTreeMap<ReplicaId, u64> = self.points.iter().filter_map(at_index).collect();
        let agreeing = |hash: u64| hashes.values().filter(|other| **other == hash).count();
        if agreeing(point.hash) == hashes.len() {
            let settled = |known: &mut Divergence| {
                let are_all_here = known.hashes.keys().all(|replica| hashes.contains_key(replica));
                known.index < point.index && are_all_here
            };
            if self.divergence.take_if(settled).is_some() {
                events.push(Event::Over(point.shard));
            }
            return;
        }
        let majority = hashes.values().copied().find(|hash| agreeing(*hash) > replicas / 2);
        let is_minority = |(_, hash): &(&ReplicaId, &u64)| majority.is_some_and(|majority| **hash != majority);
        let minority: BTreeSet<ReplicaId> = hashes.iter().filter(is_minority).map(|(replica, _)| *replica).collect();
        let is_news = match &self.divergence {
            None => true,
            Some(known) => !minority.is_subset(&known.minority),
        };
        if !is_news {
            return;
        }
        let mine = minority.iter().find(|replica| replica.node() == own).copied();
        let known_minority = self.divergence.take().map(|known| known.minority).unwrap_or_default();
        let all_minority = minority.union(&known_minority).copied().collect();
        let divergence = Divergence { shard: point.shard, index: point.index, hashes, minority: all_minority };
        events.push(Event::Alarm(divergence.clone()));
        self.divergence = Some(divergence);
        events.extend(mine.map(|replica| Event::Minority { shard: point.shard, replica }));
    }
}

#[cfg(test)]
mod tests;
