//! Whether a node may go now, seen from who is there.
//!
//! The system shard's state machine knows how many nodes there are and refuses what is wrong for ever. What is wrong only
//! now, while others are silent, is found here, before anything is proposed: moves would wait for them, or never be able
//! to begin.

use crate::system::Topology;
use crate::types::{NodeId, ReplicaId};
use std::collections::BTreeSet;

/// What must come first before `node` gives its replicas away, in words for the operator; none if nothing must. `live`
/// are the nodes that answer.
pub fn obstacle(topology: &Topology, node: NodeId, live: &BTreeSet<NodeId>) -> Option<String> {
    let name = |id: &NodeId| topology.nodes.get(id).map_or_else(|| format!("node {id}"), |member| member.name.clone());
    let silent: Vec<NodeId> =
        topology.active().map(|(id, _)| id).filter(|id| *id != node && !live.contains(id)).collect();
    if let Some(first) = silent.first() {
        let names: Vec<String> = silent.iter().map(name).collect();
        return Some(format!(
            "{} does not answer, and may be needed to take over what {} holds: start it again, or have it leave first \
             (ringfort cluster leave {})",
            names.join(", "),
            name(&node),
            name(first),
        ));
    }
    for (shard, group) in &topology.groups {
        let is_live = |replica: &&ReplicaId| live.contains(&replica.node());
        let answering = group.replicas.iter().filter(is_live).count();
        let holds = group.replicas.iter().any(|replica| replica.node() == node);
        if holds && 2 * answering <= group.replicas.len() {
            let silent = group.replicas.iter().map(|replica| replica.node()).filter(|id| !live.contains(id));
            let silent: BTreeSet<String> = silent.map(|id| name(&id)).collect();
            return Some(format!(
                "shard {shard} has {answering} of {} replicas on nodes that answer, and can't be moved without a \
                 majority: start {} again",
                group.replicas.len(),
                Vec::from_iter(silent).join(" or "),
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::topology::tests::member;
    use crate::system::{Group, Standing};
    use crate::timing::Timing;
    use crate::types::{ClusterId, ShardId};
    use ringfort_ring::ShardCount;

    fn topology(nodes: u64) -> Topology {
        let mut topology =
            Topology::bootstrap(ClusterId(5), ShardCount::new(1).unwrap(), Timing::DEFAULT, member("node1"));
        for node in 2..=nodes {
            topology.nodes.insert(NodeId(node), member(&format!("node{node}")));
        }
        let on = |nodes: &[u64]| Group {
            wanted: nodes.iter().map(|&node| NodeId(node)).collect(),
            replicas: nodes.iter().map(|&node| ReplicaId::new(NodeId(node), node as u32)).collect(),
        };
        topology.groups.insert(ShardId(0), on(&[1, 2, 3]));
        topology.groups.insert(ShardId::SYSTEM, on(&[1, 2, 3]));
        topology
    }

    fn live(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().map(|&node| NodeId(node)).collect()
    }

    #[test]
    fn all_others_must_answer_but_those_that_are_on_their_way_out() {
        let mut topology = topology(5);
        assert_eq!(obstacle(&topology, NodeId(2), &live(&[1, 2, 3, 4, 5])), None);
        let obstructed = obstacle(&topology, NodeId(2), &live(&[1, 2, 3, 4])).expect("node5 is silent");
        assert!(obstructed.contains("node5 does not answer"), "{obstructed}");
        topology.standings.insert(NodeId(5), Standing::Dead);
        assert_eq!(obstacle(&topology, NodeId(2), &live(&[1, 2, 3, 4])), None);
    }

    #[test]
    fn a_silent_node_may_go_where_others_are_a_majority() {
        let mut topology = topology(4);
        assert_eq!(obstacle(&topology, NodeId(3), &live(&[1, 2, 4])), None);
        topology.standings.insert(NodeId(2), Standing::Leaving);
        let obstructed = obstacle(&topology, NodeId(3), &live(&[1, 4])).expect("one of three answers");
        assert!(obstructed.contains("1 of 3") && obstructed.contains("start node2 or node3 again"), "{obstructed}");
    }
}
