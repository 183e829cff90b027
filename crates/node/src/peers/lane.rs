//! One stream to another node: the messages that wait to be sent, and the tasks that wait for answers to forwarded
//! requests.
//!
//! While the node can't be reached nothing is queued, because it would be stale by the time the connection is back:
//! Raft and control messages are dropped, and requests fail at once as never sent.
//!
//! Another node may have taken over the address, and refuses what it receives. So a stream begins with an empty batch,
//! and carries requests only after the right node has confirmed that batch. Otherwise a request that the wrong node
//! refused would count as lost, although it can't have been executed.

use super::Forwarded;
use crate::batches::{Batches, ITEM_BYTES};
use crate::seldom::Seldom;
use bytes::Bytes;
use futures_core::Stream;
use parking_lot::Mutex;
use ringfort_core::request::{Failure, decode_answer};
use ringfort_core::types::{ClusterId, NodeId};
use ringfort_proto::v1::{self, PeerAnswers, PeerBatch};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio::sync::oneshot;

/// Forwarded requests that may wait for their answers; further ones are refused as overload.
const MAX_FORWARDED: usize = 65_536;

static UNREADABLE: Seldom = Seldom::new();

/// - `batches` is empty while `accepts` is false.
/// - `forwarded` holds every request that was queued since the stream was opened and is not answered.
/// - `is_confirmed` is false while `accepts` is false, and once the peer has said that it stops.
struct State {
    batches: Batches<PeerBatch>,
    forwarded: HashMap<u64, oneshot::Sender<Forwarded>>,
    accepts: bool,
    /// The right node has answered on the stream.
    is_confirmed: bool,
    /// The peer has said on the stream that it stops.
    stops: bool,
    /// The current stream's number, so that an abandoned stream is sent nothing more.
    stream: u64,
    /// Set while there is no connection.
    outage: Option<Outage>,
}

/// How long there has been no connection to a node, and why the last attempt failed.
#[derive(Clone, Debug)]
pub struct Outage {
    pub since: Instant,
    pub address: String,
    pub why: String,
}

pub struct Lane {
    from: NodeId,
    to: NodeId,
    cluster: ClusterId,
    state: Mutex<State>,
}

impl Lane {
    /// A lane whose first stream is about to be opened.
    pub fn new(cluster: ClusterId, from: NodeId, to: NodeId) -> Lane {
        let state = State {
            batches: Batches::default(),
            forwarded: HashMap::new(),
            accepts: true,
            is_confirmed: false,
            stops: false,
            stream: 0,
            outage: None,
        };
        Lane { from, to, cluster, state: Mutex::new(state) }
    }

    pub fn send_raft(&self, messages: impl Iterator<Item = v1::RaftMessage>) {
        self.with(|state| {
            for message in messages {
                let bytes: usize = message.entries.iter().map(|entry| ITEM_BYTES + entry.data.len()).sum();
                if state.has_room() {
                    self.last(state, bytes).raft.push(message);
                }
            }
        });
    }

    pub fn send_control(&self, message: Bytes) {
        self.with(|state| {
            if state.has_room() {
                self.last(state, message.len()).control.push(message);
            }
        });
    }

    pub fn send_gossip(&self, message: Bytes) {
        self.with(|state| {
            if state.has_room() {
                self.last(state, message.len()).gossip.push(message);
            }
        });
    }

    /// Queues a request for the peer. If it can't be queued, `answered` is told at once.
    pub fn forward(&self, forward: v1::Forward, answered: oneshot::Sender<Forwarded>) {
        self.with(|state| {
            if !state.is_confirmed {
                let _ = answered.send(Forwarded::NotSent);
            } else if !state.has_room() || state.forwarded.len() >= MAX_FORWARDED {
                let _ = answered.send(Forwarded::Answer(Err(Failure::Overloaded)));
            } else {
                state.forwarded.insert(forward.id, answered);
                self.last(state, forward.request.len()).forwards.push(forward);
            }
        });
    }

    /// The peer has answered requests that were forwarded on this lane's stream.
    pub fn answered(&self, answers: PeerAnswers) {
        for reply in answers.replies {
            let waiting = self.state.lock().forwarded.remove(&reply.id);
            // If there is none, the task has stopped waiting.
            if let Some(waiting) = waiting {
                let answer = decode_answer(&reply.answer).unwrap_or_else(|error| {
                    if let Some(others) = UNREADABLE.due() {
                        tracing::warn!(others, "the answer to a forwarded request can't be read: {error}");
                    }
                    Err(Failure::Unknown)
                });
                let _ = waiting.send(Forwarded::Answer(answer));
            }
        }
    }

    /// The peer stops. It has taken the forwarded requests up to this id, and takes no more.
    pub fn stops_after(&self, last_forward: u64) {
        let mut state = self.state.lock();
        state.is_confirmed = false;
        state.stops = true;
        let not_taken: Vec<_> = state.forwarded.extract_if(|id, _| *id > last_forward).collect();
        drop(state);
        for (_, waiting) in not_taken {
            let _ = waiting.send(Forwarded::NotSent);
        }
    }

    /// The task that waited for the answer has given up.
    pub fn forget(&self, id: u64) {
        self.state.lock().forwarded.remove(&id);
    }

    /// Opens a new stream and returns its source.
    pub fn open(self: &Arc<Lane>) -> Outgoing {
        let mut state = self.state.lock();
        state.stream += 1;
        state.accepts = true;
        state.stops = false;
        self.last(&mut state, 0);
        Outgoing { lane: self.clone(), stream: state.stream }
    }

    /// The right node has answered on the stream.
    pub fn confirmed(&self) {
        let mut state = self.state.lock();
        // The lane may have been closed meanwhile.
        if state.accepts && !state.stops {
            state.is_confirmed = true;
            state.outage = None;
        }
    }

    /// The current outage, if there is no connection.
    pub fn outage(&self) -> Option<Outage> {
        self.state.lock().outage.clone()
    }

    /// The connection to `address` has failed, or could not be made, because of `why`.
    pub fn fail(&self, address: &str, why: &str) {
        let mut state = self.state.lock();
        let since = state.outage.as_ref().map_or_else(Instant::now, |outage| outage.since);
        state.outage = Some(Outage { since, address: address.to_owned(), why: why.to_owned() });
        drop(state);
        self.close();
    }

    /// The stream has ended: requests that still wait were never sent; those that were sent may have arrived.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.stream += 1;
        state.accepts = false;
        state.is_confirmed = false;
        let (unsent, waker) = state.batches.end();
        let mut forwarded = std::mem::take(&mut state.forwarded);
        drop(state);
        for forward in unsent.flat_map(|batch| batch.forwards) {
            if let Some(waiting) = forwarded.remove(&forward.id) {
                let _ = waiting.send(Forwarded::NotSent);
            }
        }
        for (_, waiting) in forwarded {
            let _ = waiting.send(Forwarded::Lost);
        }
        waker.into_iter().for_each(Waker::wake);
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let waker = state.batches.take_waker();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The batch that an item of this size goes to.
    fn last<'a>(&self, state: &'a mut State, bytes: usize) -> &'a mut PeerBatch {
        let (from_node, to_node, cluster_id) = (self.from.0, self.to.0, self.cluster.0);
        state.batches.last(bytes, || PeerBatch { from_node, to_node, cluster_id, ..PeerBatch::default() })
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.accepts && self.batches.has_room()
    }
}

/// The stream of a lane's messages, produced as it is polled.
pub struct Outgoing {
    lane: Arc<Lane>,
    stream: u64,
}

impl Stream for Outgoing {
    type Item = PeerBatch;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<PeerBatch>> {
        let mut state = self.lane.state.lock();
        if state.stream != self.stream {
            return Poll::Ready(None);
        }
        state.batches.poll(context).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::{BATCH_BYTES, MAX_WAITING_BYTES};

    fn lane() -> Arc<Lane> {
        Arc::new(Lane::new(ClusterId(7), NodeId(1), NodeId(2)))
    }

    /// A stream on which the peer has answered.
    fn confirmed(lane: &Arc<Lane>) -> Outgoing {
        let mut outgoing = lane.open();
        let Poll::Ready(Some(first)) = next(&mut outgoing) else { panic!("a stream begins with a batch") };
        assert_eq!(first, PeerBatch { from_node: 1, to_node: 2, cluster_id: 7, ..PeerBatch::default() });
        lane.confirmed();
        outgoing
    }

    fn next(outgoing: &mut Outgoing) -> Poll<Option<PeerBatch>> {
        Pin::new(outgoing).poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn forward(lane: &Lane, id: u64) -> oneshot::Receiver<Forwarded> {
        let (answered, answer) = oneshot::channel();
        lane.forward(v1::Forward { id, ..Default::default() }, answered);
        answer
    }

    #[test]
    fn an_answer_that_cannot_be_read_ends_the_wait_and_leaves_the_outcome_open() {
        let lane = lane();
        let _outgoing = confirmed(&lane);
        for (id, answer, expected) in
            [(1, &b"\x09"[..], Failure::Unknown), (2, b"\x04\x08", Failure::NotUnderstood), (3, b"", Failure::Unknown)]
        {
            let mut waiting = forward(&lane, id);
            let reply = v1::ForwardReply { id, answer: answer.into() };
            lane.answered(PeerAnswers { replies: vec![reply], ..Default::default() });
            let Ok(Forwarded::Answer(Err(failure))) = waiting.try_recv() else { panic!("{answer:?}") };
            assert_eq!(failure, expected, "{answer:?}");
        }
    }

    #[test]
    fn what_gathers_travels_together() {
        let lane = lane();
        let mut outgoing = confirmed(&lane);
        assert!(next(&mut outgoing).is_pending());
        lane.send_control("one".into());
        lane.send_control("two".into());
        let Poll::Ready(Some(batch)) = next(&mut outgoing) else { panic!("a batch waits") };
        assert_eq!((batch.from_node, batch.to_node, batch.cluster_id, batch.control.len()), (1, 2, 7, 2));
        assert!(next(&mut outgoing).is_pending());
    }

    #[test]
    fn batches_are_bounded_and_so_is_what_waits() {
        let lane = lane();
        let mut outgoing = confirmed(&lane);
        let large = Bytes::from(vec![0; BATCH_BYTES]);
        for _ in 0..100 {
            lane.send_control(large.clone());
        }
        let mut batches = 0;
        while let Poll::Ready(Some(batch)) = next(&mut outgoing) {
            assert_eq!(batch.control.len(), 1);
            batches += 1;
        }
        assert_eq!(batches, MAX_WAITING_BYTES / BATCH_BYTES);
    }

    #[test]
    fn a_broken_stream_tells_sent_from_unsent() {
        let lane = lane();
        let mut outgoing = confirmed(&lane);
        let mut sent = forward(&lane, 1);
        assert!(next(&mut outgoing).is_ready());
        let mut unsent = forward(&lane, 2);
        lane.close();
        assert!(matches!(sent.try_recv(), Ok(Forwarded::Lost)));
        assert!(matches!(unsent.try_recv(), Ok(Forwarded::NotSent)));
        assert!(matches!(forward(&lane, 3).try_recv(), Ok(Forwarded::NotSent)));
        assert!(matches!(next(&mut outgoing), Poll::Ready(None)), "the old stream ends");
        let _open = confirmed(&lane);
        assert!(forward(&lane, 4).try_recv().is_err(), "it waits for the new stream");
    }

    #[test]
    fn what_a_stopping_peer_has_not_taken_was_not_sent() {
        let lane = lane();
        let mut outgoing = confirmed(&lane);
        let (mut taken, mut not_taken) = (forward(&lane, 4), forward(&lane, 5));
        assert!(next(&mut outgoing).is_ready());
        lane.stops_after(4);
        assert!(taken.try_recv().is_err(), "it may have been executed");
        assert!(matches!(not_taken.try_recv(), Ok(Forwarded::NotSent)));
        assert!(matches!(forward(&lane, 6).try_recv(), Ok(Forwarded::NotSent)));
        lane.confirmed();
        assert!(matches!(forward(&lane, 7).try_recv(), Ok(Forwarded::NotSent)), "it has still sent an answer");
        lane.close();
        assert!(matches!(taken.try_recv(), Ok(Forwarded::Lost)));
    }

    #[test]
    fn an_outage_lasts_from_the_first_failure_until_the_right_node_answers() {
        let lane = lane();
        assert!(lane.outage().is_none());
        lane.fail("old:1", "refused");
        let first = lane.outage().unwrap();
        let mut connected = lane.open();
        assert!(matches!(forward(&lane, 1).try_recv(), Ok(Forwarded::NotSent)), "who answers there is not known");
        lane.send_control("one".into());
        let Poll::Ready(Some(batch)) = next(&mut connected) else { panic!("a stream begins with a batch") };
        assert_eq!(batch.control.len(), 1, "all else need not wait for the answer");
        lane.fail("new:2", "no answer");
        let later = lane.outage().unwrap();
        assert_eq!((later.since, &*later.address, &*later.why), (first.since, "new:2", "no answer"));
        assert!(matches!(forward(&lane, 2).try_recv(), Ok(Forwarded::NotSent)));
        let _stream = confirmed(&lane);
        assert!(lane.outage().is_none());
        assert!(forward(&lane, 3).try_recv().is_err(), "it is on its way");
    }
}
