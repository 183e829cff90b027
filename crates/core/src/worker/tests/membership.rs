//! Replicas that start, join, are promoted and outlive topologies.

use super::*;

#[test]
fn a_learner_is_promoted_only_when_it_has_the_log() {
    let (mut group, leader) = Group::with_leader();
    let learner = ReplicaId::new(NodeId(4), 4);
    let step = |group: &mut Group, step: Step| {
        group.step(leader, step);
        group.run();
        group.replica(leader).report()
    };
    let report = step(&mut group, Step::AddLearner(learner));
    assert_eq!(report.learners, [learner]);
    let promote = || Step::Change { promote: vec![learner], remove: vec![] };
    assert_eq!(step(&mut group, promote()).voters, REPLICAS, "it has nothing yet");
    let removal = Step::Change { promote: vec![], remove: vec![learner] };
    let stale = StepRequest { configuration: report.configuration - 1, ..step_request(&report, removal) };
    group.workers.get_mut(&leader).unwrap().handle_step(&stale);
    group.run();
    assert_eq!(group.replica(leader).report().learners, [learner], "decided on an older configuration");
    let report = step(&mut group, Step::Change { promote: vec![], remove: vec![report.leader] });
    assert_eq!(report.voters, REPLICAS, "a leader is never removed");
}

#[test]
fn a_leader_that_finds_itself_joint_leaves() {
    let mut joint = initial_state();
    // Without raft-rs's automatic leave, as if the leader that should have proposed it was lost.
    joint.base.conf_state.voters_outgoing = vec![REPLICAS[0].0, REPLICAS[1].0];
    joint.base.conf_state.auto_leave = false;
    let mut group = Group::starting_from(joint);
    assert_eq!(group.replica(NodeId(1)).report().outgoing, REPLICAS[..2]);
    group.wait_for_leader(&[]);
    group.ticks(3);
    for replica in REPLICAS {
        let report = group.replica(replica.node()).report();
        assert_eq!((&report.voters[..], report.outgoing.len()), (&REPLICAS[..], 0));
    }
}

#[test]
fn a_cluster_begins_from_its_directory_and_restarts_from_it() {
    let disk = Arc::new(crate::disk::mem::MemDisk::new());
    let config_of_log = crate::log::LogConfig { segment_bytes: 1 << 16, ..Default::default() };
    let topology = many_shards(4);
    boot::set_owner(&*disk, &boot::Owner { identity: Identity(1), name: "one".into() }).unwrap();
    assert!(!boot::open(&disk, config_of_log.clone()).unwrap().has_state());
    boot::bootstrap(&disk, config_of_log.clone(), &topology, NodeId(1)).unwrap();
    for _ in 0..2 {
        let boot = boot::open(&disk, config_of_log.clone()).unwrap();
        assert_eq!(boot.node(), Some(NodeId(1)));
        assert_eq!((boot.replicas.len(), boot.lost.len()), (5, 0));
        assert_eq!(boot.topology.as_ref(), Some(&topology));
        let now = Moment(1_000_000_000);
        let mut worker: Worker<u32> = Worker::new(config(NodeId(1), 1), now);
        for start in boot.replicas {
            worker.restart_replica(start.shard, start.replica, *start.state, start.restored, now);
        }
        let renew = SystemCommand::Renew { shard: ShardId(0), replica: ReplicaId(0) };
        worker.handle_request(now, Request::system(renew), 1);
        let (effects, _) = worker.flush(Now { moment: now, wall: Wall(0) });
        assert_eq!(effects.views.len(), 5);
    }
}

#[test]
fn a_replica_outlives_a_topology_that_is_older_than_it() {
    let old = many_shards(4);
    let shard = ShardId(0);
    let first = old.groups[&shard].replicas[0];
    let mut machine = SystemMachine::new(old.clone(), HlcTimestamp::default());
    machine.apply(HlcTimestamp::default(), SystemCommand::Renew { shard, replica: first });
    let mut worker: Worker<u32> = Worker::new(config(NodeId(1), 1), Moment(0));
    worker.handle_topology(Moment(0), machine.topology().clone());
    let held = |worker: &Worker<u32>| worker.replicas().find(|replica| replica.shard() == shard).map(Replica::id);
    let renewed = held(&worker);
    assert!(renewed > Some(first), "{renewed:?}");
    worker.handle_topology(Moment(0), Arc::new(old));
    assert_eq!(held(&worker), renewed);
}

#[test]
fn the_log_gives_up_a_suspect_replica_once_the_topology_does_not_name_it() {
    let old = many_shards(4);
    let shard = ShardId(0);
    let suspect = old.groups[&shard].replicas[0];
    let mut machine = SystemMachine::new(old.clone(), HlcTimestamp::default());
    machine.apply(HlcTimestamp::default(), SystemCommand::Renew { shard, replica: suspect });
    let mut renewed = Topology::clone(machine.topology());
    renewed.groups.get_mut(&shard).unwrap().replicas.retain(|replica| *replica != suspect);
    let kept = "snap-0-500.snap".to_owned();
    // Found at the start, or while it is running.
    for runs in [false, true] {
        let mut worker: Worker<u32> = Worker::new(config(NodeId(1), 1), Moment(0));
        if runs {
            let mut state = initial_state();
            (state.base.index, state.base.snapshot) = (LogIndex(500), kept.clone());
            state.hard_state.commit = 500;
            worker.restart_replica(shard, suspect, state, Restored::Kv(Machine::new()), Moment(0));
            worker.handle_topology(Moment(0), Arc::new(old.clone()));
            worker.handle_quarantine(shard, suspect, QuarantineReason::Memory);
        } else {
            worker.quarantine(shard, suspect, vec![kept.clone()]);
        }
        let removed = LogItem { shard, replica: suspect, change: Change::Removed };
        let mut follow = |topology: &Topology| {
            worker.handle_topology(Moment(0), Arc::new(topology.clone()));
            let (effects, _) = worker.flush(Now { moment: Moment(0), wall: Wall(0) });
            assert!(effects.snapshots.is_empty(), "the removal is not durable");
            let batch = effects.log.expect("replicas are created, or removed");
            worker.handle_persisted(Moment(0), batch.number);
            let (effects, _) = worker.flush(Now { moment: Moment(0), wall: Wall(0) });
            let is_deleted = |work: &SnapshotWork| matches!(work, SnapshotWork::Delete { name } if *name == kept);
            (batch.items.contains(&removed), effects.snapshots.iter().any(is_deleted))
        };
        assert_eq!(follow(&old), (false, false), "an operator may want what is left of it");
        assert_eq!(follow(&renewed), (true, true));
    }
}

#[test]
fn a_topology_that_is_not_saved_yet_removes_replicas_and_creates_none() {
    let (retired, renewed, suspect) = (ShardId(0), ShardId(1), ShardId(2));
    let old = many_shards(4);
    let replica = |topology: &Topology, shard| topology.replica(shard, NodeId(1)).unwrap();
    let mut machine = SystemMachine::new(old.clone(), HlcTimestamp::default());
    for shard in [renewed, suspect] {
        machine.apply(HlcTimestamp::default(), SystemCommand::Renew { shard, replica: replica(&old, shard) });
    }
    let mut new = Topology::clone(machine.topology());
    new.groups.get_mut(&retired).unwrap().replicas.clear();

    let mut worker: Worker<u32> = Worker::new(config(NodeId(1), 1), Moment(0));
    worker.quarantine(suspect, replica(&old, suspect), Vec::new());
    worker.handle_topology(Moment(0), Arc::new(old.clone()));
    let held = |worker: &Worker<u32>, shard| worker.replicas().find(|held| held.shard() == shard).map(Replica::id);
    assert_eq!(held(&worker, retired), Some(replica(&old, retired)));

    worker.handle_retirements(&new);
    assert_eq!(held(&worker, retired), None);
    assert_eq!(held(&worker, renewed), Some(replica(&old, renewed)), "its successor is not saved yet");
    assert_eq!(held(&worker, suspect), None);
    assert_eq!(worker.suspects.get(&suspect), Some(&replica(&old, suspect)), "the topology still names it");

    worker.handle_topology(Moment(0), Arc::new(new.clone()));
    for shard in [renewed, suspect] {
        assert_eq!(held(&worker, shard), Some(replica(&new, shard)));
    }
}
