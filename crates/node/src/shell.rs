//! State that all threads and tasks of a node share, such as the channels to each other.

use crate::admission::AdmissionState;
use crate::events::{ControlEvent, GossipEvent, Mailbox, SnapshotEvent};
use crate::execute::Executor;
use crate::lifecycle::Lifecycle;
use crate::log_thread::{LogQueue, LogSize};
use crate::metrics::Metrics;
use crate::observer::Observer;
use crate::peers::Peers;
use crate::routing::Routing;
use crate::snapshot_transfer::Transfers;
use crate::workers::Workers;
use parking_lot::Mutex;
use ringfort_core::disk::Disk;
use ringfort_core::health::HealthMonitor;
use std::sync::Arc;
use tokio::runtime::Handle;

pub struct Shell {
    pub runtime: Handle,
    pub disk: Arc<dyn Disk>,
    pub workers: Arc<Workers>,
    pub log: LogQueue,
    pub snapshots: Mailbox<SnapshotEvent>,
    pub control: Mailbox<ControlEvent>,
    pub gossip: Mailbox<GossipEvent>,
    pub routing: Arc<Routing>,
    pub peers: Arc<Peers>,
    pub executor: Arc<Executor>,
    pub metrics: Arc<Metrics>,
    pub log_size: Arc<LogSize>,
    pub observer: Arc<Observer>,
    pub transfers: Arc<Transfers>,
    pub lifecycle: Arc<Lifecycle>,
    /// Monitors the node's own health.
    pub health: Arc<Mutex<HealthMonitor>>,
    /// Whether the node has room for requests.
    pub admission: Arc<AdmissionState>,
}
