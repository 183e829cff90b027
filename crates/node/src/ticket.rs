//! Who waits for the answer to a request.

use crate::shell::Shell;
use ringfort_core::replica::{Failure, Reply};
use ringfort_core::types::NodeId;
use tokio::sync::oneshot;

/// Given to a worker with a request, and back with the answer.
pub enum Ticket {
    /// A task of this node.
    Task(oneshot::Sender<Result<Reply, Failure>>),
    /// A node that forwarded the request, and its name for it.
    Peer { node: NodeId, id: u64 },
}

impl Ticket {
    /// Gives the answer to whoever waits. Where nobody does any more it is dropped.
    pub fn answer(self, shell: &Shell, answer: Result<Reply, Failure>) {
        match self {
            Ticket::Task(sender) => drop(sender.send(answer)),
            Ticket::Peer { node, id } => shell.peers.reply(node, id, answer),
        }
    }
}
