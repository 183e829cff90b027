//! Which node leads a shard, as far as one node knows.
//!
//! There are two sources: the replica of the shard on this node, if it has one, and the announcements of the other
//! nodes. Both may be out of date. A wrong leader costs one `NotLeader`, never a wrong answer.
//!
//! A leader that the replica here has not heard for a while is *silent*: it may have crashed, and a write that is sent
//! there could end with an unknown outcome. So it gets no writes until it is heard again or has a successor. Reads are
//! sent to it, since they can be sent again elsewhere.

use crate::types::NodeId;
use crate::view::ShardView;

/// The destination of requests for a shard.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Route {
    /// The node that leads the shard. `None` if no leader is known, or the last known one is silent.
    pub leader: Option<NodeId>,
    /// The last known leader while it is silent.
    pub silent: Option<NodeId>,
}

impl Route {
    /// The route from the node `own`, on which the shard has the replica behind `view`, if any. `told` is the node that
    /// last announced that it leads the shard.
    pub fn new(own: NodeId, view: Option<&ShardView>, told: Option<NodeId>) -> Route {
        let known_here = view.and_then(ShardView::leader);
        let silent = view.and_then(ShardView::silent_leader);
        // This node knows whether it leads. An announcement of its own is about a leadership that it has lost.
        let told = told.filter(|node| *node != own);
        Route { leader: known_here.or(told).filter(|leader| Some(*leader) != silent), silent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::state::Machine;
    use crate::types::{ReplicaId, ShardId};

    const OWN: NodeId = NodeId(1);

    #[test]
    fn without_a_replica_here_others_tell_who_leads() {
        assert_eq!(Route::new(OWN, None, None), Route::default());
        assert_eq!(Route::new(OWN, None, Some(NodeId(2))).leader, Some(NodeId(2)));
        assert_eq!(Route::new(OWN, None, Some(OWN)).leader, None, "without a replica here, nobody here could answer");
    }

    #[test]
    fn a_silent_leader_gets_no_writes_although_others_name_it() {
        let view = ShardView::new(ShardId(0), ReplicaId::new(OWN, 1), Machine::new());
        view.publish_leader(Some(NodeId(2)), false);
        assert_eq!(Route::new(OWN, Some(&view), Some(NodeId(3))), Route { leader: Some(NodeId(2)), silent: None });
        view.publish_leader(Some(NodeId(2)), true);
        view.publish_leader(None, false);
        let route = |told| Route::new(OWN, Some(&view), Some(NodeId(told)));
        assert_eq!(route(2), Route { leader: None, silent: Some(NodeId(2)) });
        assert_eq!(route(3), Route { leader: Some(NodeId(3)), silent: Some(NodeId(2)) }, "its successor gets them");
        view.forget_silence();
        assert_eq!(route(2), Route { leader: Some(NodeId(2)), silent: None }, "it has said again that it leads");
    }
}
