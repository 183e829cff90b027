//! Disks that do not answer: other nodes soon lead the node's shards, which accept writes again; leadership returns
//! when the disk has been healthy for a while; if it never answers, the process ends.

use crate::support::verifying::Verifying;
use crate::support::{Cluster, Node, list, run, text};
use serde_json::Value;
use std::thread::sleep;
use std::time::{Duration, Instant};

const FLAGS: [&str; 5] =
    ["--shards=8", "--segment-bytes=1048576", "--workers=1", "--lead-after=2s", "--disk-timeout=6s"];

/// How many shards a node leads; `None` if it does not answer.
fn led(status: &Value, name: &str) -> Option<u64> {
    let node = list(status, "nodes").iter().find(|node| node["name"] == name)?;
    node["shards_led"].as_u64().filter(|_| node["alive"] == true)
}

#[test]
fn shards_of_a_node_whose_disk_hangs_are_led_by_others_and_come_back_when_it_is_well() {
    let mut cluster = Cluster::prepare(3, &FLAGS);
    cluster.nodes[1].take_disk_faults();
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_until_complete(3);
    cluster.wait_for_status("leaders on all nodes", |status| led(status, "node2").is_some_and(|led| led >= 2));
    let others = [cluster.nodes[0].endpoint(), cluster.nodes[2].endpoint()].join(",");
    let verifying = Verifying::start(&others);

    cluster.nodes[1].hang_disk();
    cluster.wait_for_status("others lead", |status| led(status, "node2") == Some(0));
    assert!(cluster.nodes[1].log().contains("the disk has not answered for"), "the log says so");
    // Only saving the new topology waits for that disk.
    cluster.prints(&["cluster", "pause"]);
    let changed = Instant::now();
    while changed.elapsed() < Duration::from_secs(1) {
        let answer = run(&["status", "-o", "json", "--timeout=1s"], &cluster.nodes[1].endpoint(), b"");
        let status = serde_json::from_slice(&answer.stdout).unwrap_or_else(|_| panic!("{}", text(&answer.stderr)));
        assert_eq!(led(&status, "node2"), Some(0), "{status}");
    }
    cluster.prints(&["cluster", "resume"]);
    cluster.nodes[1].heal_disk();
    cluster.nodes[1].wait_for_log("the disk answers again");
    cluster.wait_for_status("it leads again", |status| led(status, "node2").is_some_and(|led| led >= 2));
    let log = cluster.nodes[1].log();
    let hung = log.matches("the disk has not answered for").count();
    assert_eq!(hung, 1, "one line every ten seconds at most");
    assert!(log.contains("the disk has been healthy for a while"), "not before");

    cluster.nodes[1].hang_disk();
    assert_ne!(cluster.nodes[1].ends(), Some(0));
    assert!(cluster.nodes[1].log().contains("--disk-timeout"));
    cluster.nodes[1].heal_disk();
    cluster.nodes[1].start();
    cluster.wait_until_complete(3);

    assert_served(&verifying.finish());
}

#[test]
fn a_disk_that_hangs_is_noticed_although_nothing_is_logged() {
    let mut cluster = Cluster::prepare(1, &["--shards=1"]);
    cluster.nodes[0].take_disk_faults();
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    cluster.nodes[0].hang_disk();
    cluster.nodes[0].wait_for_log("the disk has not answered for");
    cluster.nodes[0].heal_disk();
    cluster.nodes[0].wait_for_log("the disk answers again");
}

#[test]
fn no_shard_is_without_service_for_long_while_disks_hang_in_turn() {
    // Three disks.
    assert_served(&hang_in_turn(Duration::from_secs(21)));
}

#[test]
#[ignore = "takes two minutes"]
fn no_shard_is_without_service_for_long_while_disks_hang_in_turn_for_two_minutes() {
    assert_served(&hang_in_turn(Duration::from_secs(120)));
}

/// Hangs the disks of five nodes, one after the other, each for 5 to 8 seconds. A node whose disk hung leads nothing
/// for half a minute, so most shards soon have no replica left whose disk has been healthy for long.
fn hang_in_turn(duration: Duration) -> Value {
    let mut cluster = Cluster::prepare(5, &["--shards=16", "--segment-bytes=1048576", "--workers=1"]);
    cluster.nodes.iter_mut().for_each(|node| {
        node.take_disk_faults();
        node.start();
    });
    cluster.wait_until_complete(5);
    let verifying = Verifying::start(&cluster.endpoints().join(","));
    let begun = Instant::now();
    for turn in 0.. {
        let hung = Duration::from_secs(5 + turn % 4);
        if begun.elapsed() + hung > duration {
            break;
        }
        let node = &cluster.nodes[turn as usize % cluster.nodes.len()];
        node.hang_disk();
        sleep(hung);
        node.heal_disk();
        sleep(Duration::from_secs(1));
    }
    verifying.finish()
}

#[track_caller]
fn assert_served(report: &Value) {
    let worst = report["worst_shard"]["longest_without_service_ms"].as_f64().unwrap();
    assert!(worst <= MOST_WITHOUT_SERVICE.as_millis() as f64, "{report}");
}

/// Two election timeouts until the disk counts as hung, and the hand-overs; twice that for busy machines.
const MOST_WITHOUT_SERVICE: Duration = Duration::from_secs(3);
