//! At any moment, at most one replica of a shard may serve reads by itself (Raft thesis, 6.4.1), judged by each
//! replica's own clock.
//!
//! Only leases that a reader could use count: those of nodes whose process runs, whether or not its workers do. A
//! process that is paused as a whole answers no reads, and its readers check the clock again when it resumes.

use super::{Node, Scene};
use crate::invariant::{Invariant, Violation};
use ringfort_core::types::ShardId;

pub fn check(scene: &Scene, shard: ShardId) -> Result<(), Violation> {
    let serves = |node: &Node| {
        let running = node.running().filter(|_| node.stalled_until <= scene.now);
        let view = running.and_then(|running| running.view(shard));
        view.is_some_and(|view| !view.is_closed() && node.clock.read(scene.now).moment < view.lease_until())
    };
    let Scene { id, nodes, .. } = scene;
    if nodes.get(id).is_some_and(serves)
        && let Some((other, _)) = nodes.iter().find(|(other, node)| *other != id && serves(node))
    {
        let what = format!("nodes {id} and {other} may both serve reads of shard {shard} by themselves");
        return Err(Invariant::LeaseExclusivity.broken(what));
    }
    Ok(())
}
