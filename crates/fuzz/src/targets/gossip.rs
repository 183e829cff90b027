//! Gossip ([`ringfort_core::gossip::message`]): digests, and deltas of node states and of the eventual keyspace.
//!
//! Messages come from other nodes, parts of the keyspace also from the log. Node states are encoded inside the message
//! and only decoded when they are read; this target reads them at once.

use super::system;
use crate::allocation::{Bound, MAP_GROWTH, SMALL_THINGS, within};
use crate::codec::{Codec, check, encoding};
use crate::source::Source;
use bytes::Bytes;
use ringfort_core::eventual::keyspace::{Entry, Keyspace, Part};
use ringfort_core::gossip::message::{Body, Delta, Digest, Exchange, Message};
use ringfort_core::gossip::node_state::{Heard, NodeStatePart, NodeStates};
use ringfort_core::time::{HlcTimestamp, Wall};
use ringfort_core::types::{Epoch, ShardId};
use ringfort_core::version::{Incarnation, Origin, Version, VersionVector};

pub struct Messages;

/// The elements, with the least that each takes as bytes. The map with the smallest ones has nodes of three bytes.
const BOUND: Bound = Bound::of_elements::<NodeStatePart>(5)
    .or(Bound::of_elements::<(Version, u8, Bytes)>(3))
    .or(Bound::of_elements::<Part>(12))
    .or(Bound::of_elements::<Entry>(4))
    .or(Bound { fixed: SMALL_THINGS, per_byte: MAP_GROWTH * size_of::<(u64, (u64, u64))>() / 3 });

/// A keyspace built from parts: an entry is in two maps, and its key is reference-counted.
pub const KEYSPACE_BOUND: Bound = BOUND
    .and(Bound { fixed: SMALL_THINGS, per_byte: MAP_GROWTH * (size_of::<Bytes>() + size_of::<Entry>()) / 4 })
    .and(Bound { fixed: 0, per_byte: MAP_GROWTH * (size_of::<Version>() + size_of::<Bytes>()) / 4 + 24 });

impl Codec for Messages {
    type Value = Message;
    const CANONICAL: bool = true;
    const BOUND: Bound = BOUND;

    fn draw(source: &mut Source) -> Message {
        let body = match source.below(5) {
            0 => Body::Ask(digest(source)),
            1 => Body::Answer(digest(source), delta(source)),
            2 => Body::Give(delta(source)),
            3 => Body::Compare(digest(source), seen(source)),
            _ => Body::All(digest(source), delta(source)),
        };
        Message { from: system::node(source), to: system::node(source), body }
    }

    fn encode(message: &Message) -> Bytes {
        message.encode()
    }

    fn decode(bytes: Bytes) -> Option<Message> {
        Message::decode(&bytes).ok()
    }
}

fn digest(source: &mut Source) -> Digest {
    Digest {
        exchange: exchange(source),
        wall: Wall(source.number()),
        epoch: Epoch(source.number()),
        hash: source.number(),
        heard: Heard::from_iter(source.list(|source| {
            let node = system::node(source);
            (node, (Incarnation(source.number()), Version(source.number())))
        })),
        seen: seen(source),
    }
}

fn delta(source: &mut Source) -> Delta {
    Delta {
        exchange: exchange(source),
        node_states: source.list(node_state_part),
        parts: source.list(part),
        more: source.flag(),
    }
}

fn exchange(source: &mut Source) -> Exchange {
    Exchange { incarnation: Incarnation(source.number()), version: Version(source.number()) }
}

fn seen(source: &mut Source) -> VersionVector {
    VersionVector::from_iter(source.list(|source| (origin(source), Version(source.number()))))
}

pub fn origin(source: &mut Source) -> Origin {
    Origin { node: system::node(source), incarnation: Incarnation(source.number()) }
}

/// Versions and timestamps ascend from entry to entry.
pub fn part(source: &mut Source) -> Part {
    let after = source.number() >> 8;
    let (mut version, mut timestamp) = (after, 0);
    let entries = source.list(|source| {
        version += 1 + (source.number() >> 32);
        timestamp += 1 + (source.number() >> 32);
        let (version, timestamp) = (Version(version), HlcTimestamp(timestamp));
        Entry { version, timestamp, key: source.bytes(), value: source.option(Source::bytes) }
    });
    let upto = Version(version + (source.number() >> 8));
    Part { origin: origin(source), after: Version(after), upto, entries }
}

fn node_state_part(source: &mut Source) -> NodeStatePart {
    let after = source.number() >> 8;
    let mut version = after;
    let facts = source.list(|source| {
        version += 1 + (source.number() >> 32);
        (Version(version), source.below(26) as u8, source.bytes())
    });
    let upto = Version(version + (source.number() >> 8));
    let (node, incarnation) = (system::node(source), Incarnation(source.number()));
    NodeStatePart { node, incarnation, after: Version(after), upto, facts }
}

/// Merges the content of a message as far as possible, and reads it.
fn take_over(data: &[u8]) {
    let Ok(Message { body: Body::Give(delta) | Body::Answer(_, delta) | Body::All(_, delta), .. }) =
        Message::decode(data)
    else {
        return;
    };
    let (mut node_states, mut keyspace) = (NodeStates::default(), Keyspace::default());
    for part in delta.node_states {
        let node = part.node;
        let bytes = part.facts.iter().map(|(.., content)| content.len()).sum();
        if node_states.follows(&part) {
            node_states.merge(part);
            // The shards that a node leads take a byte each.
            within(Bound::of_elements::<ShardId>(1), bytes, || node_states.facts(node).for_each(drop));
        }
    }
    for part in delta.parts {
        if part.after <= keyspace.seen(part.origin) {
            keyspace.merge(part);
        }
    }
}

pub fn body(data: &[u8]) {
    check::<Messages>(data);
    take_over(data);
    take_over(&seed(data));
}

pub fn seed(data: &[u8]) -> Bytes {
    encoding::<Messages>(data)
}
