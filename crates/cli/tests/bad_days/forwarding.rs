//! Forwarded requests and their answers, when nodes restart or connections fail.

use crate::SMALL;
use crate::support::{Cluster, Node, came_about, leader_of};
use ringfort_proto::outcome::{self, Outcome};
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_proto::v1::{GetRequest, PutRequest};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tonic::Request;
use tonic::transport::Channel;

/// The address of the relay, at which other nodes dial the node behind it.
const RELAYED: Ipv4Addr = Ipv4Addr::new(127, 84, 0, 1);

async fn connect(node: &Node) -> KvClient<Channel> {
    KvClient::connect(format!("http://{}", node.endpoint())).await.unwrap()
}

fn put(key: &str) -> Request<PutRequest> {
    let mut request = Request::new(PutRequest { key: key.to_owned().into(), value: "v".into(), consistency: 0 });
    request.set_timeout(Duration::from_secs(20));
    request
}

fn get(key: &str) -> Request<GetRequest> {
    let mut request = Request::new(GetRequest { key: key.to_owned().into(), consistency: 0 });
    request.set_timeout(Duration::from_secs(10));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_for_a_former_life_of_a_node_answer_nothing_of_its_next_one() {
    const KEYS: usize = 20;
    let mut cluster = Cluster::prepare(3, &SMALL);
    for node in &mut cluster.nodes {
        node.take_disk_faults();
        node.start();
    }
    let status = cluster.wait_until_complete(3);
    let leader = leader_of("k", &status);
    let led = |prefix: &str| {
        let keys = (0..).map(|number| format!("{prefix}{number}")).filter(|key| leader_of(key, &status) == leader);
        keys.take(KEYS).collect::<Vec<_>>()
    };
    let (leader, other): (Vec<_>, Vec<_>) = (0..3).partition(|&number| cluster.nodes[number].name == leader);
    let (leader, other) = (leader[0], other[0]);

    // The leader's sync outlasts the other node's restart, so its answers would reach the new process.
    cluster.nodes[leader].slow_disk(Duration::from_secs(4));
    let mut client = connect(&cluster.nodes[other]).await;
    let begun = Instant::now();
    let mut former = JoinSet::new();
    for key in led("former") {
        let mut client = client.clone();
        former.spawn(async move { client.put(put(&key)).await });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.nodes[other].kill();
    former.join_all().await;
    cluster.nodes[other].start();
    assert!(came_about(|| std::net::TcpStream::connect(cluster.nodes[other].endpoint()).is_ok()));
    client = connect(&cluster.nodes[other]).await;
    let reader = connect(&cluster.nodes[leader]).await;
    let mut later = JoinSet::new();
    for key in led("later") {
        let (mut client, mut reader) = (client.clone(), reader.clone());
        later.spawn(async move {
            let is_acknowledged = client.put(put(&key)).await.is_ok();
            let found = reader.get(get(&key)).await.unwrap().into_inner().found;
            (key, is_acknowledged, found)
        });
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "the other node did not start before the sync ended");
    let later = later.join_all().await;
    let acknowledged = later.iter().filter(|(_, is_acknowledged, _)| *is_acknowledged).count();
    assert!(acknowledged > 0, "none of the puts was acknowledged: {later:?}");
    let lost: Vec<_> = later.iter().filter(|(_, is_acknowledged, found)| *is_acknowledged && !found).collect();
    assert!(lost.is_empty(), "{} of {acknowledged} acknowledged puts were not there", lost.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_for_a_leader_that_can_not_be_dialled_fails_at_once_and_names_it() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    // No process listens at this address. The other node joins at the address in its configuration.
    cluster.nodes[0].set("--advertise=127.84.0.9");
    let nowhere = format!("127.84.0.9:{}", cluster.nodes[0].raft_port);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.nodes[1].wait_for_log("no connection to node1");
    assert!(came_about(|| std::net::TcpStream::connect(cluster.nodes[1].endpoint()).is_ok()));
    let mut client = connect(&cluster.nodes[1]).await;
    let begun = Instant::now();
    let refused = client.put(put("k")).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}: {refused}", begun.elapsed());
    assert_eq!(outcome::of(&refused), Outcome::NotApplied, "{refused}");
    let said = refused.message();
    assert!(said.contains("can't reach node1") && said.contains(&nowhere) && said.contains("refused"), "{said}");
    let begun = Instant::now();
    client.put(put("k")).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(500), "the second one waits for nothing: {:?}", begun.elapsed());
}

/// Relays connections to a node's ports.
struct Relay {
    raft: AbortHandle,
    _rest: JoinSet<()>,
}

impl Relay {
    async fn start(node: &Node) -> Relay {
        let mut tasks = JoinSet::new();
        let [_, raft] = [node.port, node.raft_port].map(|port| {
            let relay = async move {
                let listener = TcpListener::bind((RELAYED, port)).await.unwrap();
                let mut connections = JoinSet::new();
                while let Ok((mut near, _)) = listener.accept().await {
                    connections.spawn(async move {
                        if let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                            let _ = copy_bidirectional(&mut near, &mut far).await;
                        }
                    });
                }
            };
            tasks.spawn(relay)
        });
        Relay { raft, _rest: tasks }
    }

    /// Ends the connections from other nodes, and accepts no more.
    fn shut_out_nodes(&self) {
        self.raft.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_while_the_other_node_can_not_connect() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    cluster.nodes[0].set(&format!("--advertise={RELAYED}"));
    let relay = Relay::start(&cluster.nodes[0]).await;
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_until_complete(3);
    let keys: Vec<String> = (0..100).map(|number| format!("k{number}")).collect();
    let leaders = |status: &Value| keys.iter().map(|key| leader_of(key, status)).collect::<Vec<_>>();
    // Wait until leaders have been balanced: a node that hears no other node does not learn of later changes.
    let mut before = (Instant::now(), Vec::new());
    let status = cluster.wait_for_status("leaders have not changed for two seconds", |status| {
        if status["healthy"] != true {
            return false;
        }
        if leaders(status) != before.1 {
            before = (Instant::now(), leaders(status));
        }
        before.0.elapsed() > Duration::from_secs(2)
    });
    let key = keys.iter().find(|key| leader_of(key, &status) != "node1").expect("another node leads a shard");

    let mut client = connect(&cluster.nodes[0]).await;
    client.put(put(key)).await.unwrap();
    relay.shut_out_nodes();
    // Covers the time before and after this node considers the leader silent.
    for _ in 0..20 {
        let begun = Instant::now();
        let found = client.get(get(key)).await.map(|found| found.into_inner().found);
        assert!(found.as_ref().is_ok_and(|found| *found), "{found:?} after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
