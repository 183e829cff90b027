//! At which indexes a replica takes its hash, and which of these hashes it publishes.
//!
//! Replicas can be compared only at equal indexes, and at any moment they are at different ones. So each replica keeps
//! a mark for the *last multiple* of each of several strides (16, 64, 256 and so on) and for the index at which it
//! rests: two replicas that are less than a stride apart usually have the same last multiple of it. It publishes the
//! latest mark that is [`SETTLED_AFTER`] old: on an idle shard that is the last index, on a busy one a multiple of a
//! stride that the shard needs longer than that to advance, whatever its rate. The replicas of a shard apply at the
//! same rate, so they publish the same indexes at about the same time; if they miss each other at one index, they meet
//! a few strides later.
//!
//! Costs: a hash of 32 bytes for every 16th entry, and 240 bytes of memory.

use crate::time::Ticks;
use crate::types::LogIndex;
use std::time::Duration;

/// A mark is published when it is this old: longer than all nodes need to publish it, at one group of shards per gossip
/// round.
pub const SETTLED_AFTER: Duration = Duration::from_secs(6);

/// The smallest stride, as a power of two.
const FIRST_STRIDE_BITS: u32 = 4;

/// The ratio of a stride to the previous one, as a power of two: four.
const STRIDE_STEP_BITS: u32 = 2;

/// The largest stride is 2^22 entries, which takes longer than [`SETTLED_AFTER`] at any realistic rate.
const STRIDES: usize = 10;

const _: () = assert!(SETTLED_AFTER.as_secs() > 4);

/// A replica's marks.
#[derive(Default)]
pub struct Marks {
    multiples: [Option<Mark>; STRIDES],
    /// The last index applied at a tick.
    rest: Option<Mark>,
}

#[derive(Clone, Copy)]
struct Mark {
    index: LogIndex,
    hash: u64,
    ticks: Ticks,
}

impl Marks {
    /// Whether a replica takes its hash at this index.
    pub fn is_due(index: LogIndex) -> bool {
        index.0.is_multiple_of(1 << FIRST_STRIDE_BITS)
    }

    /// Records the state's hash at an index at which it is due.
    pub fn note(&mut self, index: LogIndex, hash: u64, ticks: Ticks) {
        for (multiple, mark) in self.multiples.iter_mut().enumerate() {
            let stride = 1 << (FIRST_STRIDE_BITS + STRIDE_STEP_BITS * multiple as u32);
            if index.0.is_multiple_of(stride) {
                *mark = Some(Mark { index, hash, ticks });
            }
        }
    }

    /// Records the applied index at a tick.
    pub fn tick(&mut self, index: LogIndex, hash: impl FnOnce() -> u64, ticks: Ticks) {
        if self.rest.is_none_or(|rest| rest.index != index) {
            self.rest = Some(Mark { index, hash: hash(), ticks });
        }
    }

    /// The index and hash to publish at this tick: those of the latest mark that is at least `settled_ticks` old.
    pub fn settled(&self, ticks: Ticks, settled_ticks: Ticks) -> Option<(LogIndex, u64)> {
        let marks = self.multiples.iter().chain([&self.rest]).flatten();
        let settled = marks.filter(|mark| ticks >= mark.ticks + settled_ticks);
        settled.max_by_key(|mark| mark.index).map(|mark| (mark.index, mark.hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLED_TICKS: Ticks = Ticks(120);

    /// Applies `per_tick` entries a tick; the hash is the index.
    fn run(marks: &mut Marks, ticks: std::ops::Range<u64>, start: u64, per_tick: u64) {
        for tick in ticks.clone() {
            let applied = start + (tick - ticks.start) * per_tick;
            for index in applied..applied + per_tick {
                if Marks::is_due(LogIndex(index)) {
                    marks.note(LogIndex(index), index, Ticks(tick));
                }
            }
            let last = applied + per_tick - 1;
            marks.tick(LogIndex(last), || last, Ticks(tick));
        }
    }

    #[test]
    fn a_shard_at_rest_publishes_its_last_index() {
        let mut marks = Marks::default();
        run(&mut marks, 0..10, 100, 3);
        assert_eq!(marks.settled(Ticks(20), SETTLED_TICKS), None);
        assert_eq!(marks.settled(Ticks(9) + SETTLED_TICKS, SETTLED_TICKS), Some((LogIndex(129), 129)));
    }

    #[test]
    fn replicas_of_a_busy_shard_publish_the_same_whatever_its_rate_and_however_far_apart_they_are() {
        for per_tick in [1, 2, 3, 7, 30, 500, 4_000] {
            // The other replica lags by two ticks, and both are sampled every 80 ticks, at different moments.
            let mut published = [Vec::new(), Vec::new()];
            let mut marks = [Marks::default(), Marks::default()];
            let ticks = 3_000;
            for tick in 0..ticks {
                for (which, marks) in marks.iter_mut().enumerate() {
                    let lag = 2 * which as u64;
                    run(marks, tick..tick + 1, 1_000_000 + (tick + 10 - lag) * per_tick, per_tick);
                    if tick % 80 == 40 * which as u64 {
                        published[which].extend(marks.settled(Ticks(tick), SETTLED_TICKS));
                    }
                }
            }
            let [one, other] = &mut published;
            one.dedup();
            other.dedup();
            let met = one.iter().filter(|point| other.contains(point)).count();
            assert!(met >= 5, "at {per_tick} entries a tick they met {met} times: {one:?} {other:?}");
        }
    }
}
