//! Hedging: when to ask another endpoint although the first one may still answer. A state machine without I/O, for one
//! call.
//!
//! Only for requests that may be executed twice. While a call waits, another endpoint is asked
//! - **at once** if the circuits of all endpoints asked so far are open: none of them works on the call, so asking
//!   another costs nothing;
//! - **after [`HEDGE_AFTER`]**, at most [`MAX_HEDGES`] times, if an endpoint is alive and only this answer is late.
//!   This doubles the work, so the client bounds how many calls hedge at a time, and calls that may take this long
//!   anyway do not hedge.
//!
//! The first successful answer counts.

use crate::circuit::{PROBE_AFTER, PROBE_LIMIT};
use std::time::{Duration, Instant};

/// After this long without an answer, another endpoint is asked.
pub(crate) const HEDGE_AFTER: Duration = Duration::from_millis(250);

/// How many further endpoints one call asks while the earlier ones are alive.
pub(crate) const MAX_HEDGES: u32 = 2;

/// By then a silent first endpoint has been detected, and a failed leader may have a successor.
const _: () = assert!(PROBE_AFTER.as_millis() + PROBE_LIMIT.as_millis() <= HEDGE_AFTER.as_millis());

#[derive(Debug)]
pub(crate) struct Hedging {
    /// When an endpoint was asked last.
    asked_at: Instant,
    /// How many more endpoints may be asked while the earlier ones are alive.
    left: u32,
}

impl Hedging {
    /// For a call whose first endpoint is asked now. `is_long`: a successful answer may take longer than
    /// [`HEDGE_AFTER`].
    pub(crate) fn new(now: Instant, is_long: bool) -> Hedging {
        Hedging { asked_at: now, left: if is_long { 0 } else { MAX_HEDGES } }
    }

    /// When to ask one more endpoint if nothing happens until then; `None` for never. `all_silent`: the circuits of all
    /// endpoints asked so far are open.
    pub(crate) fn due(&self, all_silent: bool) -> Option<Instant> {
        match all_silent {
            true => Some(self.asked_at),
            false => (self.left > 0).then(|| self.asked_at + HEDGE_AFTER),
        }
    }

    /// One more endpoint is asked now.
    pub(crate) fn asked(&mut self, all_silent: bool, now: Instant) {
        self.asked_at = now;
        if !all_silent {
            self.left = self.left.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn living_endpoints_have_time_and_are_few() {
        let start = Instant::now();
        let mut hedging = Hedging::new(start, false);
        for number in 1..=MAX_HEDGES {
            let due = start + HEDGE_AFTER * number;
            assert_eq!(hedging.due(false), Some(due));
            hedging.asked(false, due);
        }
        assert_eq!(hedging.due(false), None);
    }

    #[test]
    fn silence_is_left_at_once_however_often() {
        let start = Instant::now();
        for is_long in [false, true] {
            let mut hedging = Hedging::new(start, is_long);
            for _ in 0..2 * MAX_HEDGES {
                assert_eq!(hedging.due(true), Some(start));
                hedging.asked(true, start);
            }
            assert_eq!(hedging.due(false).is_none(), is_long, "silent ones are not counted");
        }
    }
}
