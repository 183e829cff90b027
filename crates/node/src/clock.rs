//! The machine's clocks, as the core wants them.

use ringfort_core::time::{Moment, Now, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::Duration;

/// Monotonic time that goes on while the machine sleeps: a lease must not outlive its promise because of a lid.
pub fn moment() -> Moment {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    Moment(tv_sec as u64 * 1_000_000_000 + tv_nsec as u64)
}

/// Both clocks together.
pub fn now() -> Now {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
    // Before 1970 there is nothing to stamp.
    let wall = Wall((tv_sec.max(0) as u64).saturating_mul(1_000_000) + tv_nsec as u64 / 1000);
    Now { moment: moment(), wall }
}

/// How long it is until `later`; zero where it has passed.
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
