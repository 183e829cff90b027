//! A slot has one owner per epoch: all nodes that know an epoch know the same topology for it. The shard of a slot
//! never changes, so its owner depends only on the placement of replicas, on which all nodes at the same epoch agree.

use super::Scene;
use crate::invariant::{Invariant, Violation};
use crate::trace::Absorber;
use ringfort_core::types::{Epoch, NodeId, ShardId};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// A step may have been decided on a topology that is this many epochs old.
const EPOCHS_KEPT: usize = 30;

#[derive(Default)]
pub struct SlotOwnership {
    /// Digests of topologies, and how many replicas they assign to each shard.
    topologies: BTreeMap<Epoch, (u64, BTreeMap<ShardId, usize>)>,
    /// The last checked epoch of each node.
    checked: BTreeMap<NodeId, Epoch>,
}

impl SlotOwnership {
    pub fn check(&mut self, scene: &Scene) -> Result<(), Violation> {
        let topology = scene.running.topology();
        let (id, epoch) = (scene.running.id(), topology.epoch);
        if self.checked.insert(id, epoch) == Some(epoch) {
            return Ok(());
        }
        let oldest = self.topologies.first_key_value().map(|(epoch, _)| *epoch);
        if oldest.is_some_and(|oldest| epoch < oldest) {
            return Ok(());
        }
        let mut digest = Absorber::default();
        topology.encode().hash(&mut digest);
        let target = || topology.groups.iter().map(|(&shard, group)| (shard, group.target.len())).collect();
        let (known, _) = self.topologies.entry(epoch).or_insert_with(|| (digest.finish(), target()));
        if *known != digest.finish() {
            return Err(Invariant::SlotOwnership.broken(format!("there are two topologies of epoch {epoch}")));
        }
        if self.topologies.len() > EPOCHS_KEPT {
            self.topologies.pop_first();
        }
        Ok(())
    }

    /// The fewest replicas of a shard in any topology that nodes may still act on.
    pub fn least_target(&self, shard: ShardId) -> Option<usize> {
        self.topologies.values().filter_map(|(_, target)| target.get(&shard)).min().copied()
    }
}
