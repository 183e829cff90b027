//! A cluster permanently keeps the election timeout that it was created with, on every node.

use crate::SMALL;
use crate::support::{Cluster, Node, leader_of};
use std::time::{Duration, Instant};

const ELECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Kills the leader of a shard. Returns for how long the shard then accepted no writes.
async fn outage(cluster: &mut Cluster) -> Duration {
    let client = cluster.client();
    client.put("k", "before").await.unwrap();
    let leader = leader_of("k", &cluster.status().unwrap());
    cluster.node(&leader).kill();
    let killed = Instant::now();
    while client.put("k", "after").await.is_err() {
        assert!(killed.elapsed() < Duration::from_secs(30), "nobody leads");
    }
    killed.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_election_timeout_that_it_began_with() {
    // The last heartbeat may have been sent a tick before the kill.
    let least = ELECTION_TIMEOUT - ELECTION_TIMEOUT / 8;
    let mut cluster = Cluster::prepare(3, &SMALL);
    cluster.nodes[0].set("--election-timeout=2s");
    // A node that joins needs no flag, and a different value does not keep a node from starting.
    cluster.nodes[2].set("--election-timeout=400ms");
    cluster.nodes.iter_mut().for_each(Node::start);
    let status = cluster.wait_until_complete(3);
    assert_eq!(status["election_timeout_ms"], 2000);
    cluster.nodes[2].wait_for_log("--election-timeout=400ms has no effect: this cluster was created with 2s");
    let took = outage(&mut cluster).await;
    assert!(took >= least, "{took:?}");

    for node in &mut cluster.nodes {
        if node.runs() {
            node.kill();
        }
    }
    cluster.nodes[0].arguments.retain(|argument| !argument.starts_with("--election-timeout"));
    cluster.nodes.iter_mut().for_each(Node::start);
    let status = cluster.wait_until_complete(3);
    assert_eq!(status["election_timeout_ms"], 2000);
    let took = outage(&mut cluster).await;
    assert!(took >= least, "after a restart of all nodes, {took:?}");
}

#[test]
fn a_disk_timeout_that_the_election_timeout_leaves_no_room_for_is_refused() {
    let mut cluster = Cluster::prepare(1, &SMALL);
    cluster.nodes[0].set("--election-timeout=2s");
    cluster.nodes[0].set("--disk-timeout=5s");
    cluster.nodes[0].start();
    assert_eq!(cluster.nodes[0].ends(), Some(2));
    let log = cluster.nodes[0].log();
    assert!(log.contains("whose election timeout is 2s") && log.contains("Give 8000 ms or more"), "{log}");
}
