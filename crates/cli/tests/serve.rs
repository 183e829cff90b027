//! `ringfort serve` as an operator runs it: processes, sockets, signals and a disk.

use ringfort_client::v1::{ReplicaRole, StatusResponse};
use ringfort_client::{Client, Error};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long any awaited condition may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node's process. Killed, as by `kill -9`, when it is dropped.
struct Process {
    child: Child,
    grpc: String,
    raft: String,
}

impl Process {
    /// Starts `ringfort serve` and waits until it serves.
    fn start(args: &[String]) -> Process {
        let mut child = spawn(args);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (serves_tx, serves_rx) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // If a node ends before it serves, its log shows in the test's output.
                eprintln!("{line}");
                if let Some((_, addresses)) = line.split_once(" serves clients on ") {
                    let _ = serves_tx.send(addresses.to_owned());
                }
            }
        });
        let addresses = serves_rx.recv_timeout(PATIENCE).expect("the node serves");
        let (grpc, raft) = addresses.split_once(", and nodes on ").unwrap();
        Process { child, grpc: grpc.to_owned(), raft: raft.to_owned() }
    }

    /// Asks the process to stop, as an operator does.
    fn terminate(mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(args: &[String]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ringfort"))
        .arg("serve")
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

/// Directories and ports of nodes, which stay when processes end.
struct Nodes {
    directory: TempDir,
    /// The ports of nodes that have run before.
    ports: [Option<(String, String)>; 3],
}

impl Nodes {
    fn new() -> Nodes {
        Nodes { directory: tempfile::tempdir().unwrap(), ports: Default::default() }
    }

    fn path(&self, node: usize) -> PathBuf {
        self.directory.path().join(node.to_string())
    }

    fn args(&self, node: usize, port: &str, raft_port: &str) -> Vec<String> {
        let directory = self.path(node).display().to_string();
        [
            format!("--node-id=node{node}"),
            format!("--port={port}"),
            format!("--raft_port={raft_port}"),
            format!("--raft_dir={directory}"),
            "--shards=8".to_owned(),
            "--segment-bytes=1048576".to_owned(),
        ]
        .into()
    }

    /// Starts a node on the ports that it had before, or on free ones.
    fn start(&mut self, node: usize, extra: &[&str]) -> Process {
        let (port, raft_port) = self.ports[node].clone().unwrap_or(("0".into(), "0".into()));
        let mut args = self.args(node, &port, &raft_port);
        args.extend(extra.iter().map(|arg| arg.to_string()));
        let process = Process::start(&args);
        let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
        self.ports[node] = Some((port(&process.grpc), port(&process.raft)));
        process
    }

    /// The error of a node that does not start.
    fn fails(&self, node: usize, extra: &[&str]) -> String {
        let mut args = self.args(node, "0", "0");
        // Each flag may be given only once.
        args.retain(|arg| !extra.iter().any(|other| other.split('=').next() == arg.split('=').next()));
        args.extend(extra.iter().map(|arg| arg.to_string()));
        let output = spawn(&args).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    }
}

fn client(nodes: &[&Process]) -> Client {
    Client::connect(nodes.iter().map(|node| &node.grpc)).unwrap().with_timeout(Duration::from_secs(10))
}

/// Waits for a status that fulfils the condition.
async fn status_when(client: &Client, condition: impl Fn(&StatusResponse) -> bool) -> StatusResponse {
    let begun = Instant::now();
    loop {
        let last = client.status().await;
        if let Ok(status) = &last
            && condition(status)
        {
            return last.unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "the condition does not come about: {last:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every shard has a leader and three voters, all caught up.
fn is_spread(status: &StatusResponse) -> bool {
    status.shards.iter().all(|shard| {
        let is_good = |role| role == ReplicaRole::Voter;
        shard.leader != 0
            && shard.members.len() == 3
            && shard.members.iter().all(|member| member.caught_up && is_good(member.role()))
    })
}

#[tokio::test]
async fn one_node_keeps_what_it_acknowledged_over_a_restart() {
    let mut nodes = Nodes::new();
    let node = nodes.start(0, &["--bootstrap=true"]);
    let client_before = client(&[&node]);
    assert_eq!(client_before.put("k", "v").await.unwrap().version, 1);
    for number in 0..20 {
        client_before.put(format!("p{number:02}"), "x").await.unwrap();
    }
    assert!(client_before.delete("p00").await.unwrap().found);
    assert!(matches!(client_before.put("", "v").await, Err(Error::Rejected(_))));
    assert!(nodes.fails(0, &[]).contains("in use by another process"));
    assert!(node.terminate().success(), "SIGTERM is a clean end");

    let node = nodes.start(0, &["--bootstrap=true"]);
    let client_after = client(&[&node]);
    assert_eq!(client_after.get("k").await.unwrap().unwrap().value, "v");
    assert_eq!(client_after.get("p00").await.unwrap(), None);
    let page = client_after.scan_page("p", "", 5).await.unwrap();
    let keys: Vec<_> = page.entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!((keys, page.more), (vec![&b"p01"[..], b"p02", b"p03", b"p04", b"p05"], true));
    assert_eq!(client_after.scan("p").await.unwrap().len(), 19);
}

#[tokio::test]
async fn three_nodes_lose_nothing_when_one_is_killed() {
    let mut nodes = Nodes::new();
    let first = nodes.start(0, &["--bootstrap"]);
    client(&[&first]).put("before", "joining").await.unwrap();
    let join = format!("--join-addr={}", first.grpc);
    let second = nodes.start(1, &[&join]);
    let third = nodes.start(2, &[&join]);
    let all = client(&[&first, &second, &third]);
    status_when(&all, is_spread).await;
    for number in 0..100 {
        all.put(format!("one{number}"), "1").await.unwrap();
    }

    // Some writes under way when a node dies may end as unknown; acknowledged writes must be there.
    drop(first);
    let rest = client(&[&second, &third]);
    let mut acknowledged = Vec::new();
    for number in 0..100 {
        let key = format!("two{number}");
        match rest.put(key.clone(), "2").await {
            Ok(_) => acknowledged.push(key),
            Err(Error::UnknownOutcome(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(acknowledged.len() >= 90, "{}", acknowledged.len());

    let first = nodes.start(0, &["--bootstrap"]);
    status_when(&client(&[&first]), is_spread).await;
    drop(second);
    let rest = client(&[&first, &third]);
    assert_eq!(rest.get("before").await.unwrap().unwrap().value, "joining");
    assert_eq!(rest.scan("one").await.unwrap().len(), 100);
    for key in acknowledged {
        assert_eq!(rest.get(key.clone()).await.unwrap().unwrap().value, "2", "{key}");
    }
}

#[tokio::test]
async fn a_node_may_come_back_at_other_addresses() {
    let mut nodes = Nodes::new();
    let first = nodes.start(0, &["--bootstrap"]);
    let join = format!("--join-addr={}", first.grpc);
    let second = nodes.start(1, &[&join]);
    let third = nodes.start(2, &[&join]);
    status_when(&client(&[&first]), is_spread).await;
    let old = second.grpc.clone();
    drop(second);
    nodes.ports[1] = None;
    let second = nodes.start(1, &[&join]);
    assert_ne!(second.grpc, old);
    let moved = |status: &StatusResponse| {
        is_spread(status) && status.nodes.iter().any(|node| node.grpc_address == second.grpc && node.alive)
    };
    status_when(&client(&[&first]), moved).await;
    drop(third);
    client(&[&second]).put("k", "v").await.unwrap();
}

/// The services that reflection lists for a tool such as grpcurl; `$module` is the version of the reflection protocol.
macro_rules! reflected {
    ($module:ident, $channel:expr) => {{
        use tonic_reflection::pb::$module::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$module::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$module::server_reflection_response::MessageResponse;
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = tonic_reflection::pb::$module::ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new($channel.clone());
        let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        match answers.message().await.unwrap().unwrap().message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|service| service.name).collect()
            }
            _ => Vec::<String>::new(),
        }
    }};
}

#[tokio::test]
async fn tools_learn_of_services_and_health() {
    let mut nodes = Nodes::new();
    let node = nodes.start(0, &["--bootstrap"]);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", node.grpc)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    for services in [reflected!(v1, channel), reflected!(v1alpha, channel)] {
        for name in ["ringfort.v1.Kv", "ringfort.v1.Cluster", "proto.KV", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|service| service == name), "{services:?}");
        }
    }
    for service in ["", "ringfort.v1.Kv", "proto.KV"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    }
}

#[test]
fn a_node_that_can_not_start_says_what_to_do() {
    let mut nodes = Nodes::new();
    assert!(nodes.fails(0, &[]).contains("give --bootstrap to create a new cluster, or --join-addr"));
    let nobody = nodes.fails(0, &["--join-addr=127.0.0.1:1", "--join-timeout=1s"]);
    assert!(nobody.contains("127.0.0.1:1"), "{nobody}");
    let first = nodes.start(0, &["--bootstrap"]);
    let join = format!("--join-addr={}", first.grpc);
    let taken = nodes.fails(1, &["--node-id=node0", &join]);
    assert!(taken.contains("choose another --node-id"), "{taken}");
    // The refused start has not claimed the directory.
    let second = nodes.start(1, &[&join]);
    assert!(second.terminate().success());
}
