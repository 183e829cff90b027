//! A leader whose disk does not answer.

use super::*;
use crate::health::NodeHealth;

/// Tells all nodes, as gossip does, that these nodes' disks hang.
fn hang(group: &mut Group, hung: &[NodeId]) {
    tell(group, &hung.iter().map(|&node| (node, DiskState::Hung)).collect::<Vec<_>>());
    for node in hung {
        group.slow.entry(*node).or_default();
    }
}

/// Tells all nodes, as gossip does, the states of these disks.
fn tell(group: &mut Group, disks: &[(NodeId, DiskState)]) {
    let health = |disk| NodeHealth { disk, ..NodeHealth::default() };
    let view: HealthView = Arc::new(disks.iter().map(|&(node, disk)| (node, health(disk))).collect());
    group.workers.values_mut().for_each(|worker| worker.handle_health(view.clone()));
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_and_the_shard_takes_writes() {
    let (mut group, leader) = Group::with_leader();
    group.slow.insert(leader, Vec::new());
    group.put(leader, 1);
    group.ticks(20);
    assert_eq!((group.leader(&[]), group.applied(1)), (Some(leader), false), "its heartbeats are answered");
    hang(&mut group, &[leader]);
    group.ticks(5);
    let next = group.leader(&[leader]).expect("another one leads");
    assert!(!group.lease(leader));
    group.put(next, 2);
    group.ticks(2);
    assert!(group.applied(2));
    group.sync(leader);
    hang(&mut group, &[]);
    group.ticks(5);
    assert_eq!(group.replica(leader).position().applied, group.replica(next).position().applied);
}

#[test]
fn a_leader_leads_on_where_all_disks_hang() {
    let (mut group, leader) = Group::with_leader();
    let all: Vec<NodeId> = group.workers.keys().copied().collect();
    for &node in &all {
        group.slow.insert(node, Vec::new());
    }
    // The leader does not know that the other disks hang, too.
    hang(&mut group, &[leader]);
    group.put(leader, 1);
    group.ticks(40);
    assert_eq!(group.leader(&[]), Some(leader), "nobody has proved that an election would end");
    let other = group.others(leader)[0];
    group.sync(other);
    group.ticks(5);
    assert_eq!(group.leader(&[]), Some(leader), "one of the others is no quorum");
    let last = group.others(leader)[1];
    group.sync(last);
    group.ticks(5);
    assert!(group.leader(&[leader]).is_some());
}

#[test]
fn a_leader_does_not_hand_over_to_a_node_that_wants_nothing() {
    let (mut group, leader) = Group::with_leader();
    let [second, third] = group.others(leader)[..] else { panic!("there are three") };
    let stopping = NodeHealth { is_stopping: true, ..NodeHealth::default() };
    let view: HealthView = Arc::new(BTreeMap::from([(second, stopping)]));
    group.workers.values_mut().for_each(|worker| worker.handle_health(view.clone()));
    group.workers.get_mut(&leader).unwrap().hand_over();
    group.turn(leader);
    group.ticks(2);
    assert_eq!(group.leader(&[]), Some(third));
    group.step(third, Step::TransferLeadership(group.replica(second).id()));
    group.ticks(3);
    assert_eq!(group.leader(&[]), Some(third), "the controller did not know yet");
}

#[test]
fn a_disk_that_hung_lately_is_better_than_one_that_hangs() {
    for third_disk in [DiskState::Recovering, DiskState::Healthy] {
        let (mut group, leader) = Group::with_leader();
        let [second, third] = group.others(leader)[..] else { panic!("there are three") };
        group.slow.insert(leader, Vec::new());
        tell(&mut group, &[(leader, DiskState::Hung), (second, DiskState::Recovering), (third, third_disk)]);
        group.ticks(5);
        let next = group.leader(&[leader]).expect("another one leads");
        assert!(third_disk == DiskState::Recovering || next == third, "its disk is healthy");
        group.put(next, 1);
        group.ticks(2);
        assert!(group.applied(1));
    }
}

#[test]
fn the_controller_may_give_leadership_to_a_disk_that_hung_lately() {
    let (mut group, leader) = Group::with_leader();
    let [second, third] = group.others(leader)[..] else { panic!("there are three") };
    tell(&mut group, &[leader, second, third].map(|node| (node, DiskState::Recovering)));
    group.step(leader, Step::TransferLeadership(group.replica(second).id()));
    group.turn(leader);
    group.ticks(3);
    assert_eq!(group.leader(&[]), Some(second));
}

#[test]
fn a_leader_that_cannot_transfer_steps_down() {
    let (mut group, leader) = Group::with_leader();
    group.slow.insert(leader, Vec::new());
    // A configuration change that this disk never logs prevents every transfer.
    group.step(leader, Step::AddLearner(id(4)));
    group.turn(leader);
    hang(&mut group, &[leader]);
    group.ticks(10);
    assert_eq!(group.leader(&[]), Some(leader));
    group.ticks(2 * MAX_ELECTION_TICKS as u32 + 5);
    assert!(group.leader(&[leader]).is_some(), "the others have elected one");
}
