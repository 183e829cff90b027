//! Reads: leases, rounds, stale reads, and what a deposed leader answers.

use super::*;

#[test]
fn a_lease_ends_before_another_leader_can_be_elected() {
    let (mut group, leader) = Group::with_leader();
    assert!(group.lease(leader));
    group.isolate(leader);
    let began = group.now;
    while group.leader(&[leader]).is_none() {
        assert!(group.now < began + TICK * 60, "nobody was elected");
        group.ticks(1);
    }
    assert!(!group.lease(leader));
    assert!(group.now >= began + TICK * (ELECTION_TICKS as u32 - 1));
}

#[test]
fn a_transfer_gives_the_lease_up_before_its_message_leaves_and_for_the_rest_of_the_term() {
    let (mut group, leader) = Group::with_leader();
    let target = group.others(leader)[0];
    group.isolate(target);
    group.sent.clear();
    group.step(leader, Step::TransferLeadership(id(target.0)));
    let (effects, _) = group.workers.get_mut(&leader).unwrap().flush(Now { moment: group.now, wall: Wall(0) });
    assert!(!group.lease(leader), "the message has not left the worker yet");
    let sent = effects.messages.into_values().flatten();
    group.sent.extend(sent.map(|message| (leader, message)));
    assert!(group.sent.iter().any(|(_, sent)| sent.message.get_msg_type() == MessageType::MsgTimeoutNow));
    group.ticks(30);
    assert_eq!(group.leader(&[]), Some(leader), "the transfer was lost on its way");
    assert!(!group.lease(leader), "a delayed message could still force an election");
    group.get(leader, 7);
    group.run();
    assert!(matches!(group.answers[&7], Ok(Reply::Query(QueryReply::Get(None)))), "reads ask a quorum instead");
}

#[test]
fn a_transfer_that_asks_for_no_election_costs_no_lease() {
    let (mut group, leader) = Group::with_leader();
    let target = group.others(leader)[0];
    group.slow.insert(target, Vec::new());
    group.put(leader, 1);
    group.run();
    group.sent.clear();
    let report = group.replica(leader).report();
    assert!(report.caught_up.contains(&id(target.0)), "it lacks one entry, which its disk does not take");
    group.step(leader, Step::TransferLeadership(id(target.0)));
    group.ticks(30);
    assert!(!group.sent.iter().any(|(_, sent)| sent.message.get_msg_type() == MessageType::MsgTimeoutNow));
    assert!(group.lease(leader));
}

#[test]
fn a_doubled_answer_to_a_read_releases_no_later_read() {
    let (mut group, leader) = Group::with_leader();
    let followers = group.others(leader);
    // Without a lease, as after a transfer that was lost.
    group.ticks(1);
    group.now = group.now + Duration::from_secs(1);
    group.get(leader, 1);
    group.run();
    assert!(group.answers.contains_key(&1));
    let answers: Vec<RaftMessage> = group
        .sent
        .iter()
        .filter(|(_, sent)| sent.message.get_msg_type() == MessageType::MsgHeartbeatResponse)
        .map(|(_, sent)| sent.clone())
        .collect();
    assert!(!answers.is_empty());
    group.isolate(leader);
    group.now = group.now + Duration::from_secs(1);
    group.get(leader, 2);
    for answer in answers {
        group.workers.get_mut(&leader).unwrap().handle_raft(group.now, [answer]);
        group.turn(leader);
    }
    assert!(!group.answers.contains_key(&2), "{followers:?} have not been asked for this one");
}

#[test]
fn a_read_before_the_first_commit_of_the_term_is_answered_later() {
    let (mut group, leader) = Group::with_leader();
    group.put(leader, 1);
    group.run();
    group.isolate(leader);
    let next = group.wait_for_leader(&[leader]);
    // The old leader's side is cut; the new one has been elected and its first entry committed in the same run.
    group.get(next, 2);
    group.run();
    group.ticks(3);
    let Some(Ok(Reply::Query(QueryReply::Get(Some(record))))) = group.answers.get(&2) else {
        panic!("{:?}", group.answers.get(&2))
    };
    assert_eq!(&record.value[..], [1]);
}

#[test]
fn a_scan_is_confirmed_by_the_worker_and_read_from_the_view() {
    let (mut group, leader) = Group::with_leader();
    let view = group.replica(leader).view().clone();
    let scan = Query::from(Scan { prefix: Bytes::new(), start_after: None, up_to: None, limit: 9 });
    group.put(leader, 1);
    group.request(leader, Request::part(SHARD, scan.clone()).unwrap(), 2);
    // Without a lease, a quorum confirms the scan, which waits for entries under way.
    view.publish_lease(Moment::default());
    group.request(leader, Request::part(SHARD, scan.clone()).unwrap(), 3);
    group.run();
    assert_eq!([&group.answers[&2], &group.answers[&3]], [&Ok(Reply::Confirmed); 2]);
    let Some(QueryReply::Scan(page)) = view.read_confirmed(&scan) else { panic!("the replica runs") };
    assert_eq!(page.entries.len(), 1);
    view.close();
    assert_eq!(view.read_confirmed(&scan), None, "another replica may have taken its place");
}

#[test]
fn a_stale_read_is_as_new_as_its_bound_says_or_refused() {
    let (mut group, leader) = Group::with_leader();
    let follower = group.others(leader)[0];
    let bound = Duration::from_secs(5);
    let query = Query::from(Get { key: Bytes::from_static(b"k") });
    let value = |group: &Group, node: NodeId| match group.replica(node).view().read_stale(|| group.now, bound, &query) {
        Some(QueryReply::Get(record)) => Some(record.map(|record| record.value[0])),
        _ => None,
    };
    group.put(leader, 1);
    group.ticks(2);
    assert_eq!([value(&group, leader), value(&group, follower)], [Some(Some(1)); 2]);

    // A follower that hears its leader but can't keep up does not count as fresh.
    group.slow.insert(follower, Vec::new());
    group.put(leader, 2);
    group.run();
    assert!(group.applied(2));
    group.ticks(110);
    assert_eq!(value(&group, follower), None);
    group.sync(follower);
    group.ticks(2);
    assert_eq!(value(&group, follower), Some(Some(2)));

    // Nor does a leader that a quorum does not follow.
    group.isolate(leader);
    group.ticks(110);
    assert_eq!(value(&group, leader), None);
}

#[test]
fn a_leader_that_is_not_heard_is_published_as_silent_until_there_is_another() {
    let (mut group, leader) = Group::with_leader();
    let [follower, other] = group.others(leader)[..] else { panic!("there are three") };
    group.ticks(SILENT_TICKS as u32 * 2);
    assert_eq!(group.replica(follower).view().silent_leader(), None, "it is heard");
    group.isolate(leader);
    group.ticks(SILENT_TICKS as u32 + 1);
    assert_eq!(group.replica(follower).view().silent_leader(), Some(leader));
    assert_eq!(group.replica(leader).view().silent_leader(), None, "a leader does not hear itself");
    // Without the other node no successor is elected, and the follower soon knows no leader at all.
    group.isolate(other);
    group.ticks(MAX_ELECTION_TICKS as u32);
    let view = group.replica(follower).view().clone();
    assert_eq!((view.leader(), view.silent_leader()), (None, Some(leader)));
    view.forget_silence();
    assert_eq!(view.silent_leader(), None, "its node says that it leads");
    group.cut.clear();
    group.isolate(leader);
    group.wait_for_leader(&[leader]);
    group.ticks(2);
    assert_eq!(group.replica(follower).view().silent_leader(), None);
}

#[test]
fn a_deposed_leaders_reads_and_writes_are_not_answered_wrongly() {
    let (mut group, leader) = Group::with_leader();
    group.put(leader, 1);
    group.run();
    group.isolate(leader);
    group.put(leader, 2);
    let next = group.wait_for_leader(&[leader]);
    group.put(next, 3);
    group.run();
    group.get(leader, 4);
    assert!(!group.answers.contains_key(&4) || matches!(group.answers[&4], Err(Failure::NotLeader(_))));
    group.cut.clear();
    group.ticks(30);
    assert_eq!(group.answers[&2], Err(Failure::NotApplied), "overwritten, and known to be");
    assert!(group.applied(3));
}
