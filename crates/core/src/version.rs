//! Version vectors (Parker et al., 1983): how much of what each node has said somebody has seen.
//!
//! Each node versions its own updates, from 1 on. What anybody has seen of it is then one number, and what one lacks
//! compared with another is known from these numbers alone.

use crate::types::NodeId;
use std::collections::BTreeMap;

/// One life of a node. A new one begins when the node can't know any more what it said in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// Numbers the updates of an origin, from 1 on. Zero: none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

impl Version {
    pub fn next(self) -> Version {
        Version(self.0.saturating_add(1))
    }
}

/// Where updates come from: one incarnation of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    pub node: NodeId,
    /// Drawn at random.
    pub incarnation: Incarnation,
}

/// The highest version that was seen of each origin.
pub type VersionVector = BTreeMap<Origin, Version>;
