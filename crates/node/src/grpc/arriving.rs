//! Requests that have not arrived completely.
//!
//! A request is in flight ([`crate::in_flight`]) from when its message is decoded. Until then its bytes are in the
//! buffers of its stream, and a client may send a part of many requests and never the rest. So these bytes have
//! budgets of their own, [`MAX_LARGE_BYTES`] and [`MAX_SMALL_BYTES`], and a request has [`ARRIVAL_TIMEOUT`] to arrive.
//! There are two, so that a few large requests that never arrive do not have all small ones refused, nor the health
//! checks of a load balancer.
//!
//! A request that does not arrive in one piece takes from its budget what its message claims to have, before a buffer
//! of that size is allocated: with huge pages, the whole buffer takes memory once a part is in it. If the budget is
//! exceeded, the request is refused. It can't wait: the parts that have arrived would fill the window of their
//! connection, through which requests that have a share of the budget need their rest.
//!
//! The common request arrives in one piece and takes nothing.

use super::MAX_REQUEST_BYTES;
use crate::metrics::IncompleteRequests;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use ringfort_proto::outcome;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// What all large requests of a node that have not arrived completely may hold; further ones are refused as overload.
const MAX_LARGE_BYTES: usize = 128 << 20;

/// The same for small requests. Most of these have arrived completely when they are first looked at, and hold nothing.
const MAX_SMALL_BYTES: usize = 64 << 20;

/// The largest message of a small request: with its prefix, one frame of HTTP/2.
const SMALL_BYTES: usize = 16 << 10;

/// What such a request counts as in addition to its message: its headers, at most [`MAX_HEADER_BYTES`], and the state
/// of its stream and task.
///
/// [`MAX_HEADER_BYTES`]: super::MAX_HEADER_BYTES
const OVERHEAD_BYTES: usize = 16 << 10;

/// A request that has not arrived completely after this time is ended: the largest one needs 140 kB/s.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Before each gRPC message: a flag and its length.
const PREFIX_BYTES: usize = 5;

const _: () = assert!(super::MAX_HEADER_BYTES as usize <= OVERHEAD_BYTES);
const _: () = assert!(16 * (MAX_REQUEST_BYTES + OVERHEAD_BYTES) <= MAX_LARGE_BYTES);
const _: () = assert!(1024 * (SMALL_BYTES + OVERHEAD_BYTES) <= MAX_SMALL_BYTES);

/// The budgets of a node, and the counts of requests that did not arrive.
pub struct Arriving {
    small: Budget,
    large: Budget,
    /// [`ARRIVAL_TIMEOUT`], or less in tests.
    timeout: Duration,
    counters: IncompleteRequests,
}

struct Budget {
    most_bytes: usize,
    held_bytes: AtomicUsize,
}

impl Arriving {
    pub fn new(counters: IncompleteRequests) -> Arriving {
        let (small, large) = (Budget::new(MAX_SMALL_BYTES), Budget::new(MAX_LARGE_BYTES));
        Arriving { small, large, timeout: ARRIVAL_TIMEOUT, counters }
    }

    fn budget(&self, is_large: bool) -> &Budget {
        if is_large { &self.large } else { &self.small }
    }
}

impl Budget {
    fn new(most_bytes: usize) -> Budget {
        Budget { most_bytes, held_bytes: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let held = self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = held + bytes <= self.most_bytes;
        if !has_room {
            self.give_back(bytes);
        }
        has_room
    }

    fn give_back(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The body of a call with one request. What it holds is given back when it is dropped, which tonic does once it has
/// decoded the message.
pub struct ArrivingBody<B> {
    body: B,
    arriving: Arc<Arriving>,
    /// The bytes that have arrived.
    arrived: usize,
    /// The first of them. Clients send parts of one byte, too.
    prefix: [u8; PREFIX_BYTES],
    /// The bytes that the message claims to have, with its prefix. 0 while that is unknown, or more than is read.
    claimed: usize,
    /// The bytes that were taken from the budget.
    held: usize,
    /// Which budget they were taken from.
    is_large: bool,
    /// Set when the rest has to be waited for.
    timeout: Option<Pin<Box<Sleep>>>,
}

impl<B> ArrivingBody<B> {
    pub fn new(body: B, arriving: Arc<Arriving>) -> ArrivingBody<B> {
        ArrivingBody {
            body,
            arriving,
            arrived: 0,
            prefix: [0; PREFIX_BYTES],
            claimed: 0,
            held: 0,
            is_large: false,
            timeout: None,
        }
    }

    /// A part has arrived.
    fn count(&mut self, part: &[u8]) -> Result<(), Status> {
        if let Some(missing @ 1..) = PREFIX_BYTES.checked_sub(self.arrived) {
            let beginning = &part[..missing.min(part.len())];
            self.prefix[self.arrived..][..beginning.len()].copy_from_slice(beginning);
            if beginning.len() == missing {
                self.claimed = claimed(self.prefix);
            }
        }
        self.arrived += part.len();
        // One message is decoded; tonic would read any number of further ones until the request ends.
        if self.arrived > MAX_REQUEST_BYTES + PREFIX_BYTES {
            return Err(outcome::invalid(format!("a request has one message of at most {MAX_REQUEST_BYTES} bytes")));
        }
        if self.arrived < self.claimed || self.held > 0 { self.hold() } else { Ok(()) }
    }

    /// Takes what the request holds from the budget.
    fn hold(&mut self) -> Result<(), Status> {
        let message = self.claimed.max(self.arrived);
        if message > SMALL_BYTES && !self.is_large {
            self.arriving.small.give_back(std::mem::take(&mut self.held));
            self.is_large = true;
        }
        let bytes = OVERHEAD_BYTES + message;
        if bytes > self.held {
            if !self.arriving.budget(self.is_large).take(bytes - self.held) {
                self.arriving.counters.refused.inc();
                return Err(outcome::overloaded("too many requests are arriving at this node; retry later"));
            }
            self.held = bytes;
        }
        Ok(())
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for ArrivingBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let counted = match frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                Some(part) => this.count(part),
                None => Ok(()),
            };
            return Poll::Ready(counted.map_or_else(|status| Some(Err(status)), |()| frame));
        }
        if let Err(status) = this.hold() {
            return Poll::Ready(Some(Err(status)));
        }
        let timeout = this.timeout.get_or_insert_with(|| Box::pin(sleep(this.arriving.timeout)));
        ready!(timeout.as_mut().poll(context));
        this.arriving.counters.late.inc();
        let seconds = ARRIVAL_TIMEOUT.as_secs();
        let status = outcome::unavailable(format!("the request did not arrive completely within {seconds} s"), None);
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for ArrivingBody<B> {
    fn drop(&mut self) {
        if self.held > 0 {
            self.arriving.budget(self.is_large).give_back(self.held);
        }
    }
}

/// The length of a message with this prefix, or 0 if tonic refuses it as too large.
fn claimed([_, length @ ..]: [u8; PREFIX_BYTES]) -> usize {
    let length = u32::from_be_bytes(length) as usize;
    if length <= MAX_REQUEST_BYTES { PREFIX_BYTES + length } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use http_body_util::{BodyExt, StreamBody};
    use ringfort_proto::outcome::Outcome;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use tonic::Code;

    type Parts = UnboundedSender<Result<Frame<Bytes>, Status>>;

    fn arriving() -> Arc<Arriving> {
        Arc::new(Arriving::new(Metrics::new().incomplete_requests))
    }

    /// A request that is received here, and its sender's end.
    fn request(
        arriving: &Arc<Arriving>,
    ) -> (Parts, ArrivingBody<impl Body<Data = Bytes, Error = Status> + Unpin + use<>>) {
        let (parts, body) = unbounded_channel();
        (parts, ArrivingBody::new(StreamBody::new(UnboundedReceiverStream::new(body)), arriving.clone()))
    }

    /// The prefix of a message of this length, and a part of the message.
    fn first(claimed: usize, bytes: usize) -> Result<Frame<Bytes>, Status> {
        let prefix = [&[0][..], &u32::try_from(claimed).unwrap().to_be_bytes()].concat();
        Ok(Frame::data([prefix, vec![b'v'; bytes]].concat().into()))
    }

    fn part(bytes: usize) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(vec![b'v'; bytes].into()))
    }

    /// Polls a request that has no further part.
    fn wait<B: Body<Data = Bytes, Error = Status> + Unpin>(body: &mut ArrivingBody<B>) -> Option<Status> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Pending => None,
            Poll::Ready(frame) => Some(frame.expect("it does not end").expect_err("there is no part")),
        }
    }

    #[track_caller]
    fn assert_not_applied(status: &Status, code: Code, said: &str) {
        assert!(status.code() == code && status.message().contains(said), "{status}");
        assert_eq!(outcome::of(status), Outcome::NotApplied);
    }

    #[tokio::test]
    async fn a_request_in_one_piece_takes_nothing() {
        let arriving = arriving();
        let (parts, mut body) = request(&arriving);
        parts.send(first(1000, 1000)).unwrap();
        drop(parts);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), PREFIX_BYTES + 1000);
        assert!(body.frame().await.is_none());
        assert!(body.held == 0 && body.timeout.is_none());
    }

    #[tokio::test]
    async fn a_request_in_parts_takes_what_it_claims_until_it_is_dropped() {
        let arriving = arriving();
        let held = || arriving.small.held_bytes.load(Ordering::Relaxed);
        let (parts, mut body) = request(&arriving);
        assert!(wait(&mut body).is_none());
        assert_eq!(held(), OVERHEAD_BYTES, "its headers have arrived");
        parts.send(first(3000, 1000)).unwrap();
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
            assert_eq!(held(), OVERHEAD_BYTES + PREFIX_BYTES + 3000);
            parts.send(part(1000)).unwrap();
        }
        body.frame().await.unwrap().unwrap();
        parts.send(part(500)).unwrap();
        body.frame().await.unwrap().unwrap();
        assert_eq!(held(), OVERHEAD_BYTES + PREFIX_BYTES + 3500, "more than it claimed has arrived");
        drop(body);
        assert_eq!(held(), 0);
    }

    #[tokio::test]
    async fn a_prefix_may_arrive_byte_by_byte() {
        let arriving = arriving();
        let (parts, mut body) = request(&arriving);
        for byte in [&[0][..], &[0], &[1, 0], &[0, b'v', b'v']] {
            assert_eq!(body.held, 0);
            parts.send(Ok(Frame::data(Bytes::from_static(byte)))).unwrap();
            body.frame().await.unwrap().unwrap();
        }
        assert_eq!(body.held, OVERHEAD_BYTES + PREFIX_BYTES + (1 << 16));
    }

    #[tokio::test]
    async fn what_has_no_room_is_refused_and_the_others_arrive() {
        let arriving = arriving();
        let mut admitted = Vec::new();
        let refused = loop {
            let (parts, mut body) = request(&arriving);
            parts.send(first(1 << 20, 100)).unwrap();
            match body.frame().await.unwrap() {
                Ok(_) => admitted.push((parts, body)),
                Err(status) => break status,
            }
        };
        assert_not_applied(&refused, Code::ResourceExhausted, "retry later");
        assert_eq!(admitted.len(), MAX_LARGE_BYTES / ((1 << 20) + OVERHEAD_BYTES));
        let (_parts, mut health_check) = request(&arriving);
        assert!(wait(&mut health_check).is_none(), "a small request has room");
        assert_eq!(arriving.small.held_bytes.load(Ordering::Relaxed), OVERHEAD_BYTES, "large ones hold nothing there");
        let (parts, mut small) = request(&arriving);
        parts.send(first(1000, 1000)).unwrap();
        assert!(small.frame().await.unwrap().is_ok(), "a request in one piece needs no room");
        let (parts, mut body) = admitted.pop().unwrap();
        parts.send(part((1 << 20) - 100)).unwrap();
        drop(parts);
        while let Some(frame) = body.frame().await {
            frame.unwrap();
        }
        drop(body);
        let (parts, mut body) = request(&arriving);
        parts.send(first(1 << 20, 100)).unwrap();
        assert!(body.frame().await.unwrap().is_ok(), "there is room again");
        assert_eq!((arriving.counters.refused.get(), arriving.counters.late.get()), (1, 0));
    }

    #[tokio::test]
    async fn a_request_is_no_larger_than_its_message_may_be() {
        let arriving = arriving();
        let (parts, mut body) = request(&arriving);
        parts.send(first(10, 10)).unwrap();
        body.frame().await.unwrap().unwrap();
        parts.send(first(MAX_REQUEST_BYTES, MAX_REQUEST_BYTES)).unwrap();
        assert_not_applied(&body.frame().await.unwrap().unwrap_err(), Code::InvalidArgument, "one message");
        // tonic refuses this one when it has read the prefix.
        let (parts, mut body) = request(&arriving);
        parts.send(first(u32::MAX as usize, 10)).unwrap();
        body.frame().await.unwrap().unwrap();
        assert_eq!(body.held, 0);
    }

    #[tokio::test]
    async fn a_request_that_does_not_arrive_in_time_is_ended_however_slowly_its_parts_come() {
        const PARTS: usize = 20;
        let timeout = Duration::from_millis(200);
        let arriving = Arc::new(Arriving { timeout, ..Arriving::new(arriving().counters.clone()) });
        let (silent, mut nothing) = request(&arriving);
        let (parts, mut body) = request(&arriving);
        parts.send(first(1000, 1)).unwrap();
        let slowly = async move {
            for _ in 0..PARTS {
                sleep(timeout / 10).await;
                // The receiver may have given up.
                let _ = parts.send(part(1));
            }
        };
        let receive = async move {
            loop {
                if let Err(status) = body.frame().await.expect("it does not end") {
                    return status;
                }
            }
        };
        let (late, silent_one, ()) = tokio::join!(receive, nothing.frame(), slowly);
        assert_not_applied(&late, Code::Unavailable, "did not arrive completely");
        assert_not_applied(&silent_one.unwrap().unwrap_err(), Code::Unavailable, "did not arrive completely");
        assert_eq!((arriving.counters.refused.get(), arriving.counters.late.get()), (0, 2));
        drop((silent, nothing));
        assert_eq!(arriving.small.held_bytes.load(Ordering::Relaxed), 0);
    }
}
