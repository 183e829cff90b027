//! Rate limits for log lines: one line of a kind per interval, with the number of suppressed lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one line of a kind is logged in this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// One kind of line. Use it as a static at the place that logs it.
pub struct Seldom(Mutex<State>);

struct State {
    said: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    pub const fn new() -> Seldom {
        Seldom(Mutex::new(State { said: None, left_out: 0 }))
    }

    /// Whether to log the line now: if so, how many lines of its kind were suppressed since the last one.
    pub fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.is_some_and(|said| now.saturating_duration_since(said) < INTERVAL) {
            state.left_out += 1;
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_many_is_due_and_says_how_many_were_left_out() {
        let (line, now) = (Seldom::new(), Instant::now());
        assert_eq!(line.due_at(now), Some(0));
        assert_eq!((0..50).filter_map(|_| line.due_at(now + INTERVAL / 2)).count(), 0);
        assert_eq!(line.due_at(now + INTERVAL), Some(50));
        assert_eq!(line.due_at(now + 2 * INTERVAL), Some(0));
    }
}
