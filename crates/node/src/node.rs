//! One node, from start to shutdown.

mod parts;

use crate::clock;
use crate::config::NodeConfig;
use crate::dial_back;
use crate::events::{ControlEvent, GossipEvent, SnapshotEvent};
use crate::files::FileShares;
use crate::http::Http;
use crate::inbox::Event;
use crate::memory_watch;
use crate::metrics::Metrics;
use crate::random::random_u64;
use crate::responder::Responder;
use crate::start::{self, Membership, Since};
use crate::start_error::StartError;
use crate::{directory_watch, disk_watch, grpc, join, scrub_thread, threads};
use crossbeam_channel::{Sender, bounded, unbounded};
use parts::Parts;
use ringfort_core::control::{Control, ControlConfig};
use ringfort_core::divergence::{DivergenceDetector, QuarantineReason, Scrubber};
use ringfort_core::gossip::Gossip;
use ringfort_core::limits::ENTRY_BUDGET_BYTES;
use ringfort_core::mutation::Mutation;
use ringfort_core::replica::ReplicaConfig;
use ringfort_core::stopping::{REQUEST_PATIENCE, STEP_INTERVAL, Step, Stopping, Unfinished};
use ringfort_core::system::MemberState;
use ringfort_core::types::{ReplicaId, ShardId};
use ringfort_core::worker::{Worker, WorkerConfig, worker_of};
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

/// How long a stopping node waits for the threads that use the disk, one of which may be writing a snapshot. The next
/// start does not need their work, or repeats it.
const DISK_PATIENCE_AT_STOP: Duration = Duration::from_secs(20);

/// Why a running node must stop, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeFailure(String);

/// A running node.
pub struct Node {
    parts: Parts,
    runtime: Runtime,
    grpc_address: SocketAddr,
    raft_address: SocketAddr,
    stop_serving: Arc<Notify>,
    serving: Serving,
    health: HealthReporter,
    workers: Vec<JoinHandle<()>>,
    helpers: Vec<JoinHandle<()>>,
    /// Dropping it stops the scrubber and the directory watch.
    stop_looking: Sender<()>,
    /// Dropping the sender stops the thread.
    disk_watch: (Sender<()>, JoinHandle<()>),
    _lock: File,
}

impl Node {
    /// Starts a node, and returns when it serves. The first start of a node that joins waits for its cluster.
    pub fn start(config: NodeConfig) -> Result<Node, StartError> {
        let shares = FileShares::secure()?;
        let (grpc_listener, grpc_address) = listen(config.listen, config.port, "port")?;
        let (raft_listener, raft_address) = listen(config.listen, config.raft_port, "raft-port")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("network")
            // With more threads than can run beside the workers, requests would only be passed back and forth.
            .worker_threads(config.workers)
            .enable_all()
            .build()?;
        let metrics = Arc::new(Metrics::new());
        let http = match config.http_port {
            Some(port) => Some(Http::start(&runtime, listen(config.listen, port, "http-port")?, metrics.clone())?),
            None => None,
        };
        let advertised = (advertise(&config, grpc_address.port()), advertise(&config, raft_address.port()));
        let clients = (&grpc_listener, shares.clients);
        let Membership { boot, disk, files, node, topology, member, since, lock } =
            match start::membership(&config, advertised, &runtime, &metrics, clients, &raft_listener) {
                Ok(membership) => membership,
                Err(error) => {
                    // A name lookup may still be running whose result is no longer needed.
                    runtime.shutdown_background();
                    return Err(error);
                }
            };
        for finding in &boot.findings {
            tracing::warn!("found at the start: {finding}");
        }

        let mut lost_snapshots = boot.lost_snapshots(&*disk)?;
        let topology = Arc::new(topology);
        let boot_nonce = random_u64()?;
        let now = clock::moment();
        let (parts, receivers) =
            Parts::new(&config, node, topology.clone(), disk, runtime.handle().clone(), metrics, boot_nonce);

        let control_config = ControlConfig {
            moves: config.moves,
            replace_after: config.replace_after,
            lead_after: config.lead_after,
            ..ControlConfig::default()
        };
        let mut control = Control::new(node, topology.clone(), member.clone(), control_config, now);
        let replica = ReplicaConfig {
            seed: topology.cluster.0,
            boot_nonce,
            read_mode: config.read_mode,
            timing: topology.timing,
            mutation: Mutation::None,
        };
        let worker = |index| {
            let entry_budget_bytes = ENTRY_BUDGET_BYTES / config.workers;
            let config = WorkerConfig { node, index, workers: config.workers, replica, entry_budget_bytes };
            Worker::<Responder>::new(config, now)
        };
        let mut workers: Vec<_> = (0..config.workers).map(worker).collect();
        for start in boot.replicas {
            let worker = &mut workers[worker_of(start.shard, config.workers)];
            worker.restart_replica(start.shard, start.replica, *start.state, start.restored, now);
        }
        for (shard, replica) in boot.removed {
            workers[worker_of(shard, config.workers)].never_again(shard, replica);
        }
        if !boot.lost.is_empty() {
            tracing::warn!("{}", lost_replicas(&boot.lost, topology.nodes.len() == 1));
        }
        for &(shard, replica) in boot.lost.iter().chain(&boot.superseded) {
            let snapshots = lost_snapshots.remove(&shard).unwrap_or_default();
            workers[worker_of(shard, config.workers)].quarantine(shard, replica, snapshots);
        }
        for (shard, replica) in boot.lost {
            control.handle_lost_replica(now, shard, replica, QuarantineReason::Log);
        }

        let log_thread = parts.log_thread();
        let mut helpers = vec![threads::spawn("log", move || log_thread.run(boot.log, receivers.log))?];
        let snapshot_thread = parts.snapshot_thread();
        helpers.push(threads::spawn("snapshots", move || snapshot_thread.run(receivers.snapshots))?);
        let (saving_tx, saving_rx) = unbounded();
        let saving_thread = parts.saving_thread();
        helpers.push(threads::spawn("save", move || saving_thread.run(saving_rx))?);
        let control_thread = parts.control_thread(saving_tx);
        helpers.push(threads::spawn("control", move || control_thread.run(control, receivers.control))?);
        let gossip = Gossip::new(node, config.gossip, topology.clone(), boot.eventual, clock::now(), boot_nonce);
        let gossip_thread = parts.gossip_thread();
        helpers.push(threads::spawn("gossip", move || {
            gossip_thread.run(gossip, DivergenceDetector::new(node), receivers.gossip)
        })?);
        let (stop_looking, stopped) = bounded(0);
        if config.scrub_rate > 0 {
            let (routing, workers, metrics) = (parts.routing.clone(), parts.workers.clone(), parts.metrics.clone());
            let (scrubber, stopped) = (Scrubber::new(config.scrub_rate, now), stopped.clone());
            let scrub = move || scrub_thread::run(&routing, &workers, &metrics, scrubber, stopped);
            helpers.push(threads::spawn("scrubber", scrub)?);
        }
        helpers.push(threads::spawn("directory-watch", move || directory_watch::run(files, stopped))?);
        let mut worker_threads = Vec::new();
        for (index, worker) in workers.into_iter().enumerate() {
            let worker_thread = parts.worker_thread(index);
            worker_threads.push(threads::spawn(&format!("worker-{index}"), move || worker_thread.run(worker))?);
        }

        runtime.spawn(memory_watch::run(parts.routing.clone(), parts.admission.clone()));
        let stop_serving = Arc::new(Notify::new());
        let (health, health_service) = tonic_health::server::health_reporter();
        runtime.block_on(grpc::set_health(&health, true));
        let (stop_watching, stopped) = bounded(0);
        let disk_watch = parts.disk_watch(health.clone());
        let disk_watch = (stop_watching, threads::spawn("disk-watch", move || disk_watch.run(stopped))?);
        let clients = (grpc_listener, health_service);
        let serving = serve(&runtime, &parts, shares, clients, raft_listener, stop_serving.clone())?;
        if let Some(http) = http {
            http.set_running(parts.observer.clone(), parts.lifecycle.clone());
        }
        match since {
            Since::Beginning => drop(runtime.spawn(dial_back::check_own(member.clone()))),
            Since::Joining => drop(runtime.spawn(dial_back::check_others(node, topology.clone()))),
            // Names may resolve only some time after a restart, and the others may be down.
            Since::Before => {}
        }
        let directory = config.directory.display().to_string();
        runtime.spawn(join::compare_clusters(config.join.clone(), topology.cluster, directory));
        runtime.spawn(join::introduce(parts.routing.clone(), member, config.join));
        Ok(Node {
            parts,
            runtime,
            grpc_address,
            raft_address,
            stop_serving,
            serving,
            health,
            workers: worker_threads,
            helpers,
            stop_looking,
            disk_watch,
            _lock: lock,
        })
    }

    /// Where clients reach the node.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where other nodes reach the node.
    pub fn raft_address(&self) -> SocketAddr {
        self.raft_address
    }

    /// Waits until the node finds that it must stop, and returns the reason. The caller must then shut the node down.
    pub fn failed(&self) -> impl Future<Output = NodeFailure> + use<> {
        let failed = self.parts.lifecycle.failed();
        async move { NodeFailure(failed.await) }
    }

    /// Waits until the node is no longer a member, and returns the reason. The caller must then shut the node down.
    /// After a restart it joins as a new node if it was [dead](MemberState::Dead), and is refused otherwise.
    pub fn departed(&self) -> impl Future<Output = MemberState> + use<> {
        self.parts.lifecycle.departed()
    }

    /// Shuts down gracefully: leadership moves to other nodes, requests under way are answered, all threads end.
    pub fn shutdown(mut self) {
        self.parts.lifecycle.hand_over();
        // Before any hand-over, so that the controller does not give leadership back.
        let health = {
            let mut health = self.parts.health.lock();
            health.set_stopping();
            health.report(clock::moment()).health
        };
        self.parts.gossip.send(GossipEvent::Health(health));
        self.runtime.block_on(grpc::set_health(&self.health, false));
        let is_alone = self.parts.routing.topology().nodes.len() == 1;
        let mut stopping = Stopping::new(clock::moment(), is_alone);
        loop {
            let unfinished = if is_alone { Unfinished::default() } else { self.hand_over() };
            match stopping.next(clock::moment(), unfinished, self.serving.clients.is_finished()) {
                Step::Wait => {}
                Step::StopServing => {
                    self.parts.lifecycle.stop();
                    self.stop_serving.notify_one();
                    self.runtime.block_on(grpc::end_watches(&mut self.health));
                }
                Step::End => break,
            }
            thread::sleep(STEP_INTERVAL);
        }
        self.parts.workers.push_event_to_all(|| Event::Stop);
        let join = |threads: Vec<JoinHandle<()>>| threads.into_iter().for_each(|thread| drop(thread.join()));
        join(self.workers);
        self.parts.peers.stop();
        drop(self.stop_looking);
        self.parts.gossip.send(GossipEvent::Stop);
        // After the workers have ended, so that these threads have received everything from them.
        self.parts.log.stop();
        self.parts.snapshots.send(SnapshotEvent::Stop);
        self.parts.control.send(ControlEvent::Stop);
        // The disk watch sees only the log's records; other threads may also be waiting for the disk.
        if !wait_for(DISK_PATIENCE_AT_STOP, || self.helpers.iter().all(JoinHandle::is_finished)) {
            disk_watch::stop_without_disk();
        }
        join(self.helpers);
        let (stop_watching, watching) = self.disk_watch;
        drop(stop_watching);
        join(vec![watching]);
        // Usually they were told while the threads above ended. A snapshot's transfer may take longer.
        wait_for(REQUEST_PATIENCE, || self.serving.peers.is_finished());
        self.runtime.shutdown_timeout(REQUEST_PATIENCE);
    }

    /// Has the workers hand over their leaderships. Returns what they still have to do.
    fn hand_over(&self) -> Unfinished {
        let (asked, answers) = mpsc::channel();
        self.parts.workers.push_event_to_all(|| Event::HandOver(asked.clone()));
        drop(asked);
        answers.iter().sum()
    }
}

/// Polls until the condition holds or `patience` is over. Returns whether it holds.
fn wait_for(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if begun.elapsed() >= patience {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn listen(host: IpAddr, port: u16, setting: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = SocketAddr::new(host, port);
    let failed = |source| StartError::Listen { address: address.to_string(), setting, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// The log line for replicas whose log can't be trusted. It says what happens next.
fn lost_replicas(lost: &[(ShardId, ReplicaId)], is_alone: bool) -> String {
    const NAMED: usize = 8;
    let mut shards: Vec<String> = lost.iter().take(NAMED).map(|(shard, _)| shard.to_string()).collect();
    if lost.len() > NAMED {
        shards.push("…".to_owned());
    }
    let (replicas, ones, of) = match lost.len() {
        1 => ("the log of 1 replica here".to_owned(), "asking for a new one", "shard"),
        count => (format!("the logs of {count} replicas here"), "asking for new ones", "shards"),
    };
    let next = match is_alone {
        true => "no other node has them: restore the files of --raft-dir, or start over with an empty one",
        false => ones,
    };
    format!("{replicas} can't be trusted: {next} ({of} {})", shards.join(", "))
}

/// The address that others dial to reach a port of this node.
fn advertise(config: &NodeConfig, port: u16) -> String {
    match &config.advertise {
        Some(host) if host.parse::<Ipv6Addr>().is_ok() => format!("[{host}]:{port}"),
        Some(host) => format!("{host}:{port}"),
        None if config.listen.is_unspecified() => format!("localhost:{port}"),
        None => SocketAddr::new(config.listen, port).to_string(),
    }
}

/// The servers' tasks.
struct Serving {
    clients: tokio::task::JoinHandle<()>,
    peers: tokio::task::JoinHandle<()>,
}

/// Serves on both ports.
fn serve(
    runtime: &Runtime,
    parts: &Parts,
    shares: FileShares,
    (clients, health): (TcpListener, HealthServer<impl Health>),
    peers: TcpListener,
    stop: Arc<Notify>,
) -> Result<Serving, StartError> {
    let _context = runtime.enter();
    let clients = (tokio::net::TcpListener::from_std(clients)?, shares.clients);
    let peers = (tokio::net::TcpListener::from_std(peers)?, shares.peers);
    let (service, counters) = (parts.peer_service(), parts.metrics.peer_connections.clone());
    let peers = runtime.spawn(async move {
        if let Err(error) = grpc::serve_peers(service, peers, counters).await {
            tracing::error!("this node no longer serves other nodes: {error}");
        }
    });
    let services = (parts.service(), parts.cluster_service());
    let counters = (parts.metrics.client_connections.clone(), parts.metrics.incomplete_requests.clone());
    let clients = runtime.spawn(async move {
        let stopped = async move { stop.notified().await };
        if let Err(error) = grpc::serve_clients(services, clients, counters, health, stopped).await {
            tracing::error!("this node no longer serves clients: {error}");
        }
    });
    Ok(Serving { clients, peers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_core::types::NodeId;

    #[test]
    fn lost_replicas_are_told_in_one_line() {
        let lost: Vec<_> = (0..65).map(|shard| (ShardId(shard), ReplicaId::new(NodeId(1), shard + 1))).collect();
        let told = lost_replicas(&lost, true);
        assert!(told.starts_with("the logs of 65 replicas here can't be trusted: no other node has them"), "{told}");
        assert!(told.ends_with("(shards 0, 1, 2, 3, 4, 5, 6, 7, …)"), "{told}");
        let told = lost_replicas(&lost[..1], false);
        assert_eq!(told, "the log of 1 replica here can't be trusted: asking for a new one (shard 0)");
    }

    #[test]
    fn a_stop_waits_for_a_thread_only_up_to_a_bound() {
        let (disk_answers, disk) = mpsc::channel::<()>();
        let helpers = [thread::spawn(move || assert!(disk.recv().is_err()))];
        let has_ended = || helpers.iter().all(JoinHandle::is_finished);
        assert!(!wait_for(Duration::from_millis(50), has_ended));
        drop(disk_answers);
        assert!(wait_for(Duration::from_secs(60), has_ended));
    }
}
