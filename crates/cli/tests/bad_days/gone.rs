//! No node answers, or no client waits for the answer.

use crate::SMALL;
use crate::http2::{greeting, put_frames};
use crate::support::{Cluster, came_about, leader_of, text};
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_proto::v1::{Consistency, GetRequest, PutRequest};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::Request;

#[test]
fn without_a_quorum_every_command_ends_in_time() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    cluster.prints(&["put", "k", "v"]);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let commands = [&["put", "k", "w"][..], &["get", "k"], &["delete", "k"], &["scan"]];
    for command in commands {
        let begun = Instant::now();
        let output = cluster.runs(&[command, &["--timeout=3s"]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(begun.elapsed() < Duration::from_millis(4500), "{command:?}: {:?}", begun.elapsed());
        let causes = ["has no leader", "has no quorum", "no node could answer in time"];
        assert!(causes.iter().any(|part| said.contains(part)), "{command:?}: {said}");
    }
    let status = cluster.status().unwrap();
    assert_eq!(status["healthy"], false);
    assert!(status["summary"].as_str().unwrap().contains("without a leader or a quorum"), "{}", status["summary"]);
    // Soon no node considers itself leader, and it is certain that nothing was applied.
    let is_known = || text(&cluster.runs(&["put", "k", "w", "--timeout=500ms"]).stderr).contains("has no leader");
    assert!(came_about(is_known));
}

/// Two rounds of these send more than a node admits at a time.
const CONNECTIONS: u32 = 6;
const REQUESTS: u32 = 1000;
const ROUNDS: u32 = 2;
const _: () = assert!(CONNECTIONS * REQUESTS * ROUNDS > 8192);

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_take_their_requests_along() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    cluster.prints(&["put", "k", "v"]);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let pipeline: Vec<u8> = (0..REQUESTS).flat_map(|number| put_frames(2 * number + 1, "k", "v")).collect();
    for _ in 0..ROUNDS {
        let connections: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|_| {
                let mut stream = TcpStream::connect(cluster.nodes[0].endpoint()).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                stream.write_all(&greeting()).unwrap();
                stream.write_all(&pipeline).unwrap();
                assert!(stream.read(&mut [0; 64]).unwrap() > 0, "the node has begun to read");
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        drop(connections);
    }
    assert!(cluster.nodes[0].runs());
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.wait_until_complete(3);
    // The requests of clients that left hold no room: there is room for others. This asks the node itself, whichever
    // node leads the key.
    let mut client = KvClient::connect(format!("http://{}", cluster.nodes[0].endpoint())).await.unwrap();
    client.put(PutRequest { key: "other".into(), value: "v".into(), ..Default::default() }).await.unwrap();
    assert_eq!(cluster.prints(&["get", "other"]), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_for_a_leader_leave_room_for_others() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    cluster.prints(&["put", "k", "v"]);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    // For longer than an election takes.
    let has_no_leader = || text(&cluster.runs(&["put", "k", "w", "--timeout=2500ms"]).stderr).contains("has no leader");
    assert!(came_about(has_no_leader));
    let pipeline: Vec<u8> = (0..REQUESTS).flat_map(|number| put_frames(2 * number + 1, "k", "v")).collect();
    let connections: Vec<TcpStream> = (0..ROUNDS * CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(cluster.nodes[0].endpoint()).unwrap();
            stream.write_all(&greeting()).unwrap();
            stream.write_all(&pipeline).unwrap();
            stream
        })
        .collect();
    let mut client = KvClient::connect(format!("http://{}", cluster.nodes[0].endpoint())).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        // A node answers these without the others.
        let consistency = Consistency::Eventual.into();
        client.get(GetRequest { key: "k".into(), consistency }).await.unwrap();
    }
    let refused =
        client.put(PutRequest { key: "k".into(), value: "w".into(), ..Default::default() }).await.unwrap_err();
    assert!(refused.message().contains("too many requests wait"), "{refused:?}");
    drop(connections);
}

/// More requests than may wait for a shard that has lost its quorum.
#[tokio::test(flavor = "multi_thread")]
async fn all_requests_of_a_busy_node_wait_for_an_election() {
    const CLIENTS: usize = 4;
    const AT_ONCE: usize = 900;
    const _: () = assert!(CLIENTS * AT_ONCE > 2048);
    // While one takes place, all requests arrive also on a slow machine.
    let mut cluster = Cluster::start_with(3, &[&SMALL[..], &["--election-timeout=3s"]].concat());
    let leader = leader_of("k", &cluster.status().unwrap());
    let asked = cluster.nodes.iter().find(|node| node.name != leader).unwrap().endpoint();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(KvClient::connect(format!("http://{asked}")).await.unwrap());
    }
    cluster.node(&leader).kill();
    let mut puts = JoinSet::new();
    for client in clients.iter().flat_map(|client| std::iter::repeat_n(client, AT_ONCE)) {
        let mut client = client.clone();
        let mut put = Request::new(PutRequest { key: "k".into(), value: "v".into(), ..Default::default() });
        put.set_timeout(Duration::from_secs(30));
        puts.spawn(async move { client.put(put).await });
    }
    while let Some(put) = puts.join_next().await {
        put.unwrap().unwrap();
    }
}
