//! Messages between nodes and from clients ([`ringfort_proto::v1`]), and the Raft messages that a node decodes from
//! them. Forwarded requests and their answers are opaque bytes here; [`super::request`] decodes them.
//!
//! Protobuf is not canonical, and messages may have fields that a node ignores. So a decoded message must survive being
//! encoded again, and the parts that a node uses must survive being sent in another message.
//!
//! An element of a repeated field may take two bytes on the wire, and is a structure of some hundred in memory: so a
//! message between nodes, which has at most 16 MiB, can be made to take [`BOUND`]`.per_byte` times as much while it is
//! decoded. Only a sender with access to the port for nodes can send one.

use super::{control, gossip, snapshot, system};
use crate::allocation::{Bound, within};
use crate::codec::encoding;
use crate::source::Source;
use bytes::Bytes;
use prost::Message;
use raft::eraftpb::{Entry, EntryType, MessageType, Snapshot};
use ringfort_core::message::RaftMessage;
use ringfort_node::convert;
use ringfort_proto::{original, v1};
use std::fmt::Debug;

/// Elements with no content: their tag and their length, which is 0. The numbers of a configuration take a byte each.
pub const BOUND: Bound = Bound::of_elements::<v1::RaftMessage>(2)
    .or(Bound::of_elements::<v1::RaftEntry>(2))
    .or(Bound::of_elements::<v1::Forward>(2))
    .or(Bound::of_elements::<v1::ForwardReply>(2))
    .or(Bound::of_elements::<v1::Entry>(2))
    .or(Bound::of_elements::<v1::PlannedMove>(2))
    .or(Bound::of_elements::<u64>(1));

/// Checks that a message that decodes survives being encoded again.
fn check_message<M: Message + Default + PartialEq + Debug>(data: &[u8]) -> Option<M> {
    let bytes = Bytes::copy_from_slice(data);
    let message = within(BOUND, data.len(), || M::decode(bytes)).ok()?;
    let again = M::decode(Bytes::from(message.encode_to_vec())).expect("what was encoded decodes");
    assert_eq!(again, message, "a message that was decoded survives its encoding");
    Some(message)
}

/// Checks that the parts of a batch that a node uses survive being sent to another node.
fn check_batch(data: &[u8]) {
    let Some(batch) = check_message::<v1::PeerBatch>(data) else { return };
    for message in batch.raft.into_iter().filter_map(convert::from_wire) {
        assert_eq!(convert::from_wire(convert::to_wire(message.clone())), Some(message));
    }
}

/// A batch that a node could send, built from drawn parts.
fn check_written(source: &mut Source) -> v1::PeerBatch {
    let raft = source.list(raft_message);
    let batch = v1::PeerBatch {
        from_node: source.number(),
        to_node: source.number(),
        cluster_id: source.number(),
        raft: raft.iter().cloned().map(convert::to_wire).collect(),
        control: vec![encoding::<control::Messages>(&source.bytes())],
        forwards: source.list(forward),
        gossip: vec![encoding::<gossip::Messages>(&source.bytes())],
    };
    let received = check_message::<v1::PeerBatch>(&batch.encode_to_vec()).expect("what was encoded decodes");
    assert_eq!(received, batch);
    assert!(received.raft.into_iter().map(convert::from_wire).eq(raft.into_iter().map(Some)));
    batch
}

fn forward(source: &mut Source) -> v1::Forward {
    let (id, shard, deadline_ms) = (source.number(), source.number_u32(), source.number_u32());
    v1::Forward { id, shard, deadline_ms, request: source.bytes() }
}

/// A message of a type that is sent between nodes.
fn raft_message(source: &mut Source) -> RaftMessage {
    const KINDS: [MessageType; 10] = [
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgTimeoutNow,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
    ];
    let (shard, from, to) = (system::shard(source), system::replica(source), system::replica(source));
    let mut message = raft::eraftpb::Message { from: from.0, to: to.0, ..Default::default() };
    message.set_msg_type(KINDS[source.below(KINDS.len())]);
    for field in [
        &mut message.term,
        &mut message.log_term,
        &mut message.index,
        &mut message.commit,
        &mut message.commit_term,
        &mut message.reject_hint,
        &mut message.request_snapshot,
    ] {
        *field = source.number();
    }
    message.reject = source.flag();
    message.priority = source.number() as i64;
    message.context = source.bytes();
    message.entries = source.list(entry).into();
    if source.flag() {
        let mut snapshot = Snapshot { data: source.bytes(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (source.number(), source.number());
        if source.flag() {
            metadata.set_conf_state(snapshot::conf_state(source));
        }
        message.set_snapshot(snapshot);
    }
    RaftMessage { shard, from, to, message }
}

fn entry(source: &mut Source) -> Entry {
    let types = [EntryType::EntryNormal, EntryType::EntryConfChange, EntryType::EntryConfChangeV2];
    let (data, context) = (source.bytes(), source.bytes());
    let entry_type = types[source.below(types.len())];
    Entry { term: source.number(), index: source.number(), entry_type, data, context, ..Entry::default() }
}

pub fn body(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    match kind % 10 {
        0 => {
            check_batch(data);
            let mut damaged = check_written(&mut Source::new(data)).encode_to_vec();
            Source::end_of(data).damage(&mut damaged);
            check_batch(&damaged);
        }
        8 => drop(check_message::<v1::PeerAnswers>(data)),
        9 => drop(check_message::<original::GossipRequest>(data)),
        1 => drop(check_message::<v1::SnapshotChunk>(data)),
        2 => drop(check_message::<v1::ScanRequest>(data)),
        3 => drop(check_message::<v1::PutRequest>(data)),
        4 => drop(check_message::<v1::JoinRequest>(data)),
        5 => drop(check_message::<v1::JoinResponse>(data)),
        6 => drop(check_message::<v1::ScanResponse>(data)),
        _ => drop(check_message::<v1::PlanResponse>(data)),
    }
}

/// A batch.
pub fn seed(data: &[u8]) -> Bytes {
    [&[0], &check_written(&mut Source::new(data)).encode_to_vec()[..]].concat().into()
}
