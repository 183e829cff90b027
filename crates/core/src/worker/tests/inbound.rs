//! What must not get into a replica.

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

#[test]
fn a_lost_log_stops_the_replica_instead_of_the_process() {
    for is_voter in [true, false] {
        let (mut group, leader) = Group::with_leader();
        let victim = group.others(leader)[0];
        let term = group.replica(leader).position().term;
        let from = if is_voter { id(leader.0) } else { ReplicaId::new(leader, 77) };
        let mut heartbeat = group.message(victim, from, MessageType::MsgHeartbeat, term);
        heartbeat.commit = 1_000_000;
        heartbeat.set_context(vec![0; 8].into());
        let own = group.replica(victim).id();
        let message = RaftMessage { shard: SHARD, from, to: own, message: heartbeat };
        let worker = group.workers.get_mut(&victim).unwrap();
        worker.handle_raft(group.now, [message]);
        let (effects, _) = worker.flush(Now { moment: group.now, wall: Wall(0) });
        assert_eq!(effects.lost, [(SHARD, own, QuarantineReason::Log)]);
        assert_eq!(worker.replicas().count(), 0);
        let suspect = LogItem { shard: SHARD, replica: own, change: Change::Suspect };
        let is_logged = effects.log.is_some_and(|batch| batch.items.contains(&suspect));
        assert_eq!(is_logged, is_voter, "a restart believes a voter, and nobody else");
    }
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
