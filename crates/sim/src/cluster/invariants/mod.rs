//! The checks of all invariants. [`Invariant`] lists the invariants with their sources.
//!
//! Each invariant has a file here. Invariants on replicas are checked after every turn of a node, comparing that node
//! with everything seen on the others; invariants on answers, when a client gets one; the rest when the faults are
//! over.

mod acknowledged_writes;
mod bounded_memory;
mod bounded_recovery;
mod bounded_staleness;
mod durable_log;
mod election_safety;
mod gossip_convergence;
mod hung_disk_leads_nothing;
mod lasting;
mod leader_completeness;
mod lease_exclusivity;
mod log_matching;
mod no_false_alarm;
mod no_resurrection;
mod safe_configurations;
mod session_monotonicity;
mod slot_ownership;
mod snapshots_held;
mod state_machine_safety;

pub(super) use acknowledged_writes::{AcknowledgedWrites, Told};
pub(super) use gossip_convergence::{CATCH_UP, REST};
pub(super) use session_monotonicity::SessionMonotonicity;

use super::node::{Message, Node, Running};
use crate::invariant::{Invariant, Violation};
use crate::network::Network;
use ringfort_core::replica::{Position, Replica};
use ringfort_core::time::Moment;
use ringfort_core::types::{NodeId, ShardId};
use std::collections::{BTreeMap, BTreeSet};

/// How many of a shard's latest entries and states are kept for comparison.
const KEPT: usize = 20_000;

/// The node that has just run a turn, and the other nodes.
struct Scene<'a> {
    now: Moment,
    id: NodeId,
    running: &'a Running,
    nodes: &'a BTreeMap<NodeId, Node>,
    network: &'a Network<Message>,
}

/// One replica on that node.
struct Seen<'a, T> {
    shard: ShardId,
    position: Position,
    replica: &'a Replica<T>,
}

#[derive(Default)]
pub(super) struct Invariants {
    election_safety: election_safety::ElectionSafety,
    log_matching: log_matching::LogMatching,
    leader_completeness: leader_completeness::LeaderCompleteness,
    state_machine_safety: state_machine_safety::StateMachineSafety,
    slot_ownership: slot_ownership::SlotOwnership,
    safe_configurations: safe_configurations::SafeConfigurations,
    durable_log: durable_log::DurableLog,
    hung_disk_leads_nothing: hung_disk_leads_nothing::HungDiskLeadsNothing,
    bounded_memory: bounded_memory::BoundedMemory,
    ignored: BTreeSet<Invariant>,
    /// Set if the run is meant to make replicas diverge or to damage memory.
    pub expects_divergence: bool,
}

impl Invariants {
    pub fn new(ignored: BTreeSet<Invariant>) -> Invariants {
        Invariants { ignored, ..Invariants::default() }
    }

    /// Passes a violation on, unless its invariant is ignored.
    pub fn judge(&self, checked: Result<(), Violation>) -> Result<(), Violation> {
        match checked {
            Err(violation) if self.ignored.contains(&violation.invariant) => Ok(()),
            checked => checked,
        }
    }

    /// Checks the node `id` after its turn against all others.
    pub fn check(
        &mut self,
        now: Moment,
        id: NodeId,
        nodes: &BTreeMap<NodeId, Node>,
        network: &Network<Message>,
    ) -> Result<(), Violation> {
        let Some(node) = nodes.get(&id) else { return Ok(()) };
        let Some(running) = node.running() else { return Ok(()) };
        let scene = Scene { now, id, running, nodes, network };
        let owned = self.slot_ownership.check(&scene);
        self.judge(owned)?;
        self.judge(snapshots_held::check(&scene))?;
        let bounded = self.bounded_memory.check(&scene);
        self.judge(bounded)?;
        if !self.expects_divergence {
            self.judge(no_false_alarm::check(&scene))?;
        }
        for replica in running.replicas() {
            let seen = Seen { shard: replica.shard(), position: replica.position(), replica };
            let checked = [
                self.election_safety.check(&scene, &seen),
                self.log_matching.check(&scene, &seen),
                self.leader_completeness.check(&scene, &seen),
                match self.expects_divergence {
                    true => Ok(()),
                    false => self.state_machine_safety.check(&scene, &seen),
                },
                self.durable_log.check(node.incarnation, &scene, &seen),
                self.safe_configurations.check(&scene, &seen, &self.slot_ownership),
                lease_exclusivity::check(&scene, seen.shard),
                self.hung_disk_leads_nothing.check(&scene, &seen),
            ];
            checked.into_iter().try_for_each(|checked| self.judge(checked))?;
        }
        Ok(())
    }

    /// A node has lost synced data in a way that leaves no trace: its log is no longer checked.
    pub fn excuse(&mut self, id: NodeId) {
        self.durable_log.excuse(id);
    }

    /// In the end, the incrementally maintained hash must equal the hash of the map on every replica.
    pub fn check_hashes(&self, nodes: &BTreeMap<NodeId, Node>) -> Result<(), Violation> {
        for (id, node) in nodes {
            for replica in node.running().into_iter().flat_map(|running| running.replicas()) {
                let machine = replica.view().machine();
                if machine.hash() != machine.recomputed_hash() {
                    let what = format!("the hash of shard {} on node {id} is not that of its map", replica.shard());
                    return Err(Invariant::StateMachineSafety.broken(what));
                }
            }
        }
        Ok(())
    }
}
