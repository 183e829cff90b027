//! Which nodes are alive: a phi-accrual failure detector (Hayashibara et al., SRDS 2004), fed with the heartbeats that
//! gossip carries.
//!
//! A heartbeat is a counter that only its own node increments; an increment counts as an arrival, whichever node
//! reported it. For each node the detector keeps the last [`WINDOW`] intervals between arrivals. *Phi* says how
//! unlikely the present silence is under a normal distribution with their mean and deviation: at phi = 8, one such
//! silence in 10^8 happens by chance.
//!
//! | state | when |
//! |---|---|
//! | alive | otherwise |
//! | suspect | phi of the silence reaches [`PHI`] |
//! | dead | phi of the silence less [`TOLERATED_PAUSE`] reaches [`PHI`] |
//!
//! Suspicion is quick and cheap: the only consequence is that the controller gives a suspect nothing new. A dead node
//! is replaced after `replace-after`, so the detector tolerates a pause of [`TOLERATED_PAUSE`], under load or while the
//! node is swapped out, on top of its usual intervals. A node that is heard again is alive at once. The pause becomes
//! one of the intervals, capped at [`TOLERATED_PAUSE`]: it makes the detector more patient, but an hour's pause must
//! not blind it.
//!
//! A detector that was itself stopped would find all nodes silent. It notices by its own ticks: when a tick is late,
//! the time since the tick before is added to every node's last arrival, so that no node is suspected for a pause of
//! the detector.
//!
//! Costs: 64 intervals of 8 bytes for each node, and a few floating-point operations for each node and tick.

use crate::time::Moment;
use crate::types::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Intervals kept for each node.
pub const WINDOW: usize = 64;

/// The phi from which a silence no longer counts as chance.
pub const PHI: f64 = 8.0;

/// A node may pause for this long without being declared dead.
pub const TOLERATED_PAUSE: Duration = Duration::from_secs(3);

/// The smallest deviation, as a share of the mean: heartbeats that have been perfectly regular may still be late.
const LEAST_DEVIATION: f64 = 0.3;

/// A tick more than this many periods after the one before means that this node was paused.
const LATE_TICKS: u32 = 3;

/// The detector's verdict on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LivenessState {
    Alive,
    /// Silent for longer than chance explains.
    Suspect,
    /// Silent for so long that other nodes may take its place.
    Dead,
}

/// Why a node is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is a member and has not been heard yet.
    Expected,
    /// Its heartbeats arrive.
    Heard,
    /// Its heartbeats stopped.
    Silent,
    /// Its heartbeats resumed after a silence.
    Back,
    /// It has restarted.
    Restarted,
}

/// The liveness of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Liveness {
    pub state: LivenessState,
    /// When it entered this state.
    pub since: Moment,
    pub reason: Reason,
    /// When its latest heartbeat arrived; when it became known, if none ever did.
    pub heard: Moment,
    /// Whether a heartbeat of it ever arrived.
    pub was_heard: bool,
    /// How unlikely its present silence is: the negative decimal logarithm of the probability.
    pub phi: f64,
}

/// Tracks the liveness of all other nodes.
pub struct Detector {
    /// How often a node's heartbeat rises and [`Detector::handle_tick`] is called.
    period: Duration,
    nodes: BTreeMap<NodeId, Watched>,
    ticked: Option<Moment>,
}

struct Watched {
    incarnation: u64,
    heartbeat: u64,
    heard: Moment,
    was_heard: bool,
    intervals: VecDeque<Duration>,
    state: LivenessState,
    since: Moment,
    reason: Reason,
}

impl Liveness {
    /// The time since its latest heartbeat. Of a node that was never heard: the time since it became known, once it is
    /// no longer expected to be heard soon; None before.
    pub fn silence(&self, now: Moment) -> Option<Duration> {
        let is_expected = !self.was_heard && self.state == LivenessState::Alive;
        (!is_expected).then(|| now.saturating_since(self.heard))
    }
}

impl Detector {
    /// `period` is how often nodes raise their heartbeats.
    pub fn new(period: Duration) -> Detector {
        Detector { period, nodes: BTreeMap::new(), ticked: None }
    }

    /// Tracks these nodes and no others.
    pub fn watch(&mut self, now: Moment, nodes: impl Iterator<Item = NodeId>) {
        let mut before = std::mem::take(&mut self.nodes);
        for node in nodes {
            self.nodes.insert(node, before.remove(&node).unwrap_or_else(|| Watched::new(now)));
        }
    }

    /// Handles a node's heartbeat in this incarnation.
    pub fn heard(&mut self, now: Moment, node: NodeId, incarnation: u64, heartbeat: u64) {
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        if (incarnation, heartbeat) <= (watched.incarnation, watched.heartbeat) {
            return;
        }
        let restarted = watched.was_heard && incarnation > watched.incarnation;
        if watched.was_heard && !restarted {
            watched.intervals.push_back(now.saturating_since(watched.heard).min(TOLERATED_PAUSE));
            if watched.intervals.len() > WINDOW {
                watched.intervals.pop_front();
            }
        }
        let reason = match (restarted, watched.state, watched.was_heard) {
            (true, ..) => Some(Reason::Restarted),
            (_, _, false) => Some(Reason::Heard),
            (_, LivenessState::Alive, _) => None,
            _ => Some(Reason::Back),
        };
        (watched.incarnation, watched.heartbeat) = (incarnation, heartbeat);
        (watched.heard, watched.was_heard) = (now, true);
        if let Some(reason) = reason {
            (watched.state, watched.since, watched.reason) = (LivenessState::Alive, now, reason);
        }
    }

    /// Updates the state of every node. Call it once a period.
    pub fn handle_tick(&mut self, now: Moment) {
        let late = self.ticked.map_or(Duration::ZERO, |ticked| now.saturating_since(ticked));
        self.ticked = Some(now);
        for watched in self.nodes.values_mut() {
            if late > self.period * LATE_TICKS {
                watched.heard = now.min(watched.heard + late);
            }
            let state = watched.judge(now, self.period);
            // Only a heartbeat makes a node alive again.
            if state > watched.state {
                (watched.state, watched.since, watched.reason) = (state, now, Reason::Silent);
            }
        }
    }

    /// The liveness of `node`, as of the last tick or heartbeat; none for a node that is not tracked.
    pub fn liveness(&self, node: NodeId, now: Moment) -> Option<Liveness> {
        let watched = self.nodes.get(&node)?;
        let &Watched { state, since, reason, heard, was_heard, .. } = watched;
        let phi = phi(now.saturating_since(heard), watched.intervals(self.period));
        Some(Liveness { state, since, reason, heard, was_heard, phi })
    }
}

impl Watched {
    fn new(now: Moment) -> Watched {
        Watched {
            incarnation: 0,
            heartbeat: 0,
            heard: now,
            was_heard: false,
            intervals: VecDeque::new(),
            state: LivenessState::Alive,
            since: now,
            reason: Reason::Expected,
        }
    }

    fn judge(&self, now: Moment, period: Duration) -> LivenessState {
        let silence = now.saturating_since(self.heard);
        let usual = self.intervals(period);
        if phi(silence.saturating_sub(TOLERATED_PAUSE), usual) >= PHI {
            LivenessState::Dead
        } else if phi(silence, usual) >= PHI {
            LivenessState::Suspect
        } else {
            LivenessState::Alive
        }
    }

    /// Mean and deviation of the intervals, in seconds. Two intervals of twice the period stand in for those not known
    /// yet.
    fn intervals(&self, period: Duration) -> (f64, f64) {
        let assumed = [2.0 * period.as_secs_f64(); 2];
        let known = || self.intervals.iter().map(Duration::as_secs_f64).chain(assumed);
        let count = (self.intervals.len() + assumed.len()) as f64;
        let mean = known().sum::<f64>() / count;
        let variance = known().map(|interval| (interval - mean) * (interval - mean)).sum::<f64>() / count;
        (mean, variance.sqrt().max(mean * LEAST_DEVIATION))
    }
}

/// How unlikely a silence of this length is: the tail of the normal distribution, by the logistic approximation that
/// phi detectors usually use.
fn phi(silence: Duration, (mean, deviation): (f64, f64)) -> f64 {
    let y = (silence.as_secs_f64() - mean) / deviation;
    let odds = (-y * (1.5976 + 0.070566 * y * y)).exp();
    let phi = -(odds / (1.0 + odds)).log10();
    // Far above the mean the probability underflows, far below it the exponential overflows.
    if phi.is_nan() { 0.0 } else { phi.min(f64::from(u16::MAX)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);
    const PERIOD: Duration = Duration::from_millis(500);

    fn at(milliseconds: u64) -> Moment {
        Moment(milliseconds * 1_000_000)
    }

    /// A detector whose window is full of heartbeats every 500 ms, plus or minus 100.
    fn accustomed() -> (Detector, u64) {
        let mut detector = Detector::new(PERIOD);
        detector.watch(at(0), [NODE].into_iter());
        let end = 100 * 500;
        for beat in 1..=100u64 {
            let time = beat * 500 - [0, 100][beat as usize % 2];
            detector.handle_tick(at(time));
            detector.heard(at(time), NODE, 7, beat);
        }
        (detector, end)
    }

    #[test]
    fn a_node_that_was_never_heard_of_counts_as_alive_for_a_while() {
        let mut detector = Detector::new(PERIOD);
        detector.watch(at(0), [NODE].into_iter());
        let suspected = wait_for(&mut detector, 0, 60_000, LivenessState::Suspect).expect("nothing is heard");
        assert!((2_000..10_000).contains(&suspected), "the one that judges may itself have just started: {suspected}");
    }

    /// Ticks until `until`; returns when the node first entered this state.
    fn wait_for(detector: &mut Detector, from: u64, until: u64, state: LivenessState) -> Option<u64> {
        let mut first = None;
        for time in (from..=until).step_by(500) {
            detector.handle_tick(at(time));
            if first.is_none() && detector.liveness(NODE, at(time)).unwrap().state == state {
                first = Some(time - from);
            }
        }
        first
    }

    #[test]
    fn silence_makes_suspect_then_dead_and_news_alive() {
        let (mut detector, end) = accustomed();
        assert_eq!(detector.liveness(NODE, at(end)).unwrap().state, LivenessState::Alive);
        let suspect = wait_for(&mut detector, end, end + 2_500, LivenessState::Suspect).unwrap();
        assert!((1_000..=2_500).contains(&suspect), "{suspect}");
        let dead = 2_500 + wait_for(&mut detector, end + 2_500, end + 20_000, LivenessState::Dead).unwrap();
        assert!((4_000..=6_000).contains(&dead), "{dead}");
        let liveness = detector.liveness(NODE, at(end + 20_000)).unwrap();
        assert_eq!((liveness.reason, liveness.since), (Reason::Silent, at(end + dead)));
        detector.heard(at(end + 20_500), NODE, 7, 100);
        assert_eq!(detector.liveness(NODE, at(end + 20_500)).unwrap().state, LivenessState::Dead, "that is old news");
        detector.heard(at(end + 20_500), NODE, 7, 101);
        let liveness = detector.liveness(NODE, at(end + 20_500)).unwrap();
        assert_eq!(
            (liveness.state, liveness.reason, liveness.since),
            (LivenessState::Alive, Reason::Back, at(end + 20_500))
        );
    }

    #[test]
    fn a_pause_of_a_second_is_no_death() {
        let (mut detector, end) = accustomed();
        assert_eq!(wait_for(&mut detector, end, end + 1_500, LivenessState::Dead), None);
        detector.heard(at(end + 1_500), NODE, 7, 101);
        assert_eq!(detector.liveness(NODE, at(end + 1_500)).unwrap().state, LivenessState::Alive);
    }

    #[test]
    fn a_node_never_heard_of_is_given_time_then_dead() {
        let mut detector = Detector::new(PERIOD);
        detector.watch(at(0), [NODE].into_iter());
        let liveness = detector.liveness(NODE, at(0)).unwrap();
        assert_eq!((liveness.state, liveness.reason), (LivenessState::Alive, Reason::Expected));
        assert_eq!(liveness.silence(at(100)), None);
        let dead = wait_for(&mut detector, 0, 20_000, LivenessState::Dead).unwrap();
        let silence = detector.liveness(NODE, at(20_000)).unwrap().silence(at(20_000));
        assert_eq!(silence, Some(Duration::from_secs(20)), "since it became known");
        assert!((4_000..=8_000).contains(&dead), "{dead}");
        assert_eq!(detector.liveness(NodeId(9), at(0)), None);
    }

    #[test]
    fn the_detectors_own_pause_is_nobodys_death() {
        let (mut detector, end) = accustomed();
        let woken = end + 60_000;
        detector.handle_tick(at(woken));
        assert_eq!(detector.liveness(NODE, at(woken)).unwrap().state, LivenessState::Alive);
        assert!(
            wait_for(&mut detector, woken, woken + 20_000, LivenessState::Dead).is_some(),
            "it is watched all the same"
        );
    }

    #[test]
    fn a_restart_is_told_from_a_heartbeat() {
        let (mut detector, end) = accustomed();
        detector.heard(at(end + 100), NODE, 8, 1);
        let liveness = detector.liveness(NODE, at(end + 100)).unwrap();
        assert_eq!((liveness.reason, liveness.since), (Reason::Restarted, at(end + 100)));
        detector.heard(at(end + 200), NODE, 7, 1_000);
        assert_eq!(detector.liveness(NODE, at(end + 200)).unwrap().heard, at(end + 100), "of the life before");
    }

    #[test]
    fn phi_grows_with_silence_and_never_breaks() {
        let usual = (0.5, 0.1);
        let phis = [0, 400, 500, 700, 1_000, 2_000, 1_000_000].map(|ms| phi(Duration::from_millis(ms), usual));
        assert!(phis.windows(2).all(|pair| pair[0] <= pair[1]), "{phis:?}");
        assert!(phis.iter().all(|phi| phi.is_finite() && *phi >= 0.0), "{phis:?}");
        assert!((phis[2] - 2f64.log10()).abs() < 1e-9, "half of all are later than the mean: {phis:?}");
    }
}
