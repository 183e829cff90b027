//! Join requests that lead nowhere: a node dials few addresses at a time that its callers choose.

use crate::SMALL;
use crate::support::{Cluster, came_about};
use ringfort_client::Outcome;
use ringfort_proto::outcome;
use ringfort_proto::v1::JoinRequest;
use ringfort_proto::v1::cluster_client::ClusterClient;
use std::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Code;

const CALLS: usize = 64;

/// The most nodes that one dials back at the same time.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_lead_nowhere_are_few_at_a_time_and_keep_no_node_out() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    // It is connected to, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let client = ClusterClient::connect(format!("http://{}", cluster.nodes[0].endpoint())).await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let (mut client, address) = (client.clone(), address.clone());
        let (node_id, identity) = (format!("nobody{number}"), vec![number as u8; 16].into());
        let (raft_address, grpc_address) = (address.clone(), address);
        let request = JoinRequest { node_id, identity, raft_address, grpc_address, ..JoinRequest::default() };
        calls.spawn(async move { client.join(request).await.unwrap_err() });
    }
    cluster.nodes[1].start();
    let mut refused = 0;
    while let Some(answered) = calls.join_next().await {
        let status = answered.unwrap();
        assert_eq!(outcome::of(&status), Outcome::NotApplied, "{status}");
        match status.code() {
            Code::ResourceExhausted => {
                assert!(status.message().ends_with("ask again"), "{status}");
                refused += 1;
            }
            _ => assert!(status.message().contains("can't reach it at"), "{status}"),
        }
    }
    assert_eq!(refused, CALLS - AT_ONCE);
    // To each port of a caller: here both are one.
    let dialled = std::iter::from_fn(|| silent.accept().ok()).count();
    assert_eq!(dialled, 2 * AT_ONCE);
    assert!(came_about(|| cluster.nodes[1].log().contains("joined the cluster")));
    cluster.wait_until_complete(2);
}
