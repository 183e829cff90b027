//! The client against servers that redirect, fail and hang.

#[expect(dead_code, reason = "shared with the client's other tests, which need other parts of it")]
mod support;

use ringfort_client::{Client, Consistency, Error, Outcome};
use ringfort_proto::outcome;
use std::time::{Duration, Instant};
use support::{Fault, Servers};
use tonic::Status;

#[tokio::test]
async fn what_is_put_is_read_scanned_and_deleted() {
    let servers = Servers::start(1);
    let client = servers.client();
    assert_eq!(client.get("k0").await.unwrap(), None);
    for number in 0..7 {
        client.put(format!("k{number}"), format!("v{number}")).await.unwrap();
    }
    assert_eq!(client.get("k3").await.unwrap().unwrap().value, "v3");

    let entries = client.scan("k").await.unwrap();
    let keys: Vec<&[u8]> = entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!(keys, [b"k0", b"k1", b"k2", b"k3", b"k4", b"k5", b"k6"], "three pages in order");

    assert!(client.delete("k3").await.unwrap().found);
    assert!(!client.delete("k3").await.unwrap().found);
    assert_eq!(client.topology().await.unwrap().cluster_id, 7);
    assert_eq!(client.status().await.unwrap().cluster_id, 7);
}

#[tokio::test]
async fn redirect_is_followed_and_remembered() {
    let servers = Servers::start(3);
    let client = servers.client();
    client.put("k", "1").await.unwrap();
    servers.with(|state| state.leader = Some(2));
    let started = Instant::now();
    client.put("k", "2").await.unwrap();
    client.put("k", "3").await.unwrap();
    assert_eq!(servers.with(|state| state.writes.clone()), [2, 0, 2]);
    assert!(started.elapsed() < Duration::from_secs(1), "a hint is followed without waiting");
}

#[tokio::test]
async fn leader_named_by_an_answer_is_asked_next() {
    let servers = Servers::start(2);
    let client = servers.client();
    client.put("k", "1").await.unwrap();
    servers.with(|state| (state.leader, state.forwards) = (Some(1), true));
    for value in ["2", "3", "4"] {
        client.put("k", value).await.unwrap();
    }
    assert_eq!(servers.with(|state| state.writes.clone()), [2, 2], "one forwarded write, then the leader itself");
}

#[tokio::test]
async fn leader_named_by_a_refusal_is_asked_next_and_not_at_once() {
    let servers = Servers::start(2);
    let client = servers.client();
    client.put("k", "text").await.unwrap();
    servers.with(|state| {
        (state.leader, state.forwards) = (Some(1), true);
        state.faults.extend([Fault::Refuse, Fault::Refuse]);
    });
    for _ in 0..2 {
        let refused = client.increment("k", 1).await.unwrap_err();
        assert!(matches!(refused, Error::Rejected(_)), "{refused}");
    }
    assert_eq!(servers.with(|state| state.writes.clone()), [2, 1], "one forwarded write, then the leader itself");
}

#[tokio::test]
async fn dead_leader_is_left_for_the_new_one() {
    let mut servers = Servers::start(3);
    let client = servers.client();
    client.get("k").await.unwrap();
    servers.stop(0).await;
    servers.with(|state| state.leader = Some(1));
    client.get("k").await.unwrap();
    client.put("k", "1").await.unwrap();
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "1");
}

#[tokio::test]
async fn node_that_is_only_unreachable_from_here_is_passed_over() {
    let mut servers = Servers::start(2);
    let client = servers.client();
    client.put("k", "1").await.unwrap();
    servers.with(|state| state.forwards = true);
    servers.stop(0).await;
    // A write could still be sent on the broken connection and end as unknown, so a read detects the break first.
    client.get("k").await.unwrap();
    let started = Instant::now();
    for value in ["2", "3", "4"] {
        client.put("k", value).await.expect("the other node forwards to the leader that the topology still names");
    }
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn write_waits_for_a_leader() {
    let servers = Servers::start(3);
    servers.with(|state| state.leader = None);
    let client = servers.client();
    let put = tokio::spawn(async move { client.put("k", "1").await });
    while servers.with(|state| state.writes.iter().sum::<u32>()) < 3 {
        tokio::task::yield_now().await;
    }
    servers.with(|state| state.leader = Some(1));
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn unknown_outcome_is_not_retried() {
    let servers = Servers::start(3);
    let client = servers.client();
    for operation in ["put", "increment", "append"] {
        for status in [outcome::unknown("no quorum"), Status::unavailable("from a proxy"), Status::internal("?")] {
            let before = servers.with(|state| {
                state.faults.push_back(Fault::Answer(status));
                state.writes.iter().sum::<u32>()
            });
            let error = match operation {
                "put" => client.put("k", "1").await.unwrap_err(),
                "increment" => client.increment("k", 1).await.unwrap_err(),
                _ => client.append("k", "1").await.unwrap_err(),
            };
            assert!(matches!(error, Error::UnknownOutcome(_)), "{error}");
            assert_eq!((error.outcome(), error.is_retry_safe()), (Outcome::Unknown, false));
            assert_eq!(servers.with(|state| state.writes.iter().sum::<u32>()), before + 1);
        }
    }
    assert_eq!(client.increment("k", 1).await.unwrap().number, 1);
    assert_eq!(client.append("k", "1").await.unwrap().length_bytes, 1);
}

#[tokio::test]
async fn write_that_a_node_of_an_earlier_version_does_not_have_is_refused() {
    let servers = Servers::start(3);
    let client = servers.client();
    servers.with(|state| state.faults.push_back(Fault::Answer(Status::unimplemented(""))));
    let error = client.increment("k", 1).await.unwrap_err();
    assert!(matches!(error, Error::Rejected(_)), "{error}");
    assert_eq!((error.outcome(), error.is_retry_safe()), (Outcome::NotApplied, false));
    assert!(error.to_string().contains("upgrade"), "{error}");
}

#[tokio::test]
async fn write_that_hangs_is_unknown_and_was_sent_once() {
    let servers = Servers::start(3);
    let client = servers.client().with_timeout(Duration::from_millis(300));
    client.get("k").await.unwrap();
    servers.with(|state| state.faults.push_back(Fault::ApplyAndHang));
    let error = client.put("k", "applied").await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(servers.with(|state| state.writes.clone()), [1, 0, 0]);
    // The node that hung is avoided for a while; the others forward, as nodes do.
    servers.with(|state| state.forwards = true);
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "applied");
}

#[tokio::test]
async fn node_under_which_a_write_hung_is_passed_over_by_the_next() {
    let servers = Servers::start(3);
    let client = servers.client().with_timeout(Duration::from_millis(300));
    client.put("k", "1").await.unwrap();
    servers.with(|state| {
        state.faults.push_back(Fault::ApplyAndHang);
        state.forwards = true;
    });
    assert_eq!(client.put("k", "2").await.unwrap_err().outcome(), Outcome::Unknown);
    client.put("k", "3").await.unwrap();
    assert_eq!(servers.with(|state| state.writes[0]), 2, "the third one went to another node");
}

#[tokio::test]
async fn connection_that_breaks_under_a_write_leaves_it_unknown() {
    let mut servers = Servers::start(2);
    let client = servers.client();
    servers.with(|state| state.faults.push_back(Fault::ApplyAndHang));
    let put = tokio::spawn(async move { client.put("k", "1").await });
    while servers.with(|state| state.map.is_empty()) {
        tokio::task::yield_now().await;
    }
    servers.with(|state| state.leader = Some(1));
    servers.stop(0).await;
    let error = put.await.unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(servers.with(|state| state.writes.clone()), [1, 0]);
}

#[tokio::test]
async fn overload_and_wrong_requests_come_back_at_once() {
    let servers = Servers::start(2);
    let client = servers.client();
    servers.with(|state| state.faults.push_back(Fault::Answer(outcome::overloaded("1024 requests in flight"))));
    let overloaded = client.put("k", "1").await.unwrap_err();
    assert!(matches!(overloaded, Error::Overloaded(_)) && overloaded.is_retry_safe(), "{overloaded}");
    servers.with(|state| state.faults.push_back(Fault::Answer(outcome::invalid("the key is empty"))));
    let rejected = client.put("", "1").await.unwrap_err();
    assert!(matches!(rejected, Error::Rejected(_)) && !rejected.is_retry_safe(), "{rejected}");
    assert_eq!(servers.with(|state| state.writes.iter().sum::<u32>()), 2);
}

#[tokio::test]
async fn nobody_there_ends_with_the_cause() {
    let mut servers = Servers::start(1);
    let client = servers.client().with_timeout(Duration::from_millis(100));
    servers.stop(0).await;
    let error = client.put("k", "1").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!((error.outcome(), error.is_retry_safe()), (Outcome::NotApplied, true));
    let text = error.to_string();
    assert!(text.contains("refused") && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn write_that_finds_no_connection_is_known_not_to_be_applied() {
    let mut servers = Servers::start(1);
    let client = servers.client().with_timeout(Duration::from_millis(100));
    client.put("k", "1").await.unwrap();
    servers.stop(0).await;
    client.get("k").await.expect_err("a read finds the connection broken, so that the write has to make a new one");
    let error = client.put("k", "2").await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
}

#[tokio::test]
async fn another_cluster_at_the_same_address_gets_no_write() {
    let servers = Servers::start(1);
    let client = servers.client();
    client.put("k", "1").await.unwrap();
    servers.with(|state| state.cluster_id = 8);
    let error = client.put("k", "2").await.unwrap_err();
    assert!(matches!(error, Error::Rejected(_)), "{error}");
    assert_eq!(servers.with(|state| state.map[&b"k"[..]].clone()), b"1");
}

#[tokio::test]
async fn stale_reads_are_spread_over_the_replicas() {
    let servers = Servers::start(3);
    servers.with(|state| state.forwards = true);
    let client = servers.client();
    for _ in 0..9 {
        client.get_with("k", Consistency::Stale).await.unwrap();
    }
    assert_eq!(servers.with(|state| state.reads.clone()), [3, 3, 3]);
}

#[test]
fn endpoints_are_checked_before_anything_is_sent() {
    assert!(matches!(Client::connect(["nonsense"]), Err(Error::InvalidEndpoint(_))));
    assert!(matches!(Client::connect(Vec::<String>::new()), Err(Error::InvalidEndpoint(_))));
}
