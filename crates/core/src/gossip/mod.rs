//! What nodes exchange without a leader: their own state, and the updates of the [eventual keyspace](crate::eventual).
//!
//! # The algorithm
//!
//! Scuttlebutt reconciliation (van Renesse et al., LADIS 2008). Each node versions its own updates. One number then
//! says how much another node has seen of them, and two nodes find what each of them lacks by comparing version
//! vectors.
//!
//! Once a *period* each node picks `fan_out` members at random and starts an exchange with each:
//!
//! ```text
//! A                                            B
//!   ask:    digest of A: origin -> version  ->
//!         <-  answer: digest of B, and what A lacks
//!   give:   what B lacks                    ->
//! ```
//!
//! The size of a message is bounded; if there is more, the receiver asks again at once. Dead members are asked as well:
//! that is how the two sides of a healed partition find each other.
//!
//! # What is gossiped
//!
//! - [`node_state`]: what each node reports about itself, including its [health](crate::health). It is kept in memory
//!   only. Its version is the heartbeat that feeds the [failure detector](crate::liveness).
//! - [The eventual keyspace](crate::eventual): users' data, written at any node and held by all of them.
//!
//! # Why it converges
//!
//! The entry that a node holds for a key is the maximum of the entries that it has merged; its version vector is the
//! maximum of the versions that it has merged. Maxima are commutative, associative and idempotent, so messages may be
//! lost, duplicated and reordered. Suppose a link between two correct nodes stays up. In each period, one of the two
//! asks the other with a probability of at least fan_out / (members - 1), and after an exchange both hold the maximum
//! of what they held, or are closer to it by one message. So every entry reaches every node of a connected graph; with
//! random picks, in O(log members) periods on average (Demers et al., PODC 1987). No node ever retracts what it has
//! sent:
//!
//! - **A node merges, serves and sends only what is durable on it.** A digest is therefore a promise: what it claims
//!   survives a crash.
//! - **A tombstone is kept until nothing can bring back what it deleted**
//!   ([`tombstones`](crate::eventual::tombstones)).
//! - **Nodes with equal versions hold equal values, or are repaired.** A node may have seen versions without receiving
//!   their entries, because they were superseded by a later write that it has not seen and that is lost with a disk.
//!   Digests carry a hash of all values: two nodes with equal versions and different hashes exchange everything
//!   ([`repair`]).
//! - **Late messages are ignored.** A delta names the digest that it answers. A node ignores one that answers none of
//!   its digests of the last [`MAX_EXCHANGE_PERIODS`] periods, or a digest of an earlier incarnation.
//!
//! # What is refused
//!
//! Members are trusted, unless what they send can't be true: [`Refusal`] lists the reasons, and [`Gossip::refused`]
//! counts them.
//!
//! # How to drive it
//!
//! Like the rest of this crate: call `handle_*` with the time, then [`Gossip::take_effects`] once, and perform all of
//! these effects at once; then wait for more input, or until [`Gossip::next_tick`].
//!
//! Cost at rest: in each period a node sends about 3 x fan_out messages of some 40 bytes for each member.

mod exchange;
mod health;
pub mod message;
pub mod node_state;
mod refusal;
pub mod repair;
pub mod status;

#[cfg(test)]
mod tests;

use crate::eventual::journal::Recovered;
use crate::eventual::keyspace::{Found, Keyspace, Page};
use crate::eventual::{Eventual, WriteError, Written};
use crate::health::HealthView;
use crate::liveness::{Detector, Liveness};
use crate::log::{BatchNumber, LogBatch};
use crate::mutation::Mutation;
use crate::system::Topology;
use crate::time::{Moment, Now};
use crate::types::NodeId;
use crate::version::Incarnation;
use bytes::Bytes;
use node_state::{Fact, NodeStates};
pub use refusal::Refusal;
use repair::Difference;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A delta is accepted for this many periods after the digest that it answers.
pub const MAX_EXCHANGE_PERIODS: u64 = 20;

/// How often tombstones are collected, in periods.
const COLLECT_PERIODS: u64 = 4;

/// How a node gossips.
#[derive(Clone, Copy, Debug)]
pub struct GossipConfig {
    pub period: Duration,
    /// The number of members with which a node starts an exchange each period.
    pub fan_out: usize,
    pub mutation: Mutation,
}

impl Default for GossipConfig {
    fn default() -> GossipConfig {
        GossipConfig { period: Duration::from_millis(500), fan_out: 1, mutation: Mutation::None }
    }
}

/// The effects that the shell performs for a [`Gossip`]. `T` is the shell's responder for a write.
pub struct GossipEffects<T> {
    /// May be lost.
    pub messages: Vec<(NodeId, Bytes)>,
    /// Make it durable after all earlier batches; then call [`Gossip::handle_persisted`].
    pub log: Option<LogBatch>,
    pub replies: Vec<(T, Result<Written, WriteError>)>,
    /// The reported health of all members, if it has changed: for the workers and the controller.
    pub health: Option<HealthView>,
}

/// One node's gossip.
pub struct Gossip<T> {
    node: NodeId,
    config: GossipConfig,
    topology: Arc<Topology>,
    node_states: NodeStates,
    eventual: Eventual<T>,
    detector: Detector,
    differences: BTreeMap<NodeId, Difference>,
    offsets: BTreeMap<NodeId, i64>,
    refused: BTreeMap<&'static str, u64>,
    health: HealthView,
    rounds: u64,
    next_tick: Moment,
    random: Random,
    /// To be sent.
    messages: Vec<(NodeId, Bytes)>,
    /// `health`, if it has not been given out yet.
    new_health: Option<HealthView>,
}

/// A pseudo-random generator (splitmix64, Steele et al. 2014).
struct Random(u64);

impl Random {
    /// The next number. Never zero.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1)
    }
}

impl<T> Gossip<T> {
    /// `random` must differ from start to start.
    pub fn new(
        node: NodeId,
        config: GossipConfig,
        topology: Arc<Topology>,
        recovered: Recovered,
        now: Now,
        random: u64,
    ) -> Gossip<T> {
        let mut eventual = Eventual::new(node, recovered, config.mutation);
        let mut node_states = NodeStates::default();
        node_states.begin(node, Incarnation(eventual.tick(now.wall).0));
        let mut detector = Detector::new(config.period);
        detector.watch(now.moment, topology.nodes.keys().copied().filter(|&other| other != node));
        node_states.say(node, &Fact::Epoch(topology.epoch));
        Gossip {
            node,
            config,
            topology,
            node_states,
            eventual,
            detector,
            differences: BTreeMap::new(),
            offsets: BTreeMap::new(),
            refused: BTreeMap::new(),
            health: HealthView::default(),
            rounds: 0,
            next_tick: now.moment,
            random: Random(random),
            messages: Vec::new(),
            new_health: None,
        }
    }

    /// When [`Gossip::handle_tick`] is due.
    pub fn next_tick(&self) -> Moment {
        self.next_tick
    }

    /// Reads a key. Only durable writes are visible.
    pub fn get(&self, key: &[u8]) -> Option<Found> {
        self.eventual.keyspace().get(key)
    }

    /// See [`Keyspace::scan`].
    pub fn scan(&self, prefix: &[u8], start_after: Option<&[u8]>, limit: usize) -> Page {
        self.eventual.keyspace().scan(prefix, start_after, limit)
    }

    pub fn keyspace(&self) -> &Keyspace {
        self.eventual.keyspace()
    }

    /// The liveness of another member; none for this node itself, or for a node that is not a member.
    pub fn liveness(&self, node: NodeId, now: Moment) -> Option<Liveness> {
        self.detector.liveness(node, now)
    }

    /// The liveness of each of the other members.
    pub fn all_liveness(&self, now: Moment) -> BTreeMap<NodeId, Liveness> {
        let members = self.topology.nodes.keys();
        members.filter_map(|&node| Some((node, self.liveness(node, now)?))).collect()
    }

    /// The facts that a member has reported about itself, as far as this node knows them.
    pub fn facts(&self, node: NodeId) -> impl Iterator<Item = Fact> {
        self.node_states.facts(node)
    }

    /// The number of refused messages, by kind.
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// Periods since the start.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Reports a fact about this node to all other nodes.
    pub fn say(&mut self, fact: &Fact) {
        self.node_states.say(self.node, fact);
    }

    /// Begins a round, if one is due.
    pub fn handle_tick(&mut self, now: Now) {
        if now.moment < self.next_tick {
            return;
        }
        self.next_tick = now.moment + self.config.period;
        self.rounds += 1;
        self.node_states.beat(self.node);
        self.detector.handle_tick(now.moment);
        // A node whose keyspace differs may have skipped a tombstone: it must still find it here.
        if self.rounds.is_multiple_of(COLLECT_PERIODS) && self.differences.is_empty() {
            let others = self.topology.nodes.keys().copied().filter(|&other| other != self.node);
            self.eventual.collect(others, self.topology.epoch);
        }
        let mut others: Vec<NodeId> = self.topology.nodes.keys().copied().filter(|&node| node != self.node).collect();
        for _ in 0..self.config.fan_out.min(others.len()) {
            let picked = self.random.next() as usize % others.len();
            self.ask(now.wall, others.swap_remove(picked));
        }
    }

    /// Handles a newer topology.
    pub fn handle_topology(&mut self, now: Moment, topology: Arc<Topology>) {
        if topology.epoch <= self.topology.epoch {
            return;
        }
        let others = topology.nodes.keys().copied().filter(|&node| node != self.node);
        self.detector.watch(now, others);
        let is_member = |node| topology.nodes.contains_key(&node);
        self.node_states.retain(is_member);
        self.eventual.retain(is_member);
        self.differences.retain(|&node, _| is_member(node));
        self.offsets.retain(|&node, _| is_member(node));
        self.node_states.say(self.node, &Fact::Epoch(topology.epoch));
        self.topology = topology;
    }

    /// Sets a key, or deletes it. The reply to `responder` comes when the write is durable on this node.
    pub fn handle_write(&mut self, now: Now, key: Bytes, value: Option<Bytes>, responder: T) {
        self.eventual.handle_write(now.wall, key, value, responder, || self.random.next());
    }

    /// The batch with this number, and all before it, are durable.
    pub fn handle_persisted(&mut self, now: Now, number: BatchNumber) {
        for node in self.eventual.handle_persisted(number) {
            self.ask(now.wall, node);
        }
    }

    /// The log asks the keyspace to release its oldest segments.
    pub fn handle_log_pressure(&mut self) {
        self.eventual.handle_log_pressure();
    }

    /// The effects that have come up since the last call.
    pub fn take_effects(&mut self) -> GossipEffects<T> {
        self.publish_health();
        GossipEffects {
            messages: std::mem::take(&mut self.messages),
            log: self.eventual.take_batch(),
            replies: self.eventual.take_replies(),
            health: self.new_health.take(),
        }
    }
}
