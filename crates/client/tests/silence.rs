//! The client against servers that do not answer, or answer too late.

#[expect(dead_code, reason = "shared with the client's other tests, which need other parts of it")]
mod support;

use ringfort_client::{Client, Consistency, Error, Outcome};
use std::time::{Duration, Instant};
use support::Servers;

/// How long the client may take to detect silence on a busy machine. Far below the time limit of five seconds, which a
/// request that waits for the silent server would reach.
const NOTICED: Duration = Duration::from_secs(2);

/// A client's first call to nodes whose answers take 0.6 s, with a sign of life and the topology before it.
const FAR_AWAY: Duration = Duration::from_secs(4);

/// Three servers, each of which executes everything; the client has heard from all of them.
async fn warm(timeout: Duration) -> (Servers, Client) {
    let servers = Servers::start(3);
    servers.with(|state| state.forwards = true);
    let client = servers.client().with_timeout(timeout);
    client.put("k", "1").await.unwrap();
    for _ in 0..6 {
        client.get_with("k", Consistency::Stale).await.unwrap();
    }
    (servers, client)
}

fn writes(servers: &Servers) -> Vec<u32> {
    servers.with(|state| state.writes.clone())
}

/// Writes until the first server, which leads all shards, gets a write.
async fn assert_leader_is_used_again(servers: &Servers, client: &Client) {
    let (before, begun) = (writes(servers)[0], Instant::now());
    while writes(servers)[0] == before {
        assert!(begun.elapsed() < Duration::from_secs(5), "the leader is not used again");
        client.put("k", "3").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn read_moves_to_another_node_when_its_own_is_silent() {
    let (servers, client) = warm(Duration::from_secs(5)).await;
    servers.proxies[0].silence();
    let begun = Instant::now();
    client.get("k").await.unwrap();
    client.get("k").await.unwrap();
    let took = begun.elapsed();
    assert!(took < NOTICED, "{took:?}");
}

#[tokio::test]
async fn reads_under_way_move_together() {
    let (servers, client) = warm(Duration::from_secs(5)).await;
    servers.proxies[0].silence();
    let begun = Instant::now();
    // Far more reads than may be hedged at a time.
    let reads: Vec<_> = (0..500)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { client.get("k").await }
            })
        })
        .collect();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    let took = begun.elapsed();
    assert!(took < NOTICED, "{took:?}");
}

#[tokio::test]
async fn write_in_the_silence_is_unknown_at_its_deadline_and_the_next_ones_go_elsewhere() {
    let (servers, client) = warm(Duration::from_millis(800)).await;
    servers.proxies[0].silence();
    let begun = Instant::now();
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.put("k", "2").await }
    });
    let silent = servers.with(|state| state.addresses[0].clone());
    while client.answers(&silent) {
        assert!(begun.elapsed() < Duration::from_millis(700), "the silence is not detected");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = writes(&servers);
    for value in ["3", "4", "5"] {
        client.put("k", value).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(800), "they do not wait for the first");
    let after = writes(&servers);
    assert_eq!((after[0], after[1] + after[2]), (before[0], before[1] + before[2] + 3));
    let error = first.await.unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert!(begun.elapsed() >= Duration::from_millis(800), "at its own deadline, and not when the silence is noticed");
}

#[tokio::test]
async fn write_is_not_sent_to_a_node_of_which_nothing_was_heard_yet() {
    let servers = Servers::start(3);
    servers.with(|state| state.forwards = true);
    servers.proxies[0].silence();
    // The first endpoint is silent, and it leads all shards.
    let client = servers.client().with_timeout(Duration::from_secs(1));
    client.put("k", "1").await.expect("another node answers with the topology, and forwards");
    assert_eq!(writes(&servers)[0], 0);
}

#[tokio::test]
async fn write_that_finds_all_silent_is_known_not_to_be_applied() {
    let servers = Servers::start(2);
    let client = servers.client().with_timeout(Duration::from_millis(900));
    client.put("k", "1").await.unwrap();
    servers.proxies.iter().for_each(|proxy| proxy.silence());
    // Without any answer for a while, writes need a sign of life first.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = client.put("k", "2").await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    let Error::Unavailable { causes } = &error else { panic!("{error}") };
    let named: Vec<_> = causes.iter().map(|cause| cause.endpoint.clone()).collect();
    let addresses = servers.with(|state| state.addresses.clone());
    assert!(addresses.iter().all(|address| named.contains(address)) && named.len() == 2, "{error}");
}

#[tokio::test]
async fn node_that_answers_late_is_left_and_used_again_when_it_is_quick() {
    let (servers, client) = warm(Duration::from_secs(5)).await;
    servers.proxies[0].delay(Duration::from_millis(500));
    client.put("k", "slow").await.unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        client.put("k", "2").await.unwrap();
        client.get("k").await.unwrap();
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "forty requests to the late node would take twenty seconds: {took:?}");

    servers.proxies[0].delay(Duration::ZERO);
    assert_leader_is_used_again(&servers, &client).await;
}

#[tokio::test]
async fn nodes_that_all_answer_late_are_used_all_the_same() {
    let (servers, client) = warm(Duration::from_secs(5)).await;
    servers.proxies.iter().for_each(|proxy| proxy.delay(Duration::from_millis(300)));
    for value in ["2", "3", "4"] {
        client.put("k", value).await.unwrap();
        assert_eq!(client.get("k").await.unwrap().unwrap().value, value);
    }
}

#[tokio::test]
async fn silent_node_is_used_again_when_it_is_back() {
    let (servers, client) = warm(Duration::from_secs(5)).await;
    servers.proxies[0].silence();
    client.get("k").await.unwrap();
    assert!(!client.answers(&servers.with(|state| state.addresses[0].clone())));
    servers.proxies[0].delay(Duration::ZERO);
    assert_leader_is_used_again(&servers, &client).await;
}

/// Every answer is late, from the first one on.
#[tokio::test]
async fn nodes_that_are_all_far_away_are_used_by_a_client_that_has_just_begun() {
    for late in [300, 600] {
        let servers = Servers::start(3);
        servers.with(|state| state.forwards = true);
        servers.proxies.iter().for_each(|proxy| proxy.delay(Duration::from_millis(late)));
        let client = servers.client().with_timeout(Duration::from_secs(10));
        let begun = Instant::now();
        let put = client.put("k", "1").await;
        let took = begun.elapsed();
        put.unwrap_or_else(|error| panic!("{late} ms: {error} after {took:?}"));
        assert!(took < FAR_AWAY, "{late} ms: {took:?}");
    }
}
