//! The identifiers of nodes and shards.

use std::fmt;

/// A node of the cluster. The system shard assigns the id when the node joins, and never reuses it. Zero is no node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

/// A contiguous range of slots, replicated by one Raft group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardId(pub u32);

/// A failure domain of nodes: a rack, a room, a provider's zone. Its number only identifies it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Zone(pub u32);

/// A node, and the zone it is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Site {
    pub node: NodeId,
    pub zone: Zone,
}

impl From<NodeId> for Site {
    /// Puts all nodes into the same zone, which is equivalent to having no zones.
    fn from(node: NodeId) -> Site {
        Site { node, zone: Zone::default() }
    }
}

impl ShardId {
    /// The Raft group that holds the cluster's own state. It owns no slots.
    pub const SYSTEM: ShardId = ShardId(u32::MAX);

    /// What a node's log calls the eventual keyspace. It owns no slots and has no Raft group.
    pub const EVENTUAL: ShardId = ShardId(u32::MAX - 1);
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{self}")
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ShardId::SYSTEM => f.write_str("system"),
            ShardId::EVENTUAL => f.write_str("eventual"),
            ShardId(number) => number.fmt(f),
        }
    }
}
