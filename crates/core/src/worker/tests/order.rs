//! The order in which workers send, sync, promise and answer.

use super::*;

#[test]
fn a_put_is_answered_only_after_a_quorum_has_synced() {
    let (mut group, leader) = Group::with_leader();
    for node in group.others(leader) {
        group.slow.insert(node, Vec::new());
    }
    group.put(leader, 1);
    group.run();
    assert!(!group.applied(1), "only the leader has synced");
    let follower = group.others(leader)[0];
    group.sync(follower);
    assert!(group.applied(1));
}

#[test]
fn the_leader_sends_before_it_syncs_itself() {
    let (mut group, leader) = Group::with_leader();
    group.slow.insert(leader, Vec::new());
    group.put(leader, 1);
    group.run();
    let position = group.replica(leader).position();
    assert!(!group.applied(1), "the followers have committed it, the leader applies only what it has durably");
    group.sync(leader);
    assert!(group.applied(1));
    assert!(group.replica(leader).position().applied > position.applied);
}

#[test]
fn heartbeats_are_answered_behind_a_slow_disk() {
    let (mut group, leader) = Group::with_leader();
    for node in group.others(leader) {
        group.slow.insert(node, Vec::new());
    }
    group.put(leader, 1);
    group.ticks(20);
    assert!(group.lease(leader), "answers to heartbeats rest on nothing that waits for the disk");
    assert!(!group.applied(1));
}

#[test]
fn a_restarted_replica_votes_for_nobody_until_what_it_promised_has_ended() {
    let (mut group, leader) = Group::with_leader();
    let [candidate, voter] = group.others(leader)[..] else { panic!("three nodes") };
    group.restart(voter);
    let position = group.replica(candidate).position();
    for (after, granted) in [(0, false), (ELECTION_TICKS as u32, true)] {
        group.now = group.now + TICK * after;
        group.sent.clear();
        let mut request =
            group.message(voter, id(candidate.0), MessageType::MsgRequestPreVote, Term(position.term.0 + 1));
        (request.index, request.log_term) = (100, 100);
        group.deliver(voter, id(candidate.0), request);
        let answered = group.sent.iter().any(|(from, sent)| {
            *from == voter && sent.message.get_msg_type() == MessageType::MsgRequestPreVoteResponse
        });
        assert_eq!(answered, granted, "after {after} ticks");
    }
}

#[test]
fn a_transfer_is_exempt_from_a_restarted_voters_promise() {
    let (mut group, leader) = Group::with_leader();
    let [candidate, voter] = group.others(leader)[..] else { panic!("three nodes") };
    let term = group.replica(candidate).position().term;
    group.restart(voter);
    group.sent.clear();
    let mut request = group.message(voter, id(candidate.0), MessageType::MsgRequestVote, Term(term.0 + 1));
    (request.index, request.log_term) = (100, 100);
    request.set_context(raft::CAMPAIGN_TRANSFER.to_vec().into());
    group.deliver(voter, id(candidate.0), request);
    let answer = group.sent.iter().find(|(from, _)| *from == voter).map(|(_, sent)| &sent.message);
    assert!(answer.is_some_and(|m| m.get_msg_type() == MessageType::MsgRequestVoteResponse && !m.reject));
}

#[test]
fn a_stalled_node_makes_up_for_one_tick_only() {
    let (mut group, leader) = Group::with_leader();
    let stalled = group.others(leader)[0];
    let term = group.replica(stalled).position().term;
    group.now = group.now + TICK * 40;
    group.sent.clear();
    group.tick(stalled);
    assert!(group.sent.is_empty(), "it would campaign, having counted the lease down at once");
    assert_eq!(group.replica(stalled).position().term, term);
    assert!(group.workers[&stalled].next_tick() > group.now);
}

#[test]
fn all_heartbeats_between_two_nodes_leave_in_one_message() {
    let shards = 64;
    let now = Moment(1_000_000_000);
    let mut worker: Worker<u32> = Worker::new(config(NodeId(1), 1), now);
    for shard in 0..shards {
        let mut state = initial_state();
        state.base.conf_state.voters = vec![id(1).0];
        let restored = Restored::Kv(Machine::new());
        worker.restart_replica(ShardId(shard), id(1), state, restored, now);
    }
    let flush = |moment, worker: &mut Worker<u32>| loop {
        let (effects, more) = worker.flush(Now { moment, wall: Wall(0) });
        if let Some(batch) = &effects.log {
            worker.handle_persisted(moment, batch.number);
        } else if !more {
            break effects;
        }
    };
    flush(now, &mut worker);
    assert_eq!(worker.unfinished().led, shards as usize);
    for replica in worker.status() {
        worker.handle_step(&step_request(&replica.report.unwrap(), Step::AddLearner(id(2))));
    }
    flush(now, &mut worker);
    let moment = worker.next_tick();
    worker.handle_tick(moment);
    let (effects, _) = worker.flush(Now { moment, wall: Wall(0) });
    let to_second = &effects.messages[&NodeId(2)];
    let heartbeats = to_second.iter().filter(|m| m.message.get_msg_type() == MessageType::MsgHeartbeat).count();
    assert_eq!((effects.messages.len(), heartbeats), (1, shards as usize));
}
