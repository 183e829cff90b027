//! What is to be done after a turn: the worker's only output.
//!
//! **Order is a contract.** The shell performs the parts of [`Effects`] in the order of the fields. Messages of a
//! leader may leave before its own batch is durable (Raft thesis, 10.2.1); whatever promises durability is held back
//! inside the worker until [`Worker::handle_persisted`](crate::worker::Worker::handle_persisted), so everything that
//! stands here may be done at once.

use crate::divergence::QuarantineReason;
use crate::kv::state::Machine;
use crate::log::LogBatch;
use crate::message::{RaftMessage, ShardReport};
use crate::request::{Failure, Reply};
use crate::snapshot::SnapshotHeader;
use crate::system::Topology;
use crate::types::{NodeId, ReplicaId, ShardId, Term};
use crate::view::ShardView;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The work that one turn has brought. `T` is the shell's responder for a request.
pub struct Effects<T> {
    /// To be sent, in order for each node. Heartbeats and votes must not queue behind appends:
    /// [`is_urgent`] tells them apart.
    pub messages: BTreeMap<NodeId, Vec<RaftMessage>>,
    /// To be made durable as a whole, after all earlier batches of this worker; then call `handle_persisted` with its
    /// number.
    pub log: Option<LogBatch>,
    /// Work for the thread that reads and writes snapshot files, in order.
    pub snapshots: Vec<SnapshotWork>,
    /// Replicas that have appeared (or disappeared) on this node, for the readers' routing table.
    pub views: Vec<(ShardId, Option<Arc<ShardView>>)>,
    /// The system shard's replica on this node has applied a newer topology.
    pub topology: Option<Arc<Topology>>,
    /// Answers to requests.
    pub replies: Vec<(T, Result<Reply, Failure>)>,
    /// To the node's controller.
    pub reports: Vec<ShardReport>,
    /// Shards whose replica here has become leader of this term (`true`), or ceased to be; to the node's controller.
    pub leadership: Vec<(ShardId, Term, bool)>,
    /// Replicas that had to stop because they can't be trusted; to the node's controller.
    pub lost: Vec<(ShardId, ReplicaId, QuarantineReason)>,
    /// Maps that are not needed any more. To be dropped outside the worker's thread: dropping a large map takes as long
    /// as many requests.
    pub garbage: Vec<Machine>,
    /// For the node's metrics.
    pub counts: Counts,
}

/// How much of what a turn did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Entries that leaders here appended for requests, and the commands in them.
    pub proposed_entries: u64,
    pub proposed_commands: u64,
    /// Entries that replicas here applied, those of leaders elsewhere among them.
    pub applied_entries: u64,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Effects {
            messages: BTreeMap::new(),
            log: None,
            snapshots: Vec::new(),
            views: Vec::new(),
            topology: None,
            replies: Vec::new(),
            reports: Vec::new(),
            leadership: Vec::new(),
            lost: Vec::new(),
            garbage: Vec::new(),
            counts: Counts::default(),
        }
    }
}

/// One thing to do with snapshot files.
#[derive(Debug)]
pub enum SnapshotWork {
    /// Begin the file of a cut; [`Chunk`](SnapshotWork::Chunk)s and [`Finish`](SnapshotWork::Finish) follow.
    Begin {
        shard: ShardId,
        name: String,
        header: SnapshotHeader,
    },
    /// Then `handle_snapshot_chunk_written`: a worker has few chunks under way at a time.
    Chunk {
        shard: ShardId,
        name: String,
        payload: Bytes,
    },
    /// Then `handle_snapshot_written`.
    Finish {
        shard: ShardId,
        name: String,
    },
    Abandon {
        name: String,
    },
    /// Stream `message` and the file to the node of `message.to`; then call `handle_snapshot_sent`. The file stays
    /// until then.
    Send {
        name: String,
        message: RaftMessage,
    },
    Delete {
        name: String,
    },
}

/// Whether a message must reach its node without waiting behind bulk: what keeps or makes a leader.
pub fn is_urgent(message: &RaftMessage) -> bool {
    use raft::eraftpb::MessageType::*;
    !matches!(message.message.get_msg_type(), MsgAppend | MsgAppendResponse | MsgSnapshot)
}
