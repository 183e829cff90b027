//! Saving topologies, and when a node may act on them.
//!
//! A node saves a topology before it acts on it, so that after a restart it never knows less than it acted on. There is
//! one exception: if a topology can't be saved and gives this node no new replica ([`boot::assigns_anew`]), the node
//! acts on it all the same, because on a full disk exactly this topology may be needed to remove replicas. If it
//! assigns a new replica, the node only removes the replicas that it retires, and retries saving it.

use crate::boot;
use crate::disk::Disk;
use crate::system::Topology;
use crate::types::NodeId;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The pause before saving a topology is retried.
pub const SAVE_PAUSE: Duration = Duration::from_millis(250);

/// The topology on a node's disk, and the next one to save.
pub struct TopologyStore {
    node: NodeId,
    saved: Option<Arc<Topology>>,
    waiting: Option<Arc<Topology>>,
}

/// The outcome of saving a topology.
#[derive(Debug)]
pub struct Outcome {
    pub takes_effect: Effect,
    /// Why it is not on disk.
    pub error: Option<io::Error>,
}

/// How a topology takes effect.
#[derive(Debug)]
pub enum Effect {
    /// The node acts on it.
    Full(Arc<Topology>),
    /// Replicas that it retires are removed
    /// ([`Worker::handle_retirements`](crate::worker::Worker::handle_retirements)). The rest waits until it is saved.
    Retirements(Arc<Topology>),
}

impl TopologyStore {
    pub fn new<D: Disk + ?Sized>(disk: &D, node: NodeId) -> TopologyStore {
        let saved = boot::saved_topology(disk).ok().flatten().map(Arc::new);
        TopologyStore { node, saved, waiting: None }
    }

    /// Queues a topology to be saved, in place of an earlier one that is not saved yet.
    pub fn offer(&mut self, topology: Arc<Topology>) {
        self.waiting = Some(topology);
    }

    /// Whether a topology waits. If it still waits after [`save`](TopologyStore::save), retry after [`SAVE_PAUSE`].
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Saves the waiting topology, if there is one. It continues to wait if it must be saved and could not be.
    pub fn save<D: Disk + ?Sized>(&mut self, disk: &D) -> Option<Outcome> {
        let topology = self.waiting.take()?;
        let Err(error) = boot::save_topology(disk, &topology) else {
            self.saved = Some(topology.clone());
            return Some(Outcome { takes_effect: Effect::Full(topology), error: None });
        };
        let takes_effect = if boot::assigns_anew(self.saved.as_deref(), &topology, self.node) {
            self.waiting = Some(topology.clone());
            Effect::Retirements(topology)
        } else {
            Effect::Full(topology)
        };
        Some(Outcome { takes_effect, error: Some(error) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mem::MemDisk;
    use crate::system::topology::tests::member;
    use crate::timing::Timing;
    use crate::types::{ClusterId, Epoch, ReplicaId, ShardId};
    use ringfort_ring::ShardCount;

    #[test]
    fn a_topology_with_a_new_replica_is_acted_on_only_when_it_is_saved() {
        let (disk, node) = (MemDisk::new(), NodeId(1));
        let shards = ShardCount::new(2).unwrap();
        let mut topology = Topology::bootstrap(ClusterId(1), shards, Timing::DEFAULT, member("node1"));
        boot::save_topology(&disk, &topology).unwrap();
        disk.set_capacity(Some(disk.used_bytes()));
        let mut store = TopologyStore::new(&disk, node);
        let effect = |store: &mut TopologyStore| match store.save(&disk)?.takes_effect {
            Effect::Full(topology) => Some(("full", topology.epoch)),
            Effect::Retirements(topology) => Some(("retirements", topology.epoch)),
        };
        let save = |store: &mut TopologyStore, topology: &Topology| {
            store.offer(Arc::new(topology.clone()));
            effect(store)
        };
        topology.epoch = Epoch(20);
        assert_eq!(save(&mut store, &topology), Some(("full", Epoch(20))), "it needs nothing of the disk");
        topology.epoch = Epoch(21);
        topology.groups.get_mut(&ShardId(0)).unwrap().replicas.push(ReplicaId::new(node, 100));
        assert_eq!(save(&mut store, &topology), Some(("retirements", Epoch(21))));
        assert_eq!(effect(&mut store), Some(("retirements", Epoch(21))));
        assert!(store.is_waiting());
        disk.set_capacity(None);
        assert_eq!(effect(&mut store), Some(("full", Epoch(21))));
        assert_eq!(effect(&mut store), None);
        assert_eq!(boot::saved_topology(&disk).unwrap().unwrap().epoch, Epoch(21));
    }
}
