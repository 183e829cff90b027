//! Why a gossip message, or a part of one, is refused.
//!
//! Members of the cluster are not malicious; refusals are caused by bugs, wrong clocks and stale views. Refused input
//! changes no state and never panics. What was refused because of an unknown node, a gap, or a timestamp too far ahead
//! comes again in a later exchange.

use super::message::MessageError;
use crate::eventual::PartRefusal;
use crate::types::NodeId;
use std::time::Duration;

/// Why a message, or a part of it, is refused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("it can't be read ({0}): run the same version of Ringfort on both nodes")]
    Malformed(#[from] MessageError),
    #[error(
        "it claims to be from node {said} to node {to}, but came on a connection of node {from}: check that no two \
         nodes advertise the same address"
    )]
    Misdelivered { from: NodeId, said: NodeId, to: NodeId },
    #[error("node {0} is no member of the cluster, as far as this node knows")]
    Stranger(NodeId),
    #[error("it has versions of this node (node {0}) that it never wrote: report this, unless its clock was set back")]
    Forged(NodeId),
    #[error("it leaves out versions of node {0} that this node has not seen")]
    Gap(NodeId),
    #[error(
        "a timestamp of node {node} is {} ms ahead of the clock here: correct the clock of one of the two",
        .ahead.as_millis()
    )]
    FromTheFuture { node: NodeId, ahead: Duration },
    #[error("it answers no recent request of this node")]
    Late,
}

impl From<PartRefusal> for Refusal {
    fn from(refusal: PartRefusal) -> Refusal {
        match refusal {
            PartRefusal::Forged(node) => Refusal::Forged(node),
            PartRefusal::Gap(node) => Refusal::Gap(node),
            PartRefusal::FromTheFuture { node, ahead } => Refusal::FromTheFuture { node, ahead },
        }
    }
}

impl Refusal {
    /// The kinds of refusals, for counting.
    pub const KINDS: [&str; 7] = ["malformed", "misdelivered", "stranger", "forged", "gap", "from_the_future", "late"];

    /// Whether the refusal is harmless: this node knew too little, and a later exchange brings the same data again.
    pub fn comes_again(&self) -> bool {
        match self {
            Refusal::Stranger(_) | Refusal::Gap(_) | Refusal::Late => true,
            Refusal::Malformed(_) | Refusal::Misdelivered { .. } | Refusal::Forged(_) => false,
            Refusal::FromTheFuture { .. } => false,
        }
    }

    /// One of [`Refusal::KINDS`].
    pub fn kind(&self) -> &'static str {
        let kind = match self {
            Refusal::Malformed(_) => 0,
            Refusal::Misdelivered { .. } => 1,
            Refusal::Stranger(_) => 2,
            Refusal::Forged(_) => 3,
            Refusal::Gap(_) => 4,
            Refusal::FromTheFuture { .. } => 5,
            Refusal::Late => 6,
        };
        Refusal::KINDS[kind]
    }
}
