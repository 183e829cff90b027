//! A preview of the moves and their reasons: the controller's next decisions without their effects. Also, whether a
//! leave would be refused.

use super::plan;
use super::removal::{self, Present};
use crate::system::{MemberState, SystemCommand, SystemMachine, SystemReply, Topology};
use crate::time::HlcTimestamp;
use crate::types::{NodeId, ShardId};
use std::collections::{BTreeMap, BTreeSet};

/// A shard that is not at its target, or would not be.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    pub shard: ShardId,
    /// Nodes that get a replica.
    pub gains: Vec<NodeId>,
    /// Nodes that lose theirs.
    pub loses: Vec<NodeId>,
    /// The new preferred leader, if the shard's leader is another node.
    pub leader: Option<NodeId>,
    /// The reason, in words for the operator.
    pub reason: String,
}

/// The moves from the present replicas to the target if the nodes `leaving` left. `held` has the nodes with a voter and
/// the leader of each shard.
pub fn moves(
    topology: &Topology,
    leaving: &[NodeId],
    held: &BTreeMap<ShardId, (Vec<NodeId>, Option<NodeId>)>,
) -> Vec<Move> {
    let mut then = topology.clone();
    then.member_states.extend(leaving.iter().map(|&node| (node, MemberState::Leaving)));
    for (shard, nodes) in plan::changed_targets(&then) {
        if let Some(group) = then.groups.get_mut(&shard) {
            group.target = nodes;
        }
    }
    let holders: BTreeSet<NodeId> = held.values().flat_map(|(nodes, _)| nodes.iter().copied()).collect();
    let moves = then.groups.iter().filter_map(|(&shard, group)| {
        let (nodes, leader) = held.get(&shard)?;
        let gains: Vec<NodeId> = group.target.iter().filter(|node| !nodes.contains(node)).copied().collect();
        let loses: Vec<NodeId> = nodes.iter().filter(|node| !group.target.contains(node)).copied().collect();
        let leader = group.target.first().filter(|target| leader.is_some_and(|leader| leader != **target)).copied();
        if gains.is_empty() && loses.is_empty() && leader.is_none() {
            return None;
        }
        let reason = reason(&then, &holders, &gains, &loses);
        Some(Move { shard, gains, loses, leader, reason })
    });
    moves.collect()
}

/// Why the nodes `leaving` could not leave now, one after the other; `None` if they could. The command itself would be
/// refused with the same text.
pub fn refusal(topology: &Topology, leaving: &[NodeId], present: &Present) -> Option<String> {
    let mut machine = SystemMachine::new(topology.clone(), HlcTimestamp::default());
    leaving.iter().find_map(|&node| {
        let obstacle = removal::obstacle(machine.topology(), node, present);
        let state = Some(MemberState::Leaving);
        let order = SystemCommand::SetMemberState { node, state, successor: None, fewer_replicas: false };
        obstacle.or_else(|| match machine.apply(HlcTimestamp::default(), order) {
            SystemReply::Refused(why) => Some(why),
            _ => None,
        })
    })
}

fn reason(topology: &Topology, holders: &BTreeSet<NodeId>, gains: &[NodeId], loses: &[NodeId]) -> String {
    let name = |id: &NodeId| topology.nodes.get(id).map_or_else(|| format!("node {id}"), |member| member.name.clone());
    let state = |id: &&NodeId| topology.member_states.contains_key(id);
    if let Some(going) = loses.iter().find(state) {
        return match topology.member_states[going] {
            MemberState::Drained => format!("{} is drained", name(going)),
            MemberState::Leaving => format!("{} is leaving", name(going)),
            MemberState::Dead => format!("{} is silent", name(going)),
            MemberState::Replaced => format!("{} has lost its directory", name(going)),
        };
    }
    match (gains, loses) {
        ([], []) => "leadership is spread evenly".to_owned(),
        ([gains, ..], _) if !holders.contains(gains) => format!("{} is new", name(gains)),
        (_, []) => "too few replicas".to_owned(),
        ([], _) => "too many replicas".to_owned(),
        _ => "replicas are spread over nodes and zones".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::topology::tests::member;
    use crate::timing::Timing;
    use crate::types::ClusterId;
    use ringfort_ring::ShardCount;

    fn settled(nodes: u64) -> Topology {
        let mut topology =
            Topology::bootstrap(ClusterId(5), ShardCount::new(16).unwrap(), Timing::DEFAULT, member("node1"));
        for node in 2..=nodes {
            topology.nodes.insert(NodeId(node), member(&format!("node{node}")));
        }
        for (shard, nodes) in plan::changed_targets(&topology) {
            topology.groups.get_mut(&shard).unwrap().target = nodes;
        }
        topology
    }

    fn held(topology: &Topology) -> BTreeMap<ShardId, (Vec<NodeId>, Option<NodeId>)> {
        topology
            .groups
            .iter()
            .map(|(&shard, group)| (shard, (group.target.clone(), group.target.first().copied())))
            .collect()
    }

    #[test]
    fn nothing_moves_where_all_is_well_and_whoever_leaves_is_the_reason() {
        let topology = settled(4);
        let held = held(&topology);
        assert_eq!(moves(&topology, &[], &held), []);
        let moves = moves(&topology, &[NodeId(4)], &held);
        let given_up = moves.iter().filter(|one| one.loses == [NodeId(4)]);
        assert!(given_up.clone().all(|one| one.gains.len() == 1 && one.reason == "node4 is leaving"), "{moves:?}");
        let on_four = topology.groups.values().filter(|group| group.target.contains(&NodeId(4))).count();
        assert_eq!(given_up.count(), on_four);
    }

    #[test]
    fn a_new_node_and_a_leader_out_of_place_are_told() {
        let mut topology = settled(3);
        let mut held = held(&topology);
        topology.nodes.insert(NodeId(4), member("node4"));
        let planned = moves(&topology, &[], &held);
        assert!(planned.iter().filter(|one| one.gains == [NodeId(4)]).all(|one| one.reason == "node4 is new"));
        assert_eq!(planned.iter().flat_map(|one| &one.gains).count(), 12, "its share: 48 replicas on four nodes");
        topology.nodes.remove(&NodeId(4));
        let (nodes, leader) = held.get_mut(&ShardId(3)).unwrap();
        *leader = Some(nodes[2]);
        let expected = (ShardId(3), Some(nodes[0]));
        let planned = moves(&topology, &[], &held);
        assert_eq!(planned.iter().map(|one| (one.shard, one.leader)).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn what_could_not_leave_is_refused_in_the_same_words() {
        let topology = settled(4);
        let all = Present { live: topology.nodes.keys().copied().collect(), ..Present::default() };
        let refused = |leaving: &[u64], present: &Present| {
            let leaving: Vec<NodeId> = leaving.iter().map(|&node| NodeId(node)).collect();
            refusal(&topology, &leaving, present)
        };
        assert_eq!(refused(&[4], &all), None);
        let why = refused(&[4, 3], &all).expect("two nodes are too few");
        assert!(why.starts_with("without node3 there would be 2 nodes for 3 replicas"), "{why}");
        let three = Present { live: [1, 2, 3].map(NodeId).into(), ..Present::default() };
        let why = refused(&[3], &three);
        assert_eq!(why, removal::obstacle(&topology, NodeId(3), &three));
        assert!(why.is_some());
    }
}
