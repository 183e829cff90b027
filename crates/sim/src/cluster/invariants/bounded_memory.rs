//! What a node keeps in memory has bounds, whatever followers lack: the entries that could leave, the messages that wait for
//! a worker, the snapshots that it sends.
//!
//! Entries that are not applied or not durable yet are not counted: they can't leave, and a disk that hangs holds them for as
//! long as it hangs. What could leave does so with the next tick of its worker; so a worker may be over the bound for
//! some ticks, not for longer.

use super::super::node::ENTRY_BUDGET_BYTES;
use super::super::{Cluster, Wake};
use crate::invariant::{Invariant, Violation};
use ringfort_core::limits::MAX_SNAPSHOTS_SENT;
use ringfort_core::types::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often nodes are looked at: every other tick.
const LOOK: Duration = Duration::from_millis(100);

/// A worker that is over a bound at so many looks in a row breaks it.
const MOST_LOOKS: u32 = 5;

/// Entries in messages that wait for a worker: what leaders send while it stands still.
const QUEUED_BYTES: usize = 2 << 20;

/// What a worker may apply between two ticks where nothing stands still.
const TICK_BYTES: usize = ENTRY_BUDGET_BYTES;

/// At how many looks in a row a worker was over a bound.
#[derive(Default)]
pub struct BoundedMemory {
    over: BTreeMap<(NodeId, usize), u32>,
}

impl Cluster {
    pub(in super::super) fn check_memory(&mut self) -> Result<(), Violation> {
        if !self.faults.is_active() {
            return Ok(());
        }
        self.agenda.put(self.now + LOOK, Wake::CheckMemory);
        let faults = &self.options.faults;
        let stands_still = faults.stalls.is_some() || faults.worker_stalls.is_some() || faults.bridges.is_some();
        let since_tick = if stands_still { QUEUED_BYTES } else { TICK_BYTES };
        for (&id, node) in &self.nodes {
            for (worker, held) in node.running().into_iter().flat_map(|running| running.memory()).enumerate() {
                let bounds = [
                    ("bytes of entries that could leave", held.entry_bytes, ENTRY_BUDGET_BYTES + since_tick),
                    ("bytes of entries in messages", held.queued_bytes, QUEUED_BYTES),
                    ("snapshots that are sent", held.transfers, MAX_SNAPSHOTS_SENT),
                ];
                let Some((what, held, bound)) = bounds.into_iter().find(|(_, held, bound)| held > bound) else {
                    self.invariants.bounded_memory.over.remove(&(id, worker));
                    continue;
                };
                let looks = self.invariants.bounded_memory.over.entry((id, worker)).or_default();
                *looks += 1;
                if *looks == MOST_LOOKS {
                    let what = format!("worker {worker} of node {id} holds {held} {what}, and {bound} is the bound");
                    return Err(Invariant::BoundedMemory.broken(what));
                }
            }
        }
        Ok(())
    }
}
