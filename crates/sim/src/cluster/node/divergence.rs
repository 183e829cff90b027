//! The divergence detector on a simulated node.

use super::Task;
use super::running::{Input, Outbox, Running, When};
use ringfort_core::divergence::{Event, QuarantineReason};
use ringfort_core::time::Now;
use ringfort_core::types::{ReplicaId, ShardId};
use ringfort_core::view::ShardView;
use std::sync::Arc;

/// Memory is small in the simulator, so at this rate a scrub of all of it takes seconds.
pub const SCRUB_BYTES_PER_SECOND: u64 = 1 << 20;

impl Running {
    pub fn views(&self) -> impl Iterator<Item = &Arc<ShardView>> {
        self.views.values()
    }

    /// What the divergence detector has found on this node or learned from others, in words.
    pub fn alarms(&self) -> &[String] {
        &self.alarms
    }

    /// How many divergences this node currently knows of.
    pub fn divergences(&self) -> usize {
        self.divergence.divergences().count()
    }

    pub(super) fn scrub(&mut self, now: Now, out: &mut Outbox) {
        let shards = self.topology().shards;
        let damaged = self.scrubber.handle_step(now.moment, shards, |shard| self.views.get(&shard).cloned());
        if let Some((shard, replica)) = damaged {
            self.quarantine(shard, replica, QuarantineReason::Memory, out);
        }
        out.tasks.push((When::Local(self.scrubber.next_step()), Task::Scrub));
    }

    pub(super) fn compare(&mut self, out: &mut Outbox) {
        let topology = self.topology().clone();
        let own: Vec<_> = self.views.values().filter_map(|view| view.point()).collect();
        for event in self.divergence.handle_round(&mut self.gossip, &topology, own.into_iter()) {
            match event {
                Event::Alarm(divergence) => self.alarms.push(divergence.to_string()),
                Event::Minority { shard, replica } => self.quarantine(shard, replica, QuarantineReason::Minority, out),
                Event::Over(_) => {}
            }
        }
    }

    fn quarantine(&mut self, shard: ShardId, replica: ReplicaId, why: QuarantineReason, out: &mut Outbox) {
        self.give(shard, Input::Quarantine { shard, replica, why }, out);
    }
}
