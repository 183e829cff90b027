//! State machine safety (Raft paper, figure 3): replicas that have applied the same index hold the same state, and know
//! the same configuration.
//!
//! The system shard's state is compared by its epoch here; [`super::slot_ownership`] checks that an epoch is one
//! topology.

use super::{KEPT, Scene, Seen};
use crate::invariant::{Invariant, Violation};
use crate::trace::Absorber;
use ringfort_core::types::{LogIndex, NodeId, ReplicaId, ShardId};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

#[derive(Default)]
pub struct StateMachineSafety {
    states: BTreeMap<ShardId, BTreeMap<LogIndex, (State, NodeId)>>,
}

#[derive(Clone, Copy, PartialEq)]
struct State {
    content: u64,
    configurations: u64,
}

impl StateMachineSafety {
    pub fn check<T>(&mut self, scene: &Scene, seen: &Seen<T>) -> Result<(), Violation> {
        let (shard, index) = (seen.shard, seen.position.applied);
        let content = match seen.replica.system() {
            Some(system) => system.topology().epoch.0,
            None => seen.replica.view().machine().hash(),
        };
        // A new replica has no state before its first snapshot.
        if index == LogIndex(0) {
            return Ok(());
        }
        let state = State { content, configurations: digest(seen.replica.configurations()) };
        let states = self.states.entry(shard).or_default();
        let (known, by) = *states.entry(index).or_insert((state, scene.id));
        if known != state {
            let what = if known.content != content { "state" } else { "configuration" };
            let what =
                format!("the {what} of shard {shard} differs at index {index} between nodes {by} and {}", scene.id);
            return Err(Invariant::StateMachineSafety.broken(what));
        }
        if states.len() > KEPT {
            states.pop_first();
        }
        Ok(())
    }
}

/// Raft keeps voters in no order.
fn digest(configurations: &[Vec<ReplicaId>]) -> u64 {
    let mut digest = Absorber::default();
    for voters in configurations {
        let mut voters = voters.clone();
        voters.sort_unstable();
        voters.hash(&mut digest);
    }
    digest.finish()
}
