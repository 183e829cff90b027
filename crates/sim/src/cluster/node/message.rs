//! What travels between simulated endpoints.

use crate::history::OperationId;
use crate::network::Endpoint;
use bytes::Bytes;
use ringfort_core::message::{ControlMessage, RaftMessage};
use ringfort_core::replica::{Failure, Reply};
use ringfort_core::system::{Member, SystemCommand, Topology};
use ringfort_core::time::Stamp;
use ringfort_core::types::NodeId;
use ringfort_core::worker::Request;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What a client is told.
pub type Answer = Result<Reply, Failure>;

#[derive(Clone)]
pub enum Message {
    Raft(Vec<RaftMessage>),
    Control {
        from: NodeId,
        to: NodeId,
        message: ControlMessage,
    },
    /// A whole transfer; it arrives or it does not.
    Snapshot {
        send: u64,
        message: RaftMessage,
        header: Bytes,
        frames: Vec<Bytes>,
    },
    SnapshotReceived {
        send: u64,
        arrived: bool,
    },
    Propose(SystemCommand),
    Join {
        member: Member,
        replace: bool,
        reply_to: NodeId,
    },
    Welcome(Arc<Topology>),
    Request {
        id: OperationId,
        request: Request,
    },
    Answer {
        id: OperationId,
        answer: Answer,
    },
    Gossip {
        from: NodeId,
        bytes: Bytes,
    },
    /// A client's write to the eventual keyspace; without a value it deletes.
    WriteEventually {
        id: usize,
        key: Bytes,
        value: Option<Bytes>,
    },
    WrittenEventually {
        id: usize,
        stamp: Stamp,
        node: NodeId,
    },
}

/// Who waits for the answer to a request.
#[derive(Clone, Copy, Debug)]
pub enum Ticket {
    Client { from: Endpoint, id: OperationId },
    Join { reply_to: NodeId },
    Nobody,
}

impl Message {
    /// A number that tells messages apart well enough for the trace.
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
            Message::Snapshot { send, header, frames, .. } => (send, header, frames).hash(&mut digest),
            Message::Request { id, .. } => id.hash(&mut digest),
            Message::Answer { id, answer } => (id, answer.is_ok()).hash(&mut digest),
            Message::SnapshotReceived { send, arrived } => (send, arrived).hash(&mut digest),
            Message::Join { reply_to, .. } => reply_to.hash(&mut digest),
            Message::Welcome(topology) => topology.epoch.hash(&mut digest),
            Message::Gossip { bytes, .. } => bytes.hash(&mut digest),
            Message::WriteEventually { id, .. } => id.hash(&mut digest),
            Message::WrittenEventually { id, stamp, .. } => (id, stamp.0).hash(&mut digest),
            Message::Control { from, to, .. } => (from, to).hash(&mut digest),
            Message::Propose(_) => {}
        }
        digest.finish()
    }
}
