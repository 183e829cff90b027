//! Memory that is full or corrupted.

use super::super::Cluster;
use super::super::node::Node;
use super::Then;
use ringfort_core::types::NodeId;
use std::time::Duration;

impl Cluster {
    /// A node refuses puts, as it does when it reaches `--max-memory`.
    pub(super) fn fill_memory(&mut self, id: NodeId, length: Duration) {
        self.note(format!("the memory of node {id} is full"));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.set_memory_full(true);
            self.later(length, Then::MemoryAgain(id));
        }
    }

    pub(super) fn free_memory(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.set_memory_full(false);
        }
    }

    /// Flips a bit in the memory of one replica. Only with three nodes or more, so that every shard has a quorum
    /// elsewhere. Returns whether a bit was flipped.
    pub(in super::super) fn damage_memory(&mut self) -> bool {
        let present: Vec<NodeId> = self.present().map(|(id, _)| id).collect();
        if !self.options.faults.memory || present.len() < 3 {
            return false;
        }
        self.faults.random = self.faults.root.fork("memory damage");
        let id = *self.faults.random.pick(&present);
        let random = &mut self.faults.random;
        self.faults.damaged = self.nodes.get_mut(&id).and_then(|node| node.damage_memory(random));
        let is_damaged = self.faults.damaged.is_some();
        self.invariants.expects_divergence = is_damaged;
        if let Some((shard, replica)) = self.faults.damaged {
            self.note(format!("a bit flips in the memory of node {id}, in shard {shard}, replica {replica}"));
        }
        *self.faults.counts.entry("memory damaged").or_default() += u64::from(is_damaged);
        is_damaged
    }

    /// The replica whose memory was damaged is gone, an alarm has reported it, and the cluster has recovered.
    pub(in super::super) fn is_healed(&mut self) -> bool {
        let Some((shard, damaged)) = self.faults.damaged else { return true };
        let running = || self.nodes.values().filter_map(Node::running);
        let mut held = running().flat_map(|node| node.replicas().map(|held| (held.shard(), held.id())));
        let still_runs = held.any(|held| held == (shard, damaged));
        let is_told = running().any(|node| !node.alarms().is_empty());
        let is_over = running().all(|node| node.divergences() == 0);
        drop(held);
        !still_runs && is_told && is_over && self.tidy_up()
    }
}
