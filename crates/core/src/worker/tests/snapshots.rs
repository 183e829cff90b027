//! Snapshots that are taken, sent and kept, and the entries that stay in memory beside them.

use super::*;
use crate::limits::{
    MAX_RESTATED_BYTES, MAX_SNAPSHOTS_SENT, MAX_SNAPSHOTS_SENT_TO_ONE, RETAINED_SHARE, SNAPSHOT_BURST_BYTES,
};

impl Group {
    /// The pending work of `node` on snapshot files: cuts are written at once, the rest is returned.
    fn work(&mut self, node: NodeId) -> Vec<SnapshotWork> {
        let mut rest = Vec::new();
        while let Some(at) = self.snapshots.iter().position(|(of, _)| *of == node) {
            let worker = self.workers.get_mut(&node).unwrap();
            match self.snapshots.remove(at).1 {
                SnapshotWork::Chunk { shard, .. } => worker.handle_snapshot_chunk_written(shard),
                SnapshotWork::Finish { shard, name } => worker.handle_snapshot_written(shard, &name, true),
                other => rest.push(other),
            }
            self.run();
        }
        rest
    }

    fn set_budget(&mut self, node: NodeId, bytes: usize) {
        self.workers.get_mut(&node).unwrap().config.entry_budget_bytes = bytes;
    }

    fn put_bytes(&mut self, node: NodeId, id: u32, bytes: usize) {
        let put = Put { key: Bytes::from_static(b"k"), value: vec![0; bytes].into() };
        self.request(node, Request::command(ONE_SHARD, put).unwrap(), id);
        self.run();
    }

    /// A leader that is sending a snapshot to a follower that was away, and the file's name.
    fn sending() -> (Group, NodeId, NodeId, String) {
        let (mut group, leader) = Group::with_leader();
        let follower = group.others(leader)[0];
        group.isolate(follower);
        group.put(leader, 1);
        group.ticks(20);
        group.set_budget(leader, 1);
        group.ticks(1);
        group.work(leader);
        assert!(group.replica(leader).log().term_at(1).is_none(), "the entries have left memory");
        group.cut.clear();
        group.set_budget(leader, usize::MAX);
        group.ticks(20);
        let work = group.work(leader);
        let [SnapshotWork::Send { name, message }] = &work[..] else { panic!("{work:?}") };
        assert_eq!(message.to_node(), follower);
        let name = name.clone();
        (group, leader, follower, name)
    }

    fn next_snapshot(&mut self, leader: NodeId) -> Vec<SnapshotWork> {
        self.put(leader, 2);
        self.run();
        self.set_budget(leader, 1);
        self.ticks(1);
        self.set_budget(leader, usize::MAX);
        self.work(leader)
    }
}

fn deletes(work: &[SnapshotWork], file: &str) -> bool {
    work.iter().any(|work| matches!(work, SnapshotWork::Delete { name } if name == file))
}

fn sends(work: &[SnapshotWork]) -> usize {
    work.iter().filter(|work| matches!(work, SnapshotWork::Send { .. })).count()
}

#[test]
fn a_file_that_is_being_sent_is_held_until_it_has_arrived() {
    let (mut group, leader, follower, file) = Group::sending();
    let base = group.replica(leader).status().base;
    let work = group.next_snapshot(leader);
    assert!(group.replica(leader).status().base > base, "a newer snapshot counts");
    assert!(!deletes(&work, &file), "{work:?}");
    assert_eq!(sends(&work), 0, "one transfer to a replica at a time");
    assert!(group.replica(leader).log().term_at(base + 1).is_some(), "the receiver needs the entries after it next");
    group.workers.get_mut(&leader).unwrap().handle_snapshot_sent(SHARD, id(follower.0), true);
    group.turn(leader);
    assert!(deletes(&group.work(leader), &file));
}

#[test]
fn a_transfer_that_failed_is_not_repeated_at_each_heartbeat() {
    let (mut group, leader, follower, _) = Group::sending();
    let mut sent = 0;
    for _ in 0..100 {
        // Each attempt ends at once.
        group.workers.get_mut(&leader).unwrap().handle_snapshot_sent(SHARD, id(follower.0), false);
        group.ticks(1);
        sent += sends(&group.work(leader));
    }
    assert!((1..=4).contains(&sent), "{sent} attempts in five seconds");
}

#[test]
fn a_follower_that_takes_nothing_costs_its_leader_neither_memory_nor_snapshots() {
    const BUDGET: usize = 64 << 10;
    const VALUE: usize = 1 << 10;
    let (mut group, leader) = Group::with_leader();
    let hung = group.others(leader)[0];
    group.set_budget(leader, BUDGET);
    group.slow.insert(hung, Vec::new());
    let mut snapshots = 0;
    for id in 0..2000 {
        group.put_bytes(leader, id, VALUE);
        if id % 10 == 0 {
            group.ticks(1);
        }
        let work = group.work(leader);
        snapshots += work.iter().filter(|work| matches!(work, SnapshotWork::Begin { .. })).count();
        assert!(group.replica(leader).log_bytes() <= BUDGET + 12 * 2 * VALUE, "{id}");
    }
    assert!(group.applied(1999));
    assert!(snapshots <= 2 * 2000 * VALUE / BUDGET, "{snapshots} snapshots");
}

#[test]
fn a_shard_keeps_its_share_of_the_budget_for_a_follower_that_lags() {
    const BUDGET: usize = 256 << 10;
    let (mut group, leader) = Group::with_leader();
    let lagging = group.others(leader)[0];
    group.slow.insert(lagging, Vec::new());
    for id in 0..200 {
        group.put_bytes(leader, id, 1 << 10);
    }
    group.set_budget(leader, BUDGET);
    group.ticks(1);
    group.work(leader);
    group.set_budget(leader, 64 << 10);
    group.ticks(2);
    group.work(leader);
    group.set_budget(leader, BUDGET);
    group.ticks(2);
    // For as long as it answers, which is checked once an election timeout.
    for _ in 0..2 * ELECTION_TICKS {
        let held = group.replica(leader).log_bytes();
        assert!((1..=BUDGET / RETAINED_SHARE).contains(&held), "{held} bytes");
        group.ticks(1);
    }
}

#[test]
fn snapshots_that_cost_much_are_rare() {
    let (mut group, leader) = Group::with_leader();
    let worker = group.workers.get_mut(&leader).unwrap();
    worker.snapshot_allowance.spend(2 * SNAPSHOT_BURST_BYTES);
    assert!(group.next_snapshot(leader).is_empty(), "the last ones have written too much");
    group.workers.get_mut(&leader).unwrap().snapshot_allowance.earn(SNAPSHOT_BURST_BYTES);
    assert!(!group.next_snapshot(leader).is_empty());
}

#[test]
fn a_snapshot_that_fails_before_it_writes_anything_costs_nothing() {
    for wrote_a_chunk in [false, true] {
        let (mut group, leader) = Group::with_leader();
        group.put_bytes(leader, 1, 900 << 10);
        // So little is left, even with what a tick earns, that a snapshot of the value uses it up.
        group.workers.get_mut(&leader).unwrap().snapshot_allowance.spend(SNAPSHOT_BURST_BYTES - 1);
        group.set_budget(leader, 1);
        group.ticks(1);
        group.set_budget(leader, usize::MAX);
        let begun = |(_, work): &(NodeId, SnapshotWork)| match work {
            SnapshotWork::Begin { shard, name, .. } => Some((*shard, name.clone())),
            _ => None,
        };
        let (shard, name) = group.snapshots.iter().find_map(begun).expect("a snapshot begins");
        let worker = group.workers.get_mut(&leader).unwrap();
        if wrote_a_chunk {
            worker.handle_snapshot_chunk_written(shard);
        }
        worker.handle_snapshot_written(shard, &name, false);
        assert_eq!(worker.snapshot_allowance.has_bytes(), !wrote_a_chunk);
    }
}

#[test]
fn few_snapshots_are_sent_at_a_time() {
    let now = Moment(1_000_000_000);
    let mut worker: Worker<u32> = Worker::new(config(NodeId(1), 1), now);
    let shards = 3 * MAX_SNAPSHOTS_SENT as u32;
    let base = LogIndex(5);
    // Most learners are on node 2, each of the others on a node of its own.
    let learner = |shard: u32| if shard % 4 < 3 { id(2) } else { id(3 + u64::from(shard)) };
    for shard in 0..shards {
        let mut state = initial_state();
        let conf_state = ConfState { voters: vec![id(1).0], learners: vec![learner(shard).0], ..ConfState::default() };
        state.base = Base { index: base, term: Term::FIRST, conf_state, snapshot: format!("file {shard}") };
        state.hard_state.commit = base.0;
        worker.restart_replica(ShardId(shard), id(1), state, Restored::Kv(Machine::new()), now);
    }
    let flush = |worker: &mut Worker<u32>| {
        let mut sent = Vec::new();
        loop {
            let (effects, more) = worker.flush(Now { moment: now, wall: Wall(0) });
            for work in effects.snapshots {
                if let SnapshotWork::Send { message, .. } = work {
                    sent.push(message.shard);
                }
            }
            match effects.log {
                Some(batch) => worker.handle_persisted(now, batch.number),
                None if more => {}
                None => return sent,
            }
        }
    };
    flush(&mut worker);
    // The learners have nothing, and ask repeatedly.
    let ask = |worker: &mut Worker<u32>| {
        for replica in worker.status() {
            let mut message = Message::default();
            let from = learner(replica.shard.0);
            (message.from, message.to, message.term) = (from.0, id(1).0, replica.term);
            message.set_msg_type(MessageType::MsgHeartbeatResponse);
            message.set_context(vec![0; 16].into());
            let alive = RaftMessage { shard: replica.shard, from, to: id(1), message: message.clone() };
            message.set_msg_type(MessageType::MsgAppendResponse);
            (message.reject, message.index) = (true, base.0);
            let rejects = |index| {
                let message = Message { index, ..message.clone() };
                RaftMessage { shard: replica.shard, from, to: id(1), message }
            };
            worker.handle_raft(now, [alive, rejects(base.0), rejects(base.0 + 1)]);
        }
    };
    ask(&mut worker);
    let first = flush(&mut worker);
    assert_eq!(first.len(), MAX_SNAPSHOTS_SENT);
    assert_eq!(first.iter().filter(|shard| learner(shard.0) == id(2)).count(), MAX_SNAPSHOTS_SENT_TO_ONE);
    ask(&mut worker);
    assert_eq!(flush(&mut worker), []);
    worker.handle_snapshot_sent(first[0], learner(first[0].0), true);
    ask(&mut worker);
    assert_eq!(flush(&mut worker).len(), 1, "an end makes room");
}

#[test]
fn the_empty_state_needs_no_transfer() {
    let (mut group, leader) = Group::with_leader();
    let learner = ReplicaId::new(NodeId(4), 4);
    let mut worker = Worker::new(config(NodeId(4), 1), group.now);
    let restored = Restored::Kv(Machine::new());
    let replica = config(NodeId(4), 1).replica;
    worker.start(Replica::new(SHARD, learner, replica, ReplicaState::default(), restored, Origin::Created, group.now));
    // A learner's state is written to its log when it is created.
    group.workers.insert(NodeId(4), worker);
    group.step(leader, Step::AddLearner(learner));
    group.ticks(4);
    assert!(group.work(leader).is_empty());
    let (leads, learns) = (group.replica(leader).position(), group.replica(NodeId(4)).position());
    assert_eq!(learns.applied, leads.applied);
    assert!(group.replica(leader).report().caught_up.contains(&learner));
}

#[test]
fn a_map_that_is_not_needed_any_more_is_handed_out_and_not_dropped() {
    let (mut group, leader) = Group::with_leader();
    group.put(leader, 1);
    group.run();
    let view = group.replica(leader).view().clone();
    let own = group.replica(leader).id();
    group.workers.get_mut(&leader).unwrap().handle_quarantine(SHARD, own, QuarantineReason::Memory);
    group.turn(leader);
    assert_eq!(group.garbage.iter().map(Machine::len).collect::<Vec<_>>(), [1]);
    let query = Query::from(Get { key: Bytes::from_static(b"k") });
    assert!(view.read_stale(|| group.now, Duration::MAX, &query).is_none(), "a reader that is late sees no empty map");
}

#[test]
fn entries_that_go_into_the_log_once_more_stay_in_memory_until_then() {
    let (mut group, leader) = Group::with_leader();
    group.put(leader, 1);
    group.run();
    group.set_budget(leader, 0);
    group.now = group.now + TICK;
    let now = group.now;
    let worker = group.workers.get_mut(&leader).unwrap();
    // The tick finds the worker over its budget in the same turn that writes the state.
    worker.handle_log_pressure(SHARD);
    worker.handle_tick(now);
    group.turn(leader);
    assert!(group.applied(1));
}

/// Each batch becomes a record of the log as a whole, and the writes of other shards wait for it.
#[test]
fn many_shards_that_are_asked_for_their_states_at_once_write_them_in_several_batches() {
    const SHARDS: u32 = 40;
    let now = Moment(1_000_000_000);
    let mut worker: Worker<u32> = Worker::new(config(NodeId(1), 1), now);
    for shard in 0..SHARDS {
        let mut state = initial_state();
        let entry = Entry { index: 2, term: 1, data: vec![0; SMALL_LOG_BYTES - 1024].into(), ..Entry::default() };
        state.entries = vec![entry];
        worker.restart_replica(ShardId(shard), id(1), state, Restored::Kv(Machine::new()), now);
    }
    let flush = |worker: &mut Worker<u32>| {
        let (effects, more) = worker.flush(Now { moment: now, wall: Wall(0) });
        effects.log.iter().for_each(|batch| worker.handle_persisted(now, batch.number));
        (effects.log, more)
    };
    while flush(&mut worker).1 {}
    (0..SHARDS).for_each(|shard| worker.handle_log_pressure(ShardId(shard)));
    let mut restated = Vec::new();
    loop {
        let (batch, more) = flush(&mut worker);
        let Some(batch) = batch else { break };
        assert!(batch.restated_bytes() < MAX_RESTATED_BYTES + SMALL_LOG_BYTES as u64, "{}", batch.restated_bytes());
        assert_eq!((batch.new_entry_bytes(), batch.restated_bytes()), (0, batch.entry_bytes()));
        restated.extend(batch.items.iter().map(|item| item.shard.0));
        assert_eq!(more, restated.len() < SHARDS as usize, "the rest is written at once");
    }
    assert_eq!(restated, (0..SHARDS).collect::<Vec<_>>());
}

#[test]
fn what_a_stopped_replica_pins_is_read_back_by_the_log() {
    let now = Moment(1_000_000_000);
    let mut worker: Worker<u32> = Worker::new(config(NodeId(1), 1), now);
    let (stopped, lost, unknown) = (ShardId(0), ShardId(1), ShardId(2));
    worker.restart_replica(stopped, id(1), initial_state(), Restored::Kv(Machine::new()), now);
    worker.quarantine(lost, id(1), Vec::new());
    let asked = |worker: &mut Worker<u32>| {
        worker.flush(Now { moment: now, wall: Wall(0) });
        [stopped, lost, unknown].into_iter().for_each(|shard| worker.handle_log_pressure(shard));
        let batch = worker.flush(Now { moment: now, wall: Wall(0) }).0.log.expect("the log must shrink");
        let states: Vec<_> = batch.items.iter().map(|item| item.shard).collect();
        (states, batch.read_back)
    };
    assert_eq!(asked(&mut worker), (vec![stopped], vec![lost]));
    worker.handle_quarantine(stopped, id(1), QuarantineReason::Memory);
    assert_eq!(asked(&mut worker), (vec![], vec![stopped, lost]));
}

#[test]
fn a_quiet_replica_takes_a_snapshot_and_a_busy_or_small_one_does_not() {
    let (mut group, leader) = Group::with_leader();
    let large = Put { key: "large".into(), value: vec![0; SMALL_LOG_BYTES].into() };
    group.put(leader, 1);
    group.ticks(QUIET_TICKS as u32 + 2);
    assert!(!group.replica(leader).is_cutting(), "little is held");
    group.request(leader, Request::command(ONE_SHARD, large).unwrap(), 2);
    for id in 0..4 {
        group.ticks(QUIET_TICKS as u32 - 10);
        assert!(!group.replica(leader).is_cutting(), "entries come");
        group.put(leader, 10 + id);
    }
    group.ticks(QUIET_TICKS as u32 + 2);
    for replica in REPLICAS {
        assert!(group.replica(replica.node()).is_cutting(), "{replica}");
    }
}

#[test]
fn a_suspect_replicas_snapshot_is_not_deleted_once_its_successor_has_written_one_of_that_name() {
    let (mut group, leader) = Group::with_leader();
    let work = group.next_snapshot(leader);
    let written = work.iter().find_map(|work| match work {
        SnapshotWork::Begin { name, .. } => Some(name.clone()),
        _ => None,
    });
    let file = written.expect("a snapshot is taken");
    let now = group.now;
    let worker = group.workers.get_mut(&leader).unwrap();
    let other = "snap-0-1.snap".to_owned();
    let number = worker.batch.number;
    worker.retired_snapshots.extend([&file, &other].map(|name| (number, SHARD, name.clone())));
    worker.handle_persisted(now, number);
    let (effects, _) = worker.flush(Now { moment: now, wall: Wall(0) });
    let deleted: Vec<_> = effects.snapshots.iter().filter(|work| matches!(work, SnapshotWork::Delete { .. })).collect();
    assert!(matches!(deleted[..], [SnapshotWork::Delete { name }] if *name == other));
}
