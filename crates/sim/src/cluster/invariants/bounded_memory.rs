//! A node's memory besides its maps is bounded, whatever its disk or its followers do. It holds entries, messages that
//! no worker has handled, and batches and parts of snapshots that wait for the disk.
//!
//! The bounds are those of `ringfort_core::limits`, made small for these runs (`cluster/node/running.rs`). Budgets are
//! enforced once a tick, and a burst may exceed them in between, so a violation is an excess that lasts for
//! [`PATIENCE`]. Uncommitted entries do not count, since Raft bounds them separately; entries that are not durable
//! count once.

use super::Scene;
use super::lasting::Lasting;
use crate::invariant::{Invariant, Violation};
use ringfort_core::types::NodeId;
use std::time::Duration;

/// For how long a node may exceed the bound.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct BoundedMemory {
    exceeding: Lasting<NodeId>,
}

impl BoundedMemory {
    pub fn check(&mut self, scene: &Scene) -> Result<(), Violation> {
        let (held, bound) = (scene.running.held(), scene.running.may_hold_bytes());
        if self.exceeding.look(scene.id, held.total() > bound, scene.now) < PATIENCE {
            return Ok(());
        }
        let what =
            format!("node {} has held too much for {PATIENCE:?}: {held:?}, where {bound} bytes are allowed", scene.id);
        Err(Invariant::BoundedMemory.broken(what))
    }
}
