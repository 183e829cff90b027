//! A node whose disk hangs leads no shard that a quorum could serve without it. Heartbeats do not wait for the disk, so
//! only the node itself would end its leadership.
//!
//! A quorum counts if its nodes run, exchange messages with the leader in both directions, report healthy disks, and
//! have everything that the leader has committed: if all share one disk, giving leadership away does not help, and data
//! that only the leader has must not be lost. All of this must hold for [`PATIENCE`] without a break.

use super::lasting::Lasting;
use super::{Node, Scene, Seen};
use crate::invariant::{Invariant, Violation};
use crate::network::Endpoint;
use ringfort_core::health::DiskState;
use ringfort_core::types::{NodeId, ReplicaId, ShardId};
use std::time::Duration;

/// The node notices after 0.8 s, or ten times what a sync takes, asks for proof, and hands over.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct HungDiskLeadsNothing {
    leading: Lasting<(NodeId, ShardId)>,
}

impl HungDiskLeadsNothing {
    pub fn check<T>(&mut self, scene: &Scene, seen: &Seen<T>) -> Result<(), Violation> {
        let leads = scene.running.has_sync_that_hangs() && seen.position.is_leader && has_healthy_quorum(scene, seen);
        if self.leading.look((scene.id, seen.shard), leads, scene.now) < PATIENCE {
            return Ok(());
        }
        let what = format!("node {} leads shard {} though its disk has hung for {PATIENCE:?}", scene.id, seen.shard);
        Err(Invariant::HungDiskLeadsNothing.broken(what))
    }
}

/// Whether every active configuration has a quorum without the leader that could serve the shard.
fn has_healthy_quorum<T>(scene: &Scene, seen: &Seen<T>) -> bool {
    let could_serve = |voter: &ReplicaId| {
        *voter != seen.replica.id() && scene.nodes.iter().any(|(&at, node)| runs_well(scene, at, node, seen, *voter))
    };
    let configurations = seen.replica.configurations();
    configurations.iter().all(|voters| voters.iter().filter(|voter| could_serve(voter)).count() > voters.len() / 2)
}

/// Whether the node `at` has this voter of the shard and is healthy.
fn runs_well<T>(scene: &Scene, at: NodeId, node: &Node, seen: &Seen<T>, voter: ReplicaId) -> bool {
    let (own, other) = (Endpoint::Node(scene.id), Endpoint::Node(at));
    let stands_still = node.stalled_until.max(node.workers_stalled_until) > scene.now;
    let Some(running) = node.running().filter(|_| !stands_still) else { return false };
    let hear_each_other = !scene.network.is_cut(own, other) && !scene.network.is_cut(other, own);
    let is_healthy = !running.is_disk_hung() && running.said().disk == DiskState::Healthy;
    let has_log = || {
        let replica = running.replicas().find(|replica| (replica.shard(), replica.id()) == (seen.shard, voter));
        replica.is_some_and(|replica| replica.log().last() >= seen.position.committed.0)
    };
    hear_each_other && is_healthy && has_log()
}
