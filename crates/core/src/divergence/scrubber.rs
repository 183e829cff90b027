//! The order and the pace in which a node's maps are scrubbed.
//!
//! Shards are scrubbed one after the other, in steps of [`STEP_BYTES`] that are spread evenly over time. A step holds
//! the read side of a map's lock for some fifty microseconds, which delays no reader, and a writer less than another
//! batch does. A step counts in full even if there was little to scrub, so that a node with little data does not spin.

use crate::kv::state::Scrubbed;
use crate::time::Moment;
use crate::types::{ReplicaId, ShardId};
use crate::view::ShardView;
use ringfort_ring::ShardCount;
use std::sync::Arc;
use std::time::Duration;

/// The size of a step.
pub const STEP_BYTES: usize = 32 << 10;

/// Scrubs all maps of a node, over and over.
pub struct Scrubber {
    pause: Duration,
    next_step: Moment,
    next_shard: ShardId,
    /// The number of completed walks over whole maps.
    walks: u64,
}

impl Scrubber {
    /// Scrubs this many bytes a second, but at least one.
    pub fn new(bytes_per_second: u64, now: Moment) -> Scrubber {
        let pause = Duration::from_secs_f64(STEP_BYTES as f64 / bytes_per_second.max(1) as f64);
        Scrubber { pause, next_step: now, next_shard: ShardId(0), walks: 0 }
    }

    /// When [`Scrubber::handle_step`] is due.
    pub fn next_step(&self) -> Moment {
        self.next_step
    }

    /// The number of completed walks over whole maps.
    pub fn walks(&self) -> u64 {
        self.walks
    }

    /// Performs the next step, if it is due; `view` returns the map that this node has of a shard. If a replica's
    /// memory is damaged, it answers no more reads, and is returned: it must end.
    pub fn handle_step(
        &mut self,
        now: Moment,
        shards: ShardCount,
        view: impl Fn(ShardId) -> Option<Arc<ShardView>>,
    ) -> Option<(ShardId, ReplicaId)> {
        if now < self.next_step {
            return None;
        }
        self.next_step = now + self.pause;
        let Some(view) = shards.ids().skip(self.next_shard.0 as usize).find_map(view) else {
            self.next_shard = ShardId(0);
            return None;
        };
        self.next_shard = view.shard;
        let scrubbed = view.machine().scrub(STEP_BYTES);
        if scrubbed == Scrubbed::Going {
            return None;
        }
        self.walks += 1;
        self.next_shard = ShardId(view.shard.0 + 1);
        (scrubbed == Scrubbed::Damaged).then(|| {
            view.close();
            (view.shard, view.replica)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::state::Machine;
    use std::collections::BTreeMap;

    const SECOND: Duration = Duration::from_secs(1);

    fn machine(keys: u32) -> Machine {
        let mut machine = Machine::new();
        for key in 0..keys {
            machine.begin(crate::time::HlcTimestamp(1), &mut |_| {}).put(&key.to_be_bytes(), &[7; 1000]);
        }
        machine
    }

    /// The number of steps within a second, and what they found.
    fn run(
        scrubber: &mut Scrubber,
        views: &BTreeMap<ShardId, Arc<ShardView>>,
        now: &mut Moment,
    ) -> (u32, Vec<ShardId>) {
        let (mut steps, mut found) = (0, Vec::new());
        let end = *now + SECOND;
        while scrubber.next_step() < end {
            *now = scrubber.next_step();
            let shards = ShardCount::new(4).expect("a power of two");
            let damaged = scrubber.handle_step(*now, shards, |shard| views.get(&shard).cloned());
            found.extend(damaged.map(|(shard, _)| shard));
            steps += 1;
        }
        *now = end;
        (steps, found)
    }

    #[test]
    fn all_maps_are_walked_over_at_the_rate_and_what_is_damaged_is_closed() {
        // About 260 kB each: eight steps and a last one.
        let view = |shard| Arc::new(ShardView::new(ShardId(shard), ReplicaId(1), machine(250)));
        let views: BTreeMap<_, _> = [0, 2, 3].map(|shard| (ShardId(shard), view(shard))).into();
        let mut now = Moment(1);
        let mut scrubber = Scrubber::new(1 << 20, now);
        assert_eq!(run(&mut scrubber, &views, &mut now), (32, vec![]));
        assert_eq!(scrubber.walks(), 3);
        views[&ShardId(2)].machine_mut().flip_a_bit(249, 1);
        assert_eq!(run(&mut scrubber, &views, &mut now), (32, vec![ShardId(2)]));
        let query = crate::kv::Get { key: 0u32.to_be_bytes().to_vec().into() }.into();
        views[&ShardId(2)].publish_fresh(now);
        views[&ShardId(2)].publish_lease(now + SECOND);
        assert_eq!(views[&ShardId(2)].read_stale(|| now, SECOND, &query), None);
        assert_eq!(views[&ShardId(2)].read_leased(|| now, &query), None);
    }

    #[test]
    fn a_node_with_little_data_does_not_spin() {
        let view = Arc::new(ShardView::new(ShardId(1), ReplicaId(1), machine(0)));
        let mut scrubber = Scrubber::new(1 << 20, Moment(1));
        let (steps, found) = run(&mut scrubber, &[(ShardId(1), view)].into(), &mut Moment(1));
        assert_eq!((steps, found), (32, vec![]));
    }
}
