//! State that all threads and tasks of a node share, such as the channels to each other.

use crate::admission::AdmissionState;
use crate::events::{ControlEvent, GossipEvent, Mailbox, SnapshotEvent};
use crate::execute::Executor;
use crate::in_flight::InFlight;
use crate::lifecycle::Lifecycle;
use crate::log_thread::LogQueue;
use crate::metrics::Metrics;
use crate::operator_calls::OperatorCalls;
use crate::peers::Peers;
use crate::routing::Routing;
use crate::snapshot_transfer::Transfers;
use crate::workers::Workers;
use parking_lot::Mutex;
use ringfort_core::disk::Disk;
use ringfort_core::health::HealthMonitor;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
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
    /// Bytes in the log's segments, for `status`.
    pub log_bytes: AtomicU64,
    pub transfers: Arc<Transfers>,
    pub lifecycle: Arc<Lifecycle>,
    /// Monitors the node's own health.
    pub health: Arc<Mutex<HealthMonitor>>,
    /// Whether the node has room for requests.
    pub admission: Arc<AdmissionState>,
    /// Client requests in flight.
    pub in_flight: Arc<InFlight>,
    pub operator_calls: OperatorCalls,
}
