//! Nodes join, leave, die and come back while the cluster is written to.

use crate::support::{Cluster, Writers, assert_all_there, list};
use std::time::Duration;

const FLAGS: [&str; 4] = ["--shards=16", "--segment-bytes=1048576", "--replace-after=5s", "--workers=1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_become_five_then_four_then_three_under_load() {
    let mut cluster = Cluster::prepare(5, &FLAGS);
    cluster.nodes[..3].iter_mut().for_each(|node| node.start());
    cluster.wait_until_complete(3);
    let client = cluster.client();
    let writers = Writers::start(&client, "ops");
    writers.wait_for(50).await;
    cluster.nodes[3..].iter_mut().for_each(|node| node.start());
    cluster.wait_until_complete(5);
    writers.wait_for(50).await;

    assert_eq!(
        cluster.prints(&["cluster", "leave", "node2"]),
        "node2 has left the cluster; its process ends by itself\n"
    );
    let left = cluster.node("node2");
    assert_eq!(left.ends(), Some(0));
    left.wait_for_log("has left the cluster, and other nodes hold all its data");
    cluster.wait_until_complete(4);
    writers.wait_for(50).await;
    assert_eq!(cluster.prints(&["cluster", "leave", "node2"]).lines().count(), 1, "done is done");

    // The first node dies: it held everything at the beginning, and may well lead the system shard.
    cluster.nodes[0].kill();
    cluster.wait_until_complete(3);
    writers.wait_for(50).await;
    let acknowledged = writers.stop().await;
    assert_all_there(&client, &acknowledged).await;

    // It comes back with its old data, learns that it was declared dead, and joins as a new node, even though its
    // command line has --bootstrap.
    let returned = &mut cluster.nodes[0];
    returned.start();
    returned.wait_for_log("other nodes took its place: it joins again as a new node");
    let status = cluster.wait_until_complete(4);
    let mut ids: Vec<u64> = list(&status, "nodes").iter().map(|node| node["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert!(!ids.contains(&1) && ids.ends_with(&[6]), "joined once, under the next id: {ids:?}");
    assert_all_there(&client.with_timeout(Duration::from_secs(10)), &acknowledged).await;

    let left = cluster.node("node2");
    left.start();
    assert_eq!(left.ends(), Some(2));
    left.wait_for_log("has left its cluster, which holds all of its data: delete the directory");
}
