//! Moving a shard never endangers it: a replica that becomes a voter has almost the whole log, so that it does not hold
//! up a quorum that needs it, and the number of voters never falls below both the previous number and the target's
//! (Raft thesis, 4.2.1 and 4.2.3).
//!
//! A configuration is checked when it is first seen, which is when it is first applied: changes are proposed one at a
//! time, each by a leader that has applied the one before, so none is missed.

use super::slot_ownership::SlotOwnership;
use super::{Node, Running, Scene, Seen};
use crate::invariant::{Invariant, Violation};
use ringfort_core::types::{ReplicaId, ShardId};
use std::collections::BTreeMap;

/// How many entries a learner may lack when it is promoted.
const CAUGHT_UP_ENTRIES: u64 = 64;

#[derive(Default)]
pub struct SafeConfigurations {
    known: BTreeMap<ShardId, Known>,
}

/// The latest configuration seen of a shard.
struct Known {
    index: u64,
    voters: Vec<ReplicaId>,
}

impl SafeConfigurations {
    pub fn check<T>(&mut self, scene: &Scene, seen: &Seen<T>, target: &SlotOwnership) -> Result<(), Violation> {
        let (shard, index) = (seen.shard, seen.position.configuration);
        let known = self.known.get(&shard);
        if known.is_some_and(|known| known.index >= index) {
            return Ok(());
        }
        let report = seen.replica.report();
        let before = known.map_or(&[][..], |known| &known.voters);
        let broken = |what| Err(Invariant::SafeConfigurations.broken(what));
        for voter in report.voters.iter().filter(|voter| !before.is_empty() && !before.contains(voter)) {
            let mut all = scene.nodes.values().filter_map(Node::running).flat_map(Running::replicas);
            // A replica whose node is down still has what it had confirmed.
            let Some(promoted) = all.find(|other| other.shard() == shard && other.id() == *voter) else { continue };
            let last = promoted.status().last;
            if last == 0 || last + CAUGHT_UP_ENTRIES + 1 < index {
                return broken(format!("shard {shard} made {voter} a voter at index {index}, when it had {last}"));
            }
        }
        if report.outgoing.is_empty() {
            let least = before.len().min(target.least_target(shard).unwrap_or_default());
            if report.voters.len() < least {
                return broken(format!("shard {shard} was left with the voters {:?} of {before:?}", report.voters));
            }
        }
        self.known.insert(shard, Known { index, voters: report.voters });
        Ok(())
    }
}
