//! For how long each node has been silent.
//!
//! Silence counts from the last message, and never from before this node began to listen, or knew of the other: one that
//! has just joined has not been silent since long before. A node that stood still (a
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
    /// Since when each member is known to be one.
    known: BTreeMap<NodeId, Moment>,
    listening_since: Moment,
    last_tick: Moment,
}

impl Silence {
    pub fn new(now: Moment) -> Silence {
        Silence { heard: BTreeMap::new(), known: BTreeMap::new(), listening_since: now, last_tick: now }
    }

    /// This node's clock goes on, and these are the members. Called often, see [`STOOD_STILL_AFTER`].
    pub fn tick(&mut self, now: Moment, members: impl IntoIterator<Item = NodeId>) {
        if now.saturating_since(self.last_tick) > STOOD_STILL_AFTER {
            self.listening_since = now;
        }
        self.last_tick = now;
        let before = std::mem::take(&mut self.known);
        self.known = members.into_iter().map(|node| (node, before.get(&node).copied().unwrap_or(now))).collect();
        self.heard.retain(|node, _| self.known.contains_key(node));
    }

    pub fn hear(&mut self, node: NodeId, now: Moment) {
        self.heard.insert(node, now);
    }

    /// When `node` was last heard of, if ever.
    pub fn heard_at(&self, node: NodeId) -> Option<Moment> {
        self.heard.get(&node).copied()
    }

    /// For how long nothing has been heard of `node`, as far as this node would have heard it.
    pub fn of(&self, node: NodeId, now: Moment) -> Duration {
        let heard = self.heard.get(&node).copied().unwrap_or_default();
        let known = self.known.get(&node).copied().unwrap_or(now);
        now.saturating_since(heard.max(known).max(self.listening_since))
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
        silence.tick(start, [node]);
        assert_eq!(silence.of(node, start + 3 * second), 3 * second, "never heard of, since the beginning");
        silence.hear(node, start + second);
        silence.tick(start + second, [node]);
        assert_eq!(silence.of(node, start + 2 * second), second);
        let woken = start + 600 * second;
        silence.tick(woken, [node]);
        assert_eq!(silence.of(node, woken + second), second);
    }

    #[test]
    fn a_node_that_has_just_joined_has_not_been_silent_for_long() {
        let second = Duration::from_secs(1);
        let mut silence = Silence::new(Moment(1));
        let (old, new) = (NodeId(2), NodeId(3));
        (0..600).for_each(|seconds| silence.tick(Moment(1) + seconds * second, [old]));
        let joined = Moment(1) + 600 * second;
        assert_eq!(silence.of(new, joined), Duration::ZERO, "not even known yet");
        silence.tick(joined, [old, new]);
        assert_eq!((silence.of(old, joined + second), silence.of(new, joined + second)), (601 * second, second));
    }
}
