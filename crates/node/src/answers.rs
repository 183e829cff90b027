//! The answers to requests that another node forwarded, sent back on the stream that brought them.
//!
//! A request and its answer share a stream. So when the stream breaks, the sender knows at once that no answer will
//! come. And an answer can only reach the process that sent the request: after a restart, that node has new streams,
//! although it numbers its requests from 1 again.
//!
//! A node that stops names the last request that it has taken from the stream, as the GOAWAY of HTTP/2 does. Requests
//! that it has not read are then known as not executed.
//!
//! A removed node is told of its removal on its own stream too: this node keeps no other stream to it, and other nodes
//! may not be able to dial it.

use crate::batches::Batches;
use bytes::Bytes;
use futures_core::Stream;
use parking_lot::Mutex;
use ringfort_core::request::{Failure, Reply, encode_answer};
use ringfort_proto::v1::{ForwardReply, PeerAnswers};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tonic::Status;

/// Invariant: no batch waits once the stream has `ended`.
#[derive(Default)]
struct State {
    batches: Batches<PeerAnswers>,
    /// The stream ends when all batches are sent.
    is_finishing: bool,
    /// Set once no more answers are accepted; with the reason, until the other node has been told.
    ended: Option<Option<Status>>,
}

/// The answers of one stream. Shared by the stream's tasks and by all requests that came on it.
#[derive(Default)]
pub struct Answers(Mutex<State>);

impl Answers {
    /// Queues the answer to request `id`. Small answers always fit, since there are no more than the sender has
    /// requests waiting. Only a read has a large answer; if it does not fit, the sender repeats the read.
    pub fn give(&self, id: u64, answer: Result<Reply, Failure>) {
        let is_of_read = matches!(answer, Ok(Reply::Query(_)));
        self.give_encoded(id, is_of_read, || encode_answer(&answer));
    }

    /// An answer is encoded, which copies its values, only if there is room, and not under the lock.
    fn give_encoded(&self, id: u64, is_of_read: bool, encode: impl FnOnce() -> Bytes) {
        let refusal = || encode_answer(&Err(Failure::Overloaded));
        let fits = |state: &State| !is_of_read || state.batches.has_room();
        let state = self.0.lock();
        if state.ended.is_some() {
            return;
        }
        let has_room = fits(&state);
        drop(state);
        let encoded = if has_room { encode() } else { refusal() };
        let mut state = self.0.lock();
        if state.ended.is_some() {
            return;
        }
        // Other answers may have taken the room in the meantime.
        let answer = if !has_room || fits(&state) { encoded } else { refusal() };
        state.batches.last(answer.len(), PeerAnswers::default).replies.push(ForwardReply { id, answer });
        let waker = state.batches.take_waker();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Confirms to the other node that the stream has reached the right node, by sending a message, which is empty
    /// unless answers wait.
    pub fn confirm(&self) {
        let mut state = self.0.lock();
        if state.ended.is_none() {
            state.batches.last(0, PeerAnswers::default);
            let waker = state.batches.take_waker();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Queues a message of the control plane, or drops it.
    pub fn tell(&self, message: Bytes) {
        let mut state = self.0.lock();
        if state.ended.is_none() && state.batches.has_room() {
            state.batches.last(message.len(), PeerAnswers::default).control.push(message);
            let waker = state.batches.take_waker();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether the stream has ended: its answers are no longer awaited.
    pub fn has_ended(&self) -> bool {
        self.0.lock().ended.is_some()
    }

    /// Ends the stream after the answers that wait, because this node stops. `last_forward` is the greatest id of a
    /// request that was taken from it.
    pub fn finish(&self, last_forward: u64) {
        let mut state = self.0.lock();
        if state.ended.is_none() {
            state.batches.last(0, PeerAnswers::default).last_forward = Some(last_forward);
            state.is_finishing = true;
            let waker = state.batches.take_waker();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Ends the stream at once, with a reason to tell the other node, if it needs one.
    pub fn end(&self, reason: Option<Status>) {
        let mut state = self.0.lock();
        state.ended.get_or_insert(reason);
        let (unsent, waker) = state.batches.end();
        drop(state);
        drop(unsent);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The stream's source.
    pub fn outgoing(self: Arc<Answers>) -> Outgoing {
        Outgoing(self)
    }
}

/// The stream of answers. Dropping it ends the stream: the connection is gone.
pub struct Outgoing(Arc<Answers>);

impl Stream for Outgoing {
    type Item = Result<PeerAnswers, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.0.lock();
        if let Some(reason) = &mut state.ended {
            return Poll::Ready(reason.take().map(Err));
        }
        match state.batches.poll(context) {
            Poll::Ready(batch) => Poll::Ready(Some(Ok(batch))),
            Poll::Pending if state.is_finishing => {
                state.ended = Some(None);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::{BATCH_BYTES, MAX_WAITING_BYTES};
    use ringfort_core::kv::{QueryReply, Record};
    use ringfort_core::request::decode_answer;

    fn next(outgoing: &mut Outgoing) -> Poll<Option<Result<PeerAnswers, Status>>> {
        Pin::new(outgoing).poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn read(value_bytes: usize) -> Result<Reply, Failure> {
        let value = vec![0; value_bytes].into();
        let record = Record { value, version: 1, create_revision: 1, modify_revision: 1 };
        Ok(Reply::Query(QueryReply::Get(Some(record))))
    }

    #[test]
    fn answers_that_gather_travel_together_and_large_ones_are_refused_at_the_bound() {
        let answers = Arc::new(Answers::default());
        let mut outgoing = answers.clone().outgoing();
        assert!(next(&mut outgoing).is_pending());
        answers.confirm();
        assert!(matches!(next(&mut outgoing), Poll::Ready(Some(Ok(batch))) if batch == PeerAnswers::default()));
        answers.give(1, Err(Failure::NotApplied));
        answers.give(2, Err(Failure::NotLeader(None)));
        let Poll::Ready(Some(Ok(batch))) = next(&mut outgoing) else { panic!("a batch waits") };
        assert_eq!(batch.replies.iter().map(|reply| reply.id).collect::<Vec<_>>(), [1, 2]);
        answers.tell("a topology".into());
        let Poll::Ready(Some(Ok(batch))) = next(&mut outgoing) else { panic!("a batch waits") };
        assert_eq!(batch.control, ["a topology"]);

        let count = MAX_WAITING_BYTES / BATCH_BYTES + 2;
        (0..count).for_each(|id| answers.give(id as u64, read(BATCH_BYTES)));
        let mut refused = 0;
        while let Poll::Ready(Some(Ok(batch))) = next(&mut outgoing) {
            let is_refusal = |reply: &&ForwardReply| decode_answer(&reply.answer).unwrap() == Err(Failure::Overloaded);
            refused += batch.replies.iter().filter(is_refusal).count();
        }
        assert_eq!(refused, 2, "of {count}");
    }

    #[test]
    fn a_stream_that_finishes_sends_what_waits_and_names_the_last_request() {
        let answers = Arc::new(Answers::default());
        let mut outgoing = answers.clone().outgoing();
        answers.give(7, Err(Failure::NotApplied));
        answers.finish(8);
        let Poll::Ready(Some(Ok(last))) = next(&mut outgoing) else { panic!("a batch waits") };
        assert_eq!((last.replies[0].id, last.last_forward), (7, Some(8)));
        assert!(matches!(next(&mut outgoing), Poll::Ready(None)));
        assert!(answers.has_ended());
    }

    #[test]
    fn an_answer_that_will_not_be_sent_is_not_encoded() {
        let answers = Arc::new(Answers::default());
        let _outgoing = answers.clone().outgoing();
        let encoded = || panic!("it was encoded");
        (0..=MAX_WAITING_BYTES / BATCH_BYTES).for_each(|id| answers.give(id as u64, read(BATCH_BYTES)));
        answers.give_encoded(1000, true, encoded);
        answers.end(None);
        answers.give_encoded(1001, false, encoded);
    }

    #[test]
    fn room_that_was_taken_while_an_answer_was_encoded_is_not_exceeded() {
        let answers = Arc::new(Answers::default());
        let mut outgoing = answers.clone().outgoing();
        answers.give_encoded(1, true, || {
            (0..=MAX_WAITING_BYTES / BATCH_BYTES).for_each(|id| answers.give(1000 + id as u64, read(BATCH_BYTES)));
            encode_answer(&read(BATCH_BYTES))
        });
        let mut replies = Vec::new();
        while let Poll::Ready(Some(Ok(batch))) = next(&mut outgoing) {
            replies.extend(batch.replies);
        }
        let late = replies.iter().find(|reply| reply.id == 1).expect("it is answered");
        assert_eq!(decode_answer(&late.answer).unwrap(), Err(Failure::Overloaded));
    }

    #[test]
    fn the_end_of_a_stream_is_seen_on_both_sides() {
        let answers = Arc::new(Answers::default());
        let mut outgoing = answers.clone().outgoing();
        answers.give(1, Err(Failure::NotApplied));
        answers.end(Some(Status::failed_precondition("another cluster")));
        assert!(matches!(next(&mut outgoing), Poll::Ready(Some(Err(_)))), "the reason is told");
        assert!(matches!(next(&mut outgoing), Poll::Ready(None)), "once");

        let answers = Arc::new(Answers::default());
        drop(answers.clone().outgoing());
        assert!(answers.has_ended());
        answers.give(1, Err(Failure::NotApplied));
        assert!(answers.0.lock().batches.end().0.next().is_none(), "nothing is kept for nobody");
    }
}
