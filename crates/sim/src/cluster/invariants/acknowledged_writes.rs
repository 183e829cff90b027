//! No acknowledged write is lost (docs/guarantees.md, `Put`): a key holds the value that was acknowledged last, or a
//! later one.
//!
//! Linearizability checks what clients read; this checks the contents of every replica, read or not. Revisions, which
//! are unique within a shard, give the order of changes. An absent key has no revision, so there must be a delete that
//! may have come later.

use super::super::client::{decode, key_bytes};
use super::{Node, Running};
use crate::history::{Key, OperationId};
use crate::invariant::{Invariant, Violation};
use ringfort_check::{Content, Value};
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// What the answer to a write says about the key.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    Holds(Content),
    /// The value was appended; the answer does not say to what.
    EndsWith(Value),
    IsAbsent,
}

impl Told {
    fn fits(&self, found: &Content) -> bool {
        match self {
            Told::Holds(content) => found == content,
            Told::EndsWith(value) => found.values().last() == Some(*value),
            Told::IsAbsent => false,
        }
    }
}

#[derive(Default)]
pub struct AcknowledgedWrites {
    /// By revision: what a client was told, and the time of the acknowledgement.
    acknowledged: BTreeMap<Key, BTreeMap<u64, (Told, Moment)>>,
    /// Deletes that may have taken effect and were not acknowledged.
    unsure: BTreeMap<Key, BTreeSet<OperationId>>,
}

impl AcknowledgedWrites {
    /// A client was told this about the key as of this revision.
    pub fn acknowledge(&mut self, key: Key, told: Told, revision: u64, now: Moment) -> Result<(), Violation> {
        match self.acknowledged.entry(key).or_default().insert(revision, (told.clone(), now)) {
            None => Ok(()),
            Some((other, _)) => {
                let what = format!("writes of {other:?} and {told:?} to key {key} both have revision {revision}");
                Err(Invariant::AcknowledgedWrites.broken(what))
            }
        }
    }

    /// A client has sent a delete, which may take effect from now on.
    pub fn may_be_deleted(&mut self, key: Key, by: OperationId) {
        self.unsure.entry(key).or_default().insert(by);
    }

    /// The outcome of the delete is known.
    pub fn is_settled(&mut self, key: Key, by: OperationId) {
        if let Some(unsure) = self.unsure.get_mut(&key) {
            unsure.remove(&by);
        }
    }

    /// Whether the key may be absent after this revision of it.
    pub fn may_be_absent_after(&self, key: Key, revision: u64) -> bool {
        let mut later = self.acknowledged.get(&key).into_iter().flat_map(|writes| writes.range(revision..));
        revision == 0
            || self.unsure.get(&key).is_some_and(|unsure| !unsure.is_empty())
            || later.any(|(_, (told, _))| *told == Told::IsAbsent)
    }

    /// The highest revision of the key that was acknowledged by `moment`.
    pub fn revision_at(&self, key: Key, moment: Moment) -> u64 {
        let writes = self.acknowledged.get(&key).into_iter().flatten();
        writes.filter(|(_, (_, at))| *at <= moment).map(|(revision, _)| *revision).max().unwrap_or_default()
    }

    /// Checks every replica. All must have applied all entries.
    pub fn check(&self, nodes: &BTreeMap<NodeId, Node>) -> Result<(), Violation> {
        let running = || nodes.iter().filter_map(|(id, node)| Some((id, node.running()?)));
        for (&key, writes) in &self.acknowledged {
            let Some((&revision, (told, _))) = writes.last_key_value() else { continue };
            for (id, found) in running().filter_map(|(id, running)| Some((id, find(running, key)?))) {
                let is_kept = match &found {
                    None => self.may_be_absent_after(key, revision),
                    Some((at, found)) => *at > revision || (*at == revision && told.fits(found)),
                };
                if !is_kept {
                    let what = format!(
                        "{told:?} was written to key {key} with revision {revision}, but node {id} holds {found:?} in the \
                         end"
                    );
                    return Err(Invariant::AcknowledgedWrites.broken(what));
                }
            }
        }
        Ok(())
    }
}

/// The revision and content of a key, if it exists. `None` if the node has no replica of its shard.
fn find(running: &Running, key: Key) -> Option<Option<(u64, Content)>> {
    let key = key_bytes(key);
    let view = running.view(running.topology().shards.shard_of_key(&key))?;
    let found = view.machine().get(&key);
    Some(found.map(|record| (record.modify_revision, decode(&record.value))))
}
