//! Whether a node may take over the name of a member whose directory is lost (`--replace`).
//!
//! Only the name of a node that is not heard of: two nodes that run under one name are a mistake. The request may also
//! come from an earlier start of the node that has the name, whose disk was lost since; it must not take the name from the
//! node that runs now.

use crate::liveness::{Liveness, LivenessState};
use crate::system::{Member, Topology};
use crate::types::NodeId;

/// The node that runs under the name of `joiner` and is not `joiner` itself, if there is one: then `joiner` is refused.
/// `own` is the node that decides, and `liveness` what it knows of the others through gossip.
pub fn running_under_name(
    topology: &Topology,
    own: NodeId,
    joiner: &Member,
    liveness: impl Fn(NodeId) -> Option<Liveness>,
) -> Option<NodeId> {
    let (node, known) = topology.node_named(&joiner.name)?;
    if known.identity == joiner.identity {
        return None;
    }
    let is_heard = liveness(node).is_some_and(|liveness| liveness.was_heard && liveness.state == LivenessState::Alive);
    (node == own || is_heard).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::Reason;
    use crate::system::topology::tests::member;
    use crate::time::Moment;
    use crate::timing::Timing;
    use crate::types::{ClusterId, Identity};
    use ringfort_ring::ShardCount;

    #[test]
    fn only_the_name_of_a_node_that_is_not_heard_can_be_taken_over() {
        let mut topology =
            Topology::bootstrap(ClusterId(5), ShardCount::new(2).unwrap(), Timing::DEFAULT, member("node1"));
        topology.nodes.insert(NodeId(2), member("node2"));
        let running = |name: &str, identity: Option<u128>, state, was_heard| {
            let mut joiner = member(name);
            joiner.identity = identity.map_or(joiner.identity, Identity);
            let (since, reason) = (Moment(0), Reason::Expected);
            let liveness = Liveness { state, since, reason, heard: since, was_heard, phi: 0.0 };
            running_under_name(&topology, NodeId(1), &joiner, |_| Some(liveness))
        };
        let other = Some(77);
        assert_eq!(running("node2", other, LivenessState::Alive, true), Some(NodeId(2)));
        assert_eq!(running("node2", other, LivenessState::Dead, true), None);
        assert_eq!(running("node2", other, LivenessState::Alive, false), None, "this node has just started");
        assert_eq!(running("node2", None, LivenessState::Alive, true), None, "it is that node itself");
        assert_eq!(running("node1", other, LivenessState::Dead, false), Some(NodeId(1)), "this node runs");
        assert_eq!(running("node3", other, LivenessState::Alive, true), None);
    }
}
