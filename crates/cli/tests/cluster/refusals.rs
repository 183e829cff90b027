//! Requests that can't be executed end with a one-line error, in time.

use crate::support::{Cluster, came_about, run, text};
use ringfort_client::v1::IncrementRequest;
use ringfort_client::v1::kv_client::KvClient;
use ringfort_proto::metadata;
use std::process::Output;
use std::time::{Duration, Instant};

const LARGEST_KEY: usize = 64 << 10;
const LARGEST_VALUE: usize = 1 << 20;

#[track_caller]
fn assert_fails(output: &Output, said: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.lines().count() == 1 && stderr.contains(said), "{said:?} is not in {stderr:?}");
    assert!(output.stdout.is_empty());
}

#[test]
fn bad_requests_are_refused() {
    let cluster = Cluster::start(1);
    let endpoint = cluster.nodes[0].endpoint();
    assert_fails(&cluster.runs(&["put", "", "value"]), "the key is empty");
    assert_fails(&cluster.runs(&["get", ""]), "the key is empty");
    let (key, longer_key) = ("k".repeat(LARGEST_KEY), "k".repeat(LARGEST_KEY + 1));
    assert_eq!(cluster.prints(&["put", &key, "value"]), "OK, version 1\n");
    for command in [&["put", &longer_key, "value"][..], &["get", &longer_key], &["delete", &longer_key]] {
        assert_fails(&cluster.runs(command), "the key has 65537 bytes, the limit is 65536");
    }
    let value = vec![b'v'; LARGEST_VALUE];
    assert!(run(&["put", "large"], &endpoint, &value).status.success());
    assert_eq!(run(&["get", "large"], &endpoint, b"").stdout, value);
    let larger = vec![b'v'; LARGEST_VALUE + 1];
    assert_fails(&run(&["put", "large"], &endpoint, &larger), "the value has 1048577 bytes, the limit is 1048576");
    let huge = vec![b'v'; 8 << 20];
    assert_fails(&run(&["put", "large"], &endpoint, &huge), "key and value have 8388613 bytes, the limit is");
    assert_eq!(run(&["get", "large"], &endpoint, b"").stdout, value, "what was refused was not done");

    let missing = cluster.runs(&["get", "missing"]);
    assert_eq!((missing.status.code(), &text(&missing.stderr)[..]), (Some(1), "not found\n"));
}

#[test]
fn increments_add_up_and_are_refused_where_they_can_not() {
    let cluster = Cluster::start(1);
    assert_eq!(cluster.prints(&["increment", "visits"]), "1\n");
    assert_eq!(cluster.prints(&["increment", "visits", "41"]), "42\n");
    assert_eq!(cluster.prints(&["incr", "visits", "-50"]), "-8\n");
    assert_eq!(cluster.prints(&["get", "visits"]), "-8");
    let json = cluster.prints(&["increment", "--key-hex=766973697473", "8", "-o", "json"]);
    assert!(json.starts_with("{\"number\":0,\"version\":4,"), "{json}");

    assert_eq!(cluster.prints(&["put", "word", "hello"]), "OK, version 1\n");
    assert_fails(&cluster.runs(&["increment", "word"]), "the value of the key is not a decimal 64-bit integer");
    assert_eq!(cluster.prints(&["get", "word"]), "hello");
    assert_eq!(cluster.prints(&["put", "large", "9223372036854775807"]), "OK, version 1\n");
    assert_fails(&cluster.runs(&["increment", "large"]), "does not fit into a 64-bit integer");
    assert_eq!(cluster.prints(&["put", "large", "9223372036854775807"]), "OK, version 2\n", "a refusal is no write");
    assert_fails(&cluster.runs(&["increment", "visits", "much"]), "give a 64-bit integer");
}

#[test]
fn appends_add_up_and_are_refused_beyond_the_limit() {
    let cluster = Cluster::start(1);
    let endpoint = cluster.nodes[0].endpoint();
    assert_eq!(cluster.prints(&["append", "events", "in;"]), "3\n");
    let output = run(&["append", "events"], &endpoint, b"out\xff\n");
    assert_eq!(text(&output.stdout), "8\n", "{}", text(&output.stderr));
    let json = cluster.prints(&["append", "--key-hex=6576656e7473", "ok", "-o", "json"]);
    assert!(json.starts_with("{\"length_bytes\":10,\"version\":3,"), "{json}");
    assert_eq!(run(&["get", "events"], &endpoint, b"").stdout, b"in;out\xff\nok");

    let value = vec![b'v'; LARGEST_VALUE];
    assert!(run(&["append", "large"], &endpoint, &value).status.success());
    assert_fails(&cluster.runs(&["append", "large", "v"]), "the value would have more than 1048576 bytes");
    assert_eq!(run(&["get", "large"], &endpoint, b"").stdout, value, "what was refused was not done");
    assert_eq!(cluster.prints(&["append", "large", ""]), "1048576\n");
    assert_eq!(cluster.prints(&["put", "large", ""]), "OK, version 3\n", "a refusal is no write");
    let larger = vec![b'v'; LARGEST_VALUE + 1];
    assert_fails(&run(&["append", "large"], &endpoint, &larger), "the value has 1048577 bytes, the limit is 1048576");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_the_leader_if_that_is_another_node() {
    let cluster = Cluster::start(3);
    cluster.client().put("word", "hello").await.unwrap();
    let mut leaders = Vec::new();
    for node in &cluster.nodes {
        let mut client = KvClient::connect(format!("http://{}", node.endpoint())).await.unwrap();
        let increment = IncrementRequest { key: "word".into(), by: 1, ..Default::default() };
        let refused = client.increment(increment).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
        leaders.push(metadata::leader(refused.metadata()).map(str::to_owned));
    }
    let leads = leaders.iter().position(Option::is_none).expect("one of the nodes leads");
    let named = Some(cluster.nodes[leads].endpoint());
    assert!(leaders.iter().enumerate().all(|(node, leader)| node == leads || *leader == named), "{leaders:?}");
}

#[test]
fn nobody_answers() {
    // On the first port, no node serves: requests to it are never answered. The second is closed: connections are
    // refused at once.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let in_vain = "check that the nodes run and are reachable";
    for (endpoint, said) in [(silent.local_addr().unwrap(), in_vain), (closed, "no node listens at")] {
        for command in [&["get", "k"][..], &["put", "k", "v"], &["status"]] {
            let begun = Instant::now();
            let output = run(&[command, &["--timeout=1s"]].concat(), &endpoint.to_string(), b"");
            assert_fails(&output, said);
            assert!(begun.elapsed() < Duration::from_secs(3), "{command:?}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn without_a_quorum_there_is_no_answer_and_status_says_why() {
    let mut cluster = Cluster::start(3);
    assert_eq!(cluster.prints(&["put", "k", "v"]), "OK, version 1\n");
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    for command in [&["put", "k", "w"][..], &["get", "k"], &["delete", "k"]] {
        // Every answer comes in time. Once the remaining node knows that it no longer leads, it is certain that nothing
        // was applied.
        let knows = || {
            let begun = Instant::now();
            let output = cluster.runs(&[command, &["--timeout=2s"]].concat());
            assert_fails(&output, "");
            assert!(begun.elapsed() < Duration::from_secs(4), "{command:?}: {:?}", begun.elapsed());
            text(&output.stderr).contains("has no leader")
        };
        assert!(came_about(knows), "{command:?}");
    }
    let are_silent = || {
        let summary = cluster.status().unwrap()["summary"].as_str().unwrap().to_owned();
        ["; node1 has been silent for ", "; node2 has been silent for "].iter().all(|part| summary.contains(part))
    };
    assert!(came_about(are_silent), "{:?}", cluster.status());
    let status = cluster.status().unwrap();
    let summary = status["summary"].as_str().unwrap();
    assert!(summary.starts_with("3 nodes, 64 shards; 65 shards without a leader or a quorum (0, 1, 2, "), "{summary}");
    assert!(!summary.contains("wait"), "waiting would not help: {summary}");
    assert_eq!((&status["healthy"], &status["node_failures_tolerated"]), (&false.into(), &0.into()));
}
