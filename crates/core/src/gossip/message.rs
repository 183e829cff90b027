//! Gossip messages, as values and as bytes.
//!
//! An exchange takes three messages: a [`Digest`] of the first node, the second node's digest with the delta that the
//! first lacks, and the delta that the second lacks. A repair is a series of two other messages, a request and its
//! answer. The encoding is our own codec, with one encoding for each value; decoding never panics and allocates no more
//! than the input justifies. Parts of the keyspace are encoded the same way on the wire and in the log.

use super::node_state::{Heard, MAX_FACT_BYTES, MAX_FACTS, NodeStatePart};
use crate::codec::{Reader, put_bytes, put_u64, put_varint};
use crate::eventual::codec::{DecodeError, part, put_part, put_versions, versions};
use crate::eventual::keyspace::Part;
use crate::limits::MAX_GOSSIP_MESSAGE_BYTES;
use crate::time::Wall;
use crate::types::{Epoch, NodeId};
use crate::version::{Incarnation, Version, VersionVector};
use bytes::Bytes;

const FORMAT: u8 = 1;

/// Why bytes are not a valid message. No state was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("{0} bytes, more than a message may have")]
    TooLarge(usize),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub from: NodeId,
    pub to: NodeId,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Starts an exchange.
    Ask(Digest),
    /// The answer to `Ask`: the answering node's digest, and the delta that the asking node lacks.
    Answer(Digest, Delta),
    /// The end of an exchange: the delta that the answering node lacks.
    Give(Delta),
    /// Asks a node that has seen the same versions but holds other values for everything it holds above these versions.
    Compare(Digest, VersionVector),
    /// The answer to `Compare`.
    All(Digest, Delta),
}

/// Summary of what the sender has; all of it is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    /// Identifies this digest. The delta that answers it repeats this.
    pub exchange: Exchange,
    /// The sender's wall clock.
    pub wall: Wall,
    /// The epoch of the sender's topology, which decides from which nodes it accepts messages.
    pub epoch: Epoch,
    /// The hash of the sender's keyspace.
    pub hash: u64,
    pub heard: Heard,
    pub seen: VersionVector,
}

/// Identifies a digest by the incarnation and the version that its sender had when it sent the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub incarnation: Incarnation,
    pub version: Version,
}

/// The updates that the receiver lacked when it sent the digest that this delta answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    pub exchange: Exchange,
    pub node_states: Vec<NodeStatePart>,
    pub parts: Vec<Part>,
    /// Whether there is more than fits into this message.
    pub more: bool,
}

impl Message {
    pub fn encode(&self) -> Bytes {
        let kind = match self.body {
            Body::Ask(_) => 1,
            Body::Answer(..) => 2,
            Body::Give(_) => 3,
            Body::Compare(..) => 4,
            Body::All(..) => 5,
        };
        let mut out = vec![FORMAT, kind];
        put_varint(&mut out, self.from.0);
        put_varint(&mut out, self.to.0);
        match &self.body {
            Body::Ask(digest) => put_digest(&mut out, digest),
            Body::Compare(digest, cursor) => {
                put_digest(&mut out, digest);
                put_versions(&mut out, cursor);
            }
            Body::Answer(digest, delta) | Body::All(digest, delta) => {
                put_digest(&mut out, digest);
                put_delta(&mut out, delta);
            }
            Body::Give(delta) => put_delta(&mut out, delta),
        }
        out.into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
        if bytes.len() > MAX_GOSSIP_MESSAGE_BYTES {
            return Err(MessageError::TooLarge(bytes.len()));
        }
        Ok(decode(&mut Reader::new(bytes))?)
    }
}

fn decode(reader: &mut Reader<'_>) -> Result<Message, DecodeError> {
    match reader.u8()? {
        FORMAT => {}
        other => return Err(DecodeError::Format(other)),
    }
    let kind = reader.u8()?;
    let (from, to) = (NodeId(reader.varint()?), NodeId(reader.varint()?));
    let body = match kind {
        1 => Body::Ask(digest(reader)?),
        2 => Body::Answer(digest(reader)?, delta(reader)?),
        3 => Body::Give(delta(reader)?),
        4 => Body::Compare(digest(reader)?, versions(reader)?),
        5 => Body::All(digest(reader)?, delta(reader)?),
        _ => return Err(DecodeError::Kind("message")),
    };
    reader.expect_end()?;
    Ok(Message { from, to, body })
}

fn put_exchange(out: &mut Vec<u8>, exchange: Exchange) {
    put_varint(out, exchange.incarnation.0);
    put_varint(out, exchange.version.0);
}

fn exchange(reader: &mut Reader<'_>) -> Result<Exchange, DecodeError> {
    Ok(Exchange { incarnation: Incarnation(reader.varint()?), version: Version(reader.varint()?) })
}

fn put_digest(out: &mut Vec<u8>, digest: &Digest) {
    put_exchange(out, digest.exchange);
    put_varint(out, digest.wall.0);
    put_varint(out, digest.epoch.0);
    put_u64(out, digest.hash);
    put_varint(out, digest.heard.len() as u64);
    for (node, (incarnation, version)) in &digest.heard {
        put_varint(out, node.0);
        put_exchange(out, Exchange { incarnation: *incarnation, version: *version });
    }
    put_versions(out, &digest.seen);
}

fn digest(reader: &mut Reader<'_>) -> Result<Digest, DecodeError> {
    let exchange_of_sender = exchange(reader)?;
    let (wall, epoch, hash) = (Wall(reader.varint()?), Epoch(reader.varint()?), reader.u64()?);
    let mut heard = Heard::new();
    for _ in 0..reader.varint()? {
        let node = NodeId(reader.varint()?);
        let Exchange { incarnation, version } = exchange(reader)?;
        if heard.last_key_value().is_some_and(|(last, _)| *last >= node) {
            return Err(DecodeError::Order("nodes"));
        }
        heard.insert(node, (incarnation, version));
    }
    let seen = versions(reader)?;
    Ok(Digest { exchange: exchange_of_sender, wall, epoch, hash, heard, seen })
}

fn put_delta(out: &mut Vec<u8>, delta: &Delta) {
    put_exchange(out, delta.exchange);
    put_varint(out, delta.node_states.len() as u64);
    for part in &delta.node_states {
        put_varint(out, part.node.0);
        put_varint(out, part.incarnation.0);
        put_varint(out, part.after.0);
        put_varint(out, part.upto.0 - part.after.0);
        put_varint(out, part.facts.len() as u64);
        for (version, kind, content) in &part.facts {
            put_varint(out, version.0 - part.after.0);
            out.push(*kind);
            put_bytes(out, content);
        }
    }
    put_varint(out, delta.parts.len() as u64);
    delta.parts.iter().for_each(|part| put_part(out, part));
    out.push(u8::from(delta.more));
}

fn delta(reader: &mut Reader<'_>) -> Result<Delta, DecodeError> {
    let exchange = exchange(reader)?;
    let mut node_states = Vec::new();
    for _ in 0..reader.varint()? {
        node_states.push(node_state_part(reader)?);
    }
    let mut parts = Vec::new();
    for _ in 0..reader.varint()? {
        parts.push(part(reader)?);
    }
    let more = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Kind("end")),
    };
    Ok(Delta { exchange, node_states, parts, more })
}

fn node_state_part(reader: &mut Reader<'_>) -> Result<NodeStatePart, DecodeError> {
    let (node, incarnation) = (NodeId(reader.varint()?), Incarnation(reader.varint()?));
    let after = Version(reader.varint()?);
    let upto = Version(after.0.checked_add(reader.varint()?).ok_or(DecodeError::Order("versions"))?);
    let mut facts: Vec<(Version, u8, Bytes)> = Vec::new();
    for _ in 0..reader.varint()? {
        let version = Version(after.0.checked_add(reader.varint()?).ok_or(DecodeError::Order("facts"))?);
        let is_next = version > facts.last().map_or(after, |(last, ..)| *last) && version <= upto;
        if !is_next || facts.len() >= MAX_FACTS {
            return Err(DecodeError::Order("facts"));
        }
        let kind = reader.u8()?;
        facts.push((version, kind, Bytes::copy_from_slice(reader.bytes(MAX_FACT_BYTES)?)));
    }
    Ok(NodeStatePart { node, incarnation, after, upto, facts })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::codec::CodecError;
    use crate::eventual::codec::put_origin;
    use crate::eventual::keyspace::Entry;
    use crate::time::HlcTimestamp;
    use crate::version::Origin;
    use proptest::prelude::*;

    prop_compose! {
        pub(crate) fn any_part()(
            node in 1..5u64,
            incarnation in 1..3u64,
            after in 0..50u64,
            steps in prop::collection::vec((1..9u64, 1..9u64, any::<[u8; 2]>(), prop::option::of(any::<[u8; 3]>())), 0..5),
            rest in 0..4u64,
        ) -> Part {
            let (mut version, mut timestamp) = (after, 100);
            let mut entries = Vec::new();
            for (versions, micros, key, value) in steps {
                (version, timestamp) = (version + versions, timestamp + micros);
                let (key, value) = (Bytes::copy_from_slice(&key), value.map(|value| Bytes::copy_from_slice(&value)));
                entries.push(Entry { version: Version(version), timestamp: HlcTimestamp(timestamp), key, value });
            }
            let origin = Origin { node: NodeId(node), incarnation: Incarnation(incarnation) };
            Part { origin, after: Version(after), upto: Version(version + rest), entries }
        }
    }

    prop_compose! {
        fn any_digest()(
            ids in any::<[u32; 5]>(),
            heard in prop::collection::btree_map(any::<u64>(), any::<(u64, u64)>(), 0..5),
            seen in prop::collection::btree_map(any::<(u64, u64)>(), any::<u64>(), 0..5),
        ) -> Digest {
            let [incarnation, version, wall, epoch, hash] = ids.map(u64::from);
            let heard = heard.into_iter().map(|(node, (incarnation, version))| {
                (NodeId(node), (Incarnation(incarnation), Version(version)))
            });
            let seen = seen.into_iter().map(|((node, incarnation), version)| {
                (Origin { node: NodeId(node), incarnation: Incarnation(incarnation) }, Version(version))
            });
            let exchange = Exchange { incarnation: Incarnation(incarnation), version: Version(version) };
            let (heard, seen) = (heard.collect(), seen.collect());
            Digest { exchange, wall: Wall(wall), epoch: Epoch(epoch), hash, heard, seen }
        }
    }

    prop_compose! {
        fn any_delta()(
            ids in any::<[u32; 4]>(),
            facts in prop::collection::vec((1..5u64, any::<u8>(), any::<[u8; 4]>()), 0..4),
            parts in prop::collection::vec(any_part(), 0..4),
            more: bool,
        ) -> Delta {
            let [incarnation, version, node, after] = ids.map(u64::from);
            let mut upto = after;
            let facts = facts.into_iter().map(|(step, kind, content)| {
                upto += step;
                (Version(upto), kind, Bytes::copy_from_slice(&content))
            });
            let facts = facts.collect();
            let (node, incarnation) = (NodeId(node), Incarnation(incarnation));
            let node_states = NodeStatePart { node, incarnation, after: Version(after), upto: Version(upto), facts };
            let exchange = Exchange { incarnation, version: Version(version) };
            Delta { exchange, node_states: vec![node_states], parts, more }
        }
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let body = prop_oneof![
            any_digest().prop_map(Body::Ask),
            (any_digest(), any_delta()).prop_map(|(digest, delta)| Body::Answer(digest, delta)),
            any_delta().prop_map(Body::Give),
            (any_digest(), any_digest()).prop_map(|(digest, other)| Body::Compare(digest, other.seen)),
            (any_digest(), any_delta()).prop_map(|(digest, delta)| Body::All(digest, delta)),
        ];
        (1..9u64, 1..9u64, body).prop_map(|(from, to, body)| Message { from: NodeId(from), to: NodeId(to), body })
    }

    proptest! {
        #[test]
        fn messages_survive_their_encoding_and_no_part_of_one_is_a_message(message in any_message()) {
            let bytes = message.encode();
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
            for length in 0..bytes.len() {
                prop_assert!(Message::decode(&bytes[..length]).is_err());
            }
        }

        #[test]
        fn damage_never_panics_and_what_is_accepted_has_one_encoding(
            message in any_message(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = message.encode().to_vec();
            for (position, byte) in damage {
                let position = position.index(bytes.len());
                bytes[position] = byte;
            }
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 1..4u8) {
            let _ = Message::decode(&[&[FORMAT, kind][..], &bytes].concat());
        }
    }

    #[test]
    fn counts_that_lie_allocate_nothing() {
        // A part that claims 2^63 entries: decoding stops where the bytes end.
        let mut bytes = vec![FORMAT, 3, 1, 2, 1, 1, 0, 1];
        put_origin(&mut bytes, Origin { node: NodeId(1), incarnation: Incarnation(1) });
        bytes.extend([0, 9]);
        put_varint(&mut bytes, 1 << 63);
        assert_eq!(Message::decode(&bytes), Err(MessageError::Decode(DecodeError::Codec(CodecError::Truncated))));
        let large = vec![FORMAT; MAX_GOSSIP_MESSAGE_BYTES + 1];
        assert_eq!(Message::decode(&large), Err(MessageError::TooLarge(large.len())));
    }

    #[test]
    fn a_part_is_pinned() {
        let entries = vec![
            Entry { version: Version(7), timestamp: HlcTimestamp(300), key: "k".into(), value: Some("vv".into()) },
            Entry { version: Version(9), timestamp: HlcTimestamp(301), key: "l".into(), value: None },
        ];
        let origin = Origin { node: NodeId(2), incarnation: Incarnation(0x0807_0605_0403_0201) };
        let mut bytes = Vec::new();
        put_part(&mut bytes, &Part { origin, after: Version(5), upto: Version(10), entries });
        let golden =
            [&[2, 1, 2, 3, 4, 5, 6, 7, 8, 5, 5, 2][..], &[2, 0xac, 2, 1, b'k', 1, 2, b'v', b'v'], &[2, 1, 1, b'l', 0]];
        assert_eq!(bytes, golden.concat());
    }
}
