//! `ringfort serve` as an operator and a monitoring system see it: real processes, HTTP, logs, settings.

use ringfort_client::{Client, Consistency};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// How long any awaited condition may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn ringfort(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfort"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RINGFORT_")) {
        command.env_remove(name);
    }
    command.arg("serve").args(args).stderr(Stdio::piped());
    command
}

/// A running node. Killed when it is dropped.
struct Node {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Lines read so far.
    log: Vec<String>,
}

impl Node {
    fn start(args: &[String]) -> Node {
        let mut child = ringfort(args).spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines_tx, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let _ = lines_tx.send(line);
            }
        });
        Node { child, lines, log: Vec::new() }
    }

    /// The text after `mark` in the first log line that contains it, up to a space, comma or quote.
    fn word_after(&mut self, mark: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some((_, rest)) = self.log.iter().find_map(|line| line.split_once(mark)) {
                return rest.split([' ', ',', '"']).next().unwrap().to_owned();
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            self.log.push(self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("{mark:?} is not logged")));
        }
    }

    fn grpc(&mut self) -> String {
        self.word_after(" serves clients on ")
    }

    fn http(&mut self) -> String {
        self.word_after("http://")
    }

    fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// The exit code and the whole log of a node that ends.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let begun = Instant::now();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(line) => self.log.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the node does not end"),
            }
        }
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.log))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Arguments of a node on ports that the system chooses.
fn args(directory: &Path, name: &str, extra: &[&str]) -> Vec<String> {
    let path = directory.join(name).display().to_string();
    let mut args: Vec<String> = [format!("--node-id={name}"), format!("--raft-dir={path}")].into_iter().collect();
    let rest = ["--port=0", "--raft-port=0", "--http-port=0", "--shards=4", "--segment-bytes=1048576"];
    args.extend(rest.iter().chain(extra).map(|arg| arg.to_string()));
    args
}

/// Status and body of a GET.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits for an answer of `/readyz`.
fn ready_when(address: &str, expected: u16, reason: &str) {
    let begun = Instant::now();
    loop {
        let (status, body) = get(address, "/readyz");
        if status == expected && body.contains(reason) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it stays {status}: {body}");
        sleep(Duration::from_millis(50));
    }
}

/// Waits until three nodes have caught-up voters of all five shards, including the system shard.
fn spread_when(addresses: &[&str]) {
    let begun = Instant::now();
    let is_spread = |address: &&str| {
        let samples = samples(&get(address, "/metrics").1);
        samples["ringfort_raft_replicas{role=\"leader\"}"] + samples["ringfort_raft_replicas{role=\"follower\"}"] == 5.0
            && samples["ringfort_raft_voters_lagging"] == 0.0
            && samples["ringfort_moving_replicas{state=\"learner\"}"] == 0.0
            && samples["ringfort_moving_replicas{state=\"joining\"}"] == 0.0
    };
    while !addresses.iter().all(is_spread) {
        assert!(begun.elapsed() < PATIENCE, "the nodes do not get all replicas");
        sleep(Duration::from_millis(50));
    }
}

/// The samples of Prometheus's text format, by name and labels. Every line must parse.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let (mut helped, mut typed) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split_once(' ').expect("a help has a text").0.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            typed = name.to_owned();
            assert_eq!(helped, typed);
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            assert!(name.starts_with(&typed), "{line:?} stands under {typed}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
            assert_eq!(samples.insert(name.to_owned(), value), None, "{name} is there twice");
        }
    }
    samples
}

#[tokio::test]
async fn metrics_can_be_read_and_count_what_happens() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(&args(directory.path(), "a", &["--bootstrap"]));
    let (grpc, http) = (node.grpc(), node.http());
    ready_when(&http, 200, "ready");
    // Each new leader begins with an entry of its own.
    let begun = Instant::now();
    let before = loop {
        let samples = samples(&get(&http, "/metrics").1);
        if samples["ringfort_raft_applied_entries_total"] == 5.0 {
            break samples;
        }
        assert!(begun.elapsed() < PATIENCE, "{samples:#?}");
        sleep(Duration::from_millis(20));
    };
    let client = Client::connect([&grpc]).unwrap();
    client.put("k", "v").await.unwrap();
    client.get("k").await.unwrap();
    let (status, text) = get(&http, "/metrics");
    assert_eq!(status, 200);
    let after = samples(&text);
    let change = |name: &str| after[name] - before[name];
    assert_eq!(change("ringfort_requests_total{operation=\"put\",outcome=\"ok\"}"), 1.0);
    assert_eq!(change("ringfort_requests_total{operation=\"get\",outcome=\"ok\"}"), 1.0);
    assert_eq!(change("ringfort_request_duration_seconds_count{operation=\"put\"}"), 1.0);
    assert_eq!(change("ringfort_request_duration_seconds_bucket{operation=\"put\",le=\"+Inf\"}"), 1.0);
    assert_eq!(change("ringfort_raft_proposals_total"), 1.0);
    assert_eq!(change("ringfort_raft_proposed_commands_total"), 1.0);
    assert_eq!(change("ringfort_raft_applied_entries_total"), 1.0);
    assert!(change("ringfort_log_sync_duration_seconds_count") >= 1.0);
    assert_eq!(change("ringfort_keys"), 1.0);
    assert!(change("ringfort_key_value_bytes") > 2.0);
    // A node that creates a cluster also dials itself, and hangs up.
    let begun = Instant::now();
    while samples(&get(&http, "/metrics").1)["ringfort_connections{port=\"client\"}"] != 1.0 {
        assert!(begun.elapsed() < PATIENCE, "the client has one connection");
        sleep(Duration::from_millis(20));
    }
    assert_eq!(after["ringfort_shards"], 4.0);
    assert_eq!(after["ringfort_raft_replicas{role=\"leader\"}"], 5.0, "four shards and the system shard");
    assert_eq!(after["ringfort_raft_elections_won_total"], 5.0);
    assert!(after["process_resident_memory_bytes"] > 1e6);
    assert!(after["ringfort_log_bytes"] >= 1e6);
    assert_eq!(get(&http, "/").0, 404);
}

#[tokio::test]
async fn stale_reads_are_answered_by_all_replicas() {
    const READS: usize = 60;
    let directory = tempfile::tempdir().unwrap();
    let mut first = Node::start(&args(directory.path(), "a", &["--bootstrap"]));
    let join = format!("--join-addr={}", first.grpc());
    let mut second = Node::start(&args(directory.path(), "b", &[&join]));
    let mut third = Node::start(&args(directory.path(), "c", &[&join]));
    let monitored = [first.http(), second.http(), third.http()];
    spread_when(&monitored.each_ref().map(String::as_str));
    let client = Client::connect([first.grpc()]).unwrap();
    client.put("k", "v").await.unwrap();
    let counts = || {
        monitored.each_ref().map(|address| {
            let samples = samples(&get(address, "/metrics").1);
            let answered = samples["ringfort_requests_total{operation=\"get\",outcome=\"ok\"}"];
            (answered, samples["ringfort_requests_forwarded_total"])
        })
    };
    let before = counts();
    for _ in 0..READS {
        client.get_with("k", Consistency::Stale).await.unwrap();
    }
    for ((answered, forwarded), (answered_before, forwarded_before)) in counts().into_iter().zip(before) {
        assert!(answered - answered_before >= (READS / 4) as f64, "{:?} after {before:?}", counts());
        assert_eq!(forwarded, forwarded_before, "each from its own replica");
    }
}

#[test]
fn ready_is_a_node_with_a_cluster_and_leaders() {
    let directory = tempfile::tempdir().unwrap();
    let mut alone = Node::start(&args(directory.path(), "alone", &["--join-addr=127.0.0.1:1"]));
    let http = alone.http();
    assert_eq!(get(&http, "/healthz").0, 200);
    ready_when(&http, 503, "not part of a cluster");
    assert_eq!(get(&http, "/metrics").0, 200, "of the process");
    drop(alone);

    let mut first = Node::start(&args(directory.path(), "a", &["--bootstrap"]));
    let join = format!("--join-addr={}", first.grpc());
    let mut second = Node::start(&args(directory.path(), "b", &[&join]));
    let mut third = Node::start(&args(directory.path(), "c", &[&join]));
    let http = first.http();
    for address in [&http, &second.http(), &third.http()] {
        ready_when(address, 200, "ready");
    }
    spread_when(&[&http, &second.http(), &third.http()]);
    drop((second, third));
    ready_when(&http, 503, "no leader");
    assert_eq!(get(&http, "/healthz").0, 200);
    // The second node restarts at other addresses, which the remaining node learns without a quorum.
    let _second = Node::start(&args(directory.path(), "b", &[]));
    ready_when(&http, 200, "ready");
}

#[tokio::test]
async fn a_node_that_stops_is_not_serving() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Node::start(&args(directory.path(), "a", &["--bootstrap"]));
    let join = format!("--join-addr={}", first.grpc());
    let mut second = Node::start(&args(directory.path(), "b", &[&join]));
    ready_when(&second.http(), 200, "ready");
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", first.grpc())).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    let mut watched = Vec::new();
    for service in ["", "ringfort.v1.Kv"] {
        let mut statuses = health.watch(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner();
        assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        watched.push(statuses);
    }
    first.terminate();
    for mut statuses in watched {
        assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    }
    let (code, log) = first.end();
    assert_eq!(code, Some(0));
    assert!(log.last().unwrap().contains("stopped"));
}

fn output(command: &mut Command) -> Output {
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let file = path("ringfort.toml");
    std::fs::write(&file, format!("node-id = \"a\"\nport = 0\nraft-port = 0\nraft-dir = {:?}\n", path("file")))
        .unwrap();
    // An empty directory and no cluster to join: the error names the directory.
    let named = |args: &[String], variable: Option<String>| {
        let mut command = ringfort(args);
        command.envs(variable.map(|value| ("RINGFORT_RAFT_DIR", value)));
        let output = output(command.env("RINGFORT_CONFIG", &file));
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let flag = [format!("--raft-dir={}", path("flag"))];
    assert!(named(&[], None).contains(&format!("{} is empty", path("file"))));
    assert!(named(&[], Some(path("variable"))).contains(&format!("{} is empty", path("variable"))));
    assert!(named(&flag, Some(path("variable"))).contains(&format!("{} is empty", path("flag"))));

    std::fs::write(&file, "node-id = \"a\"\nraft-dri = \"x\"\n").unwrap();
    let wrong = named(&flag, None);
    assert_eq!(wrong, format!("ringfort: {file}:2: unknown setting \"raft-dri\"; did you mean raft-dir?\n"));
    let check =
        |file: &str| Command::new(env!("CARGO_BIN_EXE_ringfort")).args(["config", "check", file]).output().unwrap();
    assert_eq!(check(&file).status.code(), Some(1));
    assert_eq!(check(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ringfort.example.toml")).status.code(), Some(0));
}

#[test]
fn other_machines_reach_a_node_only_on_purpose() {
    let directory = tempfile::tempdir().unwrap();
    let refused = output(&mut ringfort(&args(directory.path(), "a", &["--bootstrap", "--listen=0.0.0.0"])));
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("no TLS") && text.contains("--insecure"), "{text}");
    assert!(!directory.path().join("a").exists(), "nothing was done before");
    let on_purpose = ["--bootstrap", "--listen=0.0.0.0", "--insecure", "--advertise=localhost"];
    let mut node = Node::start(&args(directory.path(), "a", &on_purpose));
    node.grpc();
    let is_warning = |line: &String| line.contains("WARN") && line.contains("--insecure");
    assert!(node.log.iter().any(is_warning), "{:?}", node.log);
}

#[test]
fn logs_in_json_are_one_object_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(&args(directory.path(), "a", &["--bootstrap", "--log-format=json"]));
    node.grpc();
    node.terminate();
    let (_, log) = node.end();
    let objects: Vec<serde_json::Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for object in &objects {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(object[field].is_string(), "{object} has no {field}");
        }
    }
    assert!(objects.iter().any(|object| object["shards"] == 4), "fields stay fields");
}

/// A port that the system assigns to no other program while it is held; a program that asks for it by number gets it.
fn hold_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

#[test]
fn one_command_line_makes_a_cluster_and_never_a_second_one() {
    let directory = tempfile::tempdir().unwrap();
    let held: Vec<TcpSocket> = (0..3).map(|_| hold_port()).collect();
    let ports: Vec<u16> = held.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let command_line = |number: usize| {
        let path = directory.path().join(number.to_string()).display().to_string();
        vec![
            format!("--node-id=node{number}"),
            format!("--raft-dir={path}"),
            format!("--port={}", ports[number]),
            "--raft-port=0".to_owned(),
            "--http-port=0".to_owned(),
            "--shards=4".to_owned(),
            "--segment-bytes=1048576".to_owned(),
            "--bootstrap-as=node0".to_owned(),
            format!("--join-addr={}", addresses.join(",")),
        ]
    };
    let mut nodes: Vec<Node> = (0..3).rev().map(|number| Node::start(&command_line(number))).collect();
    for node in &mut nodes {
        node.grpc();
        ready_when(&node.http(), 200, "ready");
    }
    let begun: Vec<bool> =
        nodes.iter().map(|node| node.log.iter().any(|line| line.contains("created a new cluster"))).collect();
    assert_eq!(begun, [false, false, true]);

    let monitored: Vec<String> = nodes.iter_mut().map(Node::http).collect();
    spread_when(&monitored.iter().map(String::as_str).collect::<Vec<_>>());

    // The first node loses its directory: it must not create another cluster beside the existing one.
    drop(nodes.pop());
    std::fs::remove_dir_all(directory.path().join("0")).unwrap();
    let (code, log) = Node::start(&command_line(0)).end();
    let text = log.join("\n");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("choose another --node-id") && !text.contains("created a new cluster"), "{text}");
}
