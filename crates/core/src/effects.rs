//! The effects of a turn: the worker's only output.
//!
//! **Order is a contract.** The shell performs the parts of [`Effects`] in the order of the fields. A leader's messages
//! may be sent before its own batch is durable (Raft thesis, 10.2.1). Messages that promise durability are held back
//! inside the worker until [`Worker::handle_persisted`](crate::worker::Worker::handle_persisted), so all effects may be
//! performed at once.

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

/// The effects of one turn. `T` is the shell's responder for a request.
pub struct Effects<T> {
    /// Messages to send, in order for each node. Heartbeats and votes must not queue behind appends: [`is_urgent`]
    /// tells them apart.
    pub messages: BTreeMap<NodeId, Vec<RaftMessage>>,
    /// The batch to make durable as a whole, after all earlier batches of this worker; then call `handle_persisted`
    /// with its number.
    pub log: Option<LogBatch>,
    /// Work for the thread that reads and writes snapshot files, in order.
    pub snapshots: Vec<SnapshotWork>,
    /// Replicas that have appeared (or disappeared) on this node, for the readers' routing table.
    pub views: Vec<(ShardId, Option<Arc<ShardView>>)>,
    /// The system shard's replica on this node has applied a newer topology.
    pub topology: Option<Arc<Topology>>,
    /// Answers to requests.
    pub replies: Vec<(T, Result<Reply, Failure>)>,
    /// Reports for the node's controller.
    pub reports: Vec<ShardReport>,
    /// Shards whose replica here has become leader of this term (`true`), or ceased to be; to the node's controller.
    pub leadership: Vec<(ShardId, Term, bool)>,
    /// Replicas that had to stop because they can't be trusted; to the node's controller.
    pub lost: Vec<(ShardId, ReplicaId, QuarantineReason)>,
    /// Maps that are no longer needed. Drop them outside the worker's thread: dropping a large map takes as long as
    /// many requests.
    pub garbage: Vec<Machine>,
    /// Counts for the node's metrics.
    pub counts: Counts,
}

/// What a turn did, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Entries that leaders here appended for requests, and the commands in them.
    pub proposed_entries: u64,
    pub proposed_commands: u64,
    /// Entries that replicas here applied, including those of leaders elsewhere.
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

/// One piece of work on snapshot files.
#[derive(Debug)]
pub enum SnapshotWork {
    /// Begin the file of a cut; [`Chunk`](SnapshotWork::Chunk)s and [`Finish`](SnapshotWork::Finish) follow.
    Begin {
        shard: ShardId,
        name: String,
        header: SnapshotHeader,
    },
    /// Append a chunk; then call `handle_snapshot_chunk_written`. A worker has few chunks in progress at a time.
    Chunk {
        shard: ShardId,
        name: String,
        payload: Bytes,
    },
    /// Finish the file; then call `handle_snapshot_written`.
    Finish {
        shard: ShardId,
        name: String,
    },
    Abandon {
        name: String,
    },
    /// Stream `message` and the file to the node of `message.to`; then call `handle_snapshot_sent`. The file is kept
    /// until then.
    Send {
        name: String,
        message: RaftMessage,
    },
    Delete {
        name: String,
    },
}

/// Whether a message must not wait behind bulk data, because it keeps or elects a leader.
pub fn is_urgent(message: &RaftMessage) -> bool {
    use raft::eraftpb::MessageType::*;
    !matches!(message.message.get_msg_type(), MsgAppend | MsgAppendResponse | MsgSnapshot)
}
