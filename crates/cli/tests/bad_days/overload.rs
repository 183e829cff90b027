//! More requests than can be executed, and more data than may be held.

use crate::SMALL;
use crate::http2::{DATA, END_STREAM, HEADERS, WINDOW_UPDATE, for_each_frame, frame, greeting, put_frames};
use crate::support::{Cluster, PATIENCE, came_about};
use ringfort_client::Outcome;
use ringfort_proto::gossip_request::{GossipRequest, MAX_GOSSIP_KEYS};
use ringfort_proto::original::kv_client::KvClient as OriginalClient;
use ringfort_proto::outcome;
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_proto::v1::{DeleteRequest, GetRequest, PutRequest};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

async fn connect(endpoint: &str) -> KvClient<Channel> {
    KvClient::connect(format!("http://{endpoint}")).await.unwrap()
}

fn put(key: usize, value_bytes: usize) -> PutRequest {
    PutRequest { key: format!("k{key}").into(), value: vec![b'v'; value_bytes].into(), consistency: 0 }
}

#[track_caller]
fn assert_refused(status: &Status, said: &str) {
    assert_eq!((status.code(), outcome::of(status)), (Code::ResourceExhausted, Outcome::NotApplied), "{status}");
    assert!(status.message().contains(said), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_memory_refuses_puts_and_takes_deletes() {
    const LIMIT_BYTES: usize = 4 << 20;
    const VALUE_BYTES: usize = 32 << 10;
    let limit = format!("--max_memory={LIMIT_BYTES}");
    let cluster = Cluster::start_with(3, &[&SMALL[..], &[&limit]].concat());
    // All requests go through one node; requests for shards that others lead are refused by those.
    let mut client = connect(&cluster.nodes[2].endpoint()).await;
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for key in 0.. {
        match client.put(put(key, VALUE_BYTES)).await {
            Ok(_) => {
                acknowledged.push(key);
                refused = 0;
            }
            Err(status) => {
                assert_refused(&status, "--max-memory");
                refused += 1;
            }
        }
        // Keys are spread over all shards, and so over all nodes.
        if refused == 30 {
            break;
        }
        assert!(key < 1000, "no limit");
    }
    let held = acknowledged.len() * VALUE_BYTES;
    assert!((LIMIT_BYTES / 2..2 * LIMIT_BYTES).contains(&held), "{held} bytes were taken");
    for &key in &acknowledged {
        let key = format!("k{key}").into();
        assert!(client.get(GetRequest { key, consistency: 0 }).await.unwrap().into_inner().found);
    }
    for &key in &acknowledged[..acknowledged.len() / 2] {
        assert!(
            client
                .delete(DeleteRequest { key: format!("k{key}").into(), consistency: 0 })
                .await
                .unwrap()
                .into_inner()
                .found
        );
    }
    let begun = Instant::now();
    while let Err(status) = client.put(put(0, VALUE_BYTES)).await {
        assert_refused(&status, "--max-memory");
        assert!(begun.elapsed() < Duration::from_secs(5), "there is room again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_batches_leave_room_for_other_requests() {
    // More than would fit if each took as many places as it has calls in flight.
    const BATCHES: usize = 12;
    let mut cluster = Cluster::prepare(1, &[&SMALL[..], &["--election-timeout=2s"]].concat());
    cluster.nodes[0].take_disk_faults();
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    cluster.nodes[0].slow_disk(Duration::from_millis(50));
    let state: BTreeMap<String, String> = (0..MAX_GOSSIP_KEYS).map(|key| (format!("k{key}"), "v".to_owned())).collect();
    let address = format!("http://{}", cluster.nodes[0].endpoint());
    let mut batches = JoinSet::new();
    for _ in 0..BATCHES {
        let mut client = OriginalClient::connect(address.clone()).await.unwrap();
        let mut request = Request::new(GossipRequest { state: state.clone(), left_out: 0 });
        request.set_timeout(PATIENCE);
        batches.spawn(async move { client.gossip(request).await });
    }
    let mut client = connect(&cluster.nodes[0].endpoint()).await;
    let mut reads = 0;
    while !batches.is_empty() {
        client.get(GetRequest { key: "k".into(), consistency: 0 }).await.unwrap();
        reads += 1;
        while let Some(answered) = batches.try_join_next() {
            answered.unwrap().unwrap();
        }
    }
    println!("{reads} reads meanwhile");
}

/// Enough connections for more requests than a node admits.
const CONNECTIONS: usize = 12;

/// Below the 1,024 that a node allows per connection.
const MOST_AT_A_TIME: usize = 1000;

/// A later answer is useless: this is the clients' default timeout.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// How requests are sent.
#[derive(Clone, Copy)]
enum Load {
    /// The next one when one is answered, with this many in flight over all connections.
    Closed(usize),
    /// This many a second, whether or not they are answered.
    Open(f64),
}

#[derive(Clone, Copy, Default)]
struct Counts {
    done: usize,
    refused: usize,
    late: usize,
}

/// Sends puts on one connection for some time. A library's client takes as much CPU time as the node; this one takes
/// almost none, so that the node is overloaded and not the client.
fn load_connection(port: u16, load: Load, time: Duration) -> Counts {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let window = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    stream.write_all(&[greeting(), window].concat()).unwrap();
    let mut counts = Counts::default();
    // When each request was sent, and whether a message came back.
    let mut waiting: HashMap<u32, (Instant, bool)> = HashMap::new();
    let (mut next, mut offered) = (1, 0);
    let (mut received, mut buffer) = (Vec::new(), [0; 64 << 10]);
    let begun = Instant::now();
    while begun.elapsed() < time {
        let wanted = match load {
            Load::Closed(at_a_time) => (at_a_time / CONNECTIONS).saturating_sub(waiting.len()),
            Load::Open(rate) => {
                let due = (rate / CONNECTIONS as f64 * begun.elapsed().as_secs_f64()) as usize;
                let wanted = due - offered;
                offered = due;
                wanted.min(MOST_AT_A_TIME - waiting.len())
            }
        };
        let mut pipeline = Vec::new();
        for _ in 0..wanted {
            pipeline.extend(put_frames(next, &format!("key {}", next % 5000), "one hundred bytes or less"));
            waiting.insert(next, (Instant::now(), false));
            next += 2;
        }
        stream.write_all(&pipeline).unwrap();
        match stream.read(&mut buffer) {
            Ok(0) => panic!("the node ended the connection"),
            Ok(length) => received.extend(&buffer[..length]),
            Err(_) => continue,
        }
        let rest = for_each_frame(&received, |kind, flags, stream| {
            let Some((sent, has_message)) = waiting.get_mut(&stream) else { return };
            *has_message |= kind == DATA;
            if flags & END_STREAM != 0 && matches!(kind, DATA | HEADERS) {
                let count = match (sent.elapsed() <= TIME_LIMIT, has_message) {
                    (false, _) => &mut counts.late,
                    (true, true) => &mut counts.done,
                    (true, false) => &mut counts.refused,
                };
                *count += 1;
                waiting.remove(&stream);
            }
        });
        received.drain(..rest);
    }
    counts
}

/// Requests per second that are answered in time.
fn rate(port: u16, load: Load, time: Duration) -> f64 {
    let connections: Vec<_> =
        (0..CONNECTIONS).map(|_| std::thread::spawn(move || load_connection(port, load, time))).collect();
    let mut all = Counts::default();
    for connection in connections {
        let counts = connection.join().unwrap();
        all.done += counts.done;
        all.refused += counts.refused;
        all.late += counts.late;
    }
    let rate = all.done as f64 / time.as_secs_f64();
    println!("{rate:.0}/s done; {} refused, {} late", all.refused, all.late);
    rate
}

#[test]
fn twice_the_load_that_can_be_done_does_not_stop_what_can() {
    /// The machine may be busy with other work during one of the two measurements, so the best of this many attempts
    /// counts.
    const ATTEMPTS: usize = 3;
    let cluster = Cluster::start_with(1, &SMALL);
    let port = cluster.nodes[0].port;
    let mut best: f64 = 0.0;
    for _ in 0..ATTEMPTS {
        let peak = rate(port, Load::Closed(1024), Duration::from_secs(2));
        best = best.max(rate(port, Load::Open(2.0 * peak), Duration::from_secs(6)) / peak);
        if best >= 0.8 {
            break;
        }
    }
    assert!(best >= 0.8, "only {best:.2} of the peak under twice the load");
    let memory = cluster.nodes[0].peak_memory_bytes() >> 20;
    assert!(memory < 512, "{memory} MiB");
    assert!(came_about(|| cluster.runs(&["put", "afterwards", "v"]).status.success()));
}
