//! A client of the original system, built only from that system's description, runs unchanged.

use crate::support::{Cluster, came_about, run, text};
use protox::prost_reflect::prost::Message;
use protox::prost_reflect::{DescriptorPool, DynamicMessage, MapKey, MethodDescriptor, Value};
use ringfort_proto::outcome::{self, Outcome};
use std::path::Path;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status, transport};

/// A client that is built from a `.proto` file at run time.
struct Stub {
    service: DescriptorPool,
    channel: transport::Channel,
}

impl Stub {
    fn connect(endpoint: &str) -> Stub {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster");
        let files = protox::compile(["original.proto"], [directory]).unwrap();
        let service = DescriptorPool::from_file_descriptor_set(files).unwrap();
        Stub { service, channel: transport::Endpoint::try_from(format!("http://{endpoint}")).unwrap().connect_lazy() }
    }

    async fn call(&self, method: &str, fields: &[(&str, Value)]) -> Result<DynamicMessage, Status> {
        let service = self.service.get_service_by_name("proto.KV").unwrap();
        let method = service.methods().find(|known| known.name() == method).unwrap();
        let mut message = DynamicMessage::new(method.input());
        for (name, value) in fields {
            message.set_field_by_name(name, value.clone());
        }
        let path = format!("/proto.KV/{}", method.name()).parse().unwrap();
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let answer = client.unary(Request::new(message), path, Dynamic(method)).await?;
        Ok(answer.into_inner())
    }

    async fn get(&self, key: &str) -> Result<String, Status> {
        let answer = self.call("Get", &[("key", string(key))]).await?;
        Ok(answer.get_field_by_name("value").unwrap().as_str().unwrap().to_owned())
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), Status> {
        self.call("Put", &[("key", string(key)), ("value", string(value))]).await.map(drop)
    }

    async fn gossip<'a>(&self, state: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), Status> {
        let state = state.into_iter().map(|(key, value)| (MapKey::String(key.to_owned()), string(value)));
        self.call("Gossip", &[("state", Value::Map(state.collect()))]).await.map(drop)
    }

    async fn join(&self, node_id: &str, raft_address: &str, grpc_address: &str) -> Result<(), Status> {
        let addresses = [("raft_address", string(raft_address)), ("grpc_address", string(grpc_address))];
        self.call("Join", &[&[("node_id", string(node_id))], &addresses[..]].concat()).await.map(drop)
    }
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// Encodes a method's requests and decodes its responses.
struct Dynamic(MethodDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Dynamic;
    type Decoder = Dynamic;

    fn encoder(&mut self) -> Dynamic {
        Dynamic(self.0.clone())
    }

    fn decoder(&mut self) -> Dynamic {
        Dynamic(self.0.clone())
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.output(), bytes);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[track_caller]
fn assert_refused<T>(answer: Result<T, Status>, code: Code, said: &str) {
    let status = answer.err().expect("it is refused");
    assert!(status.code() == code && status.message().contains(said), "{status:?} does not say {said:?}");
    assert_eq!(outcome::of(&status), Outcome::NotApplied, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_the_original_system_runs_unchanged() {
    let cluster = Cluster::start(2);
    let [first, second] = [0, 1].map(|node| Stub::connect(&cluster.nodes[node].endpoint()));

    // Put and Get use the linearizable keyspace of ringfort.v1, at every node.
    for number in 0..8 {
        let (key, value) = (format!("key{number}"), format!("value {number}"));
        first.put(&key, &value).await.unwrap();
        assert_eq!(second.get(&key).await.unwrap(), value);
        assert_eq!(cluster.prints(&["get", &key]), value);
    }
    assert_eq!(cluster.prints(&["put", "key0", "of another"]), "OK, version 2\n");
    assert_eq!(first.get("key0").await.unwrap(), "of another");
    assert_eq!(first.get("missing").await.unwrap(), "");

    // Values that its strings can't hold, and requests that no interface accepts.
    assert!(run(&["put", "bytes"], &cluster.nodes[0].endpoint(), b"\xff\x00").status.success());
    assert_refused(second.get("bytes").await, Code::FailedPrecondition, "read it with ringfort.v1.Kv/Get");
    assert_refused(first.put("", "value").await, Code::InvalidArgument, "the key is empty");
    assert_refused(first.get("").await, Code::InvalidArgument, "the key is empty");
    assert_refused(first.put("large", &"v".repeat((1 << 20) + 1)).await, Code::InvalidArgument, "the limit is 1048576");
    assert_refused(first.put("large", &"v".repeat(5 << 20)).await, Code::InvalidArgument, "too large");
    let peers = Stub::connect(&format!("127.0.0.1:{}", cluster.nodes[0].raft_port));
    assert_refused(peers.put("key", "value").await, Code::FailedPrecondition, "not a node's port for clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_original_gossip_is_merged_by_last_write_wins() {
    let cluster = Cluster::start_with(2, &["--segment-bytes=4194304", "--gossip-period=200ms"]);
    let [first, second] = [0, 1].map(|node| Stub::connect(&cluster.nodes[node].endpoint()));
    let eventual =
        |node: usize, key: &str| text(&run(&["get", "--eventual", key], &cluster.nodes[node].endpoint(), b"").stdout);
    second.gossip([]).await.unwrap();
    second.gossip([("a", "1"), ("b", "1")]).await.unwrap();
    assert_eq!((eventual(1, "a"), eventual(1, "b")), ("1".to_owned(), "1".to_owned()), "once it is answered");
    assert_eq!(first.get("a").await.unwrap(), "", "the keyspaces share no key");
    assert!(came_about(|| eventual(0, "a") == "1"), "{:?}", eventual(0, "a"));
    first.gossip([("a", "2")]).await.unwrap();
    assert!(came_about(|| eventual(1, "a") == "2"), "{:?}", eventual(1, "a"));
    assert_eq!(eventual(1, "b"), "1");

    // More keys than are in flight at once.
    let keys: Vec<String> = (0..3000).map(|number| format!("many{number}")).collect();
    first.gossip(keys.iter().map(|key| (&key[..], "v"))).await.unwrap();
    let found = run(&["scan", "--eventual", "--prefix=many"], &cluster.nodes[0].endpoint(), b"").stdout;
    assert_eq!(text(&found).lines().count(), keys.len());

    let too_many: Vec<String> = (0..4097).map(|number| format!("more{number}")).collect();
    let refused = first.gossip(too_many.iter().map(|key| (&key[..], "v"))).await;
    assert_refused(refused, Code::InvalidArgument, "send 4096 at most");

    let large = "v".repeat(65 << 10);
    assert_refused(
        first.gossip([("large", &large[..])]).await,
        Code::InvalidArgument,
        "the eventual keyspace is 65536",
    );
    let long = "k".repeat((64 << 10) + 1);
    for (key, value) in [("large", &large[..]), ("", "1"), (&long, "1")] {
        let refused = first.gossip([("c", "1"), (key, value)]).await;
        assert_eq!(outcome::of(refused.as_ref().unwrap_err()), Outcome::NotApplied);
        assert_refused(refused, Code::InvalidArgument, "none of the 2 keys was stored");
        assert_eq!(eventual(0, "c"), "", "nothing was stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_for_its_cluster_is_unavailable_to_the_original_interface() {
    let mut cluster = Cluster::prepare(2, &[]);
    cluster.nodes[1].start();
    cluster.nodes[1].wait_for_log("does not admit this node yet");
    let stub = Stub::connect(&cluster.nodes[1].endpoint());
    let waits = "this node is not part of a cluster yet";
    assert_refused(stub.get("k").await, Code::Unavailable, waits);
    assert_refused(stub.put("k", "v").await, Code::Unavailable, waits);
    assert_refused(stub.gossip([("k", "v")]).await, Code::Unavailable, waits);
    assert_refused(stub.join("node9", "localhost:1", "localhost:2").await, Code::Unavailable, waits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_original_join_makes_no_member() {
    let cluster = Cluster::start(1);
    let stub = Stub::connect(&cluster.nodes[0].endpoint());
    let members = || cluster.status().unwrap()["nodes"].clone();
    let before = members();
    let address = |of: &str| before[0][of].as_str().unwrap().to_owned();
    let (raft, grpc) = (address("raft_address"), address("grpc_address"));
    stub.join("node1", &raft, &grpc).await.unwrap();
    assert_refused(stub.join("node1", "127.0.0.1:1", &grpc).await, Code::FailedPrecondition, "start it again with");
    let joins = format!("`ringfort serve --node-id=node2 --join-addr={grpc}`");
    assert_refused(stub.join("node2", "127.0.0.1:1", "127.0.0.1:2").await, Code::FailedPrecondition, &joins);
    assert_refused(stub.join(&"n".repeat(1 << 20), &raft, &grpc).await, Code::InvalidArgument, "not a valid node name");
    assert_eq!(members().as_array().unwrap().len(), 1);
}
