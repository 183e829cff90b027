//! The way to this node's workers: their inboxes, and the boards on which they publish the status of their replicas.

use crate::admission::AdmissionState;
use crate::board::Board;
use crate::events::NoAnswer;
use crate::inbox::{Event, Inbox, Incoming};
use ringfort_core::message::RaftMessage;
use ringfort_core::replica::ReplicaStatus;
use ringfort_core::types::ShardId;
use ringfort_core::worker::worker_of;
use std::sync::Arc;

/// Invariant: one inbox and one board for each worker, and at least one worker.
pub struct Workers {
    inboxes: Vec<Inbox>,
    boards: Vec<Board<Vec<ReplicaStatus>>>,
    admission: Arc<AdmissionState>,
}

impl Workers {
    pub fn new(count: usize, admission: Arc<AdmissionState>) -> Workers {
        Workers {
            inboxes: (0..count).map(|_| Inbox::default()).collect(),
            boards: (0..count).map(|_| Board::default()).collect(),
            admission,
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

    /// Distributes a peer's messages, with one push per worker. Drops those for which there is no room.
    pub fn push_messages(&self, messages: impl Iterator<Item = RaftMessage>) {
        let admitted = messages.filter(|message| self.admission.admits(message)).collect();
        let dropped_bytes = self.by_worker(admitted, |message| message.shard, |inbox, part| inbox.push_messages(part));
        self.admission.handled(dropped_bytes.into_iter().sum());
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
