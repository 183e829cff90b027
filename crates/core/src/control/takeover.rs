//! Whether a node may take over the name of a member whose directory is lost (`--replace`).
//!
//! Only the name of a silent node can be taken over: two running nodes with one name are a mistake. The request may
//! also come from an earlier start of the node that has the name, whose disk was lost since; it must not take the name
//! from the node that runs now.

use crate::liveness::{Liveness, LivenessState};
use crate::system::{Member, Topology};
use crate::types::NodeId;

/// The node whose name `joiner` takes over; `None` if no other node has that name. `liveness` is the deciding node's
/// view of the others from gossip.
///
/// # Errors
/// The member that has the name and is not silent. A member that was never heard counts as alive until it has been
/// silent for long enough, because the deciding node may have just started. The deciding node has no liveness of
/// itself, and counts as alive.
pub fn replaced<'a>(
    topology: &'a Topology,
    joiner: &Member,
    liveness: impl Fn(NodeId) -> Option<Liveness>,
) -> Result<Option<NodeId>, &'a Member> {
    match topology.node_named(&joiner.name) {
        Some((node, known)) if known.identity != joiner.identity => {
            let is_silent = liveness(node).is_some_and(|liveness| liveness.state != LivenessState::Alive);
            if is_silent { Ok(Some(node)) } else { Err(known) }
        }
        _ => Ok(None),
    }
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
    fn only_the_name_of_a_node_that_was_found_silent_can_be_taken_over() {
        let mut topology =
            Topology::bootstrap(ClusterId(5), ShardCount::new(2).unwrap(), Timing::DEFAULT, member("node1"));
        topology.nodes.insert(NodeId(2), member("node2"));
        let replaced = |name: &str, identity: Option<u128>, state, was_heard| {
            let mut joiner = member(name);
            joiner.identity = identity.map_or(joiner.identity, Identity);
            let (since, reason) = (Moment(0), Reason::Expected);
            let liveness = Liveness { state, since, reason, heard: since, was_heard, phi: 0.0 };
            let known = |node| (node == NodeId(2)).then_some(liveness);
            super::replaced(&topology, &joiner, known).map_err(|running| running.name.clone())
        };
        let other = Some(77);
        let refused = |name: &str| Err(name.to_owned());
        assert_eq!(replaced("node2", other, LivenessState::Alive, true), refused("node2"));
        assert_eq!(replaced("node2", other, LivenessState::Dead, true), Ok(Some(NodeId(2))));
        assert_eq!(
            replaced("node2", other, LivenessState::Alive, false),
            refused("node2"),
            "this node has just started"
        );
        assert_eq!(replaced("node2", other, LivenessState::Suspect, false), Ok(Some(NodeId(2))));
        assert_eq!(replaced("node2", None, LivenessState::Alive, true), Ok(None), "it is that node itself");
        assert_eq!(replaced("node1", other, LivenessState::Dead, false), refused("node1"), "this node runs");
        assert_eq!(replaced("node3", other, LivenessState::Alive, true), Ok(None));
    }
}
