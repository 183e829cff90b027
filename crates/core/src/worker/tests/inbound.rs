//! Input that a replica must not accept.

use super::*;

#[test]
fn proposals_and_reads_of_other_nodes_never_enter_by_raft() {
    let (mut group, leader) = Group::with_leader();
    let other = group.others(leader)[0];
    let before = group.replica(leader).position().applied;
    let entry = Entry { index: 1, data: Bytes::from_static(b"x"), ..Entry::default() };
    for kind in [MessageType::MsgPropose, MessageType::MsgReadIndex, MessageType::MsgReadIndexResp] {
        let mut message = group.message(leader, id(other.0), kind, Term(0));
        message.set_entries(vec![entry.clone()].into());
        group.sent.clear();
        group.deliver(leader, id(other.0), message);
        assert!(group.sent.is_empty(), "{kind:?}");
    }
    group.run();
    assert_eq!(group.replica(leader).position().applied, before);
}

/// A heartbeat of `from` shows that a follower's log has lost its end. Returns whether the replica has stopped, and
/// whether that is logged. If `is_named`, the topology of the follower names `from`.
fn learns_that_its_log_is_lost(from: impl Fn(NodeId) -> ReplicaId, is_named: bool) -> (bool, bool) {
    let (mut group, leader) = Group::with_leader();
    let victim = group.others(leader)[0];
    let term = group.replica(victim).position().term;
    let (from, own) = (from(leader), group.replica(victim).id());
    let mut heartbeat = group.message(victim, from, MessageType::MsgHeartbeat, term);
    heartbeat.commit = 1_000_000;
    heartbeat.set_context(vec![0; 8].into());
    let message = RaftMessage { shard: SHARD, from, to: own, message: heartbeat };
    let now = group.now;
    let worker = group.workers.get_mut(&victim).unwrap();
    if is_named {
        let mut topology = many_shards(1);
        topology.groups.insert(SHARD, crate::system::Group { replicas: vec![own, from], target: Vec::new() });
        worker.handle_topology(now, Arc::new(topology));
    }
    worker.handle_raft(now, [message]);
    let (effects, _) = worker.flush(Now { moment: now, wall: Wall(0) });
    let suspect = LogItem { shard: SHARD, replica: own, change: Change::Suspect };
    let is_logged = effects.log.is_some_and(|batch| batch.items.contains(&suspect));
    let is_stopped = worker.replicas().all(|replica| replica.shard() != SHARD);
    assert_eq!(effects.lost.contains(&(SHARD, own, QuarantineReason::Log)), is_stopped);
    (is_stopped, is_logged)
}

#[test]
fn a_lost_log_stops_the_replica_instead_of_the_process() {
    assert_eq!(learns_that_its_log_is_lost(|leader| id(leader.0), false), (true, true));
}

#[test]
fn a_new_voter_that_the_lost_end_of_the_log_named_is_believed_and_a_stranger_is_not() {
    let other = |leader| ReplicaId::new(leader, 77);
    assert_eq!(learns_that_its_log_is_lost(other, true), (true, true), "also after a restart");
    assert_eq!(learns_that_its_log_is_lost(other, false), (false, false));
}

#[test]
fn messages_for_another_replica_of_the_node_are_dropped() {
    let (mut group, leader) = Group::with_leader();
    let victim = group.others(leader)[0];
    let before = group.replica(victim).position();
    let mut append = group.message(victim, id(leader.0), MessageType::MsgAppend, Term(99));
    let other = ReplicaId::new(victim, 77);
    append.to = other.0;
    let message = RaftMessage { shard: SHARD, from: id(leader.0), to: other, message: append };
    group.workers.get_mut(&victim).unwrap().handle_raft(group.now, [message]);
    group.turn(victim);
    assert_eq!(group.replica(victim).position(), before);
}

#[test]
fn malformed_appends_are_dropped() {
    let (mut group, leader) = Group::with_leader();
    let victim = group.others(leader)[0];
    let position = group.replica(victim).position();
    let mut append = group.message(victim, id(leader.0), MessageType::MsgAppend, position.term);
    (append.index, append.log_term) = (position.applied.0, position.term.0);
    let entry = |index| Entry { index, term: position.term.0, ..Entry::default() };
    append.set_entries(vec![entry(position.applied.0 + 1), entry(position.applied.0 + 5)].into());
    group.sent.clear();
    group.deliver(victim, id(leader.0), append);
    assert!(group.sent.is_empty());
}

#[test]
fn an_action_of_the_other_kind_of_shard_is_refused() {
    let (mut group, leader) = Group::with_leader();
    let last = group.replica(leader).status().last;
    let system = Action::System(Box::new(SystemCommand::Pause(true)));
    group.request(leader, Request::forged(SHARD, system), 1);
    group.run();
    assert_eq!(group.answers[&1], Err(Failure::NotLeader(None)));
    assert_eq!(group.replica(leader).status().last, last, "it is not in the log");
}

#[test]
fn an_entry_that_cannot_be_read_is_not_acknowledged_and_the_group_goes_on() {
    let unreadable = [
        // An operation that this build does not know, another version, the other kind of shard, and a change of no
        // kind.
        (EntryType::EntryNormal, &b"\x81\x00\x09"[..]),
        (EntryType::EntryNormal, b"\x82\x00"),
        (EntryType::EntryNormal, b"\x01\x00\x06\x07"),
        (EntryType::EntryConfChangeV2, b"\x09"),
    ];
    for (kind, bytes) in unreadable {
        let (mut group, leader) = Group::with_leader();
        let victims = group.others(leader);
        group.isolate(leader);
        for &victim in &victims {
            let position = group.replica(victim).position();
            let (applied, term) = (position.applied, position.term);
            let mut append = group.message(victim, id(leader.0), MessageType::MsgAppend, term);
            (append.index, append.log_term, append.commit) = (applied.0, term.0, applied.0 + 2);
            let mut readable = Entry { index: applied.0 + 1, term: term.0, ..Entry::default() };
            readable.data = Bytes::from_static(b"\x81\x00");
            let mut entry = Entry { index: applied.0 + 2, term: term.0, ..Entry::default() };
            entry.set_entry_type(kind);
            match kind {
                EntryType::EntryNormal => entry.data = Bytes::from_static(bytes),
                _ => entry.context = Bytes::from_static(bytes),
            }
            append.set_entries(vec![readable, entry].into());
            group.sent.clear();
            group.deliver(victim, id(leader.0), append);
            let status = group.replica(victim).status();
            assert_eq!((status.last, status.applied), (applied.0 + 1, applied.0 + 1), "{bytes:?}");
            let answers = group.sent.iter().map(|(_, sent)| (sent.message.get_msg_type(), sent.message.index));
            assert_eq!(answers.collect::<Vec<_>>(), [(MessageType::MsgAppendResponse, applied.0 + 1)]);
        }
        let successor = group.wait_for_leader(&[leader]);
        group.put(successor, 1);
        group.ticks(2);
        assert!(group.applied(1), "{bytes:?}");
    }
}
