//! Requests whose rest never comes: what they hold is bounded, and others are served.

use crate::SMALL;
use crate::http2::message;
use crate::support::{Cluster, came_about};
use bytes::Bytes;
use hyper::body::{Body, Frame};
use ringfort_client::Outcome;
use ringfort_proto::outcome;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::task::JoinSet;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const CONNECTIONS: usize = 2;
const REQUESTS: usize = 256;
const VALUE_BYTES: usize = 1 << 20;
const PART_BYTES: usize = 16 << 10;

/// The most that half-sent requests may add to a node's memory: half of what all requests here would take.
const MOST_BYTES: u64 = 256 << 20;

const _: () = assert!(2 * MOST_BYTES as usize <= CONNECTIONS * REQUESTS * VALUE_BYTES);

/// A message whose last part is never sent. The HTTP/2 library cuts the others as it likes, even to one byte.
struct Half {
    /// The parts that are left to send.
    parts: usize,
    /// How many such messages have parts that are left to send.
    unsent: Arc<AtomicUsize>,
}

impl Body for Half {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const ALL: usize = VALUE_BYTES / PART_BYTES - 1;
        let part = match self.parts {
            0 => return Poll::Pending,
            ALL => message(VALUE_BYTES as u32, &[b'v'; PART_BYTES]),
            _ => vec![b'v'; PART_BYTES],
        };
        self.parts -= 1;
        if self.parts == 0 {
            self.unsent.fetch_sub(1, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(part.into()))))
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if self.parts > 0 {
            self.unsent.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Sends a half request. Returns the node's answer, which comes only if the node does not wait for the rest.
async fn send_half(mut channel: Channel, unsent: Arc<AtomicUsize>) -> Status {
    let half = Half { parts: VALUE_BYTES / PART_BYTES - 1, unsent };
    let request = http::Request::post("/ringfort.v1.Kv/Put").header("content-type", "application/grpc");
    let request = request.body(tonic::body::Body::new(half)).unwrap();
    poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    Status::from_header_map(response.headers()).expect("an error has no other part")
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_requests_hold_little_and_others_are_served() {
    let cluster = Cluster::start_with(1, &SMALL);
    let client = cluster.client();
    client.put("k", "v").await.unwrap();
    let node = &cluster.nodes[0];
    let held = node.begin_peak_memory();
    let unsent = Arc::new(AtomicUsize::new(CONNECTIONS * REQUESTS));
    let mut halves = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let endpoint = Endpoint::from_shared(format!("http://{}", node.endpoint())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        for _ in 0..REQUESTS {
            halves.spawn(send_half(channel.clone(), unsent.clone()));
        }
    }
    // Each is either refused or has sent all but its end.
    let mut puts = 0;
    assert!(came_about(|| {
        assert!(cluster.runs(&["put", "k", "v"]).status.success(), "a small put");
        puts += 1;
        unsent.load(Ordering::Relaxed) == 0
    }));
    println!("{puts} small puts meanwhile");
    let added = node.peak_memory_bytes().saturating_sub(held);
    assert!(added <= MOST_BYTES, "{} MiB more", added >> 20);
    let mut refused = 0;
    while let Some(answered) = halves.try_join_next() {
        let status = answered.unwrap();
        assert_eq!((status.code(), outcome::of(&status)), (Code::ResourceExhausted, Outcome::NotApplied), "{status}");
        refused += 1;
    }
    println!("{refused} refused, {} MiB more", added >> 20);
    assert!(!halves.is_empty(), "some have room");
    halves.shutdown().await;
    let mut last = None;
    let is_taken = came_about(|| {
        let large = vec![b'v'; VALUE_BYTES];
        last = Some(tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(client.put("k", large))));
        matches!(last, Some(Ok(_)))
    });
    assert!(is_taken, "what they held was not given back: {last:?}");
}
