//! What each node reports about itself: small, never on disk, replaced as a whole when the node restarts.
//!
//! A node versions its reports with one counter, which it also increments once a round without reporting anything: that
//! is its heartbeat. (incarnation, version) only grows, and other nodes accept only what is larger, so copies converge
//! to the node's own report whichever way they arrived. Incarnations grow from start to start: they are timestamps of
//! the wall clock, and a node that learns of a larger incarnation of itself picks one above it.
//!
//! Facts are stored as bytes under a kind number, so that facts of later versions of the program travel through earlier
//! ones.

use crate::codec::{CodecError, Reader, put_bytes, put_u64, put_varint};
use crate::health::NodeHealth;
use crate::limits::{MAX_POINTS, POINT_PARTS};
use crate::types::{Epoch, LogIndex, NodeId, Point, ReplicaId, ShardId};
use crate::version::{Incarnation, Version};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The maximal size of a fact. A part with a larger one is refused.
pub const MAX_FACT_BYTES: usize = 64 << 10;

/// The maximal number of facts of a node. A part with more is refused.
pub const MAX_FACTS: usize = 32;

const MAX_TEXT_BYTES: usize = 255;

/// The kind of [`Fact::Health`].
const HEALTH: u8 = 5;

/// The kind of the first group of points; the kinds of the other groups follow it.
const FIRST_POINTS: u8 = 16;
const LAST_POINTS: u8 = FIRST_POINTS + POINT_PARTS - 1;

/// The maximal size of an encoded point.
const POINT_BYTES: usize = 5 + 10 + 10 + 8;

const _: () = assert!(LAST_POINTS as usize - (FIRST_POINTS as usize) < MAX_FACTS / 2);
const _: () = assert!(MAX_POINTS * POINT_BYTES <= MAX_FACT_BYTES);

/// Something that a node reports about itself. The latest of each kind counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The epoch of the node's latest topology.
    Epoch(Epoch),
    /// The node's program version.
    Build(String),
    Load(Load),
    /// The shards that the node leads.
    Leads(Vec<ShardId>),
    /// Whether the node is fit to lead.
    Health(NodeHealth),
    /// Hashes of the node's replica states, for comparison: those of one group of shards, ascending. See
    /// [`divergence`](crate::divergence).
    Points(u8, Vec<Point>),
}

/// A node's load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    pub replicas: u64,
    pub keys: u64,
    /// Memory used by keys and values.
    pub key_value_bytes: u64,
    /// Size of the segments of its log.
    pub log_bytes: u64,
}

/// A node's facts with versions above `after` and up to `upto`.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeStatePart {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub after: Version,
    pub upto: Version,
    /// (version, kind, content).
    pub facts: Vec<(Version, u8, Bytes)>,
}

/// The states of all nodes, including this one.
#[derive(Default)]
pub struct NodeStates {
    nodes: BTreeMap<NodeId, Known>,
}

#[derive(Clone, Default)]
struct Known {
    incarnation: Incarnation,
    version: Version,
    facts: BTreeMap<u8, (Version, Bytes)>,
}

/// The latest incarnation and version of each node that a node has heard of.
pub type Heard = BTreeMap<NodeId, (Incarnation, Version)>;

impl NodeStates {
    /// Begins a new incarnation of `node`, which keeps its facts.
    pub fn begin(&mut self, node: NodeId, incarnation: Incarnation) {
        let known = self.nodes.entry(node).or_default();
        known.incarnation = incarnation;
        known.version = Version(known.facts.len() as u64);
        for ((version, _), number) in known.facts.values_mut().zip(1..) {
            *version = Version(number);
        }
    }

    /// Records a fact about `node`, unless it is unchanged.
    pub fn say(&mut self, node: NodeId, fact: &Fact) {
        let known = self.nodes.entry(node).or_default();
        let content = fact.encode();
        if known.facts.get(&fact.kind()).is_none_or(|(_, said)| *said != content) {
            known.version = known.version.next();
            known.facts.insert(fact.kind(), (known.version, content));
        }
    }

    /// Increments the heartbeat of `node`.
    pub fn beat(&mut self, node: NodeId) {
        let known = self.nodes.entry(node).or_default();
        known.version = known.version.next();
    }

    /// The latest incarnation and version of `node` that is known here.
    pub fn heard(&self, node: NodeId) -> (Incarnation, Version) {
        self.nodes.get(&node).map_or_else(Default::default, |known| (known.incarnation, known.version))
    }

    pub fn all_heard(&self) -> Heard {
        self.nodes.iter().map(|(&node, known)| (node, (known.incarnation, known.version))).collect()
    }

    /// The facts that `node` reported, as far as this version of the program understands them.
    pub fn facts(&self, node: NodeId) -> impl Iterator<Item = Fact> {
        let facts = self.nodes.get(&node).into_iter().flat_map(|known| &known.facts);
        facts.filter_map(|(&kind, (_, content))| Fact::decode(kind, content).ok().flatten())
    }

    /// The health that `node` reported, if any.
    pub fn health(&self, node: NodeId) -> Option<NodeHealth> {
        let (_, content) = self.nodes.get(&node)?.facts.get(&HEALTH)?;
        match Fact::decode(HEALTH, content) {
            Ok(Some(Fact::Health(health))) => Some(health),
            _ => None,
        }
    }

    /// Forgets the nodes that are not members.
    pub fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.nodes.retain(|node, _| is_member(*node));
    }

    /// Whether a part can be merged without a gap. A part of an earlier incarnation can, because it changes nothing.
    pub fn follows(&self, part: &NodeStatePart) -> bool {
        let (incarnation, version) = self.heard(part.node);
        match part.incarnation.cmp(&incarnation) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => part.after <= version,
            std::cmp::Ordering::Greater => part.after == Version::default(),
        }
    }

    /// Merges a part.
    ///
    /// # Panics
    /// If it leaves a gap.
    pub fn merge(&mut self, part: NodeStatePart) {
        assert!(self.follows(&part), "a part of node {} leaves a gap", part.node);
        let known = self.nodes.entry(part.node).or_default();
        if (part.incarnation, part.upto) <= (known.incarnation, known.version) {
            return;
        }
        if part.incarnation > known.incarnation {
            *known = Known { incarnation: part.incarnation, ..Known::default() };
        }
        for (version, kind, content) in part.facts {
            if version > known.version {
                known.facts.insert(kind, (version, content));
            }
        }
        known.version = part.upto;
    }

    /// The parts that a node that has heard `heard` lacks, up to about `budget` bytes. Nodes are not split; the
    /// `first`-th comes first.
    pub fn parts_for(&self, heard: &Heard, budget: usize, first: u64) -> Vec<NodeStatePart> {
        let mut nodes: Vec<(NodeId, &Known, Version)> = Vec::new();
        for (&node, known) in &self.nodes {
            let after = match heard.get(&node) {
                Some(heard) if *heard >= (known.incarnation, known.version) => continue,
                Some((incarnation, version)) if *incarnation == known.incarnation => *version,
                _ => Version::default(),
            };
            nodes.push((node, known, after));
        }
        if !nodes.is_empty() {
            let first = first as usize % nodes.len();
            nodes.rotate_left(first);
        }
        let mut parts = Vec::new();
        let mut bytes = 0;
        for (node, known, after) in nodes {
            if bytes >= budget {
                break;
            }
            let mut facts: Vec<(Version, u8, Bytes)> = Vec::new();
            for (&kind, (version, content)) in &known.facts {
                if *version > after {
                    bytes += content.len();
                    facts.push((*version, kind, content.clone()));
                }
            }
            facts.sort_unstable_by_key(|(version, ..)| *version);
            bytes += 24;
            parts.push(NodeStatePart { node, incarnation: known.incarnation, after, upto: known.version, facts });
        }
        parts
    }
}

impl Fact {
    fn kind(&self) -> u8 {
        match self {
            Fact::Epoch(_) => 1,
            Fact::Build(_) => 2,
            Fact::Load(_) => 3,
            Fact::Leads(_) => 4,
            Fact::Health(_) => HEALTH,
            Fact::Points(part, _) => FIRST_POINTS + part,
        }
    }

    fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Fact::Epoch(epoch) => put_varint(&mut out, epoch.0),
            Fact::Build(version) => put_bytes(&mut out, version.as_bytes()),
            Fact::Load(Load { replicas, keys, key_value_bytes, log_bytes }) => {
                for value in [replicas, keys, key_value_bytes, log_bytes] {
                    put_varint(&mut out, *value);
                }
            }
            Fact::Leads(leads) => {
                for shard in leads {
                    put_varint(&mut out, u64::from(shard.0));
                }
            }
            Fact::Health(health) => health.encode(&mut out),
            Fact::Points(_, points) => {
                for point in points {
                    put_varint(&mut out, u64::from(point.shard.0));
                    put_varint(&mut out, point.replica.0);
                    put_varint(&mut out, point.index.0);
                    put_u64(&mut out, point.hash);
                }
            }
        }
        out.into()
    }

    /// None for a kind that this version of the program does not know.
    fn decode(kind: u8, content: &[u8]) -> Result<Option<Fact>, CodecError> {
        let mut reader = Reader::new(content);
        let fact = match kind {
            1 => Fact::Epoch(Epoch(reader.varint()?)),
            2 => Fact::Build(text(&mut reader)?),
            3 => Fact::Load(Load {
                replicas: reader.varint()?,
                keys: reader.varint()?,
                key_value_bytes: reader.varint()?,
                log_bytes: reader.varint()?,
            }),
            4 => {
                let mut leads = Vec::new();
                while !reader.is_empty() {
                    leads.push(shard(&mut reader)?);
                }
                Fact::Leads(leads)
            }
            HEALTH => Fact::Health(NodeHealth::decode(&mut reader)?),
            FIRST_POINTS..=LAST_POINTS => {
                let mut points: Vec<Point> = Vec::new();
                while !reader.is_empty() {
                    let (shard, replica) = (shard(&mut reader)?, ReplicaId(reader.varint()?));
                    points.push(Point { shard, replica, index: LogIndex(reader.varint()?), hash: reader.u64()? });
                }
                Fact::Points(kind - FIRST_POINTS, points)
            }
            _ => return Ok(None),
        };
        reader.expect_end()?;
        Ok(Some(fact))
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, CodecError> {
    Ok(String::from_utf8_lossy(reader.bytes(MAX_TEXT_BYTES)?).into_owned())
}

fn shard(reader: &mut Reader<'_>) -> Result<ShardId, CodecError> {
    u32::try_from(reader.varint()?).map(ShardId).map_err(|_| CodecError::Varint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::DiskState;
    use proptest::prelude::*;

    const NODE: NodeId = NodeId(3);

    fn speaker() -> NodeStates {
        let mut node_states = NodeStates::default();
        node_states.begin(NODE, Incarnation(5));
        node_states.say(NODE, &Fact::Epoch(Epoch(1)));
        node_states.beat(NODE);
        node_states.say(NODE, &Fact::Build("1.0".into()));
        node_states
    }

    #[test]
    fn facts_survive_their_encoding() {
        let facts = [
            Fact::Epoch(Epoch(900)),
            Fact::Build("0.1.0".into()),
            Fact::Load(Load { replicas: 1, keys: 200, key_value_bytes: 70_000, log_bytes: 1 << 40 }),
            Fact::Leads(vec![ShardId(0), ShardId::SYSTEM]),
            Fact::Health(NodeHealth { disk: DiskState::Hung, sync_latency_ms: 4096, is_stopping: true }),
            Fact::Points(0, vec![]),
            Fact::Points(
                7,
                [7, 15]
                    .map(|shard| Point {
                        shard: ShardId(shard),
                        replica: ReplicaId(1 << 33),
                        index: LogIndex(900),
                        hash: u64::MAX,
                    })
                    .into(),
            ),
        ];
        for fact in facts {
            assert_eq!(Fact::decode(fact.kind(), &fact.encode()), Ok(Some(fact)));
        }
        assert_eq!(Fact::decode(200, b"of a later version"), Ok(None));
    }

    #[test]
    fn a_copy_takes_over_what_is_new_and_a_restart_as_a_whole() {
        let mut node_states = speaker();
        let mut copy = NodeStates::default();
        for part in node_states.parts_for(&copy.all_heard(), 1000, 0) {
            copy.merge(part);
        }
        assert_eq!(copy.facts(NODE).collect::<Vec<_>>(), node_states.facts(NODE).collect::<Vec<_>>());
        node_states.beat(NODE);
        let beat = node_states.parts_for(&copy.all_heard(), 1000, 0);
        assert_eq!((beat.len(), beat[0].facts.len()), (1, 0), "a heartbeat repeats nothing");
        let mut restarted = NodeStates::default();
        restarted.begin(NODE, Incarnation(6));
        restarted.say(NODE, &Fact::Epoch(Epoch(2)));
        restarted.parts_for(&copy.all_heard(), 1000, 0).into_iter().for_each(|part| copy.merge(part));
        beat.into_iter().for_each(|part| copy.merge(part));
        assert_eq!(copy.facts(NODE).collect::<Vec<_>>(), [Fact::Epoch(Epoch(2))]);
        assert!(!copy.follows(&NodeStatePart {
            node: NODE,
            incarnation: Incarnation(6),
            after: Version(9),
            upto: Version(10),
            facts: vec![]
        }));
    }

    #[test]
    fn saying_the_same_again_is_nothing_new_and_beginning_again_repeats_all() {
        let mut node_states = speaker();
        let before = node_states.heard(NODE);
        node_states.say(NODE, &Fact::Epoch(Epoch(1)));
        assert_eq!(node_states.heard(NODE), before);
        node_states.begin(NODE, Incarnation(9));
        let parts = node_states.parts_for(&Heard::from([(NODE, before)]), 1000, 0);
        assert_eq!((parts[0].after, parts[0].upto, parts[0].facts.len()), (Version(0), Version(2), 2));
    }

    proptest! {
        #[test]
        fn no_content_makes_it_panic(kind in 0..32u8, content in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Fact::decode(kind, &content);
        }
    }
}
