//! The machine's clocks, in the types that the core uses.

use ringfort_core::time::{Moment, Now, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Monotonic time that advances while the machine is suspended: otherwise a laptop that slept could still believe in a
/// lease that has expired.
pub fn moment() -> Moment {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    Moment(tv_sec as u64 * 1_000_000_000 + tv_nsec as u64)
}

/// The time on both clocks.
pub fn now() -> Now {
    // Before 1970 there is nothing to timestamp.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { moment: moment(), wall: Wall(since_1970.as_micros() as u64) }
}

/// The time until `later`; zero if it has passed.
pub fn until(later: Moment) -> Duration {
    later.saturating_since(moment())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let before = moment();
        let later = before + Duration::from_millis(2);
        while !until(later).is_zero() {
            std::thread::yield_now();
        }
        assert!(moment() >= later);
        assert!(now().wall.0 > 1_600_000_000_000_000, "microseconds since 1970");
    }
}
