//! In the end, each node holds for each eventual key (docs/gossip.md)
//!
//! - the acknowledged write with the highest timestamp, or an unanswered one, which may have come later;
//! - never an acknowledged write that is superseded by another acknowledged one. A deleted key that comes back
//!   (*resurrection*) would be such a write; tombstones prevent it.
//!
//! A write that only one node has is lost with that node: writes accepted by a former member may be lost, and supersede
//! others only if they are found.

use super::super::Cluster;
use super::super::eventual::Write;
use crate::invariant::{Invariant, Violation};
use bytes::Bytes;
use std::collections::BTreeMap;

impl Cluster {
    pub(in super::super) fn check_eventual(&self) -> Result<(), Violation> {
        let mut keys: BTreeMap<&Bytes, Vec<&Write>> = BTreeMap::new();
        for write in self.eventual.writes() {
            keys.entry(&write.key).or_default().push(write);
        }
        let Some(topology) = self.topology() else {
            return Err(Invariant::BoundedRecovery.broken("no node knows the topology"));
        };
        let members = &topology.nodes;
        for (id, node) in self.present() {
            let Some(running) = node.running() else { continue };
            for (key, writes) in &keys {
                let found = running.gossip().get(key).map(|found| found.value);
                let is_kept = |write: &&&Write| write.written.is_some_and(|(_, node)| members.contains_key(&node));
                let best = writes.iter().filter(is_kept).max_by_key(|write| write.written);
                let is_best = best.map_or(found.is_none(), |best| best.value == found);
                let least = best.and_then(|best| best.written);
                let may_be_later =
                    |write: &&Write| write.value == found && (write.written.is_none() || write.written > least);
                if !is_best && !writes.iter().any(may_be_later) {
                    let was_deleted = best.is_some_and(|best| best.value.is_none());
                    let best = best.map(|best| (&best.value, best.written));
                    let what = format!("node {id} holds {found:?} of the eventual {key:?} in place of {best:?}");
                    let broken = if was_deleted { Invariant::NoResurrection } else { Invariant::LatestEventualWrite };
                    return Err(broken.broken(what));
                }
            }
        }
        Ok(())
    }
}
