//! When a tombstone may be collected: when nothing that it deleted can come back.
//!
//! Two things must be true of every member (a node of the topology):
//!
//! 1. It holds the tombstone, durably. So no member keeps or sends what was deleted any more, and no restart brings it
//!    back.
//! 2. It has seen everything that any member had seen when (1) became true. So a message still in flight that carries
//!    the deleted entry, from a member that did not know of the tombstone, covers only versions that each receiver
//!    ignores.
//!
//! Digests show both, because their versions are durable. [`Collector`] first waits for a *floor*, versions that all
//! members have seen and that include a tombstone. It then records the *ceiling*, the highest versions that any of them
//! has seen. When all members have seen the ceiling too, the tombstones up to the floor are collected.
//!
//! The members are those of this node's topology. A member that is not known here may have received the deleted entry,
//! but only from one that knew it; each digest carries the epoch of its sender's topology, and while any sender's epoch
//! is higher than this node's, nothing is collected. A member that has lost its disk starts empty and no longer holds
//! what it held before.
//!
//! (1) assumes that a node that has seen a version holds its entry. That fails if a node loses its log that had a later
//! write which others had refused: see `gossip/repair.rs`. So nothing is collected while a member is known to differ,
//! either.
//!
//! A node that is down therefore keeps all tombstones alive, until it is back or removed.

use super::keyspace::Keyspace;
use crate::mutation::Mutation;
use crate::types::{Epoch, NodeId};
use crate::version::{Incarnation, VersionVector};
use std::collections::BTreeMap;

/// The versions that the members have claimed.
#[derive(Default)]
pub struct Collector {
    claims: BTreeMap<NodeId, Claims>,
    /// Floor and ceiling, until all members are known to have reached the ceiling.
    pending: Option<(VersionVector, VersionVector)>,
    mutation: Mutation,
}

/// What one node has durably seen. It only grows within an incarnation.
struct Claims {
    incarnation: Incarnation,
    epoch: Epoch,
    seen: VersionVector,
}

impl Collector {
    pub fn new(mutation: Mutation) -> Collector {
        Collector { mutation, ..Collector::default() }
    }

    /// Handles the versions that a node's digest claims, in this incarnation and under the topology of this epoch.
    pub fn handle_claim(&mut self, node: NodeId, incarnation: Incarnation, epoch: Epoch, seen: &VersionVector) {
        match self.claims.get_mut(&node) {
            Some(claims) if claims.incarnation > incarnation => {}
            Some(claims) if claims.incarnation == incarnation => {
                claims.epoch = claims.epoch.max(epoch);
                raise(&mut claims.seen, seen);
            }
            _ => drop(self.claims.insert(node, Claims { incarnation, epoch, seen: seen.clone() })),
        }
    }

    /// The versions that `node` has claimed.
    pub fn claimed(&self, node: NodeId) -> Option<&VersionVector> {
        self.claims.get(&node).map(|claims| &claims.seen)
    }

    /// Drops the claims of nodes that are not members.
    pub fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.claims.retain(|node, _| is_member(*node));
    }

    /// Collects the tombstones of `keyspace`, this node's own, that are not needed any more, and returns their number.
    /// `others` are all members but this one, and `epoch` is that of the topology that lists them.
    pub fn collect(&mut self, keyspace: &mut Keyspace, others: impl Iterator<Item = NodeId>, epoch: Epoch) -> usize {
        if keyspace.tombstones() == 0 {
            self.pending = None;
            return 0;
        }
        if self.mutation.is(Mutation::ForgetTombstones) {
            return keyspace.forget_tombstones(&keyspace.all_seen());
        }
        if self.claims.values().any(|claims| claims.epoch > epoch) {
            self.pending = None;
            return 0;
        }
        let own = keyspace.all_seen();
        let claims: Option<Vec<&VersionVector>> =
            others.map(|node| self.claims.get(&node).map(|claims| &claims.seen)).collect();
        let Some(claims) = claims else { return 0 };
        if self.pending.is_none() {
            let mut floor = own.clone();
            let mut ceiling = own.clone();
            for seen in &claims {
                for (origin, version) in &mut floor {
                    *version = (*version).min(seen.get(origin).copied().unwrap_or_default());
                }
                raise(&mut ceiling, seen);
            }
            if !keyspace.has_tombstones(&floor) {
                return 0;
            }
            self.pending = Some((floor, ceiling));
        }
        let Some((_, ceiling)) = &self.pending else { return 0 };
        let has_reached =
            |seen: &VersionVector| ceiling.iter().all(|(origin, version)| seen.get(origin) >= Some(version));
        if !has_reached(&own) || !claims.into_iter().all(has_reached) {
            return 0;
        }
        let (floor, _) = self.pending.take().expect("the ceiling belongs to a floor");
        keyspace.forget_tombstones(&floor)
    }
}

/// Raises each version to that in `other`.
fn raise(seen: &mut VersionVector, other: &VersionVector) {
    for (origin, version) in other {
        let known = seen.entry(*origin).or_default();
        *known = (*known).max(*version);
    }
}

#[cfg(test)]
mod tests {
    use super::super::keyspace::{Entry, Part};
    use super::*;
    use crate::time::HlcTimestamp;
    use crate::version::{Origin, Version};

    const OTHERS: [NodeId; 2] = [NodeId(2), NodeId(3)];

    fn origin(node: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(node) }
    }

    fn with_tombstone() -> Keyspace {
        let mut keyspace = Keyspace::default();
        let tombstone = Entry { version: Version(1), timestamp: HlcTimestamp(1), key: "k".into(), value: None };
        let part = |node, upto, entries| Part { origin: origin(node), after: Version(0), upto: Version(upto), entries };
        keyspace.merge(part(1, 1, vec![tombstone]));
        keyspace.merge(part(2, 4, vec![]));
        keyspace
    }

    fn claim(collector: &mut Collector, node: u64, incarnation: u64, epoch: u64, seen: &[(u64, u64)]) {
        let seen = seen.iter().map(|&(node, version)| (origin(node), Version(version))).collect();
        collector.handle_claim(NodeId(node), Incarnation(incarnation), Epoch(epoch), &seen);
    }

    fn collect(collector: &mut Collector, keyspace: &mut Keyspace) -> usize {
        collector.collect(keyspace, OTHERS.into_iter(), Epoch(7))
    }

    #[test]
    fn a_tombstone_waits_for_every_member_and_for_what_was_under_way() {
        let mut keyspace = with_tombstone();
        let mut collector = Collector::default();
        claim(&mut collector, 2, 1, 7, &[(1, 1), (2, 5)]);
        assert_eq!(collect(&mut collector, &mut keyspace), 0, "node 3 has not been heard");
        claim(&mut collector, 3, 1, 7, &[(2, 5)]);
        assert_eq!(collect(&mut collector, &mut keyspace), 0, "node 3 lacks it");
        claim(&mut collector, 3, 1, 7, &[(1, 1), (2, 3)]);
        assert_eq!(collect(&mut collector, &mut keyspace), 0, "nobody but node 2 has its fifth entry");
        claim(&mut collector, 3, 1, 7, &[(1, 1), (2, 5)]);
        assert_eq!(collect(&mut collector, &mut keyspace), 0, "this node lacks it as well");
        keyspace.merge(Part { origin: origin(2), after: Version(4), upto: Version(5), entries: vec![] });
        assert_eq!(collect(&mut collector, &mut keyspace), 1);
        assert_eq!(keyspace.tombstones(), 0);
    }

    #[test]
    fn a_more_recent_topology_somewhere_and_a_node_that_begins_anew_hold_it_up() {
        let mut keyspace = with_tombstone();
        let mut collector = Collector::default();
        let all = [(1, 1), (2, 4)];
        claim(&mut collector, 2, 1, 8, &all);
        claim(&mut collector, 3, 1, 7, &all);
        assert_eq!(collect(&mut collector, &mut keyspace), 0, "node 2 may know of a member that this one does not");
        claim(&mut collector, 3, 2, 7, &[]);
        assert_eq!(collector.collect(&mut keyspace, OTHERS.into_iter(), Epoch(8)), 0, "node 3 has lost its disk");
        claim(&mut collector, 3, 1, 7, &all);
        assert_eq!(collector.collect(&mut keyspace, OTHERS.into_iter(), Epoch(8)), 0, "that is of before");
        claim(&mut collector, 3, 2, 7, &all);
        assert_eq!(collector.collect(&mut keyspace, OTHERS.into_iter(), Epoch(8)), 1);
    }

    #[test]
    fn a_node_that_is_alone_forgets_at_once() {
        assert_eq!(Collector::default().collect(&mut with_tombstone(), std::iter::empty(), Epoch(1)), 1);
    }
}
