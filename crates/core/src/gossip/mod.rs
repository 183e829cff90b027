//! What nodes tell each other without a leader: who is alive, how they fare, and the eventual keyspace.
//!
//! # The algorithm
//!
//! Scuttlebutt reconciliation (van Renesse et al., LADIS 2008). Whoever says something, an *origin*, numbers what it
//! says with versions. How much a node knows of an origin is then one number, the version up to which it has seen
//! everything, and what it lacks compared with another node is known from those numbers alone.
//!
//! Once a *period* each node picks `fan_out` members at random and has an exchange with each:
//!
//! ```text
//! A                                            B
//!   ask:    digest of A: origin -> version  ->
//!         <-  answer: digest of B, and what A lacks
//!   give:   what B lacks                    ->
//! ```
//!
//! A message is filled up to a number of bytes; where there is more, the receiver asks again at once. Members that are
//! thought dead are asked as well, which is how a partition heals: no one has to notice.
//!
//! # What is told
//!
//! - [`node_state`]: what each node reports about itself, including its [health](crate::health). Kept in memory. Its
//!   version is the heartbeat that feeds the [`detector`].
//! - [`keyspace`]: users' data, written at any node. Of two writes of a key the later one wins, by a hybrid logical
//!   [`clock`] with bounds, then by the origin. All nodes hold all of it, in their logs ([`journal`]).
//!
//! # Why it converges
//!
//! What a node holds of a key is the maximum of the entries that it has merged; what it knows of an origin, the maximum
//! of the versions. Maxima are commutative, associative and idempotent, so messages may be lost, doubled and reordered.
//! Be a link between two correct nodes up for good: each period one of them asks the other with a probability of at
//! least fan_out / (members - 1), and the exchange leaves both with the maximum of what they had, or closer to it by a
//! message. So along a connected graph every entry reaches every node; picking at random, within O(log members) periods
//! in the mean (Demers et al., PODC 1987). Nothing is told that could be taken back:
//!
//! - **Nothing is merged, shown or told before it is durable here**, so a digest is a promise: what it claims survives
//!   a crash. A node whose log was damaged begins with nothing, under a new incarnation, and takes back what others
//!   hold, its own former entries among them.
//! - **Deletions stay until nothing can bring back what they deleted** ([`tombstones`]).
//! - **Equal versions are equal values, or made so.** A node may have seen versions whose entries it was not given, for
//!   a later write that it has not seen, and that is lost with a disk. Digests have a hash of all values: those who
//!   have seen the same and differ exchange everything ([`repair`]).
//! - **Late messages are ignored.** A delta answers a digest and names it; one that answers none of the last
//!   [`MAX_EXCHANGE_PERIODS`], or one of a former life of this node, is not taken.
//!
//! # Who is believed
//!
//! Members, unless what they say can't be true: [`Refusal`] lists why, and [`Gossip::refused`] counts it.
//!
//! # How to drive it
//!
//! Like the rest of this crate: `handle_*` with the time, then [`Gossip::take_effects`] once, whose parts are all to be
//! performed at once; then wait for more, or for [`Gossip::next_tick`].
//!
//! Costs, at rest: each period a node sends about 3 x fan_out messages of some 40 bytes a member.

pub mod clock;
pub mod detector;
mod exchange;
mod health;
pub mod journal;
pub mod keyspace;
pub mod message;
pub mod node_state;
mod refusal;
pub mod repair;
pub mod status;
pub mod tombstones;

#[cfg(test)]
mod tests;

use crate::effects::LogBatch;
use crate::health::HealthView;
use crate::limits::{MAX_EVENTUAL_BYTES, MAX_EVENTUAL_ENTRY_BYTES, MAX_EVENTUAL_PENDING_BYTES};
use crate::mutation::Mutation;
use crate::system::Topology;
use crate::time::{HlcTimestamp, Moment, Now};
use crate::types::NodeId;
use bytes::Bytes;
use clock::HybridClock;
use detector::{Detector, Liveness};
use journal::{Journal, Recovered};
use keyspace::{Entry, Found, Incarnation, Keyspace, Origin, Page, Part, Seen, Version, cost};
use node_state::{Fact, NodeStates};
pub use refusal::Refusal;
use repair::Difference;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tombstones::Collector;

/// A delta is taken for this many periods after the digest that it answers.
pub const MAX_EXCHANGE_PERIODS: u64 = 20;

/// How often tombstones are looked at, in periods.
const COLLECT_PERIODS: u64 = 4;

/// How a node gossips.
#[derive(Clone, Copy, Debug)]
pub struct GossipConfig {
    pub period: Duration,
    /// How many members a node has an exchange with each period.
    pub fan_out: usize,
    pub mutation: Mutation,
}

impl Default for GossipConfig {
    fn default() -> GossipConfig {
        GossipConfig { period: Duration::from_millis(500), fan_out: 1, mutation: Mutation::None }
    }
}

/// What was written, durably.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    /// By the hybrid logical clock: larger than that of any entry that this node had seen.
    pub timestamp: HlcTimestamp,
    /// Whether the key had a value here before.
    pub existed: bool,
}

/// Why a write was not done. Nothing has changed, and nothing will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("key and value have {0} bytes, the limit of the eventual keyspace is {MAX_EVENTUAL_ENTRY_BYTES}")]
    TooLarge(usize),
    #[error("the eventual keyspace holds {MAX_EVENTUAL_BYTES} bytes, which is its limit; delete something")]
    Full,
    #[error("too many eventual writes wait for the disk; retry later")]
    Overloaded,
}

/// What a [`Gossip`] wants done. `T` is the shell's responder for a write.
pub struct GossipEffects<T> {
    /// May be lost.
    pub messages: Vec<(NodeId, Bytes)>,
    /// To be made durable after all earlier ones; then [`Gossip::handle_persisted`].
    pub log: Option<LogBatch>,
    pub replies: Vec<(T, Result<Written, WriteError>)>,
    /// The reported health of all members, if it has changed: for the workers and the controller.
    pub health: Option<HealthView>,
}

impl<T> Default for GossipEffects<T> {
    fn default() -> GossipEffects<T> {
        GossipEffects { messages: Vec::new(), log: None, replies: Vec::new(), health: None }
    }
}

/// One node's gossip.
///
/// - `keyspace` holds what is durable; `pending` is what is being made so, in order. `reserved` has, for each origin in
///   `pending`, the highest version in there.
/// - `own` is this node's origin; all its versions up to `seen` or `reserved` were given out here.
pub struct Gossip<T> {
    node: NodeId,
    config: GossipConfig,
    topology: Arc<Topology>,
    node_states: NodeStates,
    keyspace: Keyspace,
    own: Option<Origin>,
    clock: HybridClock,
    journal: Journal,
    /// Not in any batch yet.
    staged: Batch<T>,
    pending: VecDeque<(u64, Batch<T>)>,
    pending_bytes: usize,
    reserved: Seen,
    next_batch: u64,
    wants_state: bool,
    detector: Detector,
    collector: Collector,
    differences: BTreeMap<NodeId, Difference>,
    offsets: BTreeMap<NodeId, i64>,
    refused: BTreeMap<&'static str, u64>,
    health: HealthView,
    rounds: u64,
    next_tick: Moment,
    random: u64,
    out: GossipEffects<T>,
}

/// Parts to be made durable together.
struct Batch<T> {
    /// This node's own writes have a responder.
    parts: Vec<(Part, Option<T>)>,
    bytes: usize,
    /// Whoever has more of this.
    again: Option<NodeId>,
}

impl<T> Default for Batch<T> {
    fn default() -> Batch<T> {
        Batch { parts: Vec::new(), bytes: 0, again: None }
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
        let Recovered { journal, keyspace, own, clock, .. } = recovered;
        let mut clock = HybridClock::after(clock);
        let mut node_states = NodeStates::default();
        node_states.begin(node, Incarnation(clock.tick(now.wall).0));
        let mut detector = Detector::new(config.period);
        detector.watch(now.moment, topology.nodes.keys().copied().filter(|&other| other != node));
        node_states.say(node, &Fact::Epoch(topology.epoch));
        Gossip {
            node,
            config,
            topology,
            node_states,
            keyspace,
            own,
            clock,
            wants_state: !journal.is_begun(),
            journal,
            staged: Batch::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            reserved: Seen::new(),
            next_batch: 1,
            detector,
            collector: Collector::new(config.mutation),
            differences: BTreeMap::new(),
            offsets: BTreeMap::new(),
            refused: BTreeMap::new(),
            health: HealthView::default(),
            rounds: 0,
            next_tick: now.moment,
            random,
            out: GossipEffects::default(),
        }
    }

    /// When [`Gossip::handle_tick`] is due.
    pub fn next_tick(&self) -> Moment {
        self.next_tick
    }

    /// Reads a key: what is durable here.
    pub fn get(&self, key: &[u8]) -> Option<Found> {
        self.keyspace.get(key)
    }

    /// See [`Keyspace::scan`].
    pub fn scan(&self, prefix: &[u8], start_after: Option<&[u8]>, limit: usize) -> Page {
        self.keyspace.scan(prefix, start_after, limit)
    }

    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// What is thought of another member; nothing of this node itself, or of one that is no member.
    pub fn liveness(&self, node: NodeId, now: Moment) -> Option<Liveness> {
        self.detector.liveness(node, now)
    }

    /// What is thought of each of the other members.
    pub fn all_liveness(&self, now: Moment) -> BTreeMap<NodeId, Liveness> {
        let members = self.topology.nodes.keys();
        members.filter_map(|&node| Some((node, self.liveness(node, now)?))).collect()
    }

    /// What a member says of itself, as far as it is known here.
    pub fn facts(&self, node: NodeId) -> impl Iterator<Item = Fact> {
        self.node_states.facts(node)
    }

    /// How often what kind of message was refused.
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// Periods since the start.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// This node says something of itself to all others.
    pub fn say(&mut self, fact: &Fact) {
        self.node_states.say(self.node, fact);
    }

    /// Begins a round, if it is time.
    pub fn handle_tick(&mut self, now: Now) {
        if now.moment < self.next_tick {
            return;
        }
        self.next_tick = now.moment + self.config.period;
        self.rounds += 1;
        self.node_states.beat(self.node);
        self.detector.handle_tick(now.moment);
        // A node that differs may have skipped a tombstone: it must find it here still.
        if self.rounds.is_multiple_of(COLLECT_PERIODS) && self.differences.is_empty() {
            let others = self.topology.nodes.keys().copied().filter(|&other| other != self.node);
            self.collector.collect(&mut self.keyspace, others, self.topology.epoch);
        }
        let mut others: Vec<NodeId> = self.topology.nodes.keys().copied().filter(|&node| node != self.node).collect();
        for _ in 0..self.config.fan_out.min(others.len()) {
            let picked = self.random() as usize % others.len();
            self.ask(now.wall, others.swap_remove(picked));
        }
    }

    /// There is a newer topology.
    pub fn handle_topology(&mut self, now: Moment, topology: Arc<Topology>) {
        if topology.epoch <= self.topology.epoch {
            return;
        }
        let others = topology.nodes.keys().copied().filter(|&node| node != self.node);
        self.detector.watch(now, others);
        let is_member = |node| topology.nodes.contains_key(&node);
        self.node_states.retain(is_member);
        self.collector.retain(is_member);
        self.differences.retain(|&node, _| is_member(node));
        self.offsets.retain(|&node, _| is_member(node));
        self.node_states.say(self.node, &Fact::Epoch(topology.epoch));
        self.topology = topology;
    }

    /// Sets a key, or deletes it. The reply to `responder` comes when that is durable here.
    pub fn handle_write(&mut self, now: Now, key: Bytes, value: Option<Bytes>, responder: T) {
        if let Err(error) = self.check_write(&key, value.as_ref()) {
            self.out.replies.push((responder, Err(error)));
            return;
        }
        let own = match self.own {
            Some(own) => own,
            None => self.begin_origin(),
        };
        let after = self.reserved(own);
        let version = after.next();
        let timestamp = self.clock.tick(now.wall);
        let entries = vec![Entry { version, timestamp, key, value }];
        let part = Part { origin: own, after, upto: version, entries };
        if self.config.mutation.is(Mutation::AnswerEventualEarly) {
            self.out.replies.push((responder, Ok(Written { timestamp, existed: false })));
            return self.stage(part, None);
        }
        self.stage(part, Some(responder));
    }

    /// The batch of this number, and all before it, are durable.
    pub fn handle_persisted(&mut self, now: Now, number: u64) {
        while self.pending.front().is_some_and(|(pending, _)| *pending <= number) {
            let Some((_, batch)) = self.pending.pop_front() else { break };
            self.pending_bytes -= batch.bytes;
            for (part, responder) in batch.parts {
                if let Some(responder) = responder {
                    let written = part.entries.first().map(|entry| Written {
                        timestamp: entry.timestamp,
                        existed: self.keyspace.get(&entry.key).is_some(),
                    });
                    let written = written.expect("a write is a part of one entry");
                    self.out.replies.push((responder, Ok(written)));
                }
                self.keyspace.merge(part);
            }
            if let Some(node) = batch.again {
                self.ask(now.wall, node);
            }
        }
        if self.pending.is_empty() && self.staged.parts.is_empty() {
            self.reserved.clear();
        }
    }

    /// The log would like to give back a segment that the keyspace needs.
    pub fn handle_log_pressure(&mut self) {
        self.wants_state = true;
    }

    /// What is to be done since the last call.
    pub fn take_effects(&mut self) -> GossipEffects<T> {
        // A state has all that is durable, and takes the place of the parts before it in the log: so it waits until
        // none is on its way to the disk, and the next parts wait for it.
        let mut items = Vec::new();
        let waits = self.wants_state && !self.pending.is_empty();
        if self.wants_state && !waits {
            self.wants_state = false;
            let latest = self.clock.latest();
            items.push(self.journal.state(&self.keyspace, self.own, latest));
        }
        if !self.staged.parts.is_empty() && !waits {
            items.push(self.journal.parts(self.staged.parts.iter().map(|(part, _)| part), self.own));
        }
        if !items.is_empty() {
            let number = self.next_batch;
            self.next_batch += 1;
            let batch = std::mem::take(&mut self.staged);
            self.pending.push_back((number, batch));
            self.out.log = Some(LogBatch { number, items });
        }
        self.publish_health();
        std::mem::take(&mut self.out)
    }

    fn check_write(&self, key: &Bytes, value: Option<&Bytes>) -> Result<(), WriteError> {
        let bytes = key.len() + value.map_or(0, Bytes::len);
        if bytes > MAX_EVENTUAL_ENTRY_BYTES {
            return Err(WriteError::TooLarge(bytes));
        }
        if self.pending_bytes >= MAX_EVENTUAL_PENDING_BYTES {
            return Err(WriteError::Overloaded);
        }
        // A deletion of what is here makes room, by and by.
        let makes_room = value.is_none() && self.keyspace.get(key).is_some();
        if !makes_room && self.keyspace.bytes() + self.pending_bytes + cost(key, value) > MAX_EVENTUAL_BYTES {
            return Err(WriteError::Full);
        }
        Ok(())
    }

    fn stage(&mut self, part: Part, responder: Option<T>) {
        let bytes: usize = part.entries.iter().map(|entry| cost(&entry.key, entry.value.as_ref())).sum();
        self.pending_bytes += bytes;
        self.staged.bytes += bytes;
        let reserved = self.reserved.entry(part.origin).or_default();
        *reserved = part.upto.max(*reserved);
        self.staged.parts.push((part, responder));
    }

    /// The version of an origin up to which everything is here or on its way to the disk.
    fn reserved(&self, origin: Origin) -> Version {
        let reserved = self.reserved.get(&origin).copied().unwrap_or_default();
        reserved.max(self.keyspace.seen(origin))
    }

    /// Numbers this node's writes from 1 on again, under a name that it never had.
    fn begin_origin(&mut self) -> Origin {
        let origin = Origin { node: self.node, incarnation: Incarnation(self.random()) };
        self.own = Some(origin);
        origin
    }

    /// The next number of a sequence that looks random (splitmix64, Steele et al. 2014). Never zero.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1)
    }
}
