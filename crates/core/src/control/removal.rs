//! Whether a node may leave now, given which nodes are alive.
//!
//! The system shard's state machine knows how many nodes there are and refuses what can never work. What can't work
//! now, while other nodes are silent, is refused here, before anything is proposed: the moves would wait for those
//! nodes, or could never begin.
//!
//! A silent node may leave while other nodes are silent; otherwise two silent nodes would block each other, and neither
//! could leave. Its replicas are copied from the remaining majorities. Replicas that placement assigns to another
//! silent node wait until that node returns or leaves too.

use crate::system::Topology;
use crate::types::{NodeId, ShardId};
use std::collections::{BTreeMap, BTreeSet};

/// The nodes that answer and the nodes with voters, as far as is known.
#[derive(Default)]
pub struct Present {
    /// The nodes that answer.
    pub live: BTreeSet<NodeId>,
    /// The nodes that hold a voter of each shard whose voters are known. For other shards, every replica in the
    /// topology counts as a voter.
    pub voters: BTreeMap<ShardId, BTreeSet<NodeId>>,
}

/// What the operator must do before `node`'s replicas can move elsewhere, as a message; `None` if nothing.
pub fn obstacle(topology: &Topology, node: NodeId, present: &Present) -> Option<String> {
    let Present { live, voters } = present;
    let name = |id: NodeId| topology.nodes.get(&id).map_or_else(|| format!("node {id}"), |member| member.name.clone());
    let silent = topology.active().map(|(id, _)| id).filter(|id| *id != node && !live.contains(id));
    let silent: Vec<String> = silent.map(name).collect();
    if let Some(first) = silent.first()
        && live.contains(&node)
    {
        let (does, it) = if silent.len() == 1 { ("does", "it") } else { ("do", "them") };
        return Some(format!(
            "{} {does} not answer, and may be needed to take over what {} holds: start {it} again, or have {it} leave \
             first (`ringfort cluster leave {first}`)",
            listed(&silent, "and"),
            name(node),
        ));
    }
    for (shard, group) in &topology.groups {
        let held = || group.replicas.iter().map(|replica| replica.node());
        let voters = voters.get(shard).cloned().unwrap_or_else(|| held().collect());
        let silent: Vec<String> = voters.iter().filter(|id| !live.contains(id)).map(|id| name(*id)).collect();
        let answering = voters.len() - silent.len();
        if held().any(|id| id == node) && 2 * answering <= voters.len() {
            return Some(format!(
                "shard {shard} has {answering} of {} replicas on nodes that answer, and can't be moved without a \
                 majority: start {} again",
                voters.len(),
                listed(&silent, "or"),
            ));
        }
    }
    None
}

/// Names in a sentence: "a, b and c".
fn listed(names: &[String], last: &str) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [others @ .., end] => format!("{} {last} {end}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::topology::tests::member;
    use crate::system::{Group, MemberState};
    use crate::timing::Timing;
    use crate::types::{ClusterId, ReplicaId};
    use ringfort_ring::ShardCount;

    fn topology(nodes: u64) -> Topology {
        let mut topology =
            Topology::bootstrap(ClusterId(5), ShardCount::new(1).unwrap(), Timing::DEFAULT, member("node1"));
        for node in 2..=nodes {
            topology.nodes.insert(NodeId(node), member(&format!("node{node}")));
        }
        let on = |nodes: &[u64]| Group {
            target: nodes.iter().map(|&node| NodeId(node)).collect(),
            replicas: nodes.iter().map(|&node| ReplicaId::new(NodeId(node), node as u32)).collect(),
        };
        topology.groups.insert(ShardId(0), on(&[1, 2, 3]));
        topology.groups.insert(ShardId::SYSTEM, on(&[1, 2, 3]));
        topology
    }

    fn nodes(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().map(|&node| NodeId(node)).collect()
    }

    fn live(live: &[u64]) -> Present {
        Present { live: nodes(live), voters: BTreeMap::new() }
    }

    #[test]
    fn all_others_must_answer_but_those_that_are_on_their_way_out() {
        let mut topology = topology(5);
        assert_eq!(obstacle(&topology, NodeId(2), &live(&[1, 2, 3, 4, 5])), None);
        let obstructed = obstacle(&topology, NodeId(2), &live(&[1, 2, 3, 4])).expect("node5 is silent");
        assert!(obstructed.contains("node5 does not answer"), "{obstructed}");
        let obstructed = obstacle(&topology, NodeId(2), &live(&[1, 2, 3])).expect("two are silent");
        assert!(obstructed.contains("node4 and node5 do not answer"), "{obstructed}");
        topology.member_states.insert(NodeId(5), MemberState::Dead);
        assert_eq!(obstacle(&topology, NodeId(2), &live(&[1, 2, 3, 4])), None);
    }

    #[test]
    fn a_silent_node_may_go_where_others_are_a_majority() {
        let mut topology = topology(4);
        assert_eq!(obstacle(&topology, NodeId(3), &live(&[1, 2, 4])), None);
        topology.member_states.insert(NodeId(2), MemberState::Leaving);
        let obstructed = obstacle(&topology, NodeId(3), &live(&[1, 4])).expect("one of three answers");
        assert!(obstructed.contains("1 of 3") && obstructed.contains("start node2 or node3 again"), "{obstructed}");
    }
    #[test]
    fn two_silent_nodes_leave_one_after_the_other() {
        let mut topology = topology(6);
        let (shard, replica) = (ShardId(0), |node: u64| ReplicaId::new(NodeId(node), node as u32));
        topology.groups.get_mut(&shard).unwrap().replicas = [1, 2, 4].map(replica).to_vec();
        let mut present = live(&[1, 2, 3, 6]);
        present.voters.insert(shard, nodes(&[1, 2, 4]));
        assert_eq!(obstacle(&topology, NodeId(4), &present), None);
        assert_eq!(obstacle(&topology, NodeId(5), &present), None);
        // The node that leaves first is to be replaced by the other one, which has no replicas yet.
        topology.member_states.insert(NodeId(4), MemberState::Leaving);
        topology.groups.get_mut(&shard).unwrap().replicas.push(replica(5));
        assert_eq!(obstacle(&topology, NodeId(5), &present), None);
        present.voters.insert(shard, nodes(&[1, 2, 4, 5]));
        let obstructed = obstacle(&topology, NodeId(5), &present).expect("two of four answer");
        assert!(obstructed.contains("2 of 4") && obstructed.contains("start node4 or node5 again"), "{obstructed}");
    }
}
