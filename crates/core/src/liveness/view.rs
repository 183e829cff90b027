//! The controller's view of which nodes are silent, and for how long, as reported by gossip's failure detector.
//!
//! Silence advances only on gossip reports, once a period; the view keeps no clock of its own. So a node that was
//! paused (a virtual machine, a sleeping laptop) declares no other node dead when it wakes: its detector, which reports
//! before the view counts anything, has recognized the pause by its own ticks. A node that gossip has not reported yet,
//! for example one that has just joined, does not count as silent.

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
    /// Replaces the view with the liveness of each of the other members at this moment.
    pub fn tell(&mut self, at: Moment, liveness: BTreeMap<NodeId, Liveness>) {
        let silence = |liveness: &Liveness| at.saturating_since(liveness.heard);
        self.told = liveness.into_iter().map(|(node, liveness)| (node, (liveness, silence(&liveness)))).collect();
    }

    /// Whether `node` is not known to be suspect or dead. True for a node that gossip has not reported yet.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.told.get(&node).is_none_or(|(liveness, _)| liveness.state == LivenessState::Alive)
    }

    /// Whether `node` is alive and at least one heartbeat of it has arrived.
    pub fn is_heard(&self, node: NodeId) -> bool {
        self.told.get(&node).is_some_and(|(liveness, _)| liveness.was_heard && liveness.state == LivenessState::Alive)
    }

    /// Whether `node` is dead and has been silent for at least this long.
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

    /// A detector that has heard node 2 every period until now.
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
