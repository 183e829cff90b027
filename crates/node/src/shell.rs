//! State that all threads and tasks of a node share, such as the channels to each other.

use crate::admission::AdmissionState;
use crate::board::Board;
use crate::events::ControlEvent;
use crate::events::GossipEvent;
use crate::events::LogEvent;
use crate::events::SnapshotEvent;
use crate::in_flight::InFlight;
use crate::inbox::{Event, Inbox, Incoming};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::operator_calls::OperatorCalls;
use crate::peers::Peers;
use crate::routing::Routing;
use crate::sends::Sends;
use crate::throttle::Throttle;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use ringfort_core::disk::Disk;
use ringfort_core::health::HealthMonitor;
use ringfort_core::message::RaftMessage;
use ringfort_core::replica::ReplicaStatus;
use ringfort_core::types::{ClusterId, NodeId, ShardId};
use ringfort_core::worker::worker_of;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub struct Shell {
    pub node: NodeId,
    pub cluster: ClusterId,
    pub runtime: Handle,
    pub disk: Arc<dyn Disk>,
    pub workers: Vec<Inbox>,
    /// The status of each worker's replicas.
    pub boards: Vec<Board<Vec<ReplicaStatus>>>,
    pub log: Sender<LogEvent>,
    pub snapshots: Sender<SnapshotEvent>,
    pub control: Sender<ControlEvent>,
    pub gossip: Sender<GossipEvent>,
    pub routing: Routing,
    pub peers: Peers,
    pub metrics: Arc<Metrics>,
    /// Bytes in the log's segments, for `status`.
    pub log_bytes: AtomicU64,
    /// Makes the names of received snapshots unique; it starts at a random number.
    pub next_received: AtomicU64,
    pub receives: Arc<Semaphore>,
    pub sends: Sends,
    /// The bandwidth that all sent snapshots share.
    pub move_bandwidth: Throttle,
    pub lifecycle: Lifecycle,
    /// Monitors the node's own health.
    pub health: Mutex<HealthMonitor>,
    /// Whether the node has room for requests.
    pub admission: AdmissionState,
    /// Client requests in flight.
    pub in_flight: InFlight,
    /// One permit for each scan that may collect a page at the same time.
    pub scans: Semaphore,
    pub operator_calls: OperatorCalls,
}

impl Shell {
    /// The inbox of the worker that owns a shard.
    pub fn worker(&self, shard: ShardId) -> &Inbox {
        &self.workers[worker_of(shard, self.workers.len())]
    }

    /// Distributes the requests of one connection, with one push per worker.
    pub fn push_requests(&self, requests: Vec<Incoming>) {
        self.by_worker(requests, |incoming| incoming.request.shard(), |inbox, part| inbox.push_requests(part));
    }

    /// Distributes a peer's messages, with one push per worker.
    pub fn push_messages(&self, messages: Vec<RaftMessage>) {
        let dropped_bytes = self.by_worker(messages, |message| message.shard, |inbox, part| inbox.push_messages(part));
        self.admission.handled(dropped_bytes.into_iter().sum());
    }

    pub fn push_event_to_all(&self, event: impl Fn() -> Event) {
        self.workers.iter().for_each(|worker| worker.push_event(event()));
    }

    fn by_worker<I, R>(
        &self,
        items: Vec<I>,
        shard: impl Fn(&I) -> ShardId,
        push: impl Fn(&Inbox, Vec<I>) -> R,
    ) -> Vec<R> {
        if items.is_empty() {
            return Vec::new();
        }
        let [inbox] = &self.workers[..] else {
            let mut parts: Vec<Vec<I>> = self.workers.iter().map(|_| Vec::new()).collect();
            for item in items {
                parts[worker_of(shard(&item), self.workers.len())].push(item);
            }
            let parts = self.workers.iter().zip(parts).filter(|(_, part)| !part.is_empty());
            return parts.map(|(inbox, part)| push(inbox, part)).collect();
        };
        vec![push(inbox, items)]
    }
}
