//! What a node's threads tell each other, and the mailboxes that they do it through. A worker's events are in
//! [`inbox`](crate::inbox).

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use ringfort_core::control::Testimony;
use ringfort_core::control::progress::Progress;
use ringfort_core::divergence::{Divergence, QuarantineReason};
use ringfort_core::effects::SnapshotWork;
use ringfort_core::eventual::keyspace::{Found, Page};
use ringfort_core::eventual::{WriteError, Written};
use ringfort_core::gossip::status::GossipStatus;
use ringfort_core::health::{HealthView, NodeHealth};
use ringfort_core::liveness::Liveness;
use ringfort_core::log::{BatchNumber, BatchSource, LogBatch};
use ringfort_core::message::{ControlMessage, ShardReport};
use ringfort_core::system::{Member, Topology};
use ringfort_core::time::Moment;
use ringfort_core::types::{NodeId, ReplicaId, ShardId, Term};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The way to a thread. Events are handled in the order in which they are sent; an ended thread takes none.
pub struct Mailbox<E>(Sender<E>);

impl<E> Clone for Mailbox<E> {
    fn clone(&self) -> Mailbox<E> {
        Mailbox(self.0.clone())
    }
}

impl<E> Mailbox<E> {
    pub fn new() -> (Mailbox<E>, Receiver<E>) {
        let (sender, receiver) = unbounded();
        (Mailbox(sender), receiver)
    }

    /// Returns whether the event was taken.
    pub fn send(&self, event: E) -> bool {
        self.0.send(event).is_ok()
    }

    /// Sends the event, or drops it if `most` events wait. Returns whether it was taken.
    pub fn offer(&self, event: E, most: usize) -> bool {
        self.0.len() < most && self.send(event)
    }

    /// Sends a question and waits for the answer.
    pub async fn ask<A>(&self, question: impl FnOnce(oneshot::Sender<A>) -> E) -> Result<A, NoAnswer> {
        let (asked, answer) = oneshot::channel();
        self.send(question(asked));
        answer.await.map_err(|_| NoAnswer::Stopping)
    }
}

/// Why a thread of this node does not tell what it knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("this node is stopping")]
    Stopping,
    #[error("this node's controller does not answer: its disk may hang")]
    Controller,
    #[error("a worker of this node has not published its status yet; retry")]
    Worker,
}

/// For the `control` thread.
pub enum ControlEvent {
    /// The system shard's replica on this node has applied this topology.
    Applied(Arc<Topology>),
    Report(ShardReport),
    Leadership {
        shard: ShardId,
        term: Term,
        leads: bool,
    },
    Lost {
        shard: ShardId,
        replica: ReplicaId,
        why: QuarantineReason,
    },
    Message {
        from: NodeId,
        message: ControlMessage,
    },
    /// The liveness of the other members at this moment, as gossip sees it.
    Liveness(Moment, BTreeMap<NodeId, Liveness>),
    /// The reported health of a node has changed.
    Health(HealthView),
    /// A node has introduced itself with its name and addresses.
    Introduction(Member),
    /// The answer of a node of another cluster that was asked for its members.
    Testimony(Testimony),
    Knowledge(oneshot::Sender<ControlKnowledge>),
    Stop,
}

/// What the controller knows that `status` shows.
pub struct ControlKnowledge {
    /// Replicas on this node that can't be run.
    pub lost: Vec<(ShardId, ReplicaId, QuarantineReason)>,
    /// The progress of moves, if this node leads the system shard.
    pub progress: Option<Progress>,
    /// A silent node is replaced after this time. It is in force only on the leader of the system shard.
    pub replace_after: Duration,
}

/// Where the answer to an eventual write goes.
pub type WriteAnswer = oneshot::Sender<Result<Written, WriteError>>;

/// For the `gossip` thread.
pub enum GossipEvent {
    Message {
        from: NodeId,
        bytes: Bytes,
    },
    Topology(Arc<Topology>),
    /// This node's current health.
    Health(NodeHealth),
    Write {
        key: Bytes,
        /// `None` deletes the key.
        value: Option<Bytes>,
        answer: WriteAnswer,
    },
    Get {
        key: Bytes,
        answer: oneshot::Sender<Option<Found>>,
    },
    Scan {
        prefix: Bytes,
        start_after: Option<Bytes>,
        limit: usize,
        answer: oneshot::Sender<Page>,
    },
    Persisted(BatchNumber),
    LogPressure,
    Status(oneshot::Sender<GossipKnowledge>),
    Stop,
}

/// What is known through gossip, for `status` and the metrics.
pub struct GossipKnowledge {
    pub status: GossipStatus,
    pub rounds: u64,
    pub refused: BTreeMap<&'static str, u64>,
    pub divergences: Vec<Divergence>,
}

/// For the `log` thread.
pub enum LogEvent {
    Batch {
        source: BatchSource,
        batch: LogBatch,
    },
    /// Sent when all workers have ended.
    Stop,
}

/// For the `snapshot` thread.
pub enum SnapshotEvent {
    Work(Box<SnapshotWork>),
    Stop,
}
