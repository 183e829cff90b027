//! Messages between the nodes' controllers ([`ringfort_core::control::codec`]).

use super::system::{self, TOPOLOGY_BOUND};
use crate::allocation::Bound;
use crate::codec::{Codec, check, encoding};
use crate::source::Source;
use bytes::Bytes;
use ringfort_core::control::codec::{decode, encode};
use ringfort_core::message::{Announcement, ControlMessage, ShardReport, Step, StepRequest};
use ringfort_core::system::Addresses;
use ringfort_core::system::topology::MAX_NAME_BYTES;
use ringfort_core::types::{Epoch, ReplicaId, ShardId, Term};
use std::sync::Arc;

pub struct Messages;

impl Codec for Messages {
    type Value = ControlMessage;
    /// False because topologies in messages are not canonical.
    const CANONICAL: bool = false;
    const BOUND: Bound =
        TOPOLOGY_BOUND.or(Bound::of_elements::<(ShardId, Term)>(2)).or(Bound::of_elements::<ReplicaId>(1));

    fn draw(source: &mut Source) -> ControlMessage {
        match source.below(4) {
            0 => ControlMessage::Announcement(Announcement {
                epoch: Epoch(source.number()),
                leads: source.list(|source| (system::shard(source), term(source))),
                addresses: Addresses { raft: source.text(MAX_NAME_BYTES), grpc: source.text(MAX_NAME_BYTES) },
            }),
            1 => ControlMessage::Topology(Arc::new(system::topology(source))),
            2 => ControlMessage::Report(ShardReport {
                shard: system::shard(source),
                leader: system::replica(source),
                term: term(source),
                configuration: source.number(),
                voters: source.list(system::replica),
                outgoing: source.list(system::replica),
                learners: source.list(system::replica),
                caught_up: source.list(system::replica),
                confirmed: source.list(system::replica),
                copied_bytes: source.number(),
            }),
            _ => ControlMessage::Step(StepRequest {
                shard: system::shard(source),
                leader: system::replica(source),
                term: term(source),
                configuration: source.number(),
                step: step(source),
            }),
        }
    }

    fn encode(message: &ControlMessage) -> Bytes {
        encode(message)
    }

    fn decode(bytes: Bytes) -> Option<ControlMessage> {
        decode(&bytes).ok()
    }
}

fn step(source: &mut Source) -> Step {
    match source.below(3) {
        0 => Step::AddLearner(system::replica(source)),
        1 => Step::Change { promote: source.list(system::replica), remove: source.list(system::replica) },
        _ => Step::TransferLeadership(system::replica(source)),
    }
}

fn term(source: &mut Source) -> Term {
    Term(source.number())
}

pub fn body(data: &[u8]) {
    check::<Messages>(data);
}

pub fn seed(data: &[u8]) -> Bytes {
    encoding::<Messages>(data)
}
