//! Nodes that come back at other addresses while there is no quorum to commit them.

use crate::support::{Cluster, Node};

const SMALL: [&str; 3] = ["--shards=4", "--segment-bytes=1048576", "--workers=1"];

/// Waits until the topology has the nodes' current addresses.
async fn wait_until_known(cluster: &Cluster) {
    cluster.wait_until_complete(cluster.nodes.len());
    let topology = cluster.client().topology().await.unwrap();
    for node in &cluster.nodes {
        let known = topology.nodes.iter().find(|known| known.name == node.name).unwrap();
        let raft_address = format!("127.0.0.1:{}", node.raft_port);
        assert_eq!((&known.grpc_address, &known.raft_address), (&node.endpoint(), &raft_address), "{}", node.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_moves_as_a_whole_finds_itself_by_the_address_to_join_at() {
    for count in [2, 3] {
        let mut cluster = Cluster::start_with(count, &SMALL);
        cluster.prints(&["put", "k", "before"]);
        for _ in 0..2 {
            cluster.nodes.iter_mut().for_each(Node::kill);
            (0..count).for_each(|number| cluster.readdress(number));
            cluster.nodes.iter_mut().for_each(Node::start);
            wait_until_known(&cluster).await;
        }
        assert_eq!(cluster.prints(&["get", "k"]), "before");
        assert_eq!(cluster.prints(&["put", "k", "after"]), "OK, version 2\n");
        // The addresses are committed, so the configured join addresses are no longer needed.
        cluster.nodes.iter_mut().for_each(Node::kill);
        cluster.nodes[1..].iter_mut().for_each(|node| node.set("--join_addr=localhost:1"));
        cluster.nodes.iter_mut().for_each(Node::start);
        wait_until_known(&cluster).await;
        assert_eq!(cluster.prints(&["get", "k"]), "after");
    }
}

#[test]
fn a_node_that_moved_makes_a_quorum_with_one_that_did_not() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    cluster.prints(&["put", "k", "before"]);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    cluster.readdress(1);
    cluster.nodes[1].set("--join_addr=localhost:1");
    cluster.nodes[1].start();
    cluster.wait_for_status("only node3 is missed", |status| {
        let summary = status["summary"].as_str().unwrap();
        !summary.contains("without a leader") && !summary.contains("node2") && summary.contains("node3 ")
    });
    assert_eq!(cluster.prints(&["get", "k"]), "before");
    assert_eq!(cluster.prints(&["put", "k", "after"]), "OK, version 2\n");
    cluster.readdress(2);
    cluster.nodes[2].start();
    cluster.wait_until_complete(3);
}
