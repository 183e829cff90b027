//! Without faults the cluster recovers in bounded time: every present node runs and knows the same topology, which has
//! exactly these nodes; and every shard's replicas run where the topology places them, and have caught up.
//!
//! The bound is one that an operator would accept, not a measured one: it leaves room for the longest election, for the
//! replacement of a silent node, and for moves that wait for each other.

use super::super::Cluster;
use super::{Node, Running};
use crate::invariant::{Invariant, Violation};
use ringfort_core::types::{ReplicaId, ShardId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Simulated time within which a cluster without faults must have recovered ...
pub const RECOVERY: Duration = Duration::from_secs(60);

/// ... or this many of its election timeouts, if that is longer.
const RECOVERY_ELECTIONS: u32 = 60;

impl Cluster {
    /// Lets time pass until `is_over`; more than [`RECOVERY`] is a violation.
    pub(in super::super) fn must_recover(
        &mut self,
        is_over: impl FnMut(&mut Cluster) -> bool,
        otherwise: &str,
    ) -> Result<(), Violation> {
        let patience = RECOVERY.max(RECOVERY_ELECTIONS * self.options.timing.election_timeout());
        self.run_until(patience, Invariant::BoundedRecovery, is_over, otherwise)
    }

    pub(in super::super) fn is_settled(&mut self) -> bool {
        let Some(topology) = self.topology() else { return false };
        let knows = |node: &Node| node.running().is_some_and(|running| running.topology().epoch == topology.epoch);
        let present = self.present().count();
        if topology.nodes.len() != present || !topology.member_states.is_empty() || topology.paused {
            return false;
        }
        if !self.present().all(|(_, node)| knows(node)) {
            return false;
        }
        let running = || self.nodes.values().filter_map(Node::running);
        let replicas = running().flat_map(Running::replicas).map(|replica| (replica.shard(), replica.id()));
        let runs: BTreeSet<(ShardId, ReplicaId)> = replicas.collect();
        topology.groups.iter().all(|(shard, group)| {
            let mut target = group.target_replicas();
            target.sort_unstable();
            target.len() >= present.min(3)
                && group.replicas.len() == target.len()
                && target.iter().all(|replica| runs.contains(&(*shard, *replica)))
                && running().any(|running| {
                    running.report(*shard).is_some_and(|report| {
                        report.voters == target
                            && report.learners.is_empty()
                            && report.outgoing.is_empty()
                            && report.caught_up.len() == target.len()
                    })
                })
        })
    }
}
