//! What a node holds beside its maps has bounds, whatever its disk or its followers do: entries, messages that no worker has
//! looked at, batches and parts of snapshots that wait for the disk.
//!
//! The bounds are those of `ringfort_core::limits`, made small for these runs (`cluster/node/running.rs`). Budgets are kept
//! tick by tick, and a burst may come in between: what counts is what stays above them for [`PATIENCE`]. Entries that are
//! not committed do not count, since Raft has a bound of its own for them; those that are not durable count once.

use super::Scene;
use super::lasting::Lasting;
use crate::invariant::{Invariant, Violation};
use ringfort_core::types::NodeId;
use std::time::Duration;

/// For how long a node may hold more.
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
