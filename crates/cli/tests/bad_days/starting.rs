//! A node that can't start, or must not continue, ends with exit code 2 and says what to do.

use crate::support::small_disk::SmallDisk;
use crate::support::{Cluster, Node, PATIENCE, program, run, text};
use crate::{SMALL, skip};
use rustix::process::{Signal, geteuid};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Starts a node that must fail. Returns the last line that it prints.
#[track_caller]
fn fails(node: &mut Node) -> String {
    node.start();
    failed(node)
}

#[track_caller]
fn failed(node: &mut Node) -> String {
    let code = node.ends();
    let log = node.log();
    assert_eq!(code, Some(2), "{log}");
    log.lines().last().expect("it says why").to_owned()
}

#[track_caller]
fn assert_says(said: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} are not all in {said:?}");
}

#[test]
fn a_directory_is_used_by_one_node() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    let directory = cluster.nodes[0].directory.display().to_string();
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    cluster.nodes[1].set(&format!("--raft_dir={directory}"));
    assert_says(&fails(&mut cluster.nodes[1]), &[&directory, "in use by another process: stop it, or choose another"]);
    cluster.nodes[0].kill();
    assert_says(&fails(&mut cluster.nodes[1]), &["belongs to node \"node1\"", "--node-id node1"]);
}

#[test]
fn a_node_that_others_can_not_dial_is_not_taken_in() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    let nowhere = format!("127.84.0.9:{}", cluster.nodes[1].port);
    cluster.nodes[1].set("--advertise=127.84.0.9");
    cluster.nodes[1].set("--join_timeout=2s");
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    let said = fails(&mut cluster.nodes[1]);
    assert_says(&said, &["can't reach it at", &nowhere, "give --advertise with a host"]);
    assert!(cluster.nodes[1].log().contains("does not admit this node yet"));
    assert!(!cluster.prints(&["status"]).contains("node2"));
    cluster.nodes[1].set("--advertise=127.0.0.1");
    cluster.nodes[1].set("--join_timeout=60s");
    cluster.nodes[1].start();
    cluster.wait_until_complete(2);
}

#[test]
fn a_node_that_its_own_cluster_can_not_dial_is_told_at_once() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    let nowhere = format!("127.84.0.9:{}", cluster.nodes[0].port);
    cluster.nodes[0].set("--advertise=127.84.0.9");
    cluster.nodes[0].start();
    cluster.nodes[0].wait_for_log(&format!("advertises {nowhere} to other nodes and clients, but can't reach itself"));
    cluster.nodes[1].start();
    cluster.nodes[1].wait_for_log(&format!("this node has joined, but can't reach node1 at {nowhere}"));
}

#[test]
fn a_directory_of_another_cluster_than_the_one_to_join_is_told() {
    let mut old = Cluster::prepare(1, &SMALL);
    old.nodes[0].start();
    let old_id = old.wait_until_complete(1)["cluster_id"].as_str().unwrap().to_owned();
    old.nodes[0].kill();
    let mut new = Cluster::prepare(1, &SMALL);
    new.nodes[0].start();
    let new_id = new.wait_until_complete(1)["cluster_id"].as_str().unwrap().to_owned();
    let (node, address) = (&mut old.nodes[0], new.nodes[0].endpoint());
    assert!(!node.log().contains("belongs to cluster"), "{}", node.log());
    node.set(&format!("--join_addr={address}"));
    node.start();
    node.wait_for_log(&format!("{address}, given as --join-addr, belongs to cluster {new_id}"));
    node.wait_for_log(&format!("a member of cluster {old_id}, because --raft-dir {}", node.directory.display()));
    old.wait_until_complete(1);
}

#[test]
fn a_disk_timeout_that_is_too_short_is_refused_before_the_node_is_a_member() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    cluster.nodes[1].set("--disk_timeout=1s");
    let said = fails(&mut cluster.nodes[1]);
    assert_says(&said, &["--disk-timeout is too short", "whose election timeout is 400ms", "Give 1600 ms or more"]);
    assert_eq!(cluster.status().unwrap()["nodes"].as_array().map(Vec::len), Some(1), "it is not taken in");
    cluster.nodes[1].set("--disk_timeout=1600ms");
    cluster.nodes[1].start();
    cluster.wait_until_complete(2);
}

#[test]
fn a_name_that_does_not_resolve_begins_no_cluster() {
    let mut cluster = Cluster::prepare(1, &SMALL);
    cluster.nodes[0].set("--advertise=nowhere.invalid");
    cluster.nodes[0].set("--join_timeout=1s");
    let said = fails(&mut cluster.nodes[0]);
    assert_says(&said, &["nowhere.invalid", "can't be resolved", "give --advertise"]);
    assert!(cluster.nodes[0].log().contains("waiting for it"));
    cluster.nodes[0].set("--advertise=localhost");
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
}

#[test]
fn a_volume_that_is_smaller_than_a_segment_says_both_sizes() {
    let mut cluster = Cluster::prepare(2, &["--shards=4"]);
    let Some(_disk) = SmallDisk::mount(&cluster.nodes[1].directory) else {
        return skip("no disk can be mounted here");
    };
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    let said = fails(&mut cluster.nodes[1]);
    assert_says(&said, &["bytes free", "takes 67108864", "a larger volume"]);
    assert_eq!(cluster.status().unwrap()["nodes"].as_array().map(Vec::len), Some(1), "it is not taken in");
    cluster.nodes[1].set("--segment-bytes=1048576");
    cluster.nodes[1].start();
    cluster.wait_until_complete(2);
}

#[test]
fn a_node_whose_directory_is_deleted_ends() {
    let mut cluster = Cluster::prepare(1, &SMALL);
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    cluster.prints(&["put", "k", "v"]);
    std::fs::remove_dir_all(&cluster.nodes[0].directory).unwrap();
    assert_says(
        &failed(&mut cluster.nodes[0]),
        &["was deleted or replaced", "would not survive a restart", "--replace"],
    );
}

#[test]
fn a_directory_must_be_writable() {
    if !geteuid().is_root() {
        return skip("only root can start a node as another user");
    }
    let mut cluster = Cluster::prepare(1, &SMALL);
    let node = &mut cluster.nodes[0];
    std::fs::create_dir(&node.directory).unwrap();
    std::fs::set_permissions(&node.directory, PermissionsExt::from_mode(0o555)).unwrap();
    // Another user can reach the directory but not write to it, and can't run the program where it was built.
    let parent = node.directory.parent().unwrap();
    std::fs::set_permissions(parent, PermissionsExt::from_mode(0o755)).unwrap();
    let binary = parent.join("ringfort");
    std::fs::copy(program().get_program(), &binary).unwrap();
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        command
    };
    if !as_nobody().arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip("no program can be run as another user here");
    }
    node.start_by(as_nobody());
    assert_says(&failed(node), &["can't use", "as --raft-dir", "Permission denied"]);
}

#[test]
fn a_port_is_listened_on_by_one_node() {
    let mut cluster = Cluster::prepare(1, &SMALL);
    let node = &mut cluster.nodes[0];
    for (port, setting) in [(node.port, "--port"), (node.raft_port, "--raft-port")] {
        let held = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = format!("can't listen on 127.0.0.1:{port}");
        assert_says(&fails(node), &[&address, "Address already in use", &format!("give another {setting}")]);
        drop(held);
    }
    node.start();
    cluster.wait_until_complete(1);
}

#[test]
fn a_cluster_that_does_not_answer_is_asked_until_the_join_timeout() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    let closed = cluster.nodes[0].endpoint();
    let node = &mut cluster.nodes[1];
    node.set("--join_timeout=2s");
    let begun = Instant::now();
    let said = fails(node);
    assert_says(&said, &["no node at localhost", "--join-timeout", "is a node running there?"]);
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    assert_says(&node.log(), &["does not admit this node yet", "trying again"]);

    // A port that accepts connections and sends nothing.
    let silent = TcpListener::bind(&closed).unwrap();
    assert_says(&fails(node), &["before --join-timeout"]);
    drop(silent);
    node.set(&format!("--join_addr=localhost:{}", node.port));
    assert_says(&fails(node), &["names only this node itself"]);
    node.set("--join_addr=nohost.invalid:50051");
    assert_says(&fails(node), &["no node at nohost.invalid:50051", "lookup address"]);
}

#[test]
fn the_raft_port_is_not_the_one_to_join_at() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    let raft_port = cluster.nodes[0].raft_port;
    cluster.nodes[1].set(&format!("--join_addr=localhost:{raft_port}"));
    assert_says(&fails(&mut cluster.nodes[1]), &["not a node's port for clients"]);
}

#[test]
fn a_node_that_waits_for_its_cluster_can_be_stopped() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    let node = &mut cluster.nodes[1];
    node.start();
    node.wait_for_log("trying again");
    assert_eq!(node.stop(Signal::TERM).code(), Some(0));
    node.wait_for_log("SIGTERM: stopped before the node had started");
    // The failed start must have left nothing behind that keeps the node from joining later.
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_until_complete(2);
}

#[test]
fn names_belong_to_the_directory_that_had_them_first() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    let node = &mut cluster.nodes[1];
    // The directory is lost; the cluster knows the node under another identity.
    node.kill();
    std::fs::rename(&node.directory, node.directory.with_extension("lost")).unwrap();
    assert_says(&fails(node), &["the cluster refuses this node", "\"node2\"", "choose another --node-id"]);
    std::fs::remove_dir_all(&node.directory).unwrap();
    std::fs::rename(node.directory.with_extension("lost"), &node.directory).unwrap();
    node.start();
    cluster.wait_until_complete(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_directory_joins_under_another_name() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    let client = cluster.client();
    for number in 0..50 {
        client.put(format!("k{number}"), "v").await.unwrap();
    }
    let node = &mut cluster.nodes[2];
    node.kill();
    std::fs::remove_dir_all(&node.directory).unwrap();
    node.set("--node_id=node4");
    node.start();
    cluster.wait_for_status("node4 is there", |status| {
        status["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(|node| node["name"] == "node4"))
    });
    assert_eq!(client.scan("k").await.unwrap().len(), 50);
}

#[test]
fn peers_of_another_cluster_are_refused_and_said_so_once() {
    let mut cluster = Cluster::start_with(2, &SMALL);
    cluster.nodes[1].kill();
    // A node of another cluster takes the address of the first cluster's second node.
    let mut other = Cluster::prepare(1, &SMALL);
    let (node, lost) = (&mut other.nodes[0], &cluster.nodes[1]);
    node.set(&format!("--port={}", lost.port));
    node.set(&format!("--raft_port={}", lost.raft_port));
    node.port = lost.port;
    node.start();
    other.wait_until_complete(1);
    other.nodes[0].wait_for_log("call this node, which belongs to cluster");
    cluster.nodes[0].wait_for_log("this node belongs to cluster");
    // Time for many more attempts.
    std::thread::sleep(Duration::from_secs(3));
    let warnings = other.nodes[0].log().matches("call this node, which belongs to cluster").count();
    assert_eq!(warnings, 1);
    // Each of the two connections to a node logs it.
    let complaints = cluster.nodes[0].log().matches("this node belongs to cluster").count();
    assert!(complaints <= 2, "{complaints}");
    other.prints(&["put", "k", "v"]);
    let first = cluster.nodes[0].endpoint();
    let status = run(&["status", "-o", "json"], &first, b"");
    assert_eq!(
        status.status.code(),
        Some(1),
        "a node of another cluster is none of this one: {}",
        text(&status.stdout)
    );
}
