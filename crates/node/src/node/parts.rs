//! The parts that a node's threads and servers share, and which of them each may use.

use crate::admission::AdmissionState;
use crate::clock;
use crate::config::NodeConfig;
use crate::control_thread::ControlThread;
use crate::disk_watch::DiskWatch;
use crate::events::{ControlEvent, GossipEvent, LogEvent, Mailbox, SnapshotEvent};
use crate::execute::Executor;
use crate::gossip_thread::GossipThread;
use crate::grpc::cluster::ClusterService;
use crate::grpc::peer::PeerService;
use crate::in_flight::InFlight;
use crate::lifecycle::Lifecycle;
use crate::log_queue::{LogQueue, LogSize};
use crate::log_thread::LogThread;
use crate::metrics::Metrics;
use crate::observer::Observer;
use crate::peers::Peers;
use crate::peers::link::Links;
use crate::routing::Routing;
use crate::saving::{Saved, SavingThread};
use crate::service::Service;
use crate::snapshot_thread::SnapshotThread;
use crate::snapshot_transfer::Transfers;
use crate::worker_thread::WorkerThread;
use crate::workers::Workers;
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use ringfort_core::disk::Disk;
use ringfort_core::health::{HealthConfig, HealthMonitor};
use ringfort_core::system::Topology;
use ringfort_core::types::NodeId;
use std::sync::Arc;
use tokio::runtime::Handle;
use tonic_health::server::HealthReporter;

pub(super) struct Parts {
    pub(super) runtime: Handle,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) routing: Arc<Routing>,
    pub(super) workers: Arc<Workers>,
    pub(super) peers: Arc<Peers>,
    pub(super) executor: Arc<Executor>,
    pub(super) transfers: Arc<Transfers>,
    pub(super) observer: Arc<Observer>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) health: Arc<Mutex<HealthMonitor>>,
    pub(super) admission: Arc<AdmissionState>,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: LogQueue,
    pub(super) log_size: Arc<LogSize>,
    pub(super) snapshots: Mailbox<SnapshotEvent>,
    pub(super) control: Mailbox<ControlEvent>,
    pub(super) gossip: Mailbox<GossipEvent>,
}

/// The receiving ends of the mailboxes, each for its thread.
pub(super) struct Receivers {
    pub(super) log: Receiver<LogEvent>,
    pub(super) snapshots: Receiver<SnapshotEvent>,
    pub(super) control: Receiver<ControlEvent>,
    pub(super) gossip: Receiver<GossipEvent>,
}

impl Parts {
    /// `boot_nonce` is a random number.
    pub(super) fn new(
        config: &NodeConfig,
        node: NodeId,
        topology: Arc<Topology>,
        disk: Arc<dyn Disk>,
        runtime: Handle,
        metrics: Arc<Metrics>,
        boot_nonce: u64,
    ) -> (Parts, Receivers) {
        let health = HealthConfig {
            return_after: config.lead_after,
            give_up_after: config.disk_timeout,
            timing: topology.timing,
        };
        let health = Arc::new(Mutex::new(HealthMonitor::new(health, clock::moment())));
        let admission = Arc::new(AdmissionState::new(config.max_memory_bytes));
        let (in_flight, log_size) = (Arc::new(InFlight::default()), Arc::new(LogSize::default()));
        let (log, log_rx) = LogQueue::new(admission.clone());
        let (snapshots, snapshots_rx) = Mailbox::new();
        let (control, control_rx) = Mailbox::new();
        let (gossip, gossip_rx) = Mailbox::new();
        let routing = Arc::new(Routing::new(node, topology));
        let workers = Arc::new(Workers::new(config.workers, admission.clone()));
        let links = Links::new(routing.clone(), workers.clone(), control.clone(), runtime.clone());
        let peers = Arc::new(Peers::new(links));
        let executor = Executor::new(routing.clone(), workers.clone(), peers.clone(), admission.clone());
        let transfers = Transfers::new(
            disk.clone(),
            routing.clone(),
            workers.clone(),
            health.clone(),
            metrics.clone(),
            config.move_bandwidth,
            boot_nonce,
        );
        let observer = Observer::new(
            (routing.clone(), workers.clone()),
            (control.clone(), gossip.clone()),
            health.clone(),
            admission.clone(),
            in_flight.clone(),
            log_size.clone(),
        );
        let parts = Parts {
            runtime,
            disk,
            routing,
            workers,
            peers,
            executor: Arc::new(executor),
            transfers: Arc::new(transfers),
            observer: Arc::new(observer),
            lifecycle: Arc::default(),
            health,
            admission,
            in_flight,
            metrics,
            log,
            log_size,
            snapshots,
            control,
            gossip,
        };
        let receivers = Receivers { log: log_rx, snapshots: snapshots_rx, control: control_rx, gossip: gossip_rx };
        (parts, receivers)
    }

    pub(super) fn worker_thread(&self, index: usize) -> WorkerThread {
        WorkerThread {
            index,
            routing: self.routing.clone(),
            workers: self.workers.clone(),
            peers: self.peers.clone(),
            log: self.log.clone(),
            snapshots: self.snapshots.clone(),
            control: self.control.clone(),
            admission: self.admission.clone(),
            metrics: self.metrics.clone(),
            runtime: self.runtime.clone(),
        }
    }

    pub(super) fn log_thread(&self) -> LogThread {
        LogThread {
            disk: self.disk.clone(),
            timing: self.routing.topology().timing,
            workers: self.workers.clone(),
            gossip: self.gossip.clone(),
            health: self.health.clone(),
            admission: self.admission.clone(),
            lifecycle: self.lifecycle.clone(),
            size: self.log_size.clone(),
            metrics: self.metrics.clone(),
        }
    }

    pub(super) fn snapshot_thread(&self) -> SnapshotThread {
        SnapshotThread {
            disk: self.disk.clone(),
            workers: self.workers.clone(),
            transfers: self.transfers.clone(),
            metrics: self.metrics.clone(),
            runtime: self.runtime.clone(),
        }
    }

    pub(super) fn control_thread(&self, saving: Sender<Saved>) -> ControlThread {
        ControlThread {
            routing: self.routing.clone(),
            workers: self.workers.clone(),
            peers: self.peers.clone(),
            executor: self.executor.clone(),
            lifecycle: self.lifecycle.clone(),
            runtime: self.runtime.clone(),
            saving,
        }
    }

    pub(super) fn saving_thread(&self) -> SavingThread {
        SavingThread {
            disk: self.disk.clone(),
            routing: self.routing.clone(),
            workers: self.workers.clone(),
            gossip: self.gossip.clone(),
            lifecycle: self.lifecycle.clone(),
        }
    }

    pub(super) fn gossip_thread(&self) -> GossipThread {
        GossipThread {
            routing: self.routing.clone(),
            workers: self.workers.clone(),
            peers: self.peers.clone(),
            control: self.control.clone(),
            log: self.log.clone(),
            log_size: self.log_size.clone(),
            metrics: self.metrics.clone(),
        }
    }

    pub(super) fn disk_watch(&self, reporter: HealthReporter) -> DiskWatch {
        DiskWatch {
            interval: self.routing.topology().timing.tick(),
            gossip: self.gossip.clone(),
            health: self.health.clone(),
            admission: self.admission.clone(),
            lifecycle: self.lifecycle.clone(),
            runtime: self.runtime.clone(),
            reporter,
        }
    }

    pub(super) fn service(&self) -> Service {
        Service::new(
            self.routing.clone(),
            self.executor.clone(),
            self.gossip.clone(),
            self.admission.clone(),
            self.in_flight.clone(),
            self.metrics.clone(),
        )
    }

    pub(super) fn cluster_service(&self) -> ClusterService {
        ClusterService::new(self.routing.clone(), self.executor.clone(), self.control.clone(), self.observer.clone())
    }

    pub(super) fn peer_service(&self) -> PeerService {
        PeerService::new(
            self.routing.clone(),
            self.workers.clone(),
            self.peers.clone(),
            self.executor.clone(),
            self.transfers.clone(),
            self.control.clone(),
            self.gossip.clone(),
        )
    }
}
