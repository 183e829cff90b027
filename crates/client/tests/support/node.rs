// A real node for the examples in the documentation: they include this file, and run whenever the tests do.

use ringfort_node::{CONCURRENT_MOVES, DISK_TIMEOUT, GossipConfig, LEAD_AFTER, Node, NodeConfig, REPLACE_AFTER, ReadMode};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Runs an example with the endpoint of its own node, which ends with the example.
fn with_node(example: impl AsyncFnOnce(String) -> Result<(), ringfort_client::Error>) {
    let directory = tempfile::tempdir().unwrap();
    let config = NodeConfig {
        name: "node1".to_owned(),
        directory: directory.path().to_owned(),
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        advertise: None,
        port: 0,
        raft_port: 0,
        http_port: None,
        bootstrap: true,
        join: Vec::new(),
        join_timeout: Duration::ZERO,
        replace: false,
        zone: String::new(),
        moves: CONCURRENT_MOVES,
        move_bandwidth: None,
        replace_after: REPLACE_AFTER,
        disk_timeout: DISK_TIMEOUT,
        disk_faults: None,
        lead_after: LEAD_AFTER,
        shards: Some(ringfort_ring::ShardCount::new(4).unwrap()),
        timing: None,
        workers: 1,
        read_mode: ReadMode::Lease,
        segment_bytes: 1 << 20,
        max_memory_bytes: None,
        gossip: GossipConfig::default(),
        scrub_rate: 0,
    };
    let node = Node::start(config).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(example(node.grpc_address().to_string())).unwrap();
    drop(runtime);
    node.shutdown();
}
