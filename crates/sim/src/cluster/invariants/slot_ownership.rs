//! A slot is owned once an epoch: all nodes that know an epoch know the same topology of it. Which shard a slot belongs
//! to never changes, so who is responsible for it is a question of who has which replica, and whoever acts on an epoch
//! acts alike.

use super::Scene;
use crate::invariant::{Invariant, Violation};
use crate::trace::Absorber;
use ringfort_core::types::{Epoch, NodeId, ShardId};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// A step may have been decided on a topology that is so many epochs old.
const EPOCHS_KEPT: usize = 30;

#[derive(Default)]
pub struct SlotOwnership {
    /// Digests of topologies, and how many replicas of each shard they want.
    topologies: BTreeMap<Epoch, (u64, BTreeMap<ShardId, usize>)>,
    /// The epoch of each node that was checked last.
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

    /// The fewest replicas of a shard that any topology wants of those that may still be acted on.
    pub fn least_target(&self, shard: ShardId) -> Option<usize> {
        self.topologies.values().filter_map(|(_, target)| target.get(&shard)).min().copied()
    }
}
