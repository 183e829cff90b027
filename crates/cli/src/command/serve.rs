//! `ringfort serve`.

use crate::client_options::parse_duration;
use crate::failure::{Answer, Failure};
use clap::{ArgAction, Args, ValueEnum};
use ringfort_node::{Node, NodeConfig, ReadMode};
use ringfort_ring::ShardCount;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Run a node
///
/// The same command line starts a node the first time and every later time: once the directory holds data, what it says
/// wins over --bootstrap and --join-addr.
#[derive(Args, Debug)]
pub struct Serve {
    /// The node's name, unique in its cluster.
    #[arg(long, env = "RINGFORT_NODE_ID", value_name = "NAME")]
    node_id: String,

    /// The port for clients.
    #[arg(long, env = "RINGFORT_PORT", default_value_t = 50051)]
    port: u16,

    /// The port for the other nodes.
    #[arg(long, env = "RINGFORT_RAFT_PORT", default_value_t = 12001)]
    raft_port: u16,

    /// The directory for the node's data; made if it is missing.
    #[arg(long, env = "RINGFORT_RAFT_DIR", value_name = "DIR")]
    raft_dir: PathBuf,

    /// Begin a new cluster, with this node as its first.
    #[arg(
        long,
        env = "RINGFORT_BOOTSTRAP",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    bootstrap: bool,

    /// Nodes of the cluster to join, separated by commas; one that answers is enough.
    #[arg(long, env = "RINGFORT_JOIN_ADDR", value_name = "HOST:PORT,...", value_delimiter = ',')]
    join_addr: Vec<String>,

    /// How long to ask the cluster to take this node in: 500ms, 60s, 5m.
    #[arg(long, env = "RINGFORT_JOIN_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    join_timeout: Duration,

    /// Into how many shards a new cluster cuts its keys: a power of two, fixed for its lifetime.
    #[arg(long, env = "RINGFORT_SHARDS", default_value = "64", value_parser = parse_shards)]
    shards: ShardCount,

    /// Threads that run the shards, and as many for the network; half the cores unless given.
    #[arg(long, env = "RINGFORT_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,

    /// The address to listen on.
    #[arg(long, env = "RINGFORT_LISTEN", value_name = "IP", default_value = "127.0.0.1")]
    listen: IpAddr,

    /// The host that clients and nodes dial to reach this one; the address it listens on unless given.
    #[arg(long, env = "RINGFORT_ADVERTISE", value_name = "HOST")]
    advertise: Option<String>,

    /// Whether leaders answer reads by their lease, or ask a quorum each time.
    #[arg(long, env = "RINGFORT_READ_MODE", value_enum, default_value_t = Reads::Lease)]
    read_mode: Reads,

    /// What to log: error, warn, info, debug, trace, or a filter such as ringfort_core=debug.
    #[arg(long, env = "RINGFORT_LOG", value_name = "LEVEL", default_value = "info")]
    log_level: String,

    /// The size of a segment of the write-ahead log.
    #[arg(long, env = "RINGFORT_SEGMENT_BYTES", hide = true, default_value_t = 64 << 20, value_parser = parse_segment)]
    segment_bytes: u64,

    /// Bytes of keys and values, with what they cost around them, from which on this node refuses puts.
    #[arg(long, env = "RINGFORT_MAX_MEMORY", value_name = "BYTES")]
    max_memory: Option<u64>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Reads {
    Lease,
    Quorum,
}

impl Serve {
    pub fn run(self) -> Result<Answer, Failure> {
        let filter = EnvFilter::try_new(&self.log_level)?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
        let workers = self.workers.map_or_else(default_workers, usize::from);
        let name = self.node_id.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut signals = runtime.block_on(async { Signals::new() })?;
        let config = NodeConfig {
            name: self.node_id,
            directory: self.raft_dir,
            listen: self.listen,
            advertise: self.advertise,
            port: self.port,
            raft_port: self.raft_port,
            bootstrap: self.bootstrap,
            join: self.join_addr,
            join_timeout: self.join_timeout,
            shards: self.shards,
            workers,
            read_mode: match self.read_mode {
                Reads::Lease => ReadMode::Lease,
                Reads::Quorum => ReadMode::Quorum,
            },
            segment_bytes: self.segment_bytes,
            max_memory_bytes: self.max_memory,
        };
        // The first start of a node that joins may wait for its cluster. Nothing that it does meanwhile must be finished.
        let starting = runtime.spawn_blocking(move || Node::start(config));
        let started = runtime.block_on(async {
            tokio::select! {
                started = starting => Ok(started),
                received = signals.next() => Err(received),
            }
        });
        let node = match started {
            Ok(started) => started??,
            Err(received) => {
                runtime.shutdown_background();
                tracing::info!("{received}: stopped before the node had started; started again, it begins anew");
                return Ok(Answer::Yes);
            }
        };
        let (grpc, raft) = (node.grpc_address(), node.raft_address());
        tracing::info!("{name} serves on {grpc}, and nodes on {raft}");
        let failed = node.failed();
        let (received, failure) = runtime.block_on(async {
            tokio::select! {
                received = signals.next() => (received, None),
                failure = failed => ("failure", Some(failure)),
            }
        });
        tracing::info!("{received}: handing over and stopping; a signal now stops at once");
        runtime.spawn(async move {
            signals.next().await;
            std::process::exit(1);
        });
        node.shutdown();
        tracing::info!("stopped");
        failure.map_or(Ok(Answer::Yes), |failure| Err(Failure::from(failure)))
    }
}

/// The signals that stop a node.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1)
}

fn parse_shards(text: &str) -> Result<ShardCount, String> {
    let count: u32 = text.parse().map_err(|_| "give a number".to_owned())?;
    ShardCount::new(count).map_err(|error| error.to_string())
}

fn parse_segment(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(bytes) if bytes >= 64 << 10 && bytes % 4096 == 0 => Ok(bytes),
        _ => Err("give a multiple of 4096, from 65536 on".to_owned()),
    }
}
