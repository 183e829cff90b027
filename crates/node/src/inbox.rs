//! A worker's inbox: each turn takes everything that has arrived since the last one, up to a bound.
//!
//! It consists of a lock, three lists and a condition variable. A turn of the worker swaps the lists for empty ones. A
//! push is one short critical section and wakes the worker once, even if it adds a whole pipeline or a peer's whole
//! batch.
//!
//! What happens at the bounds differs by kind. Requests are refused before anything has happened to them. Raft messages
//! are dropped, because Raft repeats them. Events (a batch is durable, a file is written, a topology is new) are never
//! lost and need no bound: either the worker itself started the operation, or they are rare.

use crate::responder::Responder;
use parking_lot::{Condvar, Mutex};
use ringfort_core::divergence::QuarantineReason;
use ringfort_core::health::HealthView;
use ringfort_core::log::BatchNumber;
use ringfort_core::message::{RaftMessage, StepRequest};
use ringfort_core::replica::Restored;
use ringfort_core::request::{Failure, Request};
use ringfort_core::stopping::Unfinished;
use ringfort_core::system::Topology;
use ringfort_core::types::{NodeId, ReplicaId, ShardId};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

/// Requests that may wait for a worker; further ones are refused as overload.
pub const MAX_WAITING_REQUESTS: usize = 65_536;

/// Bytes of keys and values that may wait for a worker; further requests are refused as overload.
pub const MAX_WAITING_REQUEST_BYTES: u64 = 64 << 20;

/// Raft messages that may wait for a worker; further ones are dropped, and Raft sends them again.
pub const MAX_WAITING_MESSAGES: usize = 65_536;

/// Bytes of entries in these messages; further messages are dropped.
pub const MAX_WAITING_MESSAGE_BYTES: u64 = 64 << 20;

/// The most bytes of entries in the messages that one turn takes, and the most bytes of keys and values in its
/// requests; it takes at least one of each. The rest waits for the next turn. A turn is bounded because it becomes one
/// batch of the log, and a batch is never split.
pub const DRAIN_BYTES: u64 = 1 << 20;

/// One request on its way to a worker.
pub struct Incoming {
    pub request: Request,
    pub responder: Responder,
}

impl Incoming {
    fn size_bytes(&self) -> u64 {
        self.request.size_bytes() as u64
    }
}

/// An event for a worker. Events are never dropped.
pub enum Event {
    Persisted(BatchNumber),
    /// The reported health of a node has changed.
    Health(HealthView),
    Topology(Arc<Topology>),
    /// A topology that could not be saved yet: the worker only removes the replicas that it retires.
    Retirements(Arc<Topology>),
    Step(StepRequest),
    Unreachable(NodeId),
    ChunkWritten(ShardId),
    SnapshotWritten {
        shard: ShardId,
        name: String,
        written: bool,
    },
    SnapshotSent {
        shard: ShardId,
        to: ReplicaId,
        arrived: bool,
    },
    Snapshot {
        message: RaftMessage,
        name: String,
        restored: Box<Restored>,
    },
    LogPressure(ShardId),
    Quarantine {
        shard: ShardId,
        replica: ReplicaId,
        why: QuarantineReason,
    },
    /// Hand over leadership where possible; the answer is what the worker still has to do.
    HandOver(mpsc::Sender<Unfinished>),
    /// A reader has asked the worker's board for its status, and the next tick may be a second away.
    Show,
    Stop,
}

/// Everything that has arrived, by kind.
#[derive(Default)]
pub struct Drained {
    pub events: Vec<Event>,
    pub messages: Vec<RaftMessage>,
    pub requests: Vec<Incoming>,
}

#[derive(Default)]
struct Waiting {
    drained: Drained,
    message_bytes: u64,
    request_bytes: u64,
    is_parked: bool,
    has_ended: bool,
}

#[derive(Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Inbox {
    /// Adds requests, and refuses those that exceed the bounds, or all if the worker has ended.
    pub fn push_requests(&self, requests: impl IntoIterator<Item = Incoming>) {
        let mut refused = Vec::new();
        self.push(|waiting| {
            for incoming in requests {
                let bytes = incoming.size_bytes();
                let is_full = waiting.drained.requests.len() >= MAX_WAITING_REQUESTS
                    || waiting.request_bytes + bytes > MAX_WAITING_REQUEST_BYTES;
                if waiting.has_ended {
                    refused.push((incoming.responder, Failure::NotApplied));
                } else if is_full {
                    refused.push((incoming.responder, Failure::Overloaded));
                } else {
                    waiting.request_bytes += bytes;
                    waiting.drained.requests.push(incoming);
                }
            }
        });
        for (responder, failure) in refused {
            responder.answer(Err(failure));
        }
    }

    /// The worker has ended: refuses the requests that wait, and all that come later. Another node may execute them.
    pub fn end(&self) {
        let mut waiting = self.waiting.lock();
        waiting.has_ended = true;
        let refused = std::mem::take(&mut waiting.drained.requests);
        drop(waiting);
        for incoming in refused {
            incoming.responder.answer(Err(Failure::NotApplied));
        }
    }

    /// Adds messages from peers, and drops those that exceed the bounds. Returns how many bytes of entries were
    /// dropped.
    #[must_use = "what is dropped waits for no worker any more"]
    pub fn push_messages(&self, messages: impl IntoIterator<Item = RaftMessage>) -> u64 {
        let mut dropped_bytes = 0;
        self.push(|waiting| {
            for message in messages {
                let bytes = message.entry_bytes();
                let is_full = waiting.drained.messages.len() >= MAX_WAITING_MESSAGES
                    || waiting.message_bytes + bytes > MAX_WAITING_MESSAGE_BYTES;
                if is_full {
                    dropped_bytes += bytes;
                } else {
                    waiting.message_bytes += bytes;
                    waiting.drained.messages.push(message);
                }
            }
        });
        dropped_bytes
    }

    pub fn push_event(&self, event: Event) {
        self.push(|waiting| waiting.drained.events.push(event));
    }

    fn push(&self, add: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.lock();
        add(&mut waiting);
        let wake = std::mem::take(&mut waiting.is_parked);
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Swaps what has arrived, up to [`DRAIN_BYTES`], for the empty lists of `drained`. If nothing has arrived, waits
    /// for up to `patience`.
    pub fn drain(&self, drained: &mut Drained, patience: Duration) {
        let mut waiting = self.waiting.lock();
        if is_empty(&waiting.drained) && !patience.is_zero() {
            waiting.is_parked = true;
            self.arrived.wait_for(&mut waiting, patience);
            waiting.is_parked = false;
        }
        std::mem::swap(&mut waiting.drained, drained);
        let Waiting { drained: rest, message_bytes, request_bytes, .. } = &mut *waiting;
        *message_bytes = put_back(&mut drained.messages, &mut rest.messages, *message_bytes, RaftMessage::entry_bytes);
        *request_bytes = put_back(&mut drained.requests, &mut rest.requests, *request_bytes, Incoming::size_bytes);
    }
}

/// Moves what exceeds [`DRAIN_BYTES`] from `taken`, which holds `bytes`, to `rest`. Returns the bytes in `rest`.
fn put_back<T>(taken: &mut Vec<T>, rest: &mut Vec<T>, bytes: u64, size: impl Fn(&T) -> u64) -> u64 {
    if bytes <= DRAIN_BYTES {
        return 0;
    }
    let mut sum = 0;
    let fits = |item: &&T| {
        sum += size(item);
        sum <= DRAIN_BYTES
    };
    let count = taken.iter().take_while(fits).count().max(1);
    rest.extend(taken.drain(count..));
    rest.iter().map(size).sum()
}

fn is_empty(drained: &Drained) -> bool {
    drained.events.is_empty() && drained.messages.is_empty() && drained.requests.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::AdmissionState;
    use bytes::Bytes;
    use raft::eraftpb::{Entry, Message};
    use ringfort_core::kv::Put;
    use ringfort_core::limits::MAX_VALUE_BYTES;
    use ringfort_ring::ShardCount;

    /// The largest value: one turn can't take two of them.
    const LARGEST: u64 = MAX_VALUE_BYTES as u64;

    fn put(value_bytes: u64) -> Incoming {
        awaited_put(value_bytes).0
    }

    /// A put, and the failure with which it is answered.
    fn awaited_put(value_bytes: u64) -> (Incoming, impl FnMut() -> Option<Failure>) {
        let put = Put { key: "k".into(), value: Bytes::from(vec![0; value_bytes as usize]) };
        let (sender, mut answer) = tokio::sync::oneshot::channel();
        let request = Request::command(ShardCount::MAX, put).unwrap();
        (Incoming { request, responder: Responder::Task(sender) }, move || answer.try_recv().ok()?.err())
    }

    #[test]
    fn requests_beyond_the_bounds_are_refused_and_events_never() {
        let inbox = Inbox::default();
        let fitting = MAX_WAITING_REQUEST_BYTES / LARGEST - 1;
        inbox.push_requests((0..fitting).map(|_| put(LARGEST)));
        let ((large, mut large_failure), (small, mut small_failure)) = (awaited_put(LARGEST), awaited_put(10));
        inbox.push_requests([large, small]);
        assert_eq!((large_failure(), small_failure()), (Some(Failure::Overloaded), None));
        inbox.push_event(Event::Stop);
        let mut drained = Drained::default();
        inbox.drain(&mut drained, Duration::ZERO);
        assert_eq!((drained.requests.len(), drained.events.len()), (1, 1));
        let (large, mut large_failure) = awaited_put(LARGEST);
        inbox.push_requests([large]);
        assert_eq!(large_failure(), None, "a drain makes room");
    }

    #[test]
    fn nothing_waits_for_a_worker_that_has_ended() {
        let inbox = Inbox::default();
        let ((before, mut failure_before), (after, mut failure_after)) = (awaited_put(1), awaited_put(1));
        inbox.push_requests([before]);
        inbox.end();
        inbox.push_requests([after]);
        assert_eq!((failure_before(), failure_after()), (Some(Failure::NotApplied), Some(Failure::NotApplied)));
    }

    #[test]
    fn entries_of_messages_that_are_dropped_do_not_wait_for_a_worker() {
        let (inbox, admission) = (Inbox::default(), AdmissionState::default());
        let message = |entry_bytes: usize| {
            let entry = Entry { data: vec![0; entry_bytes].into(), ..Entry::default() };
            RaftMessage {
                shard: ShardId(0),
                from: ReplicaId(1),
                to: ReplicaId(2),
                message: Message { entries: vec![entry].into(), ..Message::default() },
            }
        };
        for entry_bytes in std::iter::repeat_n(1, MAX_WAITING_MESSAGES).chain([1 << 20]) {
            let message = message(entry_bytes);
            assert!(admission.admits(&message));
            admission.handled(inbox.push_messages([message]));
        }
        let mut drained = Drained::default();
        inbox.drain(&mut drained, Duration::ZERO);
        assert_eq!(drained.messages.len(), MAX_WAITING_MESSAGES);
        admission.handled(drained.messages.iter().map(RaftMessage::entry_bytes).sum());
        assert_eq!(admission.inbox_bytes(), 0);
    }

    #[test]
    fn what_came_in_at_once_is_drained_in_parts_and_in_order() {
        let inbox = Inbox::default();
        let sizes = [DRAIN_BYTES / 2, DRAIN_BYTES / 4, LARGEST, 1, DRAIN_BYTES / 2];
        inbox.push_requests(sizes.map(put));
        let mut drained = Drained::default();
        let parts = [&sizes[..2], &sizes[2..3], &sizes[3..]];
        for part in parts {
            inbox.drain(&mut drained, Duration::ZERO);
            let sizes: Vec<u64> = drained.requests.drain(..).map(|incoming| incoming.size_bytes()).collect();
            assert_eq!(sizes, part.iter().map(|&size| put(size).size_bytes()).collect::<Vec<_>>());
        }
        inbox.drain(&mut drained, Duration::ZERO);
        assert!(is_empty(&drained));
        assert_eq!(inbox.waiting.lock().request_bytes, 0);
    }

    #[test]
    fn a_push_wakes_the_worker() {
        let inbox = Inbox::default();
        std::thread::scope(|scope| {
            scope.spawn(|| inbox.push_event(Event::Persisted(BatchNumber(1))));
            let mut drained = Drained::default();
            while drained.events.is_empty() {
                inbox.drain(&mut drained, Duration::from_secs(10));
            }
        });
    }
}
