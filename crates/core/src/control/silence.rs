//! For how long each node has been silent.
//!
//! Silence counts from the last message, and never from before this node began to listen. A node that stood still (a
//! virtual machine that was paused, a laptop that slept) hears nobody meanwhile, and that is no sign of their death: it
//! begins to listen anew. What feeds this are the beacons of all nodes; a failure detector can take its place.

use crate::time::Moment;
use crate::types::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Ticks further apart than this mean that this node itself stood still.
const STOOD_STILL_AFTER: Duration = Duration::from_secs(1);

pub struct Silence {
    heard: BTreeMap<NodeId, Moment>,
    listening_since: Moment,
    last_tick: Moment,
}

impl Silence {
    pub fn new(now: Moment) -> Silence {
        Silence { heard: BTreeMap::new(), listening_since: now, last_tick: now }
    }

    /// This node's clock goes on. Called often, see [`STOOD_STILL_AFTER`].
    pub fn tick(&mut self, now: Moment) {
        if now.saturating_since(self.last_tick) > STOOD_STILL_AFTER {
            self.listening_since = now;
        }
        self.last_tick = now;
    }

    pub fn hear(&mut self, node: NodeId, now: Moment) {
        self.heard.insert(node, now);
    }

    /// Forgets the nodes that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.heard.retain(|node, _| keep(*node));
    }

    /// When `node` was last heard of, if ever.
    pub fn heard_at(&self, node: NodeId) -> Option<Moment> {
        self.heard.get(&node).copied()
    }

    /// For how long nothing has been heard of `node`, as far as this node would have heard it.
    pub fn of(&self, node: NodeId, now: Moment) -> Duration {
        let heard = self.heard.get(&node).copied().unwrap_or_default();
        now.saturating_since(heard.max(self.listening_since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stood_still_does_not_take_that_for_silence() {
        let second = Duration::from_secs(1);
        let start = Moment(1) + second;
        let mut silence = Silence::new(start);
        let node = NodeId(2);
        assert_eq!(silence.of(node, start + 3 * second), 3 * second, "never heard of, since the beginning");
        silence.hear(node, start + second);
        silence.tick(start + second);
        assert_eq!(silence.of(node, start + 2 * second), second);
        let woken = start + 600 * second;
        silence.tick(woken);
        assert_eq!(silence.of(node, woken + second), second);
    }
}
