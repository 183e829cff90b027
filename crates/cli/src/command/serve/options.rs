//! The settings of a node.
//!
//! This is their only description: clap derives the flags, the environment variables, the keys of the settings file
//! (`settings`), the example settings file, the completions and the manual from it.

use crate::client_options::parse_duration;
use crate::text::parse_bytes;
use clap::{ArgAction, Args, ValueEnum};
use ringfort_node::{
    CONCURRENT_MOVES, GossipConfig, NODE_NAME_RULE, NodeConfig, ReadMode, SCRUB_BYTES_PER_SECOND, Timing, is_node_name,
};
use ringfort_proto::address::{AddressError, check_address, parse_advertised, parse_ip};
use ringfort_ring::ShardCount;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Run a node
///
/// Use the same command line for the first start and for every restart. Once --raft-dir holds data, that data takes
/// precedence over --bootstrap and --join-addr. Flags take precedence over environment variables, which take precedence
/// over the settings file.
#[derive(Args, Debug, PartialEq)]
pub struct Serve {
    /// A settings file in TOML. Its keys are these flags, without the leading dashes. `ringfort config example` prints
    /// one.
    #[arg(long, env = "RINGFORT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The node's name, unique in its cluster: letters, digits, dots, underscores and dashes.
    #[arg(long, env = "RINGFORT_NODE_ID", value_name = "NAME", value_parser = parse_node_id)]
    pub node_id: String,

    /// The port for clients.
    #[arg(long, env = "RINGFORT_PORT", default_value_t = 50051, value_parser = parse_port)]
    pub port: u16,

    /// The port for other nodes.
    #[arg(long, env = "RINGFORT_RAFT_PORT", value_name = "PORT", default_value_t = 12001, value_parser = parse_port)]
    pub raft_port: u16,

    /// The port for /metrics, /healthz and /readyz. They are not served unless it is given.
    #[arg(long, env = "RINGFORT_HTTP_PORT", value_name = "PORT", value_parser = parse_port)]
    pub http_port: Option<u16>,

    /// The directory for the node's data. It is created if it does not exist.
    #[arg(long, env = "RINGFORT_RAFT_DIR", value_name = "DIR")]
    pub raft_dir: PathBuf,

    /// Create a new cluster with this node as its first member. With --join-addr, the node creates it only after all
    /// nodes named there have answered that they do not belong to a cluster. If several nodes have this setting, the
    /// one with the lowest name creates the cluster.
    #[arg(
        long,
        env = "RINGFORT_BOOTSTRAP",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub bootstrap: bool,

    /// The --node-id of the node that has --bootstrap, so that all nodes can have the same settings.
    #[arg(long, env = "RINGFORT_BOOTSTRAP_AS", value_name = "NAME")]
    pub bootstrap_as: Option<String>,

    /// The client addresses of nodes of the cluster to join, separated by commas. One that answers is enough. Write
    /// IPv6 addresses in brackets.
    #[arg(
        long,
        env = "RINGFORT_JOIN_ADDR",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        value_parser = parse_address
    )]
    pub join_addr: Vec<String>,

    /// How long to try to join the cluster before giving up: 500ms, 60s, 5m.
    #[arg(long, env = "RINGFORT_JOIN_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub join_timeout: Duration,

    /// Join under the name of a member whose directory is lost. The cluster drops the replicas of that member, and this
    /// node receives new ones. This has no effect once the directory holds data.
    #[arg(
        long,
        env = "RINGFORT_REPLACE",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub replace: bool,

    /// The failure domain of this node: a rack, a room, a provider's zone. The replicas of a shard are placed in
    /// different zones.
    #[arg(long, env = "RINGFORT_ZONE", value_name = "NAME")]
    pub zone: Option<String>,

    /// How many shards of more than 1 MiB may receive a new replica at the same time, in the whole cluster. The leader
    /// of the system shard uses its own value: set the same on all nodes.
    #[arg(
        long,
        env = "RINGFORT_MOVES",
        value_name = "NUMBER",
        default_value_t = CONCURRENT_MOVES as u16,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub moves: u16,

    /// How many bytes a second this node may send to new or lagging replicas, such as 100MB. Unlimited unless given.
    #[arg(long, env = "RINGFORT_MOVE_BANDWIDTH", value_name = "BYTES", value_parser = parse_bandwidth)]
    pub move_bandwidth: Option<u64>,

    /// When a node has been silent for this long, its replicas move to other nodes, if there are enough: 30s, 5m. The
    /// leader of the system shard uses its own value: set the same on all nodes.
    #[arg(long, env = "RINGFORT_REPLACE_AFTER", value_name = "TIME", default_value = "5m", value_parser = parse_replace_after)]
    pub replace_after: Duration,

    /// End the process when its disk has not answered for this long: 20s, 2m. By then other nodes lead its shards; the
    /// exit tells the operator or the supervisor that the disk needs attention. The minimum is four times the cluster's
    /// election timeout: 1600ms if that is 400ms.
    #[arg(long, env = "RINGFORT_DISK_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub disk_timeout: Duration,

    /// How long a node that crashed, was cut off, or had a hung or full disk must be healthy before it leads again: 5s,
    /// 2m. The leader of the system shard uses its own value: set the same on all nodes.
    #[arg(long, env = "RINGFORT_LEAD_AFTER", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub lead_after: Duration,

    /// The number of shards of a new cluster: a power of two, 64 unless given. It is fixed for the cluster's lifetime:
    /// a node that restarts or joins uses the cluster's value, and logs a warning if this one differs.
    #[arg(long, env = "RINGFORT_SHARDS", value_name = "NUMBER", value_parser = parse_shards)]
    pub shards: Option<ShardCount>,

    /// The shortest time for which the shards of a new cluster wait for a silent leader before they elect another one:
    /// 100ms to 10s, 400ms unless given. It is fixed for the cluster's lifetime, as --shards is. Raise it for nodes
    /// that are far apart or have slow disks; service then takes longer to return when a leader dies.
    #[arg(long, env = "RINGFORT_ELECTION_TIMEOUT", value_name = "TIME", value_parser = parse_election_timeout)]
    pub election_timeout: Option<Timing>,

    /// The number of threads that run the shards; as many again serve the network. Half the cores unless given.
    #[arg(long, env = "RINGFORT_WORKERS", value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,

    /// Refuse puts, increments and appends while the keys and values here take this many bytes, including overhead,
    /// such as 1GiB. Unlimited unless given.
    #[arg(long, env = "RINGFORT_MAX_MEMORY", value_name = "BYTES", value_parser = parse_bytes)]
    pub max_memory: Option<u64>,

    /// How often this node gossips with another one. With a shorter period, dead nodes are detected sooner, and gossip
    /// costs more: see docs/gossip.md. Set the same on all nodes.
    #[arg(
        long,
        env = "RINGFORT_GOSSIP_PERIOD",
        value_name = "TIME",
        default_value = "500ms",
        value_parser = parse_gossip_period
    )]
    pub gossip_period: Duration,

    /// How many nodes this node gossips with in each period.
    #[arg(
        long,
        env = "RINGFORT_GOSSIP_FAN_OUT",
        value_name = "NUMBER",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=16)
    )]
    pub gossip_fan_out: u8,

    /// How many bytes of keys and values a second this node checks for damaged memory; 0 turns the check off.
    #[arg(long, env = "RINGFORT_SCRUB_RATE", value_name = "BYTES", default_value_t = SCRUB_BYTES_PER_SECOND, value_parser = parse_bytes)]
    pub scrub_rate: u64,

    /// The IP address to listen on, for all ports. An address that other machines can reach needs --insecure.
    #[arg(long, env = "RINGFORT_LISTEN", value_name = "IP", default_value = "127.0.0.1", value_parser = parse_ip)]
    pub listen: IpAddr,

    /// The host at which clients and other nodes reach this node. The address of --listen unless given.
    #[arg(long, env = "RINGFORT_ADVERTISE", value_name = "HOST", value_parser = parse_advertised)]
    pub advertise: Option<String>,

    /// Allow --listen with an address that other machines can reach. There is no TLS and no authentication yet: anyone
    /// who can reach the ports can read and write everything.
    #[arg(
        long,
        env = "RINGFORT_INSECURE",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub insecure: bool,

    /// Whether leaders answer reads under their lease, or confirm each read with a quorum.
    #[arg(long, env = "RINGFORT_READ_MODE", value_name = "MODE", value_enum, default_value_t = Reads::Lease)]
    pub read_mode: Reads,

    /// What to log: error, warn, info, debug, trace, off, or a filter such as ringfort_core=debug.
    #[arg(long, env = "RINGFORT_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = parse_filter)]
    pub log_level: String,

    /// The log format: text, or one JSON object per line.
    #[arg(long, env = "RINGFORT_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// For tests: a file that says how the disk fails: a number of milliseconds by which each sync is slower, `hang`,
    /// or `fail`.
    #[arg(long, env = "RINGFORT_DISK_FAULTS", hide = true, value_name = "FILE")]
    pub disk_faults: Option<PathBuf>,

    /// The size of a segment of the write-ahead log.
    #[arg(long, env = "RINGFORT_SEGMENT_BYTES", hide = true, default_value_t = 64 << 20, value_parser = parse_segment)]
    pub segment_bytes: u64,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Lease,
    Quorum,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Settings that contradict each other, and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    #[error(
        "other machines can reach {0}, and there is no TLS and no authentication yet: anyone who can reach the ports \
         can read and write everything. Give --listen 127.0.0.1, or keep the ports in a private network and give \
         --insecure"
    )]
    Insecure(IpAddr),
    #[error(
        "--listen {0} stands for all addresses of this machine, and other machines can't dial it: give --advertise \
         with the host or address at which they reach this one"
    )]
    NothingToAdvertise(IpAddr),
    #[error("--{0} and --{1} are both {2}: give each port a number of its own")]
    SamePort(&'static str, &'static str, u16),
}

impl Serve {
    /// Checks the combination of settings.
    pub fn check(&self) -> Result<(), Contradiction> {
        if self.is_reachable() && !self.insecure {
            return Err(Contradiction::Insecure(self.listen));
        }
        if self.listen.is_unspecified() && self.advertise.is_none() {
            return Err(Contradiction::NothingToAdvertise(self.listen));
        }
        let (clients, nodes) = (("port", self.port), ("raft-port", self.raft_port));
        let http = self.http_port.map(|port| ("http-port", port));
        let pairs = [Some((clients, nodes)), http.map(|http| (clients, http)), http.map(|http| (nodes, http))];
        for ((one, port), (other, same)) in pairs.into_iter().flatten() {
            // 0 means any free port.
            if port == same && port != 0 {
                return Err(Contradiction::SamePort(one, other, port));
            }
        }
        Ok(())
    }

    /// Whether other machines may reach the ports.
    pub fn is_reachable(&self) -> bool {
        !self.listen.to_canonical().is_loopback()
    }

    pub fn filter(&self) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
        EnvFilter::try_new(&self.log_level)
    }

    pub fn node_config(self) -> NodeConfig {
        let bootstrap = self.bootstrap || self.bootstrap_as.as_ref() == Some(&self.node_id);
        NodeConfig {
            name: self.node_id,
            directory: self.raft_dir,
            listen: self.listen,
            advertise: self.advertise,
            port: self.port,
            raft_port: self.raft_port,
            http_port: self.http_port,
            bootstrap,
            join: self.join_addr,
            join_timeout: self.join_timeout,
            replace: self.replace,
            zone: self.zone.unwrap_or_default(),
            moves: self.moves.into(),
            move_bandwidth: self.move_bandwidth,
            replace_after: self.replace_after,
            disk_timeout: self.disk_timeout,
            disk_faults: self.disk_faults,
            lead_after: self.lead_after,
            shards: self.shards,
            timing: self.election_timeout,
            workers: self.workers.map_or_else(default_workers, usize::from),
            read_mode: match self.read_mode {
                Reads::Lease => ReadMode::Lease,
                Reads::Quorum => ReadMode::Quorum,
            },
            segment_bytes: self.segment_bytes,
            max_memory_bytes: self.max_memory,
            gossip: GossipConfig {
                period: self.gossip_period,
                fan_out: self.gossip_fan_out.into(),
                ..GossipConfig::default()
            },
            scrub_rate: self.scrub_rate,
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

fn parse_election_timeout(text: &str) -> Result<Timing, String> {
    let duration = parse_duration(text)?;
    Timing::new(duration).map_err(|error| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("{error}; {text} means {} s: write {text}ms for milliseconds", duration.as_secs()),
        false => error.to_string(),
    })
}

/// With less, a node that only restarts would be replaced.
const LEAST_REPLACE_AFTER: Duration = Duration::from_secs(5);

fn parse_replace_after(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        duration if duration < LEAST_REPLACE_AFTER => Err("give 5s or more".to_owned()),
        duration => Ok(duration),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| match text.contains("://") {
        true => "give a number up to 65535. Kubernetes sets such a variable for a Service named ringfort: set \
                 enableServiceLinks: false in the pod's specification, or give the flag"
            .to_owned(),
        false => "give a number up to 65535".to_owned(),
    })
}

fn parse_bandwidth(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("give 1 or more, or omit the setting for no limit".to_owned()),
        bytes => Ok(bytes),
    }
}

fn parse_segment(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(bytes) if bytes >= 64 << 10 && bytes % 4096 == 0 => Ok(bytes),
        _ => Err("give a multiple of 4096, 65536 or more".to_owned()),
    }
}

/// Below the bounds, nodes would do little but gossip; above them, it would take minutes to detect a dead node.
fn parse_gossip_period(text: &str) -> Result<Duration, String> {
    let period = parse_duration(text)?;
    match (Duration::from_millis(50)..=Duration::from_secs(10)).contains(&period) {
        true => Ok(period),
        false => Err("give 50ms to 10s".to_owned()),
    }
}

fn parse_node_id(text: &str) -> Result<String, String> {
    match is_node_name(text) {
        true => Ok(text.to_owned()),
        false => Err(NODE_NAME_RULE.to_owned()),
    }
}

fn parse_address(text: &str) -> Result<String, AddressError> {
    check_address(text).map(|()| text.to_owned())
}

fn parse_filter(text: &str) -> Result<String, String> {
    // The filter would take another word for the name of a module, and log nothing.
    let is_level = |part: &str| part.parse::<LevelFilter>().is_ok();
    let word = text.split(',').map(str::trim).find(|part| !part.contains(['=', '[', ']']) && !is_level(part));
    if let Some(word) = word {
        return Err(format!(
            "{word:?} is not a level: give error, warn, info, debug, trace or off, or a filter such as \
             ringfort_core=debug"
        ));
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
