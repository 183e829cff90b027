//! What must hold of shards' configurations and of topologies.
//!
//! | invariant | why |
//! |---|---|
//! | one topology an epoch | whoever acts on an epoch acts alike: a slot has one owner |
//! | whoever becomes a voter has the log almost to its end | a quorum of voters can go on without it |
//! | voters are never fewer than they were, or than are wanted | a move adds before it removes |
//!
//! A configuration is judged when it is first seen, which is where it is first applied: changes are proposed one at a
//! time, each by a leader that has applied the one before, so none is missed.

use super::node::{Node, Running};
use crate::trace::Absorber;
use ringfort_core::replica::Replica;
use ringfort_core::types::{Epoch, NodeId, ReplicaId, ShardId};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// As many entries a learner may lack where it is promoted.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// A step may have been decided on a topology that is so many epochs old.
const EPOCHS_KEPT: usize = 30;

#[derive(Default)]
pub(super) struct Configurations {
    /// Digests of topologies, and how many replicas of each shard they want.
    topologies: BTreeMap<Epoch, (u64, BTreeMap<ShardId, usize>)>,
    /// The epoch of each node that was checked last.
    checked: BTreeMap<NodeId, Epoch>,
    known: BTreeMap<ShardId, Known>,
}

/// The latest configuration that was seen of a shard.
struct Known {
    index: u64,
    voters: Vec<ReplicaId>,
}

impl Configurations {
    pub fn check(&mut self, running: &Running, nodes: &BTreeMap<NodeId, Node>) -> Result<(), String> {
        self.check_topology(running)?;
        for replica in running.replicas() {
            let index = replica.position().configuration;
            if self.known.get(&replica.shard()).is_none_or(|known| known.index < index) {
                self.check_configuration(replica, nodes)?;
            }
        }
        Ok(())
    }

    fn check_topology(&mut self, running: &Running) -> Result<(), String> {
        let (id, epoch) = (running.id(), running.topology().epoch);
        if self.checked.insert(id, epoch) == Some(epoch) {
            return Ok(());
        }
        let topology = running.topology();
        let oldest = self.topologies.first_key_value().map(|(epoch, _)| *epoch);
        if oldest.is_some_and(|oldest| epoch < oldest) {
            return Ok(());
        }
        let mut digest = Absorber::default();
        topology.encode().hash(&mut digest);
        let wanted = || topology.groups.iter().map(|(&shard, group)| (shard, group.wanted.len())).collect();
        let (known, _) = self.topologies.entry(epoch).or_insert_with(|| (digest.finish(), wanted()));
        if *known != digest.finish() {
            return Err(format!("there are two topologies of epoch {epoch}"));
        }
        if self.topologies.len() > EPOCHS_KEPT {
            self.topologies.pop_first();
        }
        Ok(())
    }

    fn check_configuration<T>(&mut self, replica: &Replica<T>, nodes: &BTreeMap<NodeId, Node>) -> Result<(), String> {
        let (shard, report) = (replica.shard(), replica.report());
        let index = report.configuration;
        let before = self.known.get(&shard).map_or(&[][..], |known| &known.voters);
        for voter in report.voters.iter().filter(|voter| !before.is_empty() && !before.contains(voter)) {
            let mut all = nodes.values().filter_map(Node::running).flat_map(Running::replicas);
            // One whose node is down has what it had confirmed.
            let Some(promoted) = all.find(|other| other.shard() == shard && other.id() == *voter) else { continue };
            let last = promoted.status().last;
            if last == 0 || last + CAUGHT_UP_ENTRIES + 1 < index {
                return Err(format!("shard {shard} made {voter} a voter at index {index}, when it had {last}"));
            }
        }
        if report.outgoing.is_empty() {
            let wanted = self.topologies.values().filter_map(|(_, wanted)| wanted.get(&shard)).min();
            let least = before.len().min(wanted.copied().unwrap_or_default());
            if report.voters.len() < least {
                return Err(format!("shard {shard} was left with the voters {:?} of {before:?}", report.voters));
            }
        }
        self.known.insert(shard, Known { index, voters: report.voters });
        Ok(())
    }
}
