//! How far the moves are, and when they will be done, by the pace so far.

use crate::time::Moment;
use std::time::Duration;

/// Replicas that are still to arrive where they are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    pub left: usize,
    /// Until none are left, if moves go on as they have. None before the first one has arrived.
    pub estimate: Option<Duration>,
}

/// Counts arrivals from when there was something to move.
#[derive(Default)]
pub struct Pace {
    begun: Option<Moment>,
    left: usize,
    arrived: u32,
}

impl Pace {
    /// So many are left now.
    pub fn note(&mut self, now: Moment, left: usize) {
        match left {
            0 => *self = Pace::default(),
            _ => {
                self.begun.get_or_insert(now);
                self.arrived += self.left.saturating_sub(left) as u32;
                self.left = left;
            }
        }
    }

    pub fn progress(&self, now: Moment) -> Progress {
        let elapsed = self.begun.map(|begun| now.saturating_since(begun));
        let each = elapsed.and_then(|elapsed| elapsed.checked_div(self.arrived));
        Progress { left: self.left, estimate: each.map(|each| each.saturating_mul(self.left as u32)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_pace() {
        let at = |seconds| Moment(1) + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        pace.note(at(0), 0);
        pace.note(at(10), 20);
        assert_eq!(pace.progress(at(11)), Progress { left: 20, estimate: None });
        pace.note(at(14), 18);
        pace.note(at(15), 19);
        pace.note(at(20), 15);
        let left = Progress { left: 15, estimate: Some(Duration::from_secs(10) / 6 * 15) };
        assert_eq!(pace.progress(at(20)), left, "6 arrived in 10 seconds");
        pace.note(at(21), 0);
        assert_eq!(pace.progress(at(22)), Progress::default());
    }
}
