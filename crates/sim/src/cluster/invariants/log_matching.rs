//! Log matching (Raft paper, figure 3): if two logs have an entry of the same index and term, they are identical up to
//! it.
//!
//! Each entry is checked when it is first seen to be durable in a log: its content and the term of the entry before it
//! must equal those of the same index and term in any log before. By induction over the index, the logs are then
//! identical up to it. (Entries that are not durable are not checked: a sole voter leads before its vote is durable,
//! and may lead the same term again after a crash, with entries that no other node has received.) This costs one hash
//! of each entry on each replica, since the part of a log that was checked is not read again.

use super::{KEPT, Scene, Seen};
use crate::invariant::{Invariant, Violation};
use crate::trace::Absorber;
use ringfort_core::types::{NodeId, ReplicaId, ShardId};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

#[derive(Default)]
pub struct LogMatching {
    entries: BTreeMap<ShardId, BTreeMap<(u64, u64), Entry>>,
    /// The terms of the entries that were checked in each log, by index.
    checked: BTreeMap<(ShardId, ReplicaId), BTreeMap<u64, u64>>,
}

/// The entry of some index and term, as it was first seen.
struct Entry {
    digest: u64,
    /// The term of the entry before it; `None` if that had left the log.
    term_before: Option<u64>,
    seen_at: NodeId,
}

impl LogMatching {
    pub fn check<T>(&mut self, scene: &Scene, seen: &Seen<T>) -> Result<(), Violation> {
        let (shard, log) = (seen.shard, seen.replica.log());
        let checked = self.checked.entry((shard, seen.replica.id())).or_default();
        let entries = self.entries.entry(shard).or_default();
        let last = seen.position.durable.0.min(log.last());
        if checked.last_key_value().is_some_and(|(index, _)| *index > last) {
            checked.split_off(&(last + 1));
        }
        for entry in log.in_memory().rev().skip_while(|entry| entry.index > last) {
            if checked.insert(entry.index, entry.term) == Some(entry.term) {
                break;
            }
            let mut digest = Absorber::default();
            (&entry.data[..], &entry.context[..]).hash(&mut digest);
            let (digest, term_before) = (digest.finish(), log.term_at(entry.index - 1));
            let first = Entry { digest, term_before, seen_at: scene.id };
            let known = entries.entry((entry.index, entry.term)).or_insert(first);
            let differs = known.term_before.is_some() && term_before.is_some() && known.term_before != term_before;
            if known.digest != digest || differs {
                let what = format!(
                    "entry {} of term {} of shard {shard} differs between nodes {} and {}, or what is before it",
                    entry.index, entry.term, known.seen_at, scene.id
                );
                return Err(Invariant::LogMatching.broken(what));
            }
        }
        while checked.len() > KEPT {
            checked.pop_first();
        }
        while entries.len() > KEPT {
            entries.pop_first();
        }
        Ok(())
    }
}
