//! The effects of the system shard's commands, one at a time.

use super::topology::tests::member;
use super::*;
use crate::timing::Timing;
use crate::types::{ClusterId, Identity};
use ringfort_ring::ShardCount;

fn machine() -> SystemMachine {
    let topology = Topology::bootstrap(ClusterId(5), ShardCount::new(2).unwrap(), Timing::DEFAULT, member("node1"));
    SystemMachine::new(topology, HlcTimestamp(0))
}

fn join(machine: &mut SystemMachine, name: &str) -> SystemReply {
    machine.apply(HlcTimestamp(1), SystemCommand::Join { member: member(name), replaces: None, known_as: None })
}

/// The reply to a node that is a member as of the present epoch.
fn joined(machine: &SystemMachine, node: u64) -> SystemReply {
    SystemReply::Joined { node: NodeId(node), epoch: machine.topology().epoch }
}

fn place(machine: &mut SystemMachine, shard: u32, nodes: &[u64]) -> SystemReply {
    let based_on = machine.topology().epoch;
    let nodes = nodes.iter().map(|&n| NodeId(n)).collect();
    machine.apply(HlcTimestamp(1), SystemCommand::Place { based_on, groups: vec![(ShardId(shard), nodes)] })
}

#[test]
fn join_is_idempotent_by_name_and_identity() {
    let mut machine = machine();
    assert_eq!(join(&mut machine, "node2"), joined(&machine, 2));
    let epoch = machine.topology().epoch;
    assert_eq!(join(&mut machine, "node2"), joined(&machine, 2));
    assert_eq!(machine.topology().epoch, epoch, "nothing changed, so no new epoch");
    place(&mut machine, 0, &[1, 2]);
    assert_ne!(machine.topology().epoch, epoch);
    assert_eq!(join(&mut machine, "node2"), joined(&machine, 2), "as of a topology that names what it holds by now");
    assert_eq!(join(&mut machine, "node3"), joined(&machine, 3));
}

#[test]
fn a_taken_name_and_a_taken_identity_are_refused() {
    let mut machine = machine();
    let other = Member { identity: Identity(1), ..member("node1") };
    let reply = machine.apply(HlcTimestamp(1), SystemCommand::Join { member: other, replaces: None, known_as: None });
    assert!(matches!(reply, SystemReply::Refused(why) if why.contains("another identity")));
    let renamed = Member { name: "node9".into(), ..member("node1") };
    let reply = machine
        .apply(HlcTimestamp(1), SystemCommand::Join { member: renamed, replaces: Some(NodeId(7)), known_as: None });
    assert!(matches!(reply, SystemReply::Refused(why) if why.contains("node1")));
}

#[test]
fn addresses_may_change() {
    let mut machine = machine();
    let moved = Member { raft_address: "elsewhere:1".into(), ..member("node1") };
    let join = SystemCommand::Join { member: moved.clone(), replaces: None, known_as: None };
    assert_eq!(machine.apply(HlcTimestamp(1), join), joined(&machine, 1));
    assert_eq!(machine.topology().nodes[&NodeId(1)], moved);
}

#[test]
fn replica_ids_are_never_handed_out_twice() {
    let mut machine = machine();
    join(&mut machine, "node2");
    place(&mut machine, 0, &[1, 2]);
    let first = machine.topology().replica(ShardId(0), NodeId(2)).unwrap();
    place(&mut machine, 0, &[1]);
    machine.apply(HlcTimestamp(1), SystemCommand::Retire { shard: ShardId(0), replica: first });
    assert_eq!(machine.topology().replica(ShardId(0), NodeId(2)), None);
    place(&mut machine, 0, &[2, 1]);
    let second = machine.topology().replica(ShardId(0), NodeId(2)).unwrap();
    assert!(second > first);
}

#[test]
fn a_target_replica_is_not_retired_and_a_renewed_one_is_superseded() {
    let mut machine = machine();
    let old = machine.topology().replica(ShardId(0), NodeId(1)).unwrap();
    let retire = SystemCommand::Retire { shard: ShardId(0), replica: old };
    assert!(matches!(machine.apply(HlcTimestamp(1), retire.clone()), SystemReply::Refused(_)));
    machine.apply(HlcTimestamp(1), SystemCommand::Renew { shard: ShardId(0), replica: old });
    let new = machine.topology().replica(ShardId(0), NodeId(1)).unwrap();
    assert_ne!(new, old);
    let epoch = machine.topology().epoch;
    machine.apply(HlcTimestamp(1), SystemCommand::Renew { shard: ShardId(0), replica: old });
    assert_eq!(machine.topology().epoch, epoch, "renewed once");
    assert!(matches!(machine.apply(HlcTimestamp(1), retire), SystemReply::Done(_)));
}

#[test]
fn a_placement_based_on_an_older_epoch_is_refused() {
    let mut machine = machine();
    let based_on = machine.topology().epoch;
    join(&mut machine, "node2");
    let place = SystemCommand::Place { based_on, groups: vec![(ShardId(0), vec![NodeId(2)])] };
    assert!(matches!(machine.apply(HlcTimestamp(1), place), SystemReply::Refused(_)));
    assert!(matches!(super::tests::place(&mut machine, 0, &[7]), SystemReply::Refused(_)));
}

fn set_member_state(
    machine: &mut SystemMachine,
    node: u64,
    state: Option<MemberState>,
    fewer_replicas: bool,
) -> SystemReply {
    let command = SystemCommand::SetMemberState { node: NodeId(node), state, successor: None, fewer_replicas };
    machine.apply(HlcTimestamp(1), command)
}

fn remove(machine: &mut SystemMachine, node: u64) -> SystemReply {
    machine.apply(HlcTimestamp(1), SystemCommand::Remove { node: NodeId(node) })
}

#[track_caller]
fn assert_refused(reply: SystemReply, part: &str) {
    assert!(matches!(&reply, SystemReply::Refused(why) if why.contains(part)), "{reply:?}");
}

#[test]
fn a_node_leaves_when_it_holds_nothing() {
    let mut machine = machine();
    assert_refused(set_member_state(&mut machine, 1, Some(MemberState::Leaving), true), "the only node");
    join(&mut machine, "node2");
    assert_refused(set_member_state(&mut machine, 1, Some(MemberState::Leaving), false), "1 node for 2 replicas");
    assert_refused(remove(&mut machine, 1), "is not leaving");
    assert!(matches!(set_member_state(&mut machine, 1, Some(MemberState::Leaving), true), SystemReply::Done(_)));
    assert_refused(set_member_state(&mut machine, 2, Some(MemberState::Drained), true), "the only node");
    assert_refused(remove(&mut machine, 1), "replicas of 3 shards");
    for shard in [0, 1, ShardId::SYSTEM.0] {
        let replica = machine.topology().replica(ShardId(shard), NodeId(1)).unwrap();
        place(&mut machine, shard, &[2]);
        machine.apply(HlcTimestamp(1), SystemCommand::Retire { shard: ShardId(shard), replica });
    }
    assert!(matches!(remove(&mut machine, 1), SystemReply::Done(_)));
    let topology = machine.topology().clone();
    assert_eq!(topology.nodes.keys().copied().collect::<Vec<_>>(), [NodeId(2)]);
    assert_eq!(topology.departed[&NodeId(1)], Departed::new(&member("node1"), MemberState::Leaving));
    for again in [remove(&mut machine, 1), set_member_state(&mut machine, 1, Some(MemberState::Leaving), false)] {
        assert_eq!(again, SystemReply::Done(topology.epoch), "done is done");
    }
    let with_data = SystemCommand::Join { member: member("node1"), replaces: None, known_as: Some(NodeId(1)) };
    assert_refused(machine.apply(HlcTimestamp(1), with_data), "no member any more");
    assert_eq!(join(&mut machine, "node1"), joined(&machine, 3), "without data, and ids are not reused");
}

#[test]
fn a_standing_can_be_taken_back_and_nothing_is_placed_meanwhile() {
    let mut machine = machine();
    join(&mut machine, "node2");
    set_member_state(&mut machine, 2, Some(MemberState::Drained), true);
    assert_refused(place(&mut machine, 0, &[1, 2]), "can't be placed");
    assert_refused(remove(&mut machine, 2), "is not leaving");
    set_member_state(&mut machine, 2, None, false);
    assert!(matches!(place(&mut machine, 0, &[1, 2]), SystemReply::Done(_)));
    set_member_state(&mut machine, 2, Some(MemberState::Leaving), true);
    set_member_state(&mut machine, 2, Some(MemberState::Dead), true);
    assert_eq!(machine.topology().member_states[&NodeId(2)], MemberState::Leaving, "silence takes no order back");
}

#[test]
fn a_successor_takes_the_place_in_every_shard() {
    let mut machine = machine();
    join(&mut machine, "node2");
    join(&mut machine, "node3");
    place(&mut machine, 0, &[1, 2]);
    place(&mut machine, 1, &[1, 3]);
    let replace = |successor| SystemCommand::SetMemberState {
        node: NodeId(1),
        state: Some(MemberState::Leaving),
        successor: Some(NodeId(successor)),
        fewer_replicas: true,
    };
    assert_refused(machine.apply(HlcTimestamp(1), replace(1)), "can't take the place");
    assert_refused(machine.apply(HlcTimestamp(1), replace(9)), "can't take the place");
    machine.apply(HlcTimestamp(1), replace(3));
    let target = |shard| machine.topology().groups[&ShardId(shard)].target.clone();
    assert_eq!(target(0), [NodeId(3), NodeId(2)]);
    assert_eq!(target(1), [NodeId(1), NodeId(3)], "it is there already: the next placement finds another");
    assert!(machine.topology().replica(ShardId(0), NodeId(3)).is_some());
}

#[test]
fn a_lost_directory_gives_its_name_to_another_only_if_that_is_meant() {
    let mut machine = machine();
    join(&mut machine, "node2");
    let other = Member { identity: Identity(77), ..member("node2") };
    let replaces = |member: &Member, node| SystemCommand::Join {
        member: member.clone(),
        replaces: Some(NodeId(node)),
        known_as: None,
    };
    let replace = replaces(&other, 2);
    assert_eq!(machine.apply(HlcTimestamp(1), replace.clone()), joined(&machine, 3));
    assert_eq!(machine.topology().nodes[&NodeId(2)].name, "node2~2");
    assert_eq!(machine.topology().member_states[&NodeId(2)], MemberState::Replaced);
    assert_refused(set_member_state(&mut machine, 2, None, true), "replaced");
    let epoch = machine.topology().epoch;
    assert_eq!(machine.apply(HlcTimestamp(1), replace), joined(&machine, 3));
    assert_eq!(machine.topology().epoch, epoch, "asked twice");
    assert_refused(join(&mut machine, "node2"), "another identity");
    // A third node was told that the first is silent. The second has not been checked for that.
    let third = Member { identity: Identity(78), ..member("node2") };
    assert_refused(machine.apply(HlcTimestamp(1), replaces(&third, 2)), "has joined as");
    assert!(!machine.topology().member_states.contains_key(&NodeId(3)));
    assert_eq!(machine.apply(HlcTimestamp(1), replaces(&third, 3)), joined(&machine, 4));
}
