//! The hybrid logical clock of eventual writes (Kulkarni et al., 2014).
//!
//! A reading follows the wall clock and is above every reading that this node has given or observed. So a write made
//! with knowledge of another wins over it, and writes made without knowledge of each other are ordered by their nodes'
//! wall clocks.
//!
//! A clock that runs ahead would drag all the others with it permanently. So a timestamp from another node that is more
//! than [`MAX_AHEAD`] above this node's wall clock is not observed, and its entry is refused until the wall clock has
//! caught up. Meanwhile the entry stays where it was written, and the node is reported.

use crate::time::{HlcTimestamp, Wall};
use std::time::Duration;

/// How far a timestamp of another node may be ahead of the wall clock here.
pub const MAX_AHEAD: Duration = Duration::from_millis(500);

/// A hybrid logical clock. Its readings only grow.
#[derive(Debug, Default)]
pub struct HybridClock(HlcTimestamp);

impl HybridClock {
    /// A clock that continues above `latest`.
    pub fn after(latest: HlcTimestamp) -> HybridClock {
        HybridClock(latest)
    }

    /// A new reading.
    pub fn tick(&mut self, wall: Wall) -> HlcTimestamp {
        self.0 = self.0.next(wall);
        self.0
    }

    /// The latest reading given or timestamp observed.
    pub fn latest(&self) -> HlcTimestamp {
        self.0
    }

    /// How far a timestamp of another node is ahead of the wall clock, if that is more than [`MAX_AHEAD`].
    pub fn too_far_ahead(timestamp: HlcTimestamp, wall: Wall) -> Option<Duration> {
        let ahead = Duration::from_micros(timestamp.0.saturating_sub(wall.0));
        (ahead > MAX_AHEAD).then_some(ahead)
    }

    /// Observes a timestamp of another node that is not too far ahead: later readings are above it.
    pub fn observe(&mut self, timestamp: HlcTimestamp) {
        self.0 = self.0.max(timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_grow_past_what_was_seen_while_the_wall_clock_stands_back() {
        let mut clock = HybridClock::after(HlcTimestamp(1_000));
        assert_eq!(clock.tick(Wall(5)), HlcTimestamp(1_001));
        clock.observe(HlcTimestamp(2_000));
        clock.observe(HlcTimestamp(1_500));
        assert_eq!(clock.tick(Wall(5)), HlcTimestamp(2_001));
        assert_eq!(clock.tick(Wall(9_000)), HlcTimestamp(9_000));
    }

    #[test]
    fn half_a_second_ahead_is_allowed_and_no_more() {
        assert_eq!(HybridClock::too_far_ahead(HlcTimestamp(1_500_000), Wall(1_000_000)), None);
        let ahead = HybridClock::too_far_ahead(HlcTimestamp(1_500_001), Wall(1_000_000));
        assert_eq!(ahead, Some(Duration::from_micros(500_001)));
        assert_eq!(HybridClock::too_far_ahead(HlcTimestamp(1), Wall(1_000_000)), None, "the past is no danger");
    }
}
