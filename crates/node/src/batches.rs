//! Items that wait to be sent on a stream, gathered into messages.
//!
//! Items that gather while the stream is busy are sent in one message of up to [`BATCH_BYTES`]. HTTP/2's flow control
//! decides when the next message is polled.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// A message is closed at this size, which it exceeds by at most one item.
pub const BATCH_BYTES: usize = 1 << 20;

/// Bytes that may wait for a stream. Beyond this, [`Batches::has_room`] returns false.
pub const MAX_WAITING_BYTES: usize = 32 << 20;

/// What each item costs in addition to its payload.
pub const ITEM_BYTES: usize = 64;

/// The waiting messages of one stream, oldest first, each with its size.
pub struct Batches<B> {
    waiting: VecDeque<(B, usize)>,
    waiting_bytes: usize,
    waker: Option<Waker>,
}

impl<B> Default for Batches<B> {
    fn default() -> Self {
        Batches { waiting: VecDeque::new(), waiting_bytes: 0, waker: None }
    }
}

impl<B> Batches<B> {
    pub fn has_room(&self) -> bool {
        self.waiting_bytes < MAX_WAITING_BYTES
    }

    /// The message that an item with a payload of this size goes to; `begin` creates one if the last is full.
    pub fn last(&mut self, payload_bytes: usize, begin: impl FnOnce() -> B) -> &mut B {
        if self.waiting.back().is_none_or(|(_, bytes)| *bytes >= BATCH_BYTES) {
            self.waiting.push_back((begin(), 0));
        }
        let (batch, bytes) = self.waiting.back_mut().expect("a batch has been added");
        *bytes += ITEM_BYTES + payload_bytes;
        self.waiting_bytes += ITEM_BYTES + payload_bytes;
        batch
    }

    /// The next message; if there is none, the task will be woken.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<B> {
        match self.waiting.pop_front() {
            Some((batch, bytes)) => {
                self.waiting_bytes -= bytes;
                Poll::Ready(batch)
            }
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The task to wake because a message waits now. Wake it after releasing the lock.
    pub fn take_waker(&mut self) -> Option<Waker> {
        if self.waiting.is_empty() { None } else { self.waker.take() }
    }

    /// Ends the stream. Returns the messages that waited, and the task to wake so that it sees the end.
    pub fn end(&mut self) -> (impl Iterator<Item = B> + use<B>, Option<Waker>) {
        let Batches { waiting, waker, .. } = std::mem::take(self);
        (waiting.into_iter().map(|(batch, _)| batch), waker)
    }
}
