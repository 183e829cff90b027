//! Why a call failed.

use crate::error_kind::ErrorKind;
use crate::execute::ExecuteError;
use ringfort_core::eventual::WriteError;
use ringfort_core::kv::{Invalid, Refusal};

/// Why a call has no answer. The messages are for the caller.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// `leader` is where clients reach the node that refused it, if that is another node.
    #[error("{refusal}")]
    Refused { refusal: Refusal, leader: Option<String> },
    #[error("too many requests are under way on this node; retry later")]
    TooMany,
    #[error("only gets can be stale")]
    NeverStale,
    #[error("the eventual keyspace has no {0}: use another consistency")]
    NotEventual(&'static str),
    #[error(transparent)]
    EventualWrite(#[from] WriteError),
    #[error("the disk of this node is full; free some space there, or ask another node")]
    DiskFull,
    #[error("the disk of this node does not answer; ask another node")]
    DiskHung,
    #[error("the disk of this node did not answer in time")]
    DiskLate,
    #[error("the leader's answer does not fit the request")]
    OtherReply,
    #[error("this node is stopping")]
    Stopping,
    #[error("this node has stopped before the write was synced; the write may or may not be kept")]
    StoppedMeanwhile,
}

impl CallError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            CallError::Execute(error) => kind_of(error),
            CallError::Invalid(_)
            | CallError::NeverStale
            | CallError::NotEventual(_)
            | CallError::EventualWrite(WriteError::TooLarge(_)) => ErrorKind::Invalid,
            CallError::Refused { .. } => ErrorKind::Refused,
            CallError::TooMany
            | CallError::DiskFull
            | CallError::EventualWrite(WriteError::Full | WriteError::Overloaded) => ErrorKind::Overloaded,
            CallError::DiskHung | CallError::Stopping => ErrorKind::Unavailable,
            CallError::DiskLate | CallError::StoppedMeanwhile | CallError::OtherReply => ErrorKind::Unknown,
        }
    }

    /// The address at which clients reach the leader, if that is another node and its address is known.
    pub fn leader(&self) -> Option<&str> {
        match self {
            CallError::Execute(ExecuteError::Unreachable { leader, .. }) | CallError::Refused { leader, .. } => {
                leader.as_deref()
            }
            _ => None,
        }
    }
}

fn kind_of(error: &ExecuteError) -> ErrorKind {
    match error {
        ExecuteError::Invalid(_) => ErrorKind::Invalid,
        ExecuteError::NoLeader { .. }
        | ExecuteError::TooManyWaits { .. }
        | ExecuteError::NotUnderstood { .. }
        | ExecuteError::DiskHung
        | ExecuteError::Unreachable { .. } => ErrorKind::Unavailable,
        ExecuteError::Overloaded { .. }
        | ExecuteError::TooManyScans
        | ExecuteError::MemoryFull { .. }
        | ExecuteError::DiskFull { .. } => ErrorKind::Overloaded,
        ExecuteError::Unanswered { .. } | ExecuteError::Unknown { .. } => ErrorKind::Unknown,
    }
}
