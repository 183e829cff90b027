//! Messages between simulated endpoints.

use super::snapshots::Part;
use crate::history::OperationId;
use crate::network::Endpoint;
use bytes::Bytes;
use ringfort_core::message::{ControlMessage, RaftMessage};
use ringfort_core::request::{Failure, Reply, Request};
use ringfort_core::system::{Member, SystemCommand, Topology};
use ringfort_core::time::HlcTimestamp;
use ringfort_core::types::NodeId;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The answer to a client.
pub type Answer = Result<Reply, Failure>;

#[derive(Clone)]
pub enum Message {
    Raft(Vec<RaftMessage>),
    Control {
        from: NodeId,
        to: NodeId,
        message: ControlMessage,
    },
    /// A part of a transfer, the first one with Raft's message.
    Snapshot {
        id: CallId,
        number: u32,
        message: Option<RaftMessage>,
        part: Part,
    },
    SnapshotReceived {
        id: CallId,
        arrived: bool,
    },
    Propose(SystemCommand),
    /// A call on a connection of the process that asks. Only the same process may handle the answer, not one that was
    /// restarted.
    Join {
        life: u64,
        member: Member,
        replace: bool,
    },
    Welcome {
        life: u64,
        topology: Arc<Topology>,
    },
    Request {
        id: OperationId,
        request: Request,
        /// How long the client waits for the answer.
        patience: Duration,
    },
    Answer {
        id: OperationId,
        answer: Answer,
    },
    /// A client's request, for the node that leads the shard.
    Forward {
        id: CallId,
        request: Request,
    },
    ForwardReply {
        id: CallId,
        answer: Answer,
    },
    Gossip {
        from: NodeId,
        bytes: Bytes,
    },
    /// A client's write to the eventual keyspace; without a value it is a delete.
    WriteEventually {
        id: usize,
        key: Bytes,
        value: Option<Bytes>,
    },
    WrittenEventually {
        id: usize,
        timestamp: HlcTimestamp,
        node: NodeId,
    },
}

/// Identifies a request from one node to another, uniquely across restarts: a restarted node counts from one again,
/// while answers to its former process may be under way. In the shell, each process has its own connections instead,
/// and an answer comes back on the connection that brought the request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId {
    pub life: u64,
    pub number: u64,
}

/// How a message travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// It may be delayed, lost, duplicated and reordered.
    Datagram,
    /// It may be delayed, lost and reordered, but is never duplicated.
    Call,
    /// It stays in order, may be delayed, and is lost only if the link is cut.
    Stream,
}

/// The receiver of a worker's answer to a request.
#[derive(Clone, Copy, Debug)]
pub enum Responder {
    /// An attempt by this node, by its number.
    Own(u64),
    Peer {
        from: Endpoint,
        id: CallId,
    },
    Nobody,
}

impl Message {
    /// The transport of the message. Raft and gossip must tolerate all faults, even those that the real transport would
    /// hide.
    pub fn transport(&self) -> Transport {
        match self {
            Message::Forward { .. } | Message::ForwardReply { .. } => Transport::Call,
            Message::Snapshot { .. } => Transport::Stream,
            _ => Transport::Datagram,
        }
    }

    /// A number that distinguishes messages well enough for the trace.
    pub fn digest(&self) -> u64 {
        let mut digest = crate::trace::Absorber::default();
        std::mem::discriminant(self).hash(&mut digest);
        match self {
            Message::Raft(messages) => {
                for RaftMessage { shard, from, to, message } in messages {
                    (shard, from, to, message.msg_type as i32, message.term, message.index, message.commit)
                        .hash(&mut digest);
                    (message.reject, message.entries.len()).hash(&mut digest);
                }
            }
            Message::Snapshot { id, number, part, .. } => (id, number, part).hash(&mut digest),
            Message::Request { id, .. } => id.hash(&mut digest),
            Message::Answer { id, answer } => (id, answer.is_ok()).hash(&mut digest),
            Message::Forward { id, .. } => id.hash(&mut digest),
            Message::ForwardReply { id, answer } => (id, answer.is_ok()).hash(&mut digest),
            Message::SnapshotReceived { id, arrived } => (id, arrived).hash(&mut digest),
            Message::Join { life, .. } => life.hash(&mut digest),
            Message::Welcome { life, topology } => (life, topology.epoch).hash(&mut digest),
            Message::Gossip { bytes, .. } => bytes.hash(&mut digest),
            Message::WriteEventually { id, .. } => id.hash(&mut digest),
            Message::WrittenEventually { id, timestamp, .. } => (id, timestamp.0).hash(&mut digest),
            Message::Control { from, to, .. } => (from, to).hash(&mut digest),
            Message::Propose(_) => {}
        }
        digest.finish()
    }
}
