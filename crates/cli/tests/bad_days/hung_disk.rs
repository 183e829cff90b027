//! A disk that does not answer: its node's shards take writes again soon, led by others; leadership returns when it has
//! been well for a while; and when it never answers, the process ends.

use crate::skip;
use crate::support::slow_disk::SlowDisk;
use crate::support::verifying::Verifying;
use crate::support::{Cluster, list};
use serde_json::Value;
use std::time::Duration;

const FLAGS: [&str; 5] =
    ["--shards=8", "--segment-bytes=1048576", "--workers=1", "--lead-after=2s", "--disk-timeout=6s"];

/// How many shards a node leads; none where it does not answer.
fn led(status: &Value, name: &str) -> Option<u64> {
    let node = list(status, "nodes").iter().find(|node| node["name"] == name)?;
    node["shards_led"].as_u64().filter(|_| node["alive"] == true)
}

#[test]
fn shards_of_a_node_whose_disk_hangs_are_led_by_others_and_come_back_when_it_is_well() {
    let mut cluster = Cluster::prepare(3, &FLAGS);
    let library = tempfile::tempdir().unwrap();
    let Some(disk) = SlowDisk::compile(library.path()) else { return skip("there is no C compiler") };
    for node in &mut cluster.nodes {
        let program = disk.program(node);
        node.start_by(program);
    }
    cluster.wait_until_complete(3);
    cluster.wait_for_status("leaders on all nodes", |status| led(status, "node2").is_some_and(|led| led >= 2));
    let others = [cluster.nodes[0].endpoint(), cluster.nodes[2].endpoint()].join(",");
    let verifying = Verifying::start(&others);

    disk.hang(&cluster.nodes[1]);
    cluster.wait_for_status("others lead", |status| led(status, "node2") == Some(0));
    assert!(cluster.nodes[1].log().contains("the disk has not answered for"), "it is said");
    disk.heal(&cluster.nodes[1]);
    cluster.nodes[1].wait_for_log("the disk answers again");
    cluster.wait_for_status("it leads again", |status| led(status, "node2").is_some_and(|led| led >= 2));
    let log = cluster.nodes[1].log();
    let hung = log.matches("the disk has not answered for").count();
    assert_eq!(hung, 1, "a line every ten seconds");
    assert!(log.contains("the disk has been well for a while"), "not before");

    disk.hang(&cluster.nodes[1]);
    assert_ne!(cluster.nodes[1].ends(), Some(0));
    assert!(cluster.nodes[1].log().contains("--disk-timeout"));
    disk.heal(&cluster.nodes[1]);
    let program = disk.program(&cluster.nodes[1]);
    cluster.nodes[1].start_by(program);
    cluster.wait_until_complete(3);

    let report = verifying.finish();
    let worst = report["worst_shard"]["longest_without_service_ms"].as_f64().unwrap();
    assert!(worst <= MOST_WITHOUT_SERVICE.as_millis() as f64, "{report}");
}

/// Two election timeouts until a disk is said to hang, and the hand-overs; twice that for machines that are busy.
const MOST_WITHOUT_SERVICE: Duration = Duration::from_secs(3);
