//! After a restart, a replica still has what it had synced, or it does not start: the log distinguishes a torn write,
//! which was never acknowledged, from damage to synced data (`core/src/log`, "Torn or corrupt"). More exactly, its log
//! is at least as up to date as before, as Raft compares logs: a later leader's entries may have replaced those from
//! right before the crash.
//!
//! Only a disk that has lost its last synced write without a trace is excused ([`DurableLog::excuse`]).

use super::{Scene, Seen};
use crate::invariant::{Invariant, Violation};
use ringfort_core::types::{NodeId, ReplicaId, ShardId};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct DurableLog {
    known: BTreeMap<(NodeId, ShardId), Known>,
}

/// The last observed state of a replica.
struct Known {
    incarnation: u64,
    replica: ReplicaId,
    index: u64,
    term: u64,
}

impl DurableLog {
    pub fn check<T>(&mut self, incarnation: u64, scene: &Scene, seen: &Seen<T>) -> Result<(), Violation> {
        let (shard, replica, log) = (seen.shard, seen.replica.id(), seen.replica.log());
        if let Some(known) = self.known.get(&(scene.id, shard))
            && (known.incarnation != incarnation && known.replica == replica)
            && log.term_at(log.last()).is_none_or(|last_term| (last_term, log.last()) < (known.term, known.index))
        {
            let what = format!(
                "node {} had entry {} of term {} of shard {shard} on its disk, and has a log that ends at {} after a \
                 restart",
                scene.id,
                known.index,
                known.term,
                log.last()
            );
            return Err(Invariant::DurableLog.broken(what));
        }
        let index = seen.position.durable.0.min(log.last());
        if let Some(term) = log.term_at(index) {
            self.known.insert((scene.id, shard), Known { incarnation, replica, index, term });
        }
        Ok(())
    }

    pub fn excuse(&mut self, id: NodeId) {
        self.known.retain(|(node, _), _| *node != id);
    }
}
