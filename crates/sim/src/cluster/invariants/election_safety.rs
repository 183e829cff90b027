//! At most one leader per term (Raft paper, figure 3). All of Raft's other properties depend on it.

use super::{Scene, Seen};
use crate::invariant::{Invariant, Violation};
use ringfort_core::types::{NodeId, ShardId, Term};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(ShardId, Term), NodeId>,
}

impl ElectionSafety {
    pub fn check<T>(&mut self, scene: &Scene, seen: &Seen<T>) -> Result<(), Violation> {
        let (shard, term, id) = (seen.shard, seen.position.term, scene.id);
        if !seen.position.is_leader {
            return Ok(());
        }
        let leader = *self.leaders.entry((shard, term)).or_insert(id);
        if leader == id {
            return Ok(());
        }
        let what = format!("nodes {leader} and {id} both lead shard {shard} in term {term}");
        Err(Invariant::ElectionSafety.broken(what))
    }
}
