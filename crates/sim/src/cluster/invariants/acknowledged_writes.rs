//! No acknowledged write is lost (docs/guarantees.md, `Put`): a key holds what was acknowledged last, or something that
//! came after it.
//!
//! Linearizability says it of what clients read; this says it of what is there, on every replica, read or not. What comes
//! after what is told by revisions: a shard's put gets one that no other has.

use super::super::client::{decode, key_bytes};
use super::{Node, Running};
use crate::history::{Key, Value};
use crate::invariant::{Invariant, Violation};
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct AcknowledgedWrites {
    /// By revision, the value and when it was acknowledged.
    acknowledged: BTreeMap<Key, BTreeMap<u64, (Value, Moment)>>,
}

impl AcknowledgedWrites {
    /// A client was told that `value` was put with this revision.
    pub fn acknowledge(&mut self, key: Key, value: Value, revision: u64, now: Moment) -> Result<(), Violation> {
        match self.acknowledged.entry(key).or_default().insert(revision, (value, now)) {
            None => Ok(()),
            Some((other, _)) => {
                let what = format!("puts of {other} and {value} to key {key} both have revision {revision}");
                Err(Invariant::AcknowledgedWrites.broken(what))
            }
        }
    }

    /// The highest revision of the key that was acknowledged by `moment`.
    pub fn revision_at(&self, key: Key, moment: Moment) -> u64 {
        let puts = self.acknowledged.get(&key).into_iter().flatten();
        puts.filter(|(_, (_, at))| *at <= moment).map(|(revision, _)| *revision).max().unwrap_or_default()
    }

    /// Each replica must hold it, when all have applied everything.
    pub fn check(&self, nodes: &BTreeMap<NodeId, Node>) -> Result<(), Violation> {
        let running = || nodes.iter().filter_map(|(id, node)| Some((id, node.running()?)));
        for (&key, puts) in &self.acknowledged {
            let Some((&revision, (value, _))) = puts.last_key_value() else { continue };
            for (id, found) in running().filter_map(|(id, running)| Some((id, find(running, key)?))) {
                if found.is_none_or(|found| found != (revision, *value) && found.0 <= revision) {
                    let what = format!(
                        "{value} was put to key {key} with revision {revision}, but node {id} holds {found:?} in the end"
                    );
                    return Err(Invariant::AcknowledgedWrites.broken(what));
                }
            }
        }
        Ok(())
    }
}

/// The revision and value of a key, if it is there, on a node that has a replica of its shard.
fn find(running: &Running, key: Key) -> Option<Option<(u64, Value)>> {
    let key = key_bytes(key);
    let view = running.view(running.topology().shards.shard_of_key(&key))?;
    let found = view.machine().get(&key);
    Some(found.map(|record| (record.modify_revision, decode(&record.value))))
}
