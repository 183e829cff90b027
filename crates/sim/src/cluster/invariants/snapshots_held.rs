//! The file of a snapshot that is being sent exists until the transfer ends. Otherwise a follower whose transfers take
//! longer than the interval between the leader's snapshots never catches up.

use super::Scene;
use crate::invariant::{Invariant, Violation};

pub fn check(scene: &Scene) -> Result<(), Violation> {
    let runs = |(shard, id)| scene.running.replicas().any(|replica| (replica.shard(), replica.id()) == (shard, id));
    // A node that has removed the replica may delete the files.
    match scene.running.gone_snapshots().iter().copied().find(|gone| runs(*gone)) {
        None => Ok(()),
        Some((shard, replica)) => {
            let what = format!("replica {replica} of shard {shard} deleted a snapshot while it was sent");
            Err(Invariant::SnapshotsHeld.broken(what))
        }
    }
}
