//! How long there was no service: the longest time in which clients sent requests and none was answered.
//!
//! It begins when an operation is under way after an answer, and ends with the next answer. Clients pause between
//! attempts that fail, and short pauses count as part of that time. If a pause is longer than [`PAUSE`], the time ends
//! with the attempt before it: no client sent a request, so it is unknown whether there was service.

use std::time::{Duration, Instant};

/// The longest pause between two attempts that counts as time without service.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Default, Debug)]
pub struct Service {
    under_way: u32,
    /// Since when clients have been trying without an answer.
    in_vain_since: Option<Instant>,
    /// When the last attempt ended, if none is under way.
    idle_since: Option<Instant>,
    longest: Duration,
}

impl Service {
    pub fn begin(&mut self, now: Instant) {
        if self.idle_for(now) > PAUSE {
            self.longest = self.longest_until(now);
            self.in_vain_since = None;
        }
        self.under_way += 1;
        self.idle_since = None;
        self.in_vain_since.get_or_insert(now);
    }

    /// An operation ended, with an answer or without.
    pub fn end(&mut self, is_answered: bool, now: Instant) {
        self.under_way -= 1;
        self.idle_since = (self.under_way == 0).then_some(now);
        if is_answered {
            self.longest = self.longest_until(now);
            self.in_vain_since = (self.under_way > 0).then_some(now);
        }
    }

    /// The longest time without service, if there was none from the last answer until `now` either.
    pub fn longest_until(&self, now: Instant) -> Duration {
        let end = self.idle_since.filter(|_| self.idle_for(now) > PAUSE).unwrap_or(now);
        let last = self.in_vain_since.map_or(Duration::ZERO, |since| end.saturating_duration_since(since));
        self.longest.max(last)
    }

    fn idle_for(&self, now: Instant) -> Duration {
        self.idle_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(steps: &[(u64, &str)]) -> u64 {
        let start = Instant::now();
        let mut service = Service::default();
        let mut now = start;
        for (at, step) in steps {
            now = start + Duration::from_millis(*at);
            match *step {
                "begin" => service.begin(now),
                "answer" => service.end(true, now),
                "failure" => service.end(false, now),
                "end" => {}
                _ => panic!("{step}"),
            }
        }
        service.longest_until(now).as_millis() as u64
    }

    #[test]
    fn only_time_in_which_somebody_tried_counts() {
        assert_eq!(longest(&[(0, "begin"), (5, "answer"), (1000, "begin"), (1002, "answer")]), 5);
        // Attempts that fail one after the other are one time without service.
        let failures = [(0, "begin"), (10, "failure"), (50, "begin"), (60, "failure"), (70, "begin"), (90, "answer")];
        assert_eq!(longest(&failures), 90);
        // A hanging operation does not matter while others are answered.
        let hang = [(0, "begin"), (1, "begin"), (3, "answer"), (4, "begin"), (9, "answer"), (10, "failure")];
        assert_eq!(longest(&hang), 6);
        assert_eq!(longest(&[(0, "begin"), (1, "answer"), (2, "begin"), (3, "failure"), (40, "end")]), 38);
    }

    #[test]
    fn after_a_failure_the_time_in_which_nobody_asks_does_not_count() {
        let moved_on = [(0, "begin"), (1000, "failure"), (8140, "begin"), (8150, "answer")];
        assert_eq!(longest(&moved_on), 1000);
        assert_eq!(longest(&[(0, "begin"), (1000, "failure"), (9000, "end")]), 1000);
        let again =
            [(0, "begin"), (100, "failure"), (5000, "begin"), (6000, "failure"), (6500, "begin"), (7000, "answer")];
        assert_eq!(longest(&again), 2000);
    }
}
