//! Points in time, which callers pass in.
//!
//! Two clocks reach this crate. The monotonic one ([`Moment`]) measures: timeouts, leases, ticks. It must count while
//! the machine sleeps (CLOCK_BOOTTIME), or a lease would outlive its promise. The wall clock ([`Wall`]) only labels: it
//! feeds the hybrid logical clock that timestamps entries. No safety property depends on it.

use std::ops::Add;
use std::time::Duration;

/// A point on this node's monotonic clock: nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Moment(pub u64);

impl Moment {
    pub fn saturating_since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration.as_nanos() as u64))
    }
}

/// A count of Raft's clock ticks: since a replica was started, or as many as a time takes
/// ([`Timing::ticks`](crate::timing::Timing::ticks)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ticks(pub u64);

impl Add for Ticks {
    type Output = Ticks;

    fn add(self, other: Ticks) -> Ticks {
        Ticks(self.0 + other.0)
    }
}

/// A reading of this node's wall clock: microseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Wall(pub u64);

/// A reading of a hybrid logical clock: microseconds of the wall clock of the node that assigns it, but always above
/// the previous reading.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct HlcTimestamp(pub u64);

impl HlcTimestamp {
    /// The timestamp of the entry that follows one with this timestamp, proposed at `wall`.
    pub fn next(self, wall: Wall) -> HlcTimestamp {
        HlcTimestamp(wall.0.max(self.0 + 1))
    }
}

/// Both clocks, read together at the start of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Now {
    pub moment: Moment,
    pub wall: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_while_the_wall_clock_steps_back() {
        let timestamp = HlcTimestamp::default().next(Wall(1000));
        assert_eq!(timestamp, HlcTimestamp(1000));
        assert_eq!(timestamp.next(Wall(10)), HlcTimestamp(1001));
        assert_eq!(timestamp.next(Wall(1000)), HlcTimestamp(1001));
    }
}
