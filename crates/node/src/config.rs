//! What an operator can set on a node.

use ringfort_core::gossip::GossipConfig;
use ringfort_core::replica::ReadMode;
use ringfort_core::timing::Timing;
use ringfort_ring::ShardCount;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The number of shards of a new cluster unless given.
pub const DEFAULT_SHARDS: u32 = 64;

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name, unique in its cluster.
    pub name: String,
    pub directory: PathBuf,
    pub listen: IpAddr,
    /// The host that others dial; by default the address that the node listens on.
    pub advertise: Option<String>,
    /// The port for clients. Zero lets the system choose one.
    pub port: u16,
    /// The port for other nodes. Zero lets the system choose one.
    pub raft_port: u16,
    /// The port for monitoring, if given. Zero lets the system choose one.
    pub http_port: Option<u16>,
    /// Create a new cluster if the directory is empty and no node at `join` belongs to a cluster.
    pub bootstrap: bool,
    /// Addresses of nodes whose cluster this node joins if its directory is empty.
    pub join: Vec<String>,
    pub join_timeout: Duration,
    /// Join as the replacement of a member of the same name whose directory is lost.
    pub replace: bool,
    /// The node's failure domain; empty for none.
    pub zone: String,
    /// Shards that may receive a new replica at the same time. In force while this node leads the system shard.
    pub moves: usize,
    /// Bytes per second for all snapshots that this node sends together.
    pub move_bandwidth: Option<u64>,
    /// A node that is silent for this long is replaced by others. In force while this node leads the system shard.
    pub replace_after: Duration,
    /// The process ends when its disk has not answered for this long.
    pub disk_timeout: Duration,
    /// The file that sets the disk's faults, for tests.
    pub disk_faults: Option<PathBuf>,
    /// A node that was away, or whose disk hung, is given leadership again after it has been healthy for this long. In
    /// force while this node leads the system shard.
    pub lead_after: Duration,
    /// How many shards a new cluster has; [`DEFAULT_SHARDS`] unless given.
    pub shards: Option<ShardCount>,
    /// The least election timeout of a new cluster; the usual one unless given.
    pub timing: Option<Timing>,
    /// The number of threads that run the shards; as many run the network.
    pub workers: usize,
    pub read_mode: ReadMode,
    pub segment_bytes: u64,
    /// All writes but deletes are refused once keys and values, including their overhead in memory, take this many bytes.
    pub max_memory_bytes: Option<u64>,
    pub gossip: GossipConfig,
    /// The scrubber's rate in bytes of keys and values per second; zero disables it.
    pub scrub_rate: u64,
}
