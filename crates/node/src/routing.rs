//! Where the shards are. Every task with a request reads this without a lock.
//!
//! Except for the views, all of it is a hint: a wrong leader costs one NotLeader, never a wrong answer.

use arc_swap::{ArcSwap, ArcSwapOption};
use ringfort_core::request::Route;
use ringfort_core::system::{Members, Topology};
use ringfort_core::types::{ClusterId, Epoch, NodeId, ShardId};
use ringfort_core::view::ShardView;
use ringfort_ring::ShardCount;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

pub struct Routing {
    node: NodeId,
    cluster: ClusterId,
    topology: ArcSwap<Topology>,
    members: ArcSwap<Members>,
    changed: watch::Sender<()>,
    /// Indexed by shard; the system shard is the last one. The number of shards of a cluster never changes.
    places: Vec<Place>,
}

#[derive(Default)]
struct Place {
    /// The replica on this node.
    view: ArcSwapOption<ShardView>,
    /// The leader's node according to the other nodes' announcements; zero for unknown.
    leader: AtomicU64,
}

impl Routing {
    /// The routing of `node`.
    pub fn new(node: NodeId, topology: Arc<Topology>) -> Routing {
        let places = (0..=topology.shards.get()).map(|_| Place::default()).collect();
        let members = ArcSwap::from_pointee(topology.nodes.clone());
        let cluster = topology.cluster;
        Routing { node, cluster, topology: ArcSwap::new(topology), members, changed: watch::Sender::new(()), places }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The cluster that this node belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    pub fn set_topology(&self, topology: Arc<Topology>) {
        self.topology.store(topology);
        self.changed.send_replace(());
    }

    /// All nodes with their last known addresses, which may be newer than the topology's.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    pub fn set_members(&self, members: Arc<Members>) {
        self.members.store(members);
    }

    /// Waits until the topology has this epoch or a later one, and returns it.
    pub async fn wait_for(&self, epoch: Epoch) -> Arc<Topology> {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let topology = self.topology();
            // An error would mean that the sender is gone, which `self` holds.
            if topology.epoch >= epoch || changes.changed().await.is_err() {
                return topology;
            }
        }
    }

    /// How many shards the cluster has.
    pub fn shards(&self) -> ShardCount {
        self.topology.load().shards
    }

    /// The shard's replica on this node.
    pub fn view(&self, shard: ShardId) -> Option<Arc<ShardView>> {
        self.place(shard)?.view.load_full()
    }

    pub fn set_view(&self, shard: ShardId, view: Option<Arc<ShardView>>) {
        if let Some(place) = self.place(shard) {
            place.view.store(view);
        }
    }

    /// Where to send requests for the shard.
    pub fn route(&self, shard: ShardId) -> Route {
        let Some(place) = self.place(shard) else { return Route::default() };
        let told = NodeId(place.leader.load(Ordering::Relaxed));
        Route::new(self.node, place.view.load().as_deref(), (told != NodeId(0)).then_some(told))
    }

    /// The node that leads the shard, as far as this node knows.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.route(shard).leader
    }

    /// The node has announced that it leads the shard.
    pub fn set_leader(&self, shard: ShardId, node: NodeId) {
        if let Some(place) = self.place(shard) {
            place.leader.store(node.0, Ordering::Relaxed);
            if let Some(view) = &*place.view.load() {
                view.forget_silence();
            }
        }
    }

    fn place(&self, shard: ShardId) -> Option<&Place> {
        if shard == ShardId::SYSTEM {
            return self.places.last();
        }
        self.places[..self.places.len() - 1].get(shard.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_core::system::Member;
    use ringfort_core::timing::Timing;
    use ringfort_core::types::Identity;

    #[tokio::test]
    async fn an_older_topology_does_not_end_the_wait() {
        let member = Member { identity: Identity(1), ..Member::default() };
        let mut topology = Topology::bootstrap(ClusterId(1), ShardCount::new(2).unwrap(), Timing::DEFAULT, member);
        topology.epoch = Epoch(10);
        let routing = Arc::new(Routing::new(NodeId(1), Arc::new(topology.clone())));
        assert_eq!(routing.wait_for(Epoch(9)).await.epoch, Epoch(10));
        let waiting = tokio::spawn({
            let routing = routing.clone();
            async move { routing.wait_for(Epoch(15)).await.epoch }
        });
        for epoch in [12, 15] {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished(), "waits for epoch 15");
            topology.epoch = Epoch(epoch);
            routing.set_topology(Arc::new(topology.clone()));
        }
        assert_eq!(waiting.await.unwrap(), Epoch(15));
    }

    #[test]
    fn the_system_shard_has_a_place_of_its_own_and_unknown_shards_none() {
        let member = Member { identity: Identity(1), ..Member::default() };
        let topology = Topology::bootstrap(ClusterId(1), ShardCount::new(2).unwrap(), Timing::DEFAULT, member);
        let routing = Routing::new(NodeId(1), Arc::new(topology));
        routing.set_leader(ShardId::SYSTEM, NodeId(3));
        routing.set_leader(ShardId(1), NodeId(2));
        routing.set_leader(ShardId(2), NodeId(9));
        assert_eq!(routing.leader(ShardId::SYSTEM), Some(NodeId(3)));
        assert_eq!(routing.leader(ShardId(1)), Some(NodeId(2)));
        assert_eq!(routing.leader(ShardId(0)), None);
        assert_eq!(routing.leader(ShardId(2)), None);
    }
}
