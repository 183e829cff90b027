//! A cluster is created only once, even if nodes lose their directory or several nodes may create it.

use crate::SMALL;
use crate::support::{Cluster, Node, came_about, run, text};
use ringfort_proto::metadata;
use ringfort_proto::v1::PeerBatch;
use ringfort_proto::v1::peer_client::PeerClient;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tonic::Request;

const CREATED: &str = "created a new cluster";

fn clusters_created(cluster: &Cluster) -> usize {
    cluster.nodes.iter().map(|node| node.log().matches(CREATED).count()).sum()
}

/// Configures every node with the addresses of all nodes.
fn tell_all_of_all(cluster: &mut Cluster) {
    let addresses = cluster.endpoints().join(",");
    cluster.nodes.iter_mut().for_each(|node| node.set(&format!("--join_addr={addresses}")));
}

fn lose_directory(node: &mut Node) {
    node.kill();
    std::fs::remove_dir_all(&node.directory).unwrap();
}

#[test]
fn a_first_node_that_lost_its_directory_begins_nothing_before_the_others_have_answered() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    tell_all_of_all(&mut cluster);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_until_complete(3);
    cluster.prints(&["put", "k", "v"]);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    lose_directory(&mut cluster.nodes[0]);

    cluster.nodes[0].start();
    let silent = cluster.nodes[1].endpoint();
    cluster.nodes[0].wait_for_log(&format!("no cluster exists yet: waiting for {silent}"));
    let asked = run(&["get", "k", "--timeout=1s"], &cluster.nodes[0].endpoint(), b"");
    let said = text(&asked.stderr);
    assert!(asked.status.code() == Some(2) && said.contains("not part of a cluster yet"), "{said}");

    cluster.nodes[1].start();
    cluster.nodes[2].start();
    assert_eq!(cluster.nodes[0].ends(), Some(2));
    let log = cluster.nodes[0].log();
    assert!(log.lines().last().is_some_and(|last| last.contains("give --replace")), "{log}");
    assert_eq!(clusters_created(&cluster), 1);
    cluster.nodes[0].set("--replace=true");
    cluster.nodes[0].start();
    assert_eq!(cluster.prints(&["get", "k"]), "v");
}

#[test]
fn nodes_that_may_all_begin_form_one_cluster() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    tell_all_of_all(&mut cluster);
    cluster.nodes.iter_mut().for_each(|node| node.set("--bootstrap=true"));
    cluster.nodes[0].start();
    cluster.nodes[2].start();
    cluster.nodes[2].wait_for_log("no cluster exists yet");
    assert_eq!(clusters_created(&cluster), 0);
    cluster.nodes[1].start();
    cluster.wait_until_complete(3);
    assert_eq!(clusters_created(&cluster), 1);
}

#[test]
fn a_node_that_waits_in_vain_says_for_whom_and_what_else_there_is() {
    let mut cluster = Cluster::prepare(1, &SMALL);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = &mut cluster.nodes[0];
    node.set(&format!("--join_addr={silent}"));
    node.set("--join_timeout=1s");
    node.start();
    assert_eq!(node.ends(), Some(2));
    let log = node.log();
    let parts = [&format!("waited for {silent}")[..], "--bootstrap without --join-addr"];
    assert!(parts.iter().all(|part| log.lines().last().unwrap().contains(part)), "{log}");
}

/// This holds whatever the node's id is: `--replace` gives it another one.
#[test]
fn a_first_node_that_began_anew_stops_for_its_former_cluster_and_does_not_start_again() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    cluster.prints(&["put", "k", "v"]);
    let join = format!("--join_addr={}", cluster.nodes[1].endpoint());
    for was_replaced in [false, true] {
        if was_replaced {
            std::fs::remove_dir_all(&cluster.nodes[0].directory).unwrap();
            let node = &mut cluster.nodes[0];
            node.arguments.retain(|argument| argument != "--bootstrap=true");
            node.set(&join);
            node.set("--replace=true");
            node.start();
            cluster.wait_until_complete(3);
            let node = &mut cluster.nodes[0];
            node.arguments.retain(|argument| *argument != join && argument != "--replace=true");
            node.set("--bootstrap=true");
        }
        let node = &mut cluster.nodes[0];
        lose_directory(node);
        node.start();
        assert_eq!(node.ends(), Some(2));
        let log = node.log();
        let last = log.lines().last().unwrap();
        let parts = [
            "is a member of their cluster",
            "holds the new cluster",
            "--join-addr instead of --bootstrap",
            "--node-id",
        ];
        assert!(parts.iter().all(|part| last.contains(part)), "{log}");
        // If a supervisor restarts the node, it must not serve even for a moment.
        node.start();
        assert_eq!(node.ends(), Some(2));
        let last = node.log().lines().last().unwrap().to_owned();
        assert!(last.contains("belongs to another cluster"), "{last}");
    }
    assert_eq!(cluster.prints(&["get", "k"]), "v", "the others go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_cluster_that_nobody_can_ask_back_end_no_node() {
    let mut cluster = Cluster::start_with(1, &SMALL);
    let raft = format!("http://127.0.0.1:{}", cluster.nodes[0].raft_port);
    for (from_node, caller) in [(2, None), (3, Some("127.0.0.1:1")), (4, Some("no address"))] {
        let batch = PeerBatch { from_node, to_node: 1, cluster_id: 7, ..PeerBatch::default() };
        let mut request = Request::new(tokio_stream::iter([batch]));
        if let Some(caller) = caller {
            metadata::set_caller(request.metadata_mut(), caller);
        }
        let mut answers = PeerClient::connect(raft.clone()).await.unwrap().raft(request).await.unwrap().into_inner();
        let refused = answers.message().await.unwrap_err();
        assert!(refused.message().contains("belongs to cluster"), "{refused}");
    }
    assert_eq!(cluster.prints(&["put", "k", "v"]), "OK, version 1\n");
    assert!(cluster.nodes[0].runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_does_not_answer_keeps_no_other_from_being_asked_back() {
    let cluster = Cluster::start_with(1, &SMALL);
    let raft = format!("http://127.0.0.1:{}", cluster.nodes[0].raft_port);
    // Each accepts the connection of the node that asks back, and does not answer.
    let mut asked = Vec::new();
    let begun = Instant::now();
    for from_node in [2, 3] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        silent.set_nonblocking(true).unwrap();
        let batch = PeerBatch { from_node, to_node: 1, cluster_id: 7, ..PeerBatch::default() };
        let mut request = Request::new(tokio_stream::iter([batch]));
        metadata::set_caller(request.metadata_mut(), &silent.local_addr().unwrap().to_string());
        let mut answers = PeerClient::connect(raft.clone()).await.unwrap().raft(request).await.unwrap().into_inner();
        answers.message().await.unwrap_err();
        let is_asked = came_about(|| silent.accept().map(|asking| asked.push(asking)).is_ok());
        assert!(is_asked, "node {from_node} is not asked");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "the node gave up the first one before it asked the second");
}

#[test]
fn a_port_that_is_not_for_clients_says_which_one_is() {
    let mut cluster = Cluster::prepare(1, &SMALL);
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    cluster.nodes[0].set(&format!("--http_port={}", http.port()));
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    let raft = format!("127.0.0.1:{}", cluster.nodes[0].raft_port);
    let right = format!("not a node's port for clients, which is {}", cluster.nodes[0].endpoint());
    for (endpoint, said) in [(raft, &right[..]), (http.to_string(), "port for monitoring, not the one for clients")] {
        for command in [&["get", "k"][..], &["put", "k", "v"], &["status"]] {
            let begun = Instant::now();
            let refused = run(command, &endpoint, b"");
            assert!(begun.elapsed() < Duration::from_secs(2), "{command:?} at {endpoint}: {:?}", begun.elapsed());
            let stderr = text(&refused.stderr);
            assert!(refused.status.code() == Some(2) && stderr.contains(said), "{command:?} at {endpoint}: {stderr}");
        }
    }
}
