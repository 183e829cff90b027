//! The promise behind a lease: a voter that has echoed a heartbeat does not vote for one election timeout, whatever it
//! hears. Also, elections when disks are slow.

use super::*;
use crate::time::Moment;
use raft::CAMPAIGN_TRANSFER;

const PROMISE_TICKS: u32 = ELECTION_TICKS as u32;

impl Group {
    /// Lets time pass without ticks: no heartbeats are sent meanwhile.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn term(&self, node: NodeId) -> Term {
        self.replica(node).position().term
    }

    /// Asks `voter` for its vote in `term`. Returns whether it granted it.
    fn asks(&mut self, voter: NodeId, candidate: NodeId, kind: MessageType, term: Term, context: &[u8]) -> bool {
        let mut request = self.message(voter, id(candidate.0), kind, term);
        (request.index, request.log_term) = (100, 100);
        request.set_context(context.to_vec().into());
        self.sent.clear();
        self.deliver(voter, id(candidate.0), request);
        self.sent.iter().any(|(from, sent)| {
            let kind = sent.message.get_msg_type();
            let is_answer =
                matches!(kind, MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse);
            *from == voter && is_answer && !sent.message.reject
        })
    }
}

#[test]
fn a_voter_keeps_its_promise_whatever_term_it_learns() {
    use MessageType::*;
    // (the message of a later term that the voter gets from the third replica, whether it must adopt that term)
    let heard = [
        (MsgAppendResponse, false),
        (MsgHeartbeatResponse, false),
        (MsgRequestVoteResponse, false),
        (MsgRequestPreVoteResponse, false),
        (MsgAppend, true),
        (MsgHeartbeat, true),
    ];
    for (kind, adopts) in heard {
        let (mut group, leader) = Group::with_leader();
        let [voter, other] = group.others(leader)[..] else { panic!("three nodes") };
        assert!(group.lease(leader));
        let term = group.term(voter);
        let mut message = group.message(voter, id(other.0), kind, Term(term.0 + 1));
        message.reject = matches!(kind, MsgRequestVoteResponse | MsgRequestPreVoteResponse);
        message.set_context(vec![0; 16].into());
        group.deliver(voter, id(other.0), message);
        assert_eq!(group.term(voter).0, term.0 + u64::from(adopts), "{kind:?}");
        let later = Term(term.0 + 2);
        for request in [MsgRequestPreVote, MsgRequestVote] {
            group.pass(TICK);
            assert!(group.lease(leader), "the test looks at nothing once the lease is over");
            assert!(!group.asks(voter, other, request, later, b""), "{request:?} after {kind:?}");
        }
        group.pass(TICK * PROMISE_TICKS);
        assert!(!group.lease(leader));
        // A follower's tick count keeps it from voting for a little longer than its promise does.
        for _ in 0..MAX_ELECTION_TICKS {
            group.pass(TICK);
            group.tick(voter);
        }
        assert!(group.asks(voter, other, MsgRequestVote, later, b""), "after {kind:?}");
    }
}

#[test]
fn a_transfer_is_exempt_from_the_promise() {
    let (mut group, leader) = Group::with_leader();
    let [voter, other] = group.others(leader)[..] else { panic!("three nodes") };
    let term = Term(group.term(voter).0 + 1);
    assert!(group.asks(voter, other, MessageType::MsgRequestVote, term, CAMPAIGN_TRANSFER));
}

#[test]
fn a_leader_takes_over_a_later_term_from_any_answer() {
    let (mut group, leader) = Group::with_leader();
    let other = group.others(leader)[0];
    let term = Term(group.term(leader).0 + 1);
    let message = group.message(leader, id(other.0), MessageType::MsgAppendResponse, term);
    group.deliver(leader, id(other.0), message);
    assert_eq!(group.term(leader), term, "or the follower that is in this term could never be led again");
    assert!(!group.lease(leader));
}

/// How long a leader takes to get its lease back, with a read every `gap` and messages that take `way`.
fn lease_comes_back(gap: Duration, way: Duration) -> Option<Duration> {
    let (mut group, leader) = Group::with_leader();
    group.pass(Duration::from_secs(1));
    let begun = group.now;
    let mut under_way: VecDeque<(Moment, NodeId, RaftMessage)> = VecDeque::new();
    for id in 1000.. {
        group.pass(gap);
        if group.now > begun + Duration::from_secs(2) {
            break;
        }
        for node in group.workers.keys().copied().collect::<Vec<_>>() {
            if group.workers[&node].next_tick() <= group.now {
                group.tick(node);
            }
        }
        group.get(leader, id);
        while let Some((_, to, message)) = under_way.pop_front_if(|(at, _, _)| *at <= group.now) {
            group.workers.get_mut(&to).unwrap().handle_raft(group.now, [message]);
            group.turn(to);
        }
        let arrives = group.now + way;
        under_way.extend(group.under_way.drain(..).map(|(_, to, message)| (arrives, to, message)));
        group.sent.clear();
        if group.lease(leader) {
            return Some(group.now.saturating_since(begun));
        }
    }
    None
}

#[test]
fn a_lost_lease_comes_back_under_reads() {
    let us = Duration::from_micros;
    for (gap, way) in [(us(70), us(500)), (us(30), us(500)), (us(500), us(20_000))] {
        let after = lease_comes_back(gap, way);
        assert!(after.is_some_and(|after| after <= TICK * 3), "a read every {gap:?}, {way:?} a way: {after:?}");
    }
}

/// Slow disks: one sync at a time, which covers all batches that waited when it began.
struct Disks {
    /// How long a sync takes on each node.
    sync: BTreeMap<NodeId, Duration>,
    /// When the sync under way ends, and the last batch in it.
    under_way: BTreeMap<NodeId, (Moment, BatchNumber)>,
}

impl Disks {
    /// Ends and begins syncs.
    fn step(&mut self, group: &mut Group) {
        for (&node, &time) in &self.sync {
            let now = group.now;
            if let Some((_, number)) = self.under_way.get(&node).copied().filter(|(ends, _)| *ends <= now) {
                self.under_way.remove(&node);
                group.slow.get_mut(&node).unwrap().retain(|batch| *batch > number);
                group.workers.get_mut(&node).unwrap().handle_persisted(now, number);
                group.turn(node);
            }
            if let Some(&last) = group.slow[&node].last() {
                self.under_way.entry(node).or_insert((now + time, last));
            }
        }
    }
}

/// How long a new group with these disks takes until a leader has a lease.
fn elects_within(sync: [Duration; 3]) -> Option<Duration> {
    const STEP: Duration = Duration::from_millis(5);
    let mut group = Group::new();
    let nodes = REPLICAS.map(ReplicaId::node);
    group.slow = nodes.into_iter().map(|node| (node, Vec::new())).collect();
    let mut disks = Disks { sync: nodes.into_iter().zip(sync).collect(), under_way: BTreeMap::new() };
    let begun = group.now;
    while group.now < begun + Duration::from_secs(60) {
        group.now = group.now + STEP;
        for node in nodes {
            if group.workers[&node].next_tick() <= group.now {
                group.tick(node);
            }
        }
        disks.step(&mut group);
        group.run();
        if let Some(leader) = group.leader(&[])
            && group.lease(leader)
        {
            return Some(group.now.saturating_since(begun));
        }
    }
    None
}

#[test]
fn leaders_are_elected_however_slow_the_disks_are() {
    // (how long a sync takes on each node, how long an election may take), in milliseconds
    let cases = [
        ([2, 2, 2], 900),
        ([200; 3], 3_000),
        ([300; 3], 4_000),
        ([400; 3], 5_000),
        ([1_000; 3], 12_000),
        ([2, 2, 1_000], 3_000),
        ([2, 1_000, 1_000], 10_000),
        ([400, 700, 1_000], 12_000),
    ];
    for (sync, bound) in cases {
        let after = elects_within(sync.map(Duration::from_millis));
        println!("syncs of {sync:?} ms: elected after {after:?}");
        assert!(after.is_some_and(|after| after <= Duration::from_millis(bound)), "syncs of {sync:?} ms: {after:?}");
    }
}

/// The shortest and the longest election timeout that a cluster may have, the usual one, and one between.
fn timings() -> [Timing; 4] {
    [100, 400, 2_000, 10_000].map(|ms| Timing::new(Duration::from_millis(ms)).unwrap())
}

#[test]
fn whatever_the_election_timeout_a_leader_is_replaced_after_it_and_not_before() {
    for timing in timings() {
        let mut group = Group::with_timing(initial_state(), timing);
        let leader = group.wait_for_leader(&[]);
        group.ticks(2);
        assert!(group.lease(leader), "{timing}");
        group.isolate(leader);
        let heard = group.now;
        let mut lease_ended = None;
        while group.leader(&[leader]).is_none() {
            // Checks between the ticks, as readers do.
            group.now = group.now + timing.round();
            if !group.lease(leader) {
                lease_ended.get_or_insert(group.now);
            }
            for node in group.others(leader) {
                group.tick(node);
            }
            group.run();
            assert!(group.now < heard + 2 * timing.election_timeout() + 4 * timing.tick(), "{timing}: nobody leads");
        }
        let elected = group.now;
        assert!(elected >= heard + timing.election_timeout(), "{timing}");
        assert!(lease_ended.is_some_and(|ended| ended < elected), "{timing}");
    }
}

#[test]
fn whatever_the_election_timeout_a_voter_that_restarts_keeps_the_promise_of_its_former_life() {
    for timing in timings() {
        let mut group = Group::with_timing(initial_state(), timing);
        let leader = group.wait_for_leader(&[]);
        group.ticks(2);
        let [voter, other] = group.others(leader)[..] else { panic!("three nodes") };
        let promised = group.now;
        group.isolate(leader);
        group.restart(voter);
        let later = Term(group.term(voter).0 + 1);
        while !group.asks(voter, other, MessageType::MsgRequestVote, later, b"") {
            assert!(group.now < promised + 3 * timing.election_timeout(), "{timing}: it votes at last");
            group.pass(timing.round());
            group.tick(voter);
        }
        assert!(group.now >= promised + timing.promise(), "{timing}");
    }
}
