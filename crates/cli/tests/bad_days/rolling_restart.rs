//! Nodes that are restarted one after the other, while load balancers watch their health.

use crate::SMALL;
use crate::support::verifying::Verifying;
use crate::support::{Cluster, list};
use ringfort_proto::outcome::{self, Outcome};
use ringfort_proto::v1::PutRequest;
use ringfort_proto::v1::kv_client::KvClient;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_watchers_pauses_no_shard_for_long() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    let verifying = Verifying::start(&cluster.endpoints().join(","));
    for number in 0..3 {
        let address = format!("http://{}", cluster.nodes[number].endpoint());
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let mut health = HealthClient::new(channel);
        let mut watching = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        let first = watching.next().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
        let status = cluster.nodes[number].interrupt();
        assert_eq!(status.code(), Some(0));
        let last = watching.next().await.unwrap().unwrap();
        assert_eq!(last.status(), ServingStatus::NotServing);
        assert!(watching.next().await.is_none_or(|end| end.is_err()), "the stream ends");
        cluster.nodes[number].start();
        cluster.wait_until_complete(3);
        // It gets its leaderships back without `--lead-after`: it had announced that it would stop.
        let name = cluster.nodes[number].name.clone();
        cluster.wait_for_status("it leads again", |status| {
            list(status, "nodes").iter().any(|node| node["name"] == name && node["shards_led"].as_u64() > Some(0))
        });
    }
    let report = verifying.finish();
    // Some requests are sent once, to one node, and refused while it is down. None may end as unknown.
    assert_eq!(report["ambiguous"], 0, "{report}");
    let worst = report["worst_shard"]["longest_without_service_ms"].as_f64().unwrap();
    assert!(worst <= MOST_WITHOUT_SERVICE.as_millis() as f64, "{report}");
}

/// Giving a leadership back to a node that is stopping would cost an election timeout, at least 400 ms. A release build
/// must keep the promised bound.
const MOST_WITHOUT_SERVICE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 390 } else { 150 });

/// A sync takes this long, so that many requests are under way at every moment of a stop.
const SYNC: Duration = Duration::from_millis(20);

/// Clients that know one node only, which forwards their requests.
const CLIENTS: usize = 48;

static IS_OVER: AtomicBool = AtomicBool::new(false);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_answers_what_others_have_forwarded_to_it() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    for node in &mut cluster.nodes {
        node.take_disk_faults();
        node.start();
    }
    cluster.wait_until_complete(3);
    cluster.nodes.iter().for_each(|node| node.slow_disk(SYNC));
    let client = KvClient::connect(format!("http://{}", cluster.nodes[2].endpoint())).await.unwrap();
    let mut clients: JoinSet<_> = (0..CLIENTS).map(|number| put_until_over(client.clone(), number)).collect();
    for number in [0, 1] {
        assert_eq!(cluster.nodes[number].interrupt().code(), Some(0));
        cluster.nodes[number].start();
        cluster.wait_until_complete(3);
        let name = cluster.nodes[number].name.clone();
        cluster.wait_for_status("it leads again", |status| {
            list(status, "nodes").iter().any(|node| node["name"] == name && node["shards_led"].as_u64() > Some(0))
        });
    }
    IS_OVER.store(true, Ordering::Relaxed);
    let mut written = 0;
    while let Some(counts) = clients.join_next().await {
        let (acknowledged, unknown) = counts.unwrap();
        assert_eq!(unknown, Vec::<String>::new());
        written += acknowledged;
    }
    assert!(written > 200, "{written}");
}

/// Writes one key again and again. Returns how many writes were acknowledged, and the errors of unknown outcome.
async fn put_until_over(mut client: KvClient<Channel>, number: usize) -> (u32, Vec<String>) {
    let (mut acknowledged, mut unknown) = (0, Vec::new());
    while !IS_OVER.load(Ordering::Relaxed) {
        let key = format!("key{number}").into();
        let mut request = Request::new(PutRequest { key, value: "v".into(), consistency: 0 });
        request.set_timeout(Duration::from_secs(10));
        match client.put(request).await {
            Ok(_) => acknowledged += 1,
            Err(status) if outcome::of(&status) == Outcome::Unknown => unknown.push(status.to_string()),
            Err(_) => {}
        }
    }
    (acknowledged, unknown)
}
