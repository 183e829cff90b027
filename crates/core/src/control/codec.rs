//! Encoding of control messages: opaque to the wire protocol, pinned here.

use crate::codec::{CodecError, Reader, put_bytes, put_varint};
use crate::limits::MAX_PEER_MESSAGE_BYTES;
use crate::message::{Announcement, ControlMessage, ShardReport, Step, StepRequest};
use crate::system::topology::read_text;
use crate::system::{Addresses, DecodeError, Topology};
use crate::types::{Epoch, ReplicaId, ShardId, Term};
use bytes::Bytes;
use std::sync::Arc;

const ANNOUNCEMENT: u8 = 1;
const TOPOLOGY: u8 = 2;
const REPORT: u8 = 3;
const STEP: u8 = 4;

const ADD_LEARNER: u8 = 1;
const CHANGE: u8 = 2;
const TRANSFER: u8 = 3;

/// Encodes a message.
pub fn encode(message: &ControlMessage) -> Bytes {
    let mut out = Vec::new();
    match message {
        ControlMessage::Announcement(announcement) => {
            out.push(ANNOUNCEMENT);
            put_varint(&mut out, announcement.epoch.0);
            put_varint(&mut out, announcement.leads.len() as u64);
            for (shard, term) in &announcement.leads {
                put_varint(&mut out, u64::from(shard.0));
                put_varint(&mut out, term.0);
            }
            put_bytes(&mut out, announcement.addresses.raft.as_bytes());
            put_bytes(&mut out, announcement.addresses.grpc.as_bytes());
        }
        ControlMessage::Topology(topology) => {
            out.push(TOPOLOGY);
            put_bytes(&mut out, &topology.encode());
        }
        ControlMessage::Report(report) => {
            out.push(REPORT);
            put_head(&mut out, report.shard, report.leader, report.term, report.configuration);
            for replicas in [&report.voters, &report.outgoing, &report.learners, &report.caught_up, &report.confirmed] {
                put_replicas(&mut out, replicas);
            }
            put_varint(&mut out, report.copied_bytes);
        }
        ControlMessage::Step(request) => {
            out.push(STEP);
            put_head(&mut out, request.shard, request.leader, request.term, request.configuration);
            match &request.step {
                Step::AddLearner(replica) => {
                    out.push(ADD_LEARNER);
                    put_varint(&mut out, replica.0);
                }
                Step::Change { promote, remove } => {
                    out.push(CHANGE);
                    put_replicas(&mut out, promote);
                    put_replicas(&mut out, remove);
                }
                Step::TransferLeadership(replica) => {
                    out.push(TRANSFER);
                    put_varint(&mut out, replica.0);
                }
            }
        }
    }
    out.into()
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<ControlMessage, DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = match reader.u8()? {
        ANNOUNCEMENT => {
            let epoch = Epoch(reader.varint()?);
            let mut leads = Vec::new();
            for _ in 0..reader.varint()? {
                leads.push((shard(&mut reader)?, Term(reader.varint()?)));
            }
            let addresses = Addresses { raft: read_text(&mut reader)?, grpc: read_text(&mut reader)? };
            ControlMessage::Announcement(Announcement { epoch, leads, addresses })
        }
        TOPOLOGY => ControlMessage::Topology(Arc::new(Topology::decode(reader.bytes(MAX_PEER_MESSAGE_BYTES)?)?)),
        REPORT => {
            let (shard, leader, term, configuration) = head(&mut reader)?;
            let voters = replicas(&mut reader)?;
            let outgoing = replicas(&mut reader)?;
            let learners = replicas(&mut reader)?;
            let caught_up = replicas(&mut reader)?;
            let confirmed = replicas(&mut reader)?;
            let copied_bytes = reader.varint()?;
            ControlMessage::Report(ShardReport {
                shard,
                leader,
                term,
                configuration,
                voters,
                outgoing,
                learners,
                caught_up,
                confirmed,
                copied_bytes,
            })
        }
        STEP => {
            let (shard, leader, term, configuration) = head(&mut reader)?;
            let step = match reader.u8()? {
                ADD_LEARNER => Step::AddLearner(ReplicaId(reader.varint()?)),
                CHANGE => {
                    let promote = replicas(&mut reader)?;
                    Step::Change { promote, remove: replicas(&mut reader)? }
                }
                TRANSFER => Step::TransferLeadership(ReplicaId(reader.varint()?)),
                other => return Err(DecodeError::Operation(other)),
            };
            ControlMessage::Step(StepRequest { shard, leader, term, configuration, step })
        }
        other => return Err(DecodeError::Operation(other)),
    };
    reader.expect_end()?;
    Ok(message)
}

fn put_head(out: &mut Vec<u8>, shard: ShardId, leader: ReplicaId, term: Term, configuration: u64) {
    put_varint(out, u64::from(shard.0));
    put_varint(out, leader.0);
    put_varint(out, term.0);
    put_varint(out, configuration);
}

fn head(reader: &mut Reader) -> Result<(ShardId, ReplicaId, Term, u64), DecodeError> {
    Ok((shard(reader)?, ReplicaId(reader.varint()?), Term(reader.varint()?), reader.varint()?))
}

fn shard(reader: &mut Reader) -> Result<ShardId, DecodeError> {
    u32::try_from(reader.varint()?).map(ShardId).map_err(|_| DecodeError::Invalid("shard"))
}

fn put_replicas(out: &mut Vec<u8>, replicas: &[ReplicaId]) {
    put_varint(out, replicas.len() as u64);
    replicas.iter().for_each(|replica| put_varint(out, replica.0));
}

fn replicas(reader: &mut Reader) -> Result<Vec<ReplicaId>, CodecError> {
    // Not preallocated: a false count fails where the bytes end.
    let mut replicas = Vec::new();
    for _ in 0..reader.varint()? {
        replicas.push(ReplicaId(reader.varint()?));
    }
    Ok(replicas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::topology::tests::member;
    use crate::timing::Timing;
    use crate::types::ClusterId;
    use proptest::prelude::*;
    use ringfort_ring::ShardCount;

    fn messages() -> Vec<ControlMessage> {
        let (shard, leader, term, configuration) = (ShardId(3), ReplicaId(77), Term(5), 19);
        let request = |step| ControlMessage::Step(StepRequest { shard, leader, term, configuration, step });
        vec![
            ControlMessage::Announcement(Announcement {
                epoch: Epoch(9),
                leads: vec![(ShardId::SYSTEM, Term(2)), (shard, term)],
                addresses: member("a").addresses(),
            }),
            ControlMessage::Topology(Arc::new(Topology::bootstrap(
                ClusterId(1),
                ShardCount::new(4).unwrap(),
                Timing::DEFAULT,
                member("a"),
            ))),
            ControlMessage::Report(ShardReport {
                shard,
                leader,
                term,
                configuration,
                voters: vec![ReplicaId(1), ReplicaId(2)],
                outgoing: vec![ReplicaId(3)],
                learners: vec![],
                caught_up: vec![ReplicaId(1)],
                confirmed: vec![ReplicaId(2)],
                copied_bytes: 1 << 16,
            }),
            request(Step::AddLearner(ReplicaId(4))),
            request(Step::Change { promote: vec![ReplicaId(4)], remove: vec![ReplicaId(2), ReplicaId(3)] }),
            request(Step::TransferLeadership(ReplicaId(8))),
        ]
    }

    #[test]
    fn messages_survive_their_encoding() {
        for message in messages() {
            let encoded = encode(&message);
            assert_eq!(decode(&encoded).unwrap(), message);
            assert!((0..encoded.len()).all(|length| decode(&encoded[..length]).is_err()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic(which in 0..6usize, position in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut damaged = encode(&messages()[which]).to_vec();
            let at = position.index(damaged.len());
            damaged[at] = byte;
            let _ = decode(&damaged);
        }
    }
}
