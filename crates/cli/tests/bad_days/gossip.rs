//! Invalid gossip: a node of the cluster, or a process that claims to be one, sends messages that can't be true.

use crate::SMALL;
use crate::support::Cluster;
use bytes::Bytes;
use ringfort_client::Client;
use ringfort_client::v1::{GossipResponse, PeerBatch};
use ringfort_core::eventual::keyspace::{Entry, Part};
use ringfort_core::gossip::message::{Body, Delta, Exchange, Message};
use ringfort_core::time::HlcTimestamp;
use ringfort_core::types::NodeId;
use ringfort_core::version::{Incarnation, Origin, Version};
use ringfort_proto::v1::peer_client::PeerClient;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Far more than the clocks of nodes may differ.
const HOUR_US: u64 = 3_600_000_000;

fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// What node 2 would send to node 1 in answer to its last question.
fn give(known: &GossipResponse, origin: u64, after: u64, timestamp: u64) -> Bytes {
    let own = known.members.iter().find(|member| member.id == 1).expect("it knows itself");
    let exchange = Exchange { incarnation: Incarnation(own.incarnation), version: Version(own.heartbeat) };
    let version = Version(after + 1);
    let entries =
        vec![Entry { version, timestamp: HlcTimestamp(timestamp), key: "forged".into(), value: Some("v".into()) }];
    let origin = Origin { node: NodeId(origin), incarnation: Incarnation(77) };
    let parts = vec![Part { origin, after: Version(after), upto: version, entries }];
    let delta = Delta { exchange, node_states: Vec::new(), parts, more: false };
    Message { from: NodeId(2), to: NodeId(1), body: Body::Give(delta) }.encode()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_that_can_not_be_believed_is_refused_counted_and_harms_nobody() {
    let cluster = Cluster::start_with(2, &SMALL);
    let client = Client::connect([cluster.nodes[0].endpoint()]).unwrap();
    client.eventual().put("k", "v").await.unwrap();
    let cluster_id = client.status().await.unwrap().cluster_id;
    let mut peer = PeerClient::connect(format!("http://127.0.0.1:{}", cluster.nodes[0].raft_port)).await.unwrap();
    let mut send = async |from_node: u64, message: Bytes| {
        let batch = PeerBatch { from_node, to_node: 1, cluster_id, gossip: vec![message], ..PeerBatch::default() };
        let mut answers = peer.raft(tokio_stream::once(batch)).await.unwrap().into_inner();
        // The node ends the stream when it has read the message.
        while let Ok(Some(_)) = answers.message().await {}
    };
    let known = client.gossip().await.unwrap();
    let good = give(&known, 2, 0, wall_us());
    send(2, good.slice(..good.len() - 1)).await;
    send(2, Bytes::from(vec![1; 5 << 20])).await;
    send(9, good.clone()).await;
    send(2, give(&known, 9, 0, wall_us())).await;
    send(2, give(&known, 2, 5, wall_us())).await;
    send(2, give(&known, 2, 0, wall_us() + HOUR_US)).await;
    // Here node 1 would have sent the message to itself.
    send(1, good).await;

    let mut refused = known.refused;
    for _ in 0..100 {
        refused = client.gossip().await.unwrap().refused;
        let count = |kind: &str| refused.get(kind).copied().unwrap_or_default();
        if count("malformed") >= 2 && count("stranger") >= 3 && count("gap") >= 1 && count("from_the_future") >= 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let count = |kind: &str| refused.get(kind).copied().unwrap_or_default();
    assert!(count("malformed") >= 2 && count("stranger") >= 3, "{refused:?}");
    assert!(count("gap") >= 1 && count("from_the_future") >= 1, "{refused:?}");
    assert_eq!(client.eventual().get("forged").await.unwrap(), None);
    let timestamp = client.eventual().put("k", "later").await.unwrap();
    assert!(timestamp < wall_us() + HOUR_US / 60, "no clock was dragged along");
    assert!(cluster.nodes[0].log().contains("ahead of the clock here"), "the operator is told");
    assert_eq!(cluster.prints(&["put", "k", "v"]), "OK, version 1\n");
}
