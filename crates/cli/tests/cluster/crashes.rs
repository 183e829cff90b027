//! `kill -9` under clients that write.

use crate::support::{Cluster, Node, Writers, assert_all_there, leader_of};
use ringfort_client::Error;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_outlive_their_leader() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client();
    let writers = Writers::start(&client, "crash");
    writers.wait_for(300).await;
    let leader = leader_of("k", &cluster.status().unwrap());
    cluster.node(&leader).kill();
    // A write sent before the client notices the broken connection may end as unknown; all others wait for a new
    // leader.
    while let Err(error) = client.put("k", "written after the crash").await {
        assert!(matches!(error, Error::UnknownOutcome(_)), "{error}");
    }
    writers.wait_for(300).await;
    assert_ne!(leader_of("k", &cluster.status().unwrap()), leader);

    // The survivors alone have everything, and still do together with the node that comes back.
    let more = Writers::start(&client, "later");
    let acknowledged = writers.stop().await;
    assert_all_there(&client, &acknowledged).await;
    cluster.node(&leader).start();
    cluster.wait_until_complete(3);
    let later = more.stop().await;
    assert_all_there(&client, &acknowledged).await;
    assert_all_there(&client, &later).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_outlive_a_crash_of_all_nodes() {
    let mut cluster = Cluster::start(3);
    let writers = Writers::start(&cluster.client().with_timeout(Duration::from_secs(2)), "all");
    writers.wait_for(500).await;
    cluster.nodes.iter_mut().for_each(Node::kill);
    let acknowledged = writers.stop().await;
    assert!(acknowledged.len() >= 500);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_until_complete(3);
    assert_all_there(&cluster.client(), &acknowledged).await;
}
