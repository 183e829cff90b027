//! The nodes' clocks, which differ from the true time that only the simulator knows.
//!
//! True time is a [`Moment`] that begins at zero. A node's *monotonic* clock started at some other moment and runs a
//! little too fast or too slow, never by more than [`MAX_DRIFT_PPM`]: leases rely on this. Its *wall* clock may be off
//! by any amount and may be stepped in either direction: no safety property may rely on it.

use ringfort_core::time::{Moment, Now, Wall};
use std::time::Duration;

/// How far a monotonic clock's rate may be from true time's, in parts per million, either way.
///
/// A lease lasts 0.99 of the time for which its followers do not vote. So it is safe while the slowest clock runs at no
/// less than 0.99 of the fastest one's rate, and each clock may use up half of that margin.
pub const MAX_DRIFT_PPM: i64 = 5_000;

const MILLION: i64 = 1_000_000;
const LEASE_MARGIN_PERCENT: i64 = 1;
const _: () = assert!((MILLION - MAX_DRIFT_PPM) * 100 >= (MILLION + MAX_DRIFT_PPM) * (100 - LEASE_MARGIN_PERCENT));

/// True time zero is this wall time: the first of January 2026, UTC.
const WALL_AT_ZERO: Wall = Wall(1_767_225_600_000_000);

/// One node's two clocks.
#[derive(Clone, Debug)]
pub struct NodeClock {
    /// The true time of the last change of the rate, and the monotonic clock's reading then.
    since: Moment,
    local_since: Moment,
    drift_ppm: i64,
    wall_offset_us: i64,
}

impl NodeClock {
    /// A clock that reads `local` at true time `now` and gains `drift_ppm` microseconds a second. Its wall clock is
    /// right.
    ///
    /// # Panics
    ///
    /// If the drift is beyond [`MAX_DRIFT_PPM`].
    pub fn new(now: Moment, local: Moment, drift_ppm: i64) -> NodeClock {
        assert_drift(drift_ppm);
        NodeClock { since: now, local_since: local, drift_ppm, wall_offset_us: 0 }
    }

    /// Both clocks at true time `now`.
    pub fn read(&self, now: Moment) -> Now {
        let wall_true = WALL_AT_ZERO.0 + now.0 / 1000;
        Now { moment: self.local(now), wall: Wall(wall_true.saturating_add_signed(self.wall_offset_us)) }
    }

    /// The first true time at which the monotonic clock reads `local` or more, unless its rate changes before.
    pub fn true_time_of(&self, local: Moment) -> Moment {
        let ahead = local.saturating_since(self.local_since).as_nanos();
        let rate = (MILLION + self.drift_ppm) as u128;
        Moment(self.since.0 + (ahead * MILLION as u128).div_ceil(rate) as u64)
    }

    /// The monotonic clock continues from its current reading at another rate.
    ///
    /// # Panics
    ///
    /// If the drift is beyond [`MAX_DRIFT_PPM`].
    pub fn set_drift(&mut self, now: Moment, drift_ppm: i64) {
        assert_drift(drift_ppm);
        (self.local_since, self.since) = (self.local(now), now);
        self.drift_ppm = drift_ppm;
    }

    /// The wall clock jumps to this offset from true time; the monotonic clock does not change.
    pub fn set_wall_offset(&mut self, offset_us: i64) {
        self.wall_offset_us = offset_us;
    }

    fn local(&self, now: Moment) -> Moment {
        assert!(self.since <= now, "time went from {:?} back to {now:?}", self.since);
        let elapsed = now.saturating_since(self.since).as_nanos();
        let local = elapsed * (MILLION + self.drift_ppm) as u128 / MILLION as u128;
        self.local_since + Duration::from_nanos(local as u64)
    }
}

fn assert_drift(drift_ppm: i64) {
    assert!(drift_ppm.abs() <= MAX_DRIFT_PPM, "a drift of {drift_ppm} ppm breaks what leases rely on");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn drift_adds_up_and_time_never_goes_back() {
        let mut clock = NodeClock::new(Moment(0), Moment(77), 5_000);
        assert_eq!(clock.read(Moment(100 * SECOND)).moment, Moment(77 + 100 * SECOND + SECOND / 2));
        clock.set_drift(Moment(100 * SECOND), -5_000);
        assert_eq!(clock.read(Moment(100 * SECOND)).moment, Moment(77 + 100 * SECOND + SECOND / 2));
        assert_eq!(clock.read(Moment(200 * SECOND)).moment, Moment(77 + 200 * SECOND));

        let mut random = Random::new(1);
        let (mut now, mut last) = (Moment(200 * SECOND), Moment(0));
        for _ in 0..10_000 {
            now = now + Duration::from_nanos(random.below(1000));
            clock.set_drift(now, random.below(10_001) as i64 - 5_000);
            assert!(last <= clock.read(now).moment);
            last = clock.read(now).moment;
        }
    }

    #[test]
    fn deadlines_are_met_and_not_early() {
        let mut random = Random::new(2);
        for _ in 0..10_000 {
            let start = Moment(random.below(SECOND));
            let clock = NodeClock::new(start, Moment(random.below(SECOND)), random.below(10_001) as i64 - 5_000);
            let deadline = clock.read(start).moment + Duration::from_nanos(random.below(SECOND));
            let due = clock.true_time_of(deadline);
            assert!(clock.read(due).moment >= deadline);
            assert!(due == start || clock.read(Moment(due.0 - 1)).moment < deadline);
        }
    }

    #[test]
    fn wall_steps_both_ways_and_monotonic_time_does_not() {
        let mut clock = NodeClock::new(Moment(0), Moment(0), 0);
        let before = clock.read(Moment(SECOND));
        for offset_us in [-3_000_000, 1_000_000] {
            clock.set_wall_offset(offset_us);
            let after = clock.read(Moment(SECOND));
            assert_eq!(after.moment, before.moment);
            assert_eq!(after.wall.0.wrapping_sub(before.wall.0) as i64, offset_us);
        }
    }

    #[test]
    #[should_panic(expected = "breaks what leases rely on")]
    fn more_drift_than_declared_is_our_bug() {
        NodeClock::new(Moment(0), Moment(0), 5_001);
    }
}
