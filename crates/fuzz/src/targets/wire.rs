//! What travels between nodes and from clients ([`ringfort_proto::v1`]), and what a node makes of it: Raft's messages,
//! forwarded requests, and their answers.
//!
//! Protobuf is not canonical, and knows fields that a node does not look at. So a message that decodes has to survive
//! its encoding, and what a node takes from it has to survive the way through another message.
//!
//! An element of a repeated field may take two bytes on the wire, and is a structure of some hundred in memory: a message
//! between nodes, 16 MiB at the most, can so be made to take [`BOUND`]`.per_byte` times as much while it is decoded. Who
//! sends such a one speaks to the port that is for nodes only.

use super::{command, control, gossip, snapshot, system};
use crate::allocation::{Bound, within};
use crate::codec::encoding;
use crate::source::Source;
use bytes::Bytes;
use prost::Message;
use raft::eraftpb::{Entry, EntryType, MessageType, Snapshot};
use ringfort_core::kv::state::{Applied, Record, ScanPage};
use ringfort_core::limits::{MAX_KEY_BYTES, MAX_SCAN_ENTRIES, MAX_VALUE_BYTES};
use ringfort_core::message::RaftMessage;
use ringfort_core::replica::{Failure, Query, QueryReply, Reply, Write};
use ringfort_core::worker::Request;
use ringfort_node::{convert, requests};
use ringfort_proto::v1::{self, forward::Op};
use std::fmt::Debug;

/// Elements with no content: their tag and their length, which is 0. The numbers of a configuration take a byte each.
pub const BOUND: Bound = Bound::of_elements::<v1::RaftMessage>(2)
    .or(Bound::of_elements::<v1::RaftEntry>(2))
    .or(Bound::of_elements::<v1::Forward>(2))
    .or(Bound::of_elements::<v1::ForwardReply>(2))
    .or(Bound::of_elements::<v1::Entry>(2))
    .or(Bound::of_elements::<v1::PlannedMove>(2))
    .or(Bound::of_elements::<u64>(1));

/// A message that decodes survives its encoding.
fn check_message<M: Message + Default + PartialEq + Debug>(data: &[u8]) -> Option<M> {
    let bytes = Bytes::copy_from_slice(data);
    let message = within(BOUND, data.len(), || M::decode(bytes)).ok()?;
    let again = M::decode(Bytes::from(message.encode_to_vec())).expect("what was encoded decodes");
    assert_eq!(again, message, "a message that was decoded survives its encoding");
    Some(message)
}

/// What a node takes from a batch survives the way to another node.
fn check_batch(data: &[u8]) {
    let Some(batch) = check_message::<v1::PeerBatch>(data) else { return };
    for message in batch.raft.into_iter().filter_map(convert::from_wire) {
        assert_eq!(convert::from_wire(convert::to_wire(message.clone())), Some(message));
    }
    for request in batch.forwards.into_iter().filter_map(|forward| requests::from_wire(forward.op?).ok()) {
        check_limits(&request);
        assert_eq!(requests::from_wire(requests::to_wire(request.clone())), Ok(request));
    }
}

/// An answer that a node decodes survives being sent to another node.
fn check_answers(data: &[u8]) {
    let Some(answers) = check_message::<v1::PeerAnswers>(data) else { return };
    for answer in answers.replies.into_iter().filter_map(|reply| reply.result.map(requests::answer_from_wire)) {
        let again = requests::answer_from_wire(requests::answer_to_wire(answer.clone()));
        assert_eq!(again, answer, "an answer survives the way to another node");
    }
}

/// Nothing beyond the limits gets past the conversion.
fn check_limits(request: &Request) {
    match request {
        Request::Write(Write::Kv(command)) => {
            assert!((1..=MAX_KEY_BYTES).contains(&command.key().len()));
            assert!(command.encoded_len() <= MAX_KEY_BYTES + MAX_VALUE_BYTES + 20);
        }
        Request::Read(Query::Get { key }) => assert!((1..=MAX_KEY_BYTES).contains(&key.len())),
        Request::Read(Query::Scan { limit, .. }) => assert!((1..=MAX_SCAN_ENTRIES).contains(limit)),
        Request::Write(Write::System(_)) => {}
    }
}

/// A batch of what a node has to say, with what it is made of.
fn check_written(source: &mut Source) -> v1::PeerBatch {
    let raft = source.list(raft_message);
    let requests = source.list(request);
    let batch = v1::PeerBatch {
        from_node: source.number(),
        to_node: source.number(),
        cluster_id: source.number(),
        raft: raft.iter().cloned().map(convert::to_wire).collect(),
        control: vec![encoding::<control::Messages>(&source.bytes())],
        forwards: requests.iter().cloned().map(|request| forward(source, requests::to_wire(request))).collect(),
        gossip: vec![encoding::<gossip::Messages>(&source.bytes())],
    };
    let received = check_message::<v1::PeerBatch>(&batch.encode_to_vec()).expect("what was encoded decodes");
    assert_eq!(received, batch);
    assert!(received.raft.into_iter().map(convert::from_wire).eq(raft.into_iter().map(Some)));
    let asked = received.forwards.into_iter().map(|forward| requests::from_wire(forward.op.expect("it has one")));
    assert!(asked.eq(requests.into_iter().map(Ok)));
    batch
}

/// Answers that a node may give, with what they are made of.
fn check_written_answers(source: &mut Source) -> v1::PeerAnswers {
    let answers = source.list(answer);
    let reply = |answer| v1::ForwardReply { id: source.number(), result: Some(requests::answer_to_wire(answer)) };
    let batch = v1::PeerAnswers { replies: answers.iter().cloned().map(reply).collect(), ..Default::default() };
    let received = check_message::<v1::PeerAnswers>(&batch.encode_to_vec()).expect("what was encoded decodes");
    assert_eq!(received, batch);
    let told = received.replies.into_iter().map(|reply| reply.result.expect("it has one"));
    assert!(told.map(requests::answer_from_wire).eq(answers));
    batch
}

fn forward(source: &mut Source, op: Op) -> v1::Forward {
    v1::Forward { id: source.number(), shard: source.number_u32(), deadline_ms: source.number_u32(), op: Some(op) }
}

/// A message of a kind that travels.
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

/// A request that a node forwards: it was held to the limits before.
fn request(source: &mut Source) -> Request {
    let key = |source: &mut Source| Bytes::from([b"k", &source.bytes()[..]].concat());
    match source.below(4) {
        0 => match command::command(source) {
            command if command.key().is_empty() => Request::Read(Query::Get { key: key(source) }),
            command => Request::Write(Write::Kv(command)),
        },
        1 => Request::Write(Write::System(system::system_command(source))),
        2 => Request::Read(Query::Get { key: key(source) }),
        _ => Request::Read(Query::Scan {
            prefix: source.bytes(),
            start_after: source.option(key),
            up_to: source.option(key),
            limit: 1 + source.below(MAX_SCAN_ENTRIES),
        }),
    }
}

fn answer(source: &mut Source) -> Result<Reply, Failure> {
    let version = source.number().max(1);
    let revision = source.number();
    Ok(match source.below(6) {
        0 => Reply::Applied(Applied::Put { version, revision, existed: version > 1 }),
        1 => Reply::Applied(Applied::Deleted { existed: source.flag(), revision }),
        2 => Reply::Query(QueryReply::Get(source.option(record))),
        3 => {
            let entries = source.list(|source| (source.bytes(), record(source)));
            Reply::Query(QueryReply::Scan(ScanPage { entries, more: source.flag() }))
        }
        4 => Reply::System(system::reply(source)),
        _ => {
            let leader = source.option(|source| ringfort_core::types::NodeId(source.number().max(1)));
            let failures = [
                Failure::NotLeader(leader),
                Failure::Overloaded,
                Failure::MemoryFull,
                Failure::DiskFull,
                Failure::DiskHung,
                Failure::NotApplied,
                Failure::Unknown,
            ];
            return Err(failures[source.below(failures.len())]);
        }
    })
}

fn record(source: &mut Source) -> Record {
    let value = source.bytes();
    let (version, create_revision, modify_revision) = (source.number(), source.number(), source.number());
    Record { value, version, create_revision, modify_revision }
}

pub fn body(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    match kind % 9 {
        0 => {
            check_batch(data);
            let mut damaged = check_written(&mut Source::new(data)).encode_to_vec();
            Source::end_of(data).damage(&mut damaged);
            check_batch(&damaged);
        }
        8 => {
            check_answers(data);
            let mut damaged = check_written_answers(&mut Source::new(data)).encode_to_vec();
            Source::end_of(data).damage(&mut damaged);
            check_answers(&damaged);
        }
        1 => drop(check_message::<v1::SnapshotChunk>(data)),
        2 => drop(check_message::<v1::ScanRequest>(data).map(requests::scan)),
        3 => drop(check_message::<v1::PutRequest>(data).map(requests::put)),
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
