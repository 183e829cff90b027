//! The progress of moves, and an estimate of when they will be done.

use crate::time::Moment;
use std::time::Duration;

/// Replicas that are still to arrive at their target nodes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    pub left: usize,
    /// Of these, those whose node is silent. They wait until it returns or other nodes take its place.
    pub waiting: usize,
    /// Estimated time until only the waiting ones are left, at the pace so far. `None` before the first one has
    /// arrived.
    pub estimate: Option<Duration>,
}

/// Counts arrived replicas since the first move began.
#[derive(Default)]
pub struct Pace {
    begun: Option<Moment>,
    moving: usize,
    waiting: usize,
    arrived: u32,
}

impl Pace {
    /// Records how many moves are left: `moving` make progress, and `waiting` wait for a silent node. The estimate
    /// leaves the latter out.
    pub fn note(&mut self, now: Moment, moving: usize, waiting: usize) {
        if moving == 0 {
            *self = Pace { waiting, ..Pace::default() };
            return;
        }
        self.begun.get_or_insert(now);
        self.arrived += (self.moving + self.waiting).saturating_sub(moving + waiting) as u32;
        (self.moving, self.waiting) = (moving, waiting);
    }

    pub fn progress(&self, now: Moment) -> Progress {
        let elapsed = self.begun.map(|begun| now.saturating_since(begun));
        let each = elapsed.and_then(|elapsed| elapsed.checked_div(self.arrived));
        let estimate = each.map(|each| each.saturating_mul(self.moving as u32));
        Progress { left: self.moving + self.waiting, waiting: self.waiting, estimate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_pace() {
        let at = |seconds| Moment(1) + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        pace.note(at(0), 0, 0);
        pace.note(at(10), 20, 0);
        assert_eq!(pace.progress(at(11)), Progress { left: 20, waiting: 0, estimate: None });
        pace.note(at(14), 18, 0);
        pace.note(at(15), 19, 0);
        pace.note(at(20), 15, 0);
        let left = Progress { left: 15, waiting: 0, estimate: Some(Duration::from_secs(10) / 6 * 15) };
        assert_eq!(pace.progress(at(20)), left, "6 arrived in 10 seconds");
        pace.note(at(21), 0, 0);
        assert_eq!(pace.progress(at(22)), Progress::default());
    }

    #[test]
    fn what_waits_for_a_silent_node_has_no_part_in_the_estimate() {
        let at = |seconds| Moment(1) + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        pace.note(at(0), 20, 0);
        pace.note(at(10), 10, 0);
        pace.note(at(10), 4, 6);
        let left = Progress { left: 10, waiting: 6, estimate: Some(Duration::from_secs(4)) };
        assert_eq!(pace.progress(at(10)), left, "to wait is not to arrive");
        pace.note(at(14), 0, 6);
        assert_eq!(pace.progress(at(100)), Progress { left: 6, waiting: 6, estimate: None });
    }
}
