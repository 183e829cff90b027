//! A cluster grows while it is written to.

use crate::support::{Cluster, Writers, assert_all_there, list, summary};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_becomes_five_under_load() {
    let mut cluster = Cluster::prepare(5, &["--segment-bytes=4194304"]);
    cluster.nodes[0].start();
    let status = cluster.wait_until_complete(1);
    let alone = "1 node, 64 shards, tolerates no node failure; all replicas caught up; \
                 start 2 more nodes with --join-addr to tolerate a failure";
    assert_eq!(summary(&status), alone);
    let client = cluster.client();
    let writers = Writers::start(&client, "growth");
    writers.wait_for(100).await;
    for (joining, nodes) in [(1..2, 2), (2..3, 3), (3..5, 5)] {
        cluster.nodes[joining].iter_mut().for_each(|node| node.start());
        cluster.wait_until_complete(nodes);
        writers.wait_for(100).await;
    }
    let acknowledged = writers.stop().await;

    // Moves may still be under way between two checks: wait for the final placement.
    let status = cluster.wait_for_status("each shard on three nodes, each node with its share", |status| {
        let mut replicas = BTreeMap::new();
        let shards = list(status, "shards").iter().filter(|shard| shard["shard"] != "system");
        let sizes: Vec<usize> = shards
            .map(|shard| {
                let members = list(shard, "members");
                members.iter().for_each(|member| *replicas.entry(member["node"].as_u64()).or_insert(0) += 1);
                members.len()
            })
            .collect();
        // The mean is 64 x 3 / 5 = 38.4; no node has more than 1.1 times as much.
        status["healthy"] == true
            && sizes.iter().all(|&size| size == 3)
            && replicas.len() == 5
            && replicas.values().all(|&count| count <= 43)
    });
    assert_eq!(status["node_failures_tolerated"], 1);
    assert_eq!(summary(&status), "5 nodes, 64 shards, tolerates 1 node failure; all replicas caught up");
    assert_all_there(&client, &acknowledged).await;

    // Check the promise: any one node may fail.
    cluster.nodes[0].kill();
    assert_all_there(&client, &acknowledged).await;
}
