//! Version vectors (Parker et al., 1983): how much of each node's updates another node has seen.
//!
//! Each node versions its own updates, from 1 on. One number then says how much another node has seen of them, and
//! comparing these numbers shows what one node lacks that another has.

use crate::types::NodeId;
use std::collections::BTreeMap;

/// One incarnation of a node. A new one begins when the node may no longer know all updates of the previous one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// The number of an update of an origin, from 1 on. Zero means none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

impl Version {
    pub fn next(self) -> Version {
        Version(self.0.saturating_add(1))
    }
}

/// The origin of updates: one incarnation of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    pub node: NodeId,
    /// Drawn at random.
    pub incarnation: Incarnation,
}

/// The highest version seen of each origin.
pub type VersionVector = BTreeMap<Origin, Version>;
