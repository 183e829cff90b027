//! Many scans of large values at once: the memory they hold is bounded, and no leader loses its leadership.

use crate::support::{Cluster, list};
use ringfort_proto::v1::ScanRequest;
use ringfort_proto::v1::kv_client::KvClient;
use serde_json::Value;
use std::time::Instant;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

const VALUES: usize = 96;
const VALUE_BYTES: usize = 1 << 20;
const SCANS: usize = 20;

/// The most that the scans may add to a node's memory.
const MOST_BYTES: u64 = 256 << 20;

/// By shard, the term of its leader.
fn terms(status: &Value) -> Vec<String> {
    list(status, "shards").iter().map(|shard| format!("{} {}", shard["shard"], shard["term"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_at_once_hold_little_and_cost_no_leadership() {
    let cluster = Cluster::start_with(3, &["--shards=64", "--segment-bytes=4194304"]);
    let client = cluster.client();
    let mut filling = JoinSet::new();
    for writer in 0..4 {
        let client = client.clone();
        filling.spawn(async move {
            for number in (writer..VALUES).step_by(4) {
                client.put(format!("k{number:03}"), vec![b'v'; VALUE_BYTES]).await.unwrap();
            }
        });
    }
    filling.join_all().await;
    let before = cluster.wait_until_complete(3);
    let held: Vec<u64> = cluster.nodes.iter().map(|node| node.begin_peak_memory()).collect();

    let begun = Instant::now();
    let mut scans = JoinSet::new();
    for _ in 0..SCANS {
        let endpoint = Endpoint::from_shared(format!("http://{}", cluster.nodes[0].endpoint())).unwrap();
        scans.spawn(async move {
            let mut client = KvClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(16 << 20);
            let page = client.scan(ScanRequest::default()).await.unwrap().into_inner();
            page.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
        });
    }
    for keys in scans.join_all().await {
        assert_eq!(keys, ["k000"], "the first page, which has no room for two values");
    }
    println!("{SCANS} scans took {:?}", begun.elapsed());
    for (node, held) in cluster.nodes.iter().zip(held) {
        let added = node.peak_memory_bytes().saturating_sub(held);
        println!("{} held {} MiB and got {} MiB more", node.name, held >> 20, added >> 20);
        assert!(added <= MOST_BYTES, "{}: {} MiB more", node.name, added >> 20);
    }
    let after = cluster.wait_until_complete(3);
    assert_eq!(terms(&after), terms(&before), "a new leader was elected");
}
