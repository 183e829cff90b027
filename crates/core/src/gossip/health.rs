//! The health of all nodes, as last reported.

use super::Gossip;
use super::node_state::Fact;
use crate::health::NodeHealth;
use crate::time::Now;
use crate::types::NodeId;
use std::sync::Arc;

impl<T> Gossip<T> {
    /// Announces this node's health. When it starts or stops abstaining, it tells all other nodes at once, because the
    /// controller may be about to transfer a leadership to it.
    pub fn announce(&mut self, now: Now, health: NodeHealth) {
        let before = self.node_states.health(self.node).unwrap_or_default();
        self.say(&Fact::Health(health));
        if before.abstention() != health.abstention() {
            let others = self.topology.nodes.keys().copied().filter(|&node| node != self.node);
            for node in others.collect::<Vec<NodeId>>() {
                self.ask(now.wall, node);
            }
        }
    }

    /// Publishes the reported health of all nodes if it has changed.
    pub(super) fn publish_health(&mut self) {
        let members = self.topology.nodes.keys();
        let view = members.filter_map(|&node| Some((node, self.node_states.health(node)?))).collect();
        if *self.health != view {
            self.health = Arc::new(view);
            self.new_health = Some(self.health.clone());
        }
    }
}
