//! The messages between nodes, as values; the shell encodes them for the wire.

use crate::system::{Addresses, Topology};
use crate::types::{Epoch, NodeId, ReplicaId, ShardId, Term};
use raft::eraftpb::Message;
use std::sync::Arc;

/// A message of one Raft group. The replicas' ids name the nodes too. A receiver that does not hold exactly the
/// replica `to` drops it.
#[derive(Clone, Debug, PartialEq)]
pub struct RaftMessage {
    pub shard: ShardId,
    pub from: ReplicaId,
    pub to: ReplicaId,
    pub message: Message,
}

impl RaftMessage {
    /// The bytes of its entries.
    pub fn entry_bytes(&self) -> u64 {
        self.message.entries.iter().map(|entry| entry.data.len() as u64).sum()
    }
}

/// A message between the nodes' [`Control`](crate::control::Control)s. Any of them may be lost, and is repeated.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlMessage {
    Announcement(Announcement),
    /// A newer topology than the receiver has announced.
    Topology(Arc<Topology>),
    /// From a shard's leader to the system shard's.
    Report(ShardReport),
    /// From the system shard's leader to a shard's.
    Step(StepRequest),
}

/// What each node periodically announces to every other node.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The epoch of the latest topology that the sender has.
    pub epoch: Epoch,
    /// The shards that it leads, and in which term.
    pub leads: Vec<(ShardId, Term)>,
    /// The sender's present addresses. The topology may not have them yet.
    pub addresses: Addresses,
}

/// A shard's membership, as its leader has applied it.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardReport {
    pub shard: ShardId,
    pub leader: ReplicaId,
    pub term: Term,
    /// Identifies the configuration: the index of the last configuration change that the leader has applied.
    pub configuration: u64,
    pub voters: Vec<ReplicaId>,
    /// The voters of the configuration that is being left; empty unless joint.
    pub outgoing: Vec<ReplicaId>,
    pub learners: Vec<ReplicaId>,
    /// The replicas that answer and have the log almost to its end.
    pub caught_up: Vec<ReplicaId>,
    /// Voters that know durably that this configuration is committed.
    pub confirmed: Vec<ReplicaId>,
    /// The bytes that a new replica would receive, rounded up to a power of two so that a report does not change with
    /// every write.
    pub copied_bytes: u64,
}

/// What the controller asks of a shard's leader.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRequest {
    pub shard: ShardId,
    pub leader: ReplicaId,
    pub term: Term,
    /// The configuration for which the step was decided; the step is refused if there has been another one since.
    pub configuration: u64,
    pub step: Step,
}

/// One step of a move.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    AddLearner(ReplicaId),
    /// Promotes learners and removes members, in one joint change if there is more than one.
    Change {
        promote: Vec<ReplicaId>,
        remove: Vec<ReplicaId>,
    },
    TransferLeadership(ReplicaId),
}

impl RaftMessage {
    pub fn to_node(&self) -> NodeId {
        self.to.node()
    }
}
