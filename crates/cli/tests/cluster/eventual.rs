//! The eventual keyspace: writable without a quorum, and the same on all nodes afterwards.

use crate::support::{Cluster, came_about, get, run, text};
use ringfort_client::Error;
use rustix::process::Signal;
use serde_json::Value;
use std::time::Duration;

const SMALL: [&str; 4] = ["--shards=4", "--segment-bytes=1048576", "--workers=1", "--gossip-period=200ms"];

/// The output of `status --gossip` from one node.
fn gossip(cluster: &Cluster, node: &str) -> Value {
    let output = run(&["status", "--gossip", "-o", "json"], &endpoint(cluster, node), b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn endpoint(cluster: &Cluster, node: &str) -> String {
    cluster.nodes.iter().find(|known| known.name == node).expect("there is such a node").endpoint()
}

/// Runs a command against a single node.
#[track_caller]
fn on(cluster: &Cluster, node: &str, arguments: &[&str]) -> String {
    let output = run(arguments, &endpoint(cluster, node), b"");
    assert!(output.status.success(), "{arguments:?} on {node}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn rows(cluster: &Cluster, node: &str) -> String {
    on(cluster, node, &["scan", "--eventual"])
}

/// Waits until all nodes hold the same keyspace. Returns the most gossip rounds that it took any node.
#[track_caller]
fn rounds_until_equal(cluster: &Cluster) -> u64 {
    let names: Vec<&str> = cluster.nodes.iter().map(|node| &node.name[..]).collect();
    let rounds = |name: &&str| gossip(cluster, name)["rounds"].as_u64().unwrap();
    let before: Vec<u64> = names.iter().map(rounds).collect();
    let mut hashes = Vec::new();
    let equal = came_about(|| {
        hashes = names.iter().map(|name| gossip(cluster, name)["hash"].clone()).collect();
        hashes.iter().all(|hash| *hash == hashes[0])
    });
    assert!(equal, "{hashes:?}");
    let taken = names.iter().zip(before).map(|(name, before)| rounds(name) - before);
    taken.max().unwrap_or(0)
}

#[test]
fn a_node_without_a_quorum_takes_writes_and_all_agree_when_it_has_one() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    assert_eq!(on(&cluster, "node2", &["put", "--eventual", "k", "of node2"]), "OK\n");
    on(&cluster, "node2", &["put", "--eventual", "gone", "soon"]);
    rounds_until_equal(&cluster);
    assert_eq!(on(&cluster, "node3", &["get", "--eventual", "k"]), "of node2");
    let found = run(&["get", "k"], &endpoint(&cluster, "node3"), b"");
    assert_eq!(found.status.code(), Some(1), "the linearizable keyspace has no such key");

    cluster.node("node2").kill();
    cluster.node("node3").kill();
    let refused = run(&["put", "--timeout", "1s", "k", "v"], &endpoint(&cluster, "node1"), b"");
    assert_eq!(refused.status.code(), Some(2), "there is no quorum");
    assert_eq!(on(&cluster, "node1", &["put", "--eventual", "k", "of node1"]), "OK\n");
    assert_eq!(on(&cluster, "node1", &["delete", "--eventual", "gone"]), "deleted\n");
    assert_eq!(rows(&cluster, "node1"), "k\tof node1\n");
    let dead = came_about(|| {
        let nodes = gossip(&cluster, "node1")["nodes"].clone();
        [1, 2].iter().all(|&at: &usize| nodes[at]["liveness"] == "dead" && nodes[at]["reason"] == "no more heartbeats")
    });
    assert!(dead, "{}", gossip(&cluster, "node1"));
    assert!(text(&run(&["status"], &endpoint(&cluster, "node1"), b"").stdout).contains(" dead "));

    // A node killed right after its answer still has the write, while the others are back without it.
    on(&cluster, "node1", &["put", "--eventual", "last", "words"]);
    cluster.node("node1").kill();
    cluster.node("node2").start();
    cluster.node("node3").start();
    let serves =
        |name: &str| came_about(|| run(&["get", "--eventual", "k"], &endpoint(&cluster, name), b"").status.success());
    assert!(serves("node2") && serves("node3"));
    on(&cluster, "node3", &["put", "--eventual", "k", "later, of node3"]);
    cluster.node("node1").start();
    cluster.wait_until_complete(3);
    rounds_until_equal(&cluster);
    for node in ["node1", "node2", "node3"] {
        assert_eq!(rows(&cluster, node), "k\tlater, of node3\nlast\twords\n", "{node}");
    }
    let alive = came_about(|| {
        let nodes = gossip(&cluster, "node1")["nodes"].clone();
        nodes[1]["liveness"] == "alive" && nodes[2]["liveness"] == "alive"
    });
    assert!(alive);
    let forgotten =
        came_about(|| ["node1", "node2", "node3"].iter().all(|name| gossip(&cluster, name)["tombstones"] == 0));
    assert!(forgotten, "all know that the deletion is known to all");
    assert_eq!(rows(&cluster, "node2"), "k\tlater, of node3\nlast\twords\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_keys_differ_nowhere_ten_rounds_after_a_heal() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    cluster.node("node2").kill();
    cluster.node("node3").kill();
    let client = ringfort_client::Client::connect([endpoint(&cluster, "node1")]).unwrap();
    for key in 0..1_000 {
        client.eventual().put(format!("key{key}"), format!("value of {key}")).await.unwrap();
    }
    cluster.node("node2").start();
    cluster.node("node3").start();
    let is_up = |name: &str| run(&["status", "--gossip"], &endpoint(&cluster, name), b"").status.success();
    assert!(came_about(|| is_up("node2") && is_up("node3")));
    let rounds = tokio::task::block_in_place(|| rounds_until_equal(&cluster));
    assert!(rounds <= 10, "{rounds} rounds");
    for node in ["node1", "node2", "node3"] {
        assert_eq!(rows(&cluster, node).lines().count(), 1_000, "{node}");
    }
    // Data received from another node is durable too.
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    cluster.node("node3").start();
    assert!(came_about(|| run(&["status", "--gossip"], &endpoint(&cluster, "node3"), b"").status.success()));
    assert_eq!(rows(&cluster, "node3").lines().count(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_keyspace_refuses_puts_and_takes_deletes() {
    let cluster = Cluster::start_with(1, &SMALL);
    let client = cluster.client().with_timeout(Duration::from_secs(5));
    let value = vec![b'v'; 60 << 10];
    let mut written = 0;
    let refused = loop {
        match client.eventual().put(format!("key{written}"), value.clone()).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!((200..300).contains(&written), "{written}");
    assert!(refused.to_string().contains("keyspace is full"), "{refused}");
    assert!(client.eventual().delete("key0").await.unwrap().found);
    client.eventual().put("key0", "small").await.unwrap();
    assert!(client.eventual().put("large", vec![0; 65 << 10]).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_not_synced_when_its_node_stops_is_unknown_and_may_be_kept() {
    let mut cluster = Cluster::prepare(1, &SMALL);
    let node = &mut cluster.nodes[0];
    node.take_disk_faults();
    node.set("--http-port=0");
    // A stopping node ends at once if its disk hangs, which takes two election timeouts to detect.
    node.set("--election-timeout=2s");
    node.start();
    let monitored = node.monitored_at();
    let client = cluster.client();
    client.eventual().put("k", "first").await.unwrap();

    let node = &mut cluster.nodes[0];
    node.hang_disk();
    let written = tokio::spawn(async move { client.eventual().put("k", "second").await });
    assert!(came_about(|| get(&monitored, "/metrics").1.contains("ringfort_requests_in_flight 1\n")));
    node.signal(Signal::TERM);
    let unknown = written.await.unwrap().unwrap_err();
    assert!(matches!(&unknown, Error::UnknownOutcome(_)), "{unknown:?}");
    assert!(unknown.to_string().contains("may or may not be kept"), "{unknown}");

    node.heal_disk();
    assert_eq!(node.ends(), Some(0));
    node.start();
    assert!(came_about(|| rows(&cluster, "node1") == "k\tsecond\n"), "it was synced after the answer");
}
