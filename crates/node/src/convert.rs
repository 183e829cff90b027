//! Converts Raft messages between raft-rs's types and the wire format.
//!
//! Large entries keep pointing into the buffer that they were received in. Small ones are copied; otherwise each would
//! keep a whole receive buffer alive for as long as it is in the log.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};
use ringfort_core::message::RaftMessage;
use ringfort_core::types::{ReplicaId, ShardId};
use ringfort_proto::v1;

/// Entries below this size are copied out of the receive buffer.
const COPY_BELOW_BYTES: usize = 4096;

/// The message in wire format.
pub fn to_wire(RaftMessage { shard, from, to, mut message }: RaftMessage) -> v1::RaftMessage {
    let snapshot = message.has_snapshot().then(|| snapshot_to_wire(message.take_snapshot()));
    v1::RaftMessage {
        shard: shard.0,
        from_replica: from.0,
        to_replica: to.0,
        r#type: message.get_msg_type() as i32,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.take_entries().into_iter().map(entry_to_wire).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        request_snapshot: message.request_snapshot,
        context: message.take_context(),
        priority: message.priority,
        snapshot,
    }
}

/// A received message; `None` if its kind is unknown or never sent between nodes.
pub fn from_wire(wire: v1::RaftMessage) -> Option<RaftMessage> {
    let mut message = Message::default();
    message.set_msg_type(message_type(wire.r#type)?);
    message.from = wire.from_replica;
    message.to = wire.to_replica;
    message.term = wire.term;
    message.log_term = wire.log_term;
    message.index = wire.index;
    message.entries = wire.entries.into_iter().map(entry_from_wire).collect::<Option<Vec<_>>>()?.into();
    message.commit = wire.commit;
    message.commit_term = wire.commit_term;
    message.reject = wire.reject;
    message.reject_hint = wire.reject_hint;
    message.request_snapshot = wire.request_snapshot;
    message.context = wire.context;
    message.priority = wire.priority;
    if let Some(snapshot) = wire.snapshot {
        message.set_snapshot(snapshot_from_wire(snapshot));
    }
    let (from, to) = (ReplicaId(wire.from_replica), ReplicaId(wire.to_replica));
    Some(RaftMessage { shard: ShardId(wire.shard), from, to, message })
}

fn message_type(number: i32) -> Option<MessageType> {
    use v1::RaftMessageType as Wire;
    Some(match Wire::try_from(number).ok()? {
        Wire::Hup => return None,
        Wire::Append => MessageType::MsgAppend,
        Wire::AppendResponse => MessageType::MsgAppendResponse,
        Wire::RequestVote => MessageType::MsgRequestVote,
        Wire::RequestVoteResponse => MessageType::MsgRequestVoteResponse,
        Wire::Snapshot => MessageType::MsgSnapshot,
        Wire::Heartbeat => MessageType::MsgHeartbeat,
        Wire::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
        Wire::TimeoutNow => MessageType::MsgTimeoutNow,
        Wire::RequestPreVote => MessageType::MsgRequestPreVote,
        Wire::RequestPreVoteResponse => MessageType::MsgRequestPreVoteResponse,
    })
}

fn entry_to_wire(entry: Entry) -> v1::RaftEntry {
    v1::RaftEntry {
        term: entry.term,
        index: entry.index,
        r#type: entry.get_entry_type() as i32,
        data: entry.data,
        context: entry.context,
    }
}

fn entry_from_wire(wire: v1::RaftEntry) -> Option<Entry> {
    let mut entry = Entry::default();
    entry.set_entry_type(match v1::RaftEntryType::try_from(wire.r#type).ok()? {
        v1::RaftEntryType::Normal => EntryType::EntryNormal,
        v1::RaftEntryType::ConfChange => EntryType::EntryConfChange,
        v1::RaftEntryType::ConfChangeV2 => EntryType::EntryConfChangeV2,
    });
    entry.term = wire.term;
    entry.index = wire.index;
    entry.data = unpinned(wire.data);
    entry.context = unpinned(wire.context);
    Some(entry)
}

fn unpinned(bytes: Bytes) -> Bytes {
    if bytes.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes }
}

fn snapshot_to_wire(mut snapshot: Snapshot) -> v1::RaftSnapshot {
    let data = std::mem::take(&mut snapshot.data);
    let metadata = snapshot.take_metadata();
    let (index, term) = (metadata.index, metadata.term);
    let conf_state = metadata.conf_state.into_option().map(|conf_state| v1::ConfState {
        voters: conf_state.voters,
        learners: conf_state.learners,
        voters_outgoing: conf_state.voters_outgoing,
        learners_next: conf_state.learners_next,
        auto_leave: conf_state.auto_leave,
    });
    v1::RaftSnapshot { index, term, conf_state, data }
}

fn snapshot_from_wire(wire: v1::RaftSnapshot) -> Snapshot {
    let mut snapshot = Snapshot { data: wire.data, ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = wire.index;
    metadata.term = wire.term;
    if let Some(wire) = wire.conf_state {
        metadata.set_conf_state(ConfState {
            voters: wire.voters,
            learners: wire.learners,
            voters_outgoing: wire.voters_outgoing,
            learners_next: wire.learners_next,
            auto_leave: wire.auto_leave,
            ..ConfState::default()
        });
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    fn travel(message: Message) -> Option<RaftMessage> {
        let (from, to) = (ReplicaId(message.from), ReplicaId(message.to));
        from_wire(to_wire(RaftMessage { shard: ShardId::SYSTEM, from, to, message }))
    }

    #[test]
    fn every_field_travels() {
        let mut message = Message { from: 1, to: 2, term: 3, log_term: 4, index: 5, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        (message.commit, message.commit_term, message.priority) = (6, 7, -8);
        (message.reject, message.reject_hint, message.request_snapshot) = (true, 9, 10);
        message.context = "context".into();
        let mut entry = Entry { term: 3, index: 6, data: "data".into(), context: "c".into(), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        message.entries.push(entry);
        assert_eq!(travel(message.clone()).unwrap().message, message);
    }

    #[test]
    fn a_snapshots_place_travels() {
        let mut message = Message { from: 1, to: 2, ..Message::default() };
        message.set_msg_type(MessageType::MsgSnapshot);
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (7, 2);
        metadata.set_conf_state(ConfState { voters: vec![1], learners: vec![2], ..ConfState::default() });
        assert_eq!(travel(message.clone()).unwrap().message, message);
    }

    #[test]
    fn messages_that_stay_inside_a_node_are_refused() {
        for kind in [MessageType::MsgHup, MessageType::MsgPropose, MessageType::MsgReadIndex] {
            let mut message = Message::default();
            message.set_msg_type(kind);
            assert_eq!(travel(message), None, "{kind:?}");
        }
    }
}
