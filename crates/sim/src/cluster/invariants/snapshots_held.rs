//! A snapshot that is being sent is there until it has arrived. Otherwise a follower whose transfers take longer than the
//! leader's snapshots last never catches up.

use super::Scene;
use crate::invariant::{Invariant, Violation};

pub fn check(scene: &Scene) -> Result<(), Violation> {
    let runs = |(shard, id)| scene.running.replicas().any(|replica| (replica.shard(), replica.id()) == (shard, id));
    // Whoever has removed its replica may delete the files.
    match scene.running.gone_snapshots().iter().copied().find(|gone| runs(*gone)) {
        None => Ok(()),
        Some((shard, replica)) => {
            let what = format!("replica {replica} of shard {shard} deleted a snapshot while it was sent");
            Err(Invariant::SnapshotsHeld.broken(what))
        }
    }
}
