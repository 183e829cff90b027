//! The way to this node's workers: their inboxes, and the boards on which they publish the status of their replicas.

use crate::board::Board;
use crate::events::NoAnswer;
use crate::inbox::{Event, Inbox, Incoming};
use ringfort_core::message::RaftMessage;
use ringfort_core::replica::ReplicaStatus;
use ringfort_core::types::ShardId;
use ringfort_core::worker::worker_of;

/// Invariant: one inbox and one board for each worker, and at least one worker.
pub struct Workers {
    inboxes: Vec<Inbox>,
    boards: Vec<Board<Vec<ReplicaStatus>>>,
}

impl Workers {
    pub fn new(count: usize) -> Workers {
        Workers {
            inboxes: (0..count).map(|_| Inbox::default()).collect(),
            boards: (0..count).map(|_| Board::default()).collect(),
        }
    }

    /// The inbox of a worker, by its number.
    pub fn inbox(&self, worker: usize) -> &Inbox {
        &self.inboxes[worker]
    }

    /// The board of a worker, by its number.
    pub fn board(&self, worker: usize) -> &Board<Vec<ReplicaStatus>> {
        &self.boards[worker]
    }

    /// The inbox of the worker that owns a shard.
    pub fn of(&self, shard: ShardId) -> &Inbox {
        &self.inboxes[worker_of(shard, self.inboxes.len())]
    }

    /// Distributes the requests of one connection, with one push per worker.
    pub fn push_requests(&self, requests: Vec<Incoming>) {
        self.by_worker(requests, |incoming| incoming.request.shard(), |inbox, part| inbox.push_requests(part));
    }

    /// Distributes a peer's messages, with one push per worker. Returns how many bytes of entries were dropped because
    /// there is no room.
    #[must_use = "what is dropped waits for no worker any more"]
    pub fn push_messages(&self, messages: Vec<RaftMessage>) -> u64 {
        let dropped_bytes = self.by_worker(messages, |message| message.shard, |inbox, part| inbox.push_messages(part));
        dropped_bytes.into_iter().sum()
    }

    pub fn push_event_to_all(&self, event: impl Fn() -> Event) {
        self.inboxes.iter().for_each(|inbox| inbox.push_event(event()));
    }

    /// The status of all replicas on this node.
    pub async fn statuses(&self) -> Result<Vec<ReplicaStatus>, NoAnswer> {
        let asked: Vec<_> = self.boards.iter().map(Board::ask).collect();
        self.push_event_to_all(|| Event::Show);
        let mut replicas = Vec::new();
        for shown in asked {
            replicas.extend(shown.await.ok_or(NoAnswer::Worker)?.iter().cloned());
        }
        Ok(replicas)
    }

    fn by_worker<I, R>(
        &self,
        items: Vec<I>,
        shard: impl Fn(&I) -> ShardId,
        push: impl Fn(&Inbox, Vec<I>) -> R,
    ) -> Vec<R> {
        if items.is_empty() {
            return Vec::new();
        }
        let [inbox] = &self.inboxes[..] else {
            let mut parts: Vec<Vec<I>> = self.inboxes.iter().map(|_| Vec::new()).collect();
            for item in items {
                parts[worker_of(shard(&item), self.inboxes.len())].push(item);
            }
            let parts = self.inboxes.iter().zip(parts).filter(|(_, part)| !part.is_empty());
            return parts.map(|(inbox, part)| push(inbox, part)).collect();
        };
        vec![push(inbox, items)]
    }
}
