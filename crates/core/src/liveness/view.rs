//! For how long each node has been silent, as the failure detector of gossip sees it.
//!
//! What gossip tells once a period is all that is known here; between, no silence grows. So a node that stood still (a
//! virtual machine that was paused, a laptop that slept) takes nobody for dead when it wakes: its detector, which tells
//! before anything counts here, has seen by its own ticks that the pause was its own. A node that gossip has not told
//! of yet, such as one that has just joined, is not silent.

use crate::liveness::{Liveness, LivenessState};
use crate::time::Moment;
use crate::types::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub struct LivenessView {
    told: BTreeMap<NodeId, (Liveness, Duration)>,
}

impl LivenessView {
    /// What was thought of each of the other members at this moment.
    pub fn tell(&mut self, at: Moment, liveness: BTreeMap<NodeId, Liveness>) {
        let silence = |liveness: &Liveness| at.saturating_since(liveness.heard);
        self.told = liveness.into_iter().map(|(node, liveness)| (node, (liveness, silence(&liveness)))).collect();
    }

    /// Whether nothing speaks against `node` being there.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.told.get(&node).is_none_or(|(liveness, _)| liveness.state == LivenessState::Alive)
    }

    /// Whether `node` has been heard of for sure, and is not only not silent for long yet.
    pub fn is_heard(&self, node: NodeId) -> bool {
        self.told.get(&node).is_some_and(|(liveness, _)| liveness.was_heard && liveness.state == LivenessState::Alive)
    }

    /// Whether `node` is dead, and has been silent for as long as this.
    pub fn is_lost(&self, node: NodeId, after: Duration) -> bool {
        self.told
            .get(&node)
            .is_some_and(|(liveness, silence)| liveness.state == LivenessState::Dead && *silence >= after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::Detector;

    const NODE: NodeId = NodeId(2);
    const PERIOD: Duration = Duration::from_millis(500);

    /// A detector that has heard node 2 every period, up to this moment.
    fn accustomed() -> (Detector, Moment) {
        let mut detector = Detector::new(PERIOD);
        let mut now = Moment(1);
        detector.watch(now, [NODE].into_iter());
        for beat in 1..100 {
            now = now + PERIOD;
            detector.handle_tick(now);
            detector.heard(now, NODE, 1, beat);
        }
        (detector, now)
    }

    fn tell(view: &mut LivenessView, detector: &mut Detector, now: Moment) {
        detector.handle_tick(now);
        view.tell(now, detector.liveness(NODE, now).map(|liveness| (NODE, liveness)).into_iter().collect());
    }

    #[test]
    fn a_second_of_silence_is_no_death_and_ten_are() {
        let (mut detector, end) = accustomed();
        let mut view = LivenessView::default();
        for periods in 0..=2 {
            tell(&mut view, &mut detector, end + periods * PERIOD);
            assert!(view.is_heard(NODE) && !view.is_lost(NODE, Duration::ZERO), "after {periods} periods");
        }
        for periods in 3..=20 {
            tell(&mut view, &mut detector, end + periods * PERIOD);
        }
        assert!(!view.is_alive(NODE) && !view.is_heard(NODE));
        assert!(view.is_lost(NODE, Duration::from_secs(10)) && !view.is_lost(NODE, Duration::from_secs(11)));
    }

    #[test]
    fn a_node_that_stood_still_does_not_take_that_for_silence() {
        let (mut detector, end) = accustomed();
        let mut view = LivenessView::default();
        tell(&mut view, &mut detector, end);
        tell(&mut view, &mut detector, end + 1_200 * PERIOD);
        assert!(view.is_heard(NODE) && !view.is_lost(NODE, Duration::ZERO));
    }

    #[test]
    fn a_node_that_was_not_heard_of_is_not_silent_and_not_heard() {
        let mut view = LivenessView::default();
        assert!(view.is_alive(NODE) && !view.is_heard(NODE) && !view.is_lost(NODE, Duration::ZERO));
        let mut detector = Detector::new(PERIOD);
        detector.watch(Moment(1), [NODE].into_iter());
        tell(&mut view, &mut detector, Moment(1));
        assert!(view.is_alive(NODE) && !view.is_heard(NODE) && !view.is_lost(NODE, Duration::ZERO));
    }
}
