//! Nodes that are restarted one after the other, while load balancers watch their health.

use crate::SMALL;
use crate::support::verifying::Verifying;
use crate::support::{Cluster, list};
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;
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
