//! Malformed requests are refused, at no cost to others.

use crate::SMALL;
use crate::http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, call, exchange, for_each_frame, frame, greeting, message,
};
use crate::support::{Cluster, came_about};
use ringfort_client::Outcome;
use ringfort_proto::outcome;
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_proto::v1::peer_client::PeerClient;
use ringfort_proto::v1::{Forward, PeerBatch, PutRequest, RaftEntry, RaftMessage, SnapshotChunk, SnapshotHeader};
use ringfort_proto::v1::{SnapshotPayload, snapshot_chunk::Part};
use ringfort_ring::ShardCount;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tonic::Code;

/// More than an idle node needs, but far less than the messages claim.
const MOST_MEMORY_BYTES: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limits_are_known_not_to_be_applied() {
    let cluster = Cluster::start_with(1, &SMALL);
    let mut client = KvClient::connect(format!("http://{}", cluster.nodes[0].endpoint())).await.unwrap();
    let large = |bytes| vec![b'x'; bytes];
    for (key, value) in [
        (Vec::new(), b"v".to_vec()),
        (large((64 << 10) + 1), Vec::new()),
        (b"k".to_vec(), large((1 << 20) + 1)),
        (b"k".to_vec(), large(5 << 20)),
    ] {
        let bytes = key.len() + value.len();
        let refused =
            client.put(PutRequest { key: key.into(), value: value.into(), consistency: 0 }).await.unwrap_err();
        let seen = (refused.code(), outcome::of(&refused));
        assert_eq!(seen, (Code::InvalidArgument, Outcome::NotApplied), "{bytes} bytes: {refused}");
    }
    let client = cluster.client();
    assert_eq!(client.get("k").await.unwrap(), None);
    assert_eq!(client.put("k", large(1 << 20)).await.unwrap().version, 1);
}

#[test]
fn malformed_frames_end_their_connection_and_nothing_else() {
    let mut cluster = Cluster::start_with(1, &SMALL);
    let (port, raft_port) = (cluster.nodes[0].port, cluster.nodes[0].raft_port);
    let noise: Vec<u8> = (0..64_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let greeting = greeting();
    let truncated = &call(1, "/ringfort.v1.Kv/Put")[..20];
    let huge_frame = [&[0xff, 0xff, 0xff, HEADERS, END_HEADERS, 0, 0, 0, 1][..], &noise].concat();
    let bad_headers = frame(HEADERS, END_HEADERS, 1, &noise[..1000]);
    let bad_settings = frame(SETTINGS, 0, 0, &noise[..7]);
    let claims = message(u32::MAX, &noise[..1000]);
    let garbage = message(1000, &noise[..1000]);
    for (port, path) in [
        (port, "/ringfort.v1.Kv/Put"),
        (port, "/ringfort.v1.Cluster/Join"),
        (port, "/nobody/knows"),
        (raft_port, "/ringfort.v1.Peer/Raft"),
        (raft_port, "/ringfort.v1.Peer/Snapshot"),
        (raft_port, "/nobody/knows"),
    ] {
        let call = call(1, path);
        exchange(port, &[&noise]);
        exchange(port, &[b"GET / HTTP/1.1\r\n\r\n"]);
        exchange(port, &[&greeting, truncated]);
        exchange(port, &[&greeting, &huge_frame]);
        exchange(port, &[&greeting, &bad_headers]);
        exchange(port, &[&greeting, &bad_settings]);
        let claimed = exchange(port, &[&greeting, &call, &frame(DATA, 0, 1, &claims)]);
        let undecodable = exchange(port, &[&greeting, &call, &frame(DATA, END_STREAM, 1, &garbage)]);
        for answer in [claimed, undecodable] {
            let mut is_answered = false;
            for_each_frame(&answer, |kind, _, stream| is_answered |= (kind, stream) == (HEADERS, 1));
            assert!(is_answered, "{path}");
        }
    }
    assert!(cluster.nodes[0].runs());
    let peak = cluster.nodes[0].peak_memory_bytes();
    assert!(peak < MOST_MEMORY_BYTES, "{peak}");
    assert_eq!(cluster.prints(&["put", "k", "v"]), "OK, version 1\n");
    assert_eq!(cluster.prints(&["get", "k"]), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_the_words_of_a_peer_changes_nothing() {
    let mut cluster = Cluster::start_with(1, &SMALL);
    let client = cluster.client();
    client.put("k", "v").await.unwrap();
    let topology = client.topology().await.unwrap();
    let shards = ShardCount::new(topology.shard_count).unwrap();
    let (own, other) = (shards.shard_of_key(b"new").0, shards.shard_of_key(b"new").0 ^ 1);
    let noise = |length: u8| (0..length).map(|byte| byte.wrapping_mul(37)).collect::<Vec<u8>>();

    // From a node that is not a member, to one of the replicas here or to a missing one.
    let replica = |node: u64, number: u64| node << 32 | number;
    let raft = (0..40).flat_map(|kind| {
        (0..8).map(move |number| RaftMessage {
            shard: if number == 0 { u32::MAX } else { own },
            from_replica: replica(9, 1),
            to_replica: replica(1, 100 + number),
            r#type: kind,
            term: u64::MAX,
            index: u64::MAX,
            entries: vec![RaftEntry { term: 1, index: u64::MAX, r#type: kind, ..Default::default() }],
            commit: u64::MAX,
            ..Default::default()
        })
    });
    // As the core encodes it: the byte of a command, the byte of a put, and two fields, each after its length.
    let put = |key: &[u8], length: usize| {
        let (mut bytes, value) = (vec![1, 1], vec![b'v'; length]);
        for field in [key, &value] {
            let mut rest = field.len();
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
            bytes.extend_from_slice(field);
        }
        bytes
    };
    let system = [&[3][..], &noise(50)].concat();
    let requests = [
        (own, Vec::new()),
        (own, noise(50)),
        (own, put(b"", 1)),
        (own, put(&[b'k'; (64 << 10) + 1], 1)),
        (own, put(b"new", (1 << 20) + 1)),
        (other, put(b"new", 1)),
        (u32::MAX, put(b"new", 1)),
        (own, system.clone()),
        (u32::MAX, system),
    ];
    let forwards = requests.into_iter().zip(1..).map(|((shard, request), id)| {
        let request = request.into();
        Forward { id, shard, deadline_ms: 5000, request }
    });
    let batch = PeerBatch {
        from_node: 9,
        to_node: 1,
        cluster_id: topology.cluster_id,
        raft: raft.collect(),
        control: (0..=255).map(|length| noise(length).into()).chain([vec![1; 50].into()]).collect(),
        forwards: forwards.collect(),
        ..Default::default()
    };
    let mut peer = PeerClient::connect(format!("http://127.0.0.1:{}", cluster.nodes[0].raft_port)).await.unwrap();
    peer.raft(tokio_stream::iter([batch])).await.unwrap();

    let header = SnapshotHeader { cluster_id: topology.cluster_id, from_node: 9, to_node: 1, ..Default::default() };
    let payload = SnapshotPayload { sequence: 7, payload: noise(200).into() };
    for parts in [
        vec![],
        vec![None],
        vec![Some(Part::Payload(payload.clone()))],
        vec![Some(Part::Header(header.clone())), Some(Part::Payload(payload))],
        vec![Some(Part::Header(SnapshotHeader { header: noise(99).into(), ..header }))],
    ] {
        let chunks: Vec<SnapshotChunk> = parts.into_iter().map(|part| SnapshotChunk { part }).collect();
        let mut answers = peer.snapshot(tokio_stream::iter(chunks)).await.unwrap().into_inner();
        let answer = answers.message().await;
        assert!(!answer.is_ok_and(|answer| answer.is_some_and(|answer| answer.installed)));
    }

    assert!(cluster.nodes[0].runs());
    assert_eq!(client.put("k", "w").await.unwrap().version, 2);
    assert_eq!(client.get("new").await.unwrap(), None);
    assert_eq!(client.status().await.unwrap().nodes[0].keys, 1, "in whatever shard");
    assert_eq!(client.topology().await.unwrap().epoch, topology.epoch);
}

#[test]
fn connections_that_say_nothing_cost_nobody_anything_and_are_closed() {
    const SILENT: usize = 1000;
    let cluster = Cluster::start_with(1, &SMALL);
    let mut silent: Vec<TcpStream> = Vec::new();
    for number in 0..SILENT {
        let port = if number % 2 == 0 { cluster.nodes[0].port } else { cluster.nodes[0].raft_port };
        silent.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
    }
    let begun = Instant::now();
    cluster.prints(&["put", "k", "v"]);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for stream in &mut silent {
        stream.set_nonblocking(true).unwrap();
    }
    let mut open = SILENT;
    let closed = came_about(|| {
        // The node first sends its settings; the end of the stream comes after them.
        let is_open = |mut stream: &TcpStream| loop {
            match stream.read(&mut [0; 64]) {
                Ok(1..) => {}
                Ok(0) => return false,
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        };
        silent.retain(|stream| is_open(stream));
        open = silent.len();
        open == 0
    });
    assert!(closed, "{open} are still open");
    assert!(cluster.nodes[0].peak_memory_bytes() < MOST_MEMORY_BYTES);
}
