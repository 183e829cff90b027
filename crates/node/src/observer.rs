//! What operators and monitoring may read of this node. Nothing here changes the node.

use crate::admission::AdmissionState;
use crate::clock;
use crate::events::{ControlEvent, ControlKnowledge, GossipEvent, GossipKnowledge, Mailbox, NoAnswer};
use crate::in_flight::InFlight;
use crate::log_queue::LogSize;
use crate::routing::Routing;
use crate::workers::Workers;
use parking_lot::Mutex;
use ringfort_core::health::{DiskReport, HealthMonitor};
use ringfort_core::replica::ReplicaStatus;
use ringfort_core::system::{Members, Topology};
use ringfort_core::types::{NodeId, ShardId};
use ringfort_core::view::ShardView;
use std::sync::Arc;

pub struct Observer {
    routing: Arc<Routing>,
    workers: Arc<Workers>,
    control: Mailbox<ControlEvent>,
    gossip: Mailbox<GossipEvent>,
    health: Arc<Mutex<HealthMonitor>>,
    admission: Arc<AdmissionState>,
    in_flight: Arc<InFlight>,
    log_size: Arc<LogSize>,
}

impl Observer {
    pub fn new(
        (routing, workers): (Arc<Routing>, Arc<Workers>),
        (control, gossip): (Mailbox<ControlEvent>, Mailbox<GossipEvent>),
        health: Arc<Mutex<HealthMonitor>>,
        admission: Arc<AdmissionState>,
        in_flight: Arc<InFlight>,
        log_size: Arc<LogSize>,
    ) -> Observer {
        Observer { routing, workers, control, gossip, health, admission, in_flight, log_size }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.routing.node()
    }

    pub fn topology(&self) -> Arc<Topology> {
        self.routing.topology()
    }

    /// All nodes with their last known addresses.
    pub fn members(&self) -> Arc<Members> {
        self.routing.members()
    }

    /// The node that leads the shard, as far as this node knows.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.routing.leader(shard)
    }

    /// The shard's replica on this node.
    pub fn view(&self, shard: ShardId) -> Option<Arc<ShardView>> {
        self.routing.view(shard)
    }

    /// How many keys a shard's replica on this node holds, and how many bytes of keys and values; zero without one.
    pub fn size(&self, shard: ShardId) -> (usize, usize) {
        self.view(shard).map_or((0, 0), |view| view.size())
    }

    /// The same for these replicas together.
    pub fn total_size(&self, replicas: &[ReplicaStatus]) -> (usize, usize) {
        let sizes = replicas.iter().map(|replica| self.size(replica.shard));
        sizes.fold((0, 0), |(keys, bytes), (more, larger)| (keys + more, bytes + larger))
    }

    /// The status of all replicas on this node.
    pub async fn replicas(&self) -> Result<Vec<ReplicaStatus>, NoAnswer> {
        self.workers.statuses().await
    }

    /// What the controller knows of moves, and of replicas that can't be run.
    pub async fn controller(&self) -> Result<ControlKnowledge, NoAnswer> {
        self.control.knowledge().await
    }

    /// What is known through gossip.
    pub async fn gossip(&self) -> Result<GossipKnowledge, NoAnswer> {
        self.gossip.knowledge().await
    }

    /// The state of this node's disk.
    pub fn disk(&self) -> DiskReport {
        self.health.lock().report(clock::moment())
    }

    pub fn is_disk_hung(&self) -> bool {
        self.admission.is_disk_hung()
    }

    pub fn is_disk_full(&self) -> bool {
        self.admission.is_disk_full()
    }

    pub fn is_memory_full(&self) -> bool {
        self.admission.is_memory_full()
    }

    /// Bytes of batches that are not synced yet.
    pub fn unsynced_bytes(&self) -> u64 {
        self.admission.unsynced_bytes()
    }

    /// Client requests under way.
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.requests()
    }

    /// Bytes in the log's segments.
    pub fn log_bytes(&self) -> u64 {
        self.log_size.bytes()
    }
}
