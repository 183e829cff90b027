//! Nodes that leave, die and come back while something else is wrong.

use crate::SMALL;
use crate::support::{Cluster, Node, came_about, list, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The one-line error of a refused command.
#[track_caller]
fn refused(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.runs(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// The nodes' names, in the order of their ids, which is the order in which they joined.
fn names(status: &Value) -> Vec<String> {
    let mut names: Vec<String> =
        list(status, "nodes").iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn node<'a>(status: &'a Value, name: &str) -> &'a Value {
    list(status, "nodes").iter().find(|node| node["name"] == name).expect("the node is a member")
}

/// The flags of small clusters, and more.
fn flags(more: &[&'static str]) -> Vec<&'static str> {
    [&SMALL[..], more].concat()
}

#[test]
fn whoever_holds_the_last_replica_stays() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    cluster.prints(&["put", "k", "v"]);
    assert!(refused(&cluster, &["cluster", "leave", "node1"]).contains("the only node that holds data"));
    cluster.nodes[1].start();
    cluster.wait_until_complete(2);
    assert!(refused(&cluster, &["cluster", "leave", "node1"]).contains("1 node for 2 replicas"));
    assert!(refused(&cluster, &["cluster", "drain", "node3"]).contains("there are node1, node2"));
    // The first node, which leads everything, hands over all leaderships and leaves.
    cluster.prints(&["cluster", "leave", "node1", "--fewer-replicas=true"]);
    assert_eq!(cluster.nodes[0].ends(), Some(0));
    cluster.wait_until_complete(1);
    assert_eq!(cluster.prints(&["get", "k"]), "v");
    assert!(refused(&cluster, &["cluster", "leave", "node2"]).contains("the only node that holds data"));
}

#[test]
fn nobody_leaves_while_another_is_down_but_the_one_that_is_down() {
    let mut cluster = Cluster::start_with(4, &SMALL);
    cluster.prints(&["put", "k", "v"]);
    cluster.nodes[3].kill();
    assert!(refused(&cluster, &["cluster", "leave", "node3"]).contains("node4 does not answer"));
    let planned = cluster.prints(&["cluster", "plan", "--leave", "node3"]);
    assert!(planned.starts_with("leaving would be refused now: node4 does not answer"), "{planned}");
    let left = cluster.prints(&["cluster", "leave", "node4"]);
    assert!(left.contains("has left the cluster, but did not answer") && !left.contains("by itself"), "{left}");
    assert_eq!(cluster.prints(&["cluster", "leave", "node4"]), "node4 has left the cluster\n");
    cluster.wait_until_complete(3);
    let why = refused(&cluster, &["cluster", "leave", "node3"]);
    let why = why.trim().trim_start_matches("error: ");
    let planned: Value =
        serde_json::from_str(&cluster.prints(&["cluster", "plan", "--leave", "node3", "-o", "json"])).unwrap();
    assert!(why.contains(planned["refused"].as_str().unwrap()), "{why}: {planned}");
    assert!(refused(&cluster, &["cluster", "drain", "node3"]).contains("start another node first"));
    assert_eq!(cluster.prints(&["get", "k"]), "v");
}

#[test]
fn a_drained_node_stays_and_a_pause_is_a_pause() {
    let mut cluster = Cluster::prepare(4, &SMALL);
    cluster.nodes[..3].iter_mut().for_each(Node::start);
    cluster.wait_until_complete(3);
    // The last leaderships may still be moving.
    assert!(came_about(|| cluster.prints(&["cluster", "plan"]) == "nothing to move\n"));
    cluster.prints(&["cluster", "pause"]);
    cluster.nodes[3].start();
    let held = |status: &Value, id: u64| {
        let holds = |shard: &&Value| list(shard, "members").iter().any(|member| member["node"] == id);
        list(status, "shards").iter().filter(holds).count()
    };
    let status = cluster.wait_for_status("node4 is a member", |status| list(status, "nodes").len() == 4);
    assert_eq!((status["paused"].as_bool(), held(&status, 4)), (Some(true), 0));
    let planned: Value = serde_json::from_str(&cluster.prints(&["cluster", "plan", "-o", "json"])).unwrap();
    assert!(list(&planned, "moves").iter().any(|planned| planned["reason"] == "node4 is new"), "{planned}");
    cluster.prints(&["cluster", "resume"]);
    cluster.wait_for_status("node4 has its share", |status| status["healthy"] == true && held(status, 4) >= 3);

    cluster.prints(&["cluster", "drain", "node1"]);
    let status = cluster.wait_until_complete(4);
    assert_eq!(held(&status, 1), 0, "{}", status["summary"]);
    assert!(status["summary"].as_str().unwrap().contains("node1 is drained"), "{}", status["summary"]);
    cluster.prints(&["cluster", "drain", "node1", "--undo"]);
    cluster.wait_for_status("node1 has its share", |status| status["healthy"] == true && held(status, 1) >= 3);
    cluster.prints(&["cluster", "leaders", "balance"]);
    let status = cluster.wait_until_complete(4);
    let leads = |id: u64| list(&status, "shards").iter().filter(|shard| shard["leader"] == id).count();
    assert!(
        (1..=4).all(|id| (1..=2).contains(&leads(id))),
        "4 shards and the system's on 4 nodes: {}",
        status["shards"]
    );
}

#[test]
fn one_takes_the_place_of_another_that_dies_meanwhile() {
    let mut cluster = Cluster::prepare(4, &flags(&["--move-bandwidth=2000000"]));
    cluster.nodes[..3].iter_mut().for_each(Node::start);
    cluster.wait_until_complete(3);
    let value = "v".repeat(100_000);
    (0..40).for_each(|number| drop(cluster.prints(&["put", &format!("k{number}"), &value])));
    cluster.prints(&["cluster", "pause"]);
    cluster.nodes[3].start();
    cluster.wait_for_status("node4 is a member", |status| list(status, "nodes").len() == 4);
    let waiting = cluster.spawn(&["cluster", "replace", "node3", "--with", "node4"]);
    cluster.wait_for_status("node3 leaves", |status| node(status, "node3")["state"] == "leaving");
    cluster.prints(&["cluster", "resume"]);
    // The bandwidth makes this take seconds. The target dies in the middle, then the old node for a while.
    cluster.wait_for_status("replicas on their way", |status| {
        list(status, "shards").iter().flat_map(|shard| list(shard, "members")).any(|member| member["role"] == "learner")
    });
    kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
    let interrupted = waiting.wait_with_output().unwrap();
    assert_eq!(interrupted.status.code(), Some(1));
    assert!(text(&interrupted.stderr).contains("node3 continues leaving without this command"));
    cluster.nodes[3].kill();
    cluster.nodes[2].kill();
    cluster.nodes[3].start();
    cluster.nodes[2].start();
    assert_eq!(cluster.nodes[2].ends(), Some(0));
    let status = cluster.wait_until_complete(3);
    assert_eq!(names(&status), ["node1", "node2", "node4"]);
    for number in 0..40 {
        assert_eq!(cluster.prints(&["get", &format!("k{number}")]), value);
    }
}

#[test]
fn a_node_that_was_cut_off_for_too_long_begins_anew() {
    let mut cluster = Cluster::start_with(4, &flags(&["--replace-after=5s"]));
    cluster.prints(&["put", "k", "v"]);
    let cut_off = &mut cluster.nodes[3];
    cut_off.signal(Signal::STOP);
    cluster.wait_for_status("node4 is no member", |status| names(status) == ["node1", "node2", "node3"]);
    cluster.wait_until_complete(3);
    let cut_off = &mut cluster.nodes[3];
    cut_off.signal(Signal::CONT);
    cut_off.wait_for_log("other nodes took its place: it joins again as a new node");
    let status = cluster.wait_until_complete(4);
    assert_eq!(node(&status, "node4")["id"], 5);
    assert_eq!(cluster.prints(&["get", "k"]), "v");
}

#[test]
fn a_node_that_was_removed_while_it_was_stopped_is_told_where_nobody_can_dial_it() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    cluster.nodes[2].kill();
    cluster.prints(&["cluster", "leave", "node3", "--fewer-replicas=true"]);
    cluster.wait_until_complete(2);
    let port = cluster.nodes[2].port;
    cluster.readdress(2);
    assert_ne!(cluster.nodes[2].port, port);
    let removed = &mut cluster.nodes[2];
    removed.start();
    assert_eq!(removed.ends(), Some(0));
    removed.wait_for_log("To join again, start it with an empty --raft-dir");
    removed.start();
    assert_eq!(removed.ends(), Some(2));
    removed.wait_for_log("choose an empty --raft-dir to join as a new node");
}

#[test]
fn a_lost_directory_is_replaced_under_its_old_name() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    cluster.prints(&["put", "k", "v"]);
    // A node can't be replaced while it runs.
    let mut twin = Cluster::prepare(3, &SMALL);
    let (twin, running) = (&mut twin.nodes[2], cluster.nodes[0].endpoint());
    for flag in ["--replace=true", "--join_timeout=1s", &format!("--join_addr={running}")] {
        twin.set(flag);
    }
    twin.start();
    assert_eq!(twin.ends(), Some(2));
    twin.wait_for_log("so it can't be replaced: stop it first");

    let lost = &mut cluster.nodes[2];
    lost.kill();
    std::fs::remove_dir_all(&lost.directory).unwrap();
    lost.start();
    assert_eq!(lost.ends(), Some(2));
    lost.wait_for_log("give --replace");
    lost.set("--replace=true");
    lost.start();
    let status = cluster.wait_for_status("node3 is there anew", |status| {
        status["healthy"] == true && names(status) == ["node1", "node2", "node3"]
    });
    assert_eq!(node(&status, "node3")["id"], 4);
    cluster.wait_until_complete(3);
    assert_eq!(cluster.prints(&["get", "k"]), "v");
}

#[test]
fn of_two_that_join_under_one_name_one_is_taken() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    for twin in &mut cluster.nodes[1..] {
        twin.set("--node_id=twin");
        twin.start();
    }
    assert!(came_about(|| cluster.nodes[1..].iter_mut().any(|twin| !twin.runs())), "one of them must be refused");
    let ended = (1..3).find(|&twin| !cluster.nodes[twin].runs()).unwrap();
    let refused = &mut cluster.nodes[ended];
    assert_eq!(refused.ends(), Some(2));
    refused.wait_for_log("with another identity");
    let status = cluster.wait_until_complete(2);
    assert_eq!(names(&status), ["node1", "twin"]);
}
