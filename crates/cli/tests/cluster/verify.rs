//! `ringfort verify` while a node is killed and comes back.

use crate::support::{Cluster, list, text};
use serde_json::Value;
use std::thread;
use std::time::Duration;

#[test]
fn a_cluster_that_loses_a_leader_is_linearizable() {
    let mut cluster = Cluster::start(3);
    // 24 keys at a time, so that the node that is killed leads some of their shards.
    let verify = cluster.spawn(&["verify", "--duration=8s", "--rate=600", "--clients=96", "-o", "json"]);
    // This awaits no condition: the clients should be in the middle of their work.
    thread::sleep(Duration::from_secs(2));
    let status = cluster.status().unwrap();
    let leader = &list(&status, "shards")[1]["leader"];
    let leader = list(&status, "nodes").iter().find(|node| node["id"] == *leader).expect("it has a leader");
    let leader = leader["name"].as_str().unwrap();
    cluster.node(leader).kill();
    thread::sleep(Duration::from_secs(3));
    cluster.node(leader).start();

    let output = verify.wait_with_output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    println!("{report}");
    assert_eq!(report["verdict"], "linearizable");
    assert!(report["operations"].as_u64().unwrap() > 500, "{report}");
    // A shard whose leader is killed waits for an election.
    let worst = report["worst_shard"]["longest_without_service_ms"].as_f64().unwrap();
    assert!(worst > 50.0 && worst >= report["longest_without_service_ms"].as_f64().unwrap(), "{report}");
    assert_eq!(cluster.prints(&["scan", "--prefix=verify/"]), "", "no key is left");
}
