//! The identifiers of the system, each a newtype, so that none can be mistaken for another.

pub use ringfort_ring::{NodeId, ShardId};
use std::fmt;

/// The id of a shard's copy on a node: handed out by the system shard and never reused, not even on the same node.
///
/// It is also the replica's id inside Raft, and it contains the node that holds the replica, so that no configuration
/// needs a separate table of nodes: the upper 32 bits are the node, the lower ones a number that grows with every
/// replica the cluster creates. Zero stands for no replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId(pub u64);

/// A Raft term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// An index in one shard's Raft log. It begins after [`LogIndex::BASE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

/// The version of the topology: incremented with every change of the system shard's state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// A cluster's id, drawn at random when it is bootstrapped. Zero stands for no cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u64);

/// A node's identity: random, synced to its directory before its first contact with a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Identity(pub u128);

impl ReplicaId {
    /// The replica with this number on `node`.
    ///
    /// # Panics
    /// If the node's id does not fit into 32 bits, which the system shard does not hand out.
    pub fn new(node: NodeId, number: u32) -> ReplicaId {
        assert!(node.0 <= u64::from(u32::MAX), "node id {node} is beyond what the system shard hands out");
        ReplicaId(node.0 << 32 | u64::from(number))
    }

    /// The node that holds this replica.
    pub fn node(self) -> NodeId {
        NodeId(self.0 >> 32)
    }

    /// Of two replicas of one shard on one node, the one with the larger number is the later.
    pub fn number(self) -> u32 {
        self.0 as u32
    }
}

impl LogIndex {
    /// Every shard begins as an empty snapshot at this index and at [`Term::FIRST`], so that an empty replica can be
    /// started only by a snapshot, which carries the configuration; entries alone do not.
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
shown!(Term "t", LogIndex "i", Epoch "e");

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{self}")
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.number())
    }
}

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

/// The hash of a replica's state at an index of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub shard: ShardId,
    pub replica: ReplicaId,
    pub index: LogIndex,
    pub hash: u64,
}
