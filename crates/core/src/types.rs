//! The identifiers of the system, a newtype for each, so that none can be mistaken for another.

pub use ringfort_ring::{NodeId, ShardId};
use std::fmt;

/// A shard's copy, for all time: handed out by the system shard, never reused, not even on the same node.
///
/// It is also the replica's id inside Raft. Zero is no replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId(pub u64);

/// A Raft term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// An index in one shard's Raft log. The first entry has index [`LogIndex::FIRST`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

/// The version of the topology: one more with every change of the system shard's state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// A cluster, drawn at random when it is bootstrapped. Zero is no cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u64);

/// A node's identity: random, synced to its directory before its first contact with a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Identity(pub u128);

impl LogIndex {
    /// Every shard begins as an empty snapshot at this index and at [`Term::FIRST`], so that a replica that knows
    /// nothing can only be started by a snapshot, which carries the configuration; entries alone do not.
    pub const BASE: LogIndex = LogIndex(1);

    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

impl Term {
    /// The term of [`LogIndex::BASE`].
    pub const FIRST: Term = Term(1);
}

macro_rules! shown {
    ($($type:ident $prefix:literal),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
shown!(ReplicaId "r", Term "t", LogIndex "i", Epoch "e");

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
