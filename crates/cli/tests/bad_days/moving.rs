//! Several changes at a time, while the node that controls the moves dies in the middle.

use crate::SMALL;
use crate::support::{Cluster, Node, Writers, assert_all_there, list};
use serde_json::Value;
use std::time::Duration;

fn is_on_its_way(status: &Value) -> bool {
    list(status, "shards").iter().flat_map(|shard| list(shard, "members")).any(|member| member["role"] == "learner")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_join_while_one_leaves() {
    let mut cluster = Cluster::prepare(6, &SMALL);
    cluster.nodes[..4].iter_mut().for_each(Node::start);
    cluster.wait_until_complete(4);
    let client = cluster.client();
    let writers = Writers::start(&client, "moving");
    writers.wait_for(50).await;
    let leaving = cluster.spawn(&["cluster", "leave", "node2"]);
    cluster.nodes[4..].iter_mut().for_each(Node::start);
    let left = leaving.wait_with_output().unwrap();
    assert!(left.status.success(), "{}", String::from_utf8_lossy(&left.stderr));
    assert_eq!(cluster.nodes[1].ends(), Some(0));
    let status = cluster.wait_until_complete(5);
    assert!(list(&status, "nodes").iter().all(|node| node["name"] != "node2"), "{}", status["summary"]);
    writers.wait_for(50).await;
    assert_all_there(&client, &writers.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_that_conducts_the_moves_dies_in_the_middle() {
    // The bandwidth makes the moves take seconds.
    let mut cluster = Cluster::prepare(4, &[&SMALL[..], &["--move-bandwidth=2000000"]].concat());
    cluster.nodes[..3].iter_mut().for_each(Node::start);
    cluster.wait_until_complete(3);
    let client = cluster.client();
    let value = "v".repeat(100_000);
    for number in 0..60 {
        client.put(format!("large-{number}"), value.clone()).await.unwrap();
    }
    let writers = Writers::start(&client, "moving");
    cluster.nodes[3].start();
    let status = cluster.wait_for_status("replicas on their way", is_on_its_way);
    let system = list(&status, "shards").iter().find(|shard| shard["shard"] == "system").expect("status shows it");
    let conductor = format!("node{}", system["leader"]);
    cluster.node(&conductor).kill();
    // Another node continues the moves. Without the dead node's replicas the cluster is not complete, but the moves
    // end.
    cluster.wait_for_status("nothing is on its way", |status| {
        let held = |shard: &&Value| list(shard, "members").iter().any(|member| member["node"] == 4);
        !is_on_its_way(status) && list(status, "shards").iter().filter(held).count() >= 3
    });
    writers.wait_for(50).await;
    cluster.node(&conductor).start();
    cluster.wait_until_complete(4);
    let acknowledged = writers.stop().await;
    assert_all_there(&client.with_timeout(Duration::from_secs(10)), &acknowledged).await;
    for number in 0..60 {
        let found = cluster.client().get(format!("large-{number}")).await.unwrap().expect("it was acknowledged");
        assert_eq!(found.value, value.as_bytes());
    }
}
