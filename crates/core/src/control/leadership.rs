//! Which nodes the controller may give leaderships and new replicas to.
//!
//! A node that [abstains](NodeHealth::abstention) gets neither: it is about to stop, or its disk is hung, full or
//! recovering. A node that was away gets no leadership until it has been back for `lead_after`: clients whose
//! connections to it died unnoticed would wait for their keep-alive, and a node that was silent once may soon be silent
//! again. A node was away if gossip suspected it, or if it restarted without announcing that it would stop. So there is
//! no wait at the start of a cluster, for a node that joins, or in a rolling restart.
//!
//! **A disk that hung recently is better than none.** If the storage that all nodes share pauses, all of them are
//! recovering afterwards, and stay so if it pauses repeatedly. So a recovering node is given leaderships and replicas
//! if no node is better, and a new replica also if a shard has fewer voters than its target.
//!
//! A node gets its leaderships in portions: transfers of all its shards at once would pause all of them together, and a
//! second failure would hit them all.

use super::PATIENCE;
use crate::health::{Abstention, HealthView, abstention};
use crate::liveness::{Liveness, LivenessState, Reason};
use crate::time::Moment;
use crate::types::NodeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// A node is given up to this many leaderships within [`PATIENCE`] ...
const PORTION: usize = 8;

/// ... or, if that is more, the cluster's shards divided by this number, so that large clusters are balanced within a
/// minute as well.
const PORTION_SHARE: usize = 64;

#[derive(Default)]
pub struct Leadership {
    health: HealthView,
    /// Nodes that announced that they are stopping, and have not been seen to restart since.
    stopped: BTreeSet<NodeId>,
    /// Nodes that had been away, and when they came back.
    returned: BTreeMap<NodeId, Moment>,
    /// For each node, since when it had been alive at the last evaluation, so that each return counts once.
    judged: BTreeMap<NodeId, Moment>,
    given: VecDeque<(Moment, NodeId)>,
}

impl Leadership {
    /// Handles the reported health of all nodes.
    pub fn learn_health(&mut self, health: HealthView) {
        let stopping = health.iter().filter(|(_, health)| health.is_stopping).map(|(&node, _)| node);
        self.stopped.extend(stopping);
        self.health = health;
    }

    /// Handles the liveness of the other members, as gossip reports it.
    pub fn learn_liveness(&mut self, liveness: &BTreeMap<NodeId, Liveness>) {
        self.returned.retain(|node, _| liveness.contains_key(node));
        self.stopped.retain(|node| liveness.contains_key(node));
        self.judged.retain(|node, _| liveness.contains_key(node));
        for (&node, liveness) in liveness {
            let is_judged = self.judged.get(&node) == Some(&liveness.since);
            if liveness.state != LivenessState::Alive || is_judged {
                continue;
            }
            self.judged.insert(node, liveness.since);
            let was_away = match liveness.reason {
                Reason::Back => true,
                Reason::Restarted => !self.stopped.remove(&node),
                Reason::Expected | Reason::Heard | Reason::Silent => false,
            };
            if was_away {
                self.returned.insert(node, liveness.since);
            }
        }
    }

    /// Whether `node` may be given new replicas. If this `is_urgent`, also if its disk hung recently.
    pub fn may_hold_more(&self, node: NodeId, is_urgent: bool) -> bool {
        match abstention(&self.health, node) {
            None => true,
            Some(Abstention::DiskRecovering) => is_urgent || self.is_none_better(),
            Some(Abstention::Stopping | Abstention::DiskFull | Abstention::DiskHung) => false,
        }
    }

    /// Whether all nodes whose health is known abstain.
    fn is_none_better(&self) -> bool {
        self.health.values().all(|health| health.abstention().is_some())
    }

    /// Whether `node` may be given a leadership: if it was away, only after it has been back for `lead_after`.
    pub fn may_lead(&self, now: Moment, node: NodeId, lead_after: Duration) -> bool {
        self.may_hold_more(node, false) && self.returned.get(&node).is_none_or(|&since| now >= since + lead_after)
    }

    /// Counts a leadership that `node` is about to be given, in a cluster with this many shards. False if its current
    /// portion is used up.
    pub fn take_turn(&mut self, now: Moment, node: NodeId, shards: usize) -> bool {
        while self.given.front().is_some_and(|&(at, _)| now >= at + PATIENCE) {
            self.given.pop_front();
        }
        let given = self.given.iter().filter(|(_, to)| *to == node).count();
        let is_left = given < PORTION.max(shards / PORTION_SHARE);
        if is_left {
            self.given.push_back((now, node));
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{DiskState, NodeHealth};
    use std::sync::Arc;

    const NODE: NodeId = NodeId(2);
    const SECOND: Duration = Duration::from_secs(1);
    const LEAD_AFTER: Duration = Duration::from_secs(30);

    fn at(seconds: u32) -> Moment {
        Moment(1) + seconds * SECOND
    }

    fn told(leadership: &mut Leadership, state: LivenessState, reason: Reason, since: u32) {
        let since = at(since);
        let liveness = Liveness { state, since, reason, heard: since, was_heard: true, phi: 0.0 };
        leadership.learn_liveness(&BTreeMap::from([(NODE, liveness)]));
    }

    fn says(leadership: &mut Leadership, health: NodeHealth) {
        let other = (NodeId(NODE.0 + 1), NodeHealth::default());
        leadership.learn_health(Arc::new(BTreeMap::from([(NODE, health), other])));
    }

    fn may_lead(leadership: &Leadership, now: u32) -> bool {
        leadership.may_lead(at(now), NODE, LEAD_AFTER)
    }

    #[test]
    fn a_node_that_abstains_gets_nothing() {
        let mut leadership = Leadership::default();
        assert!(leadership.may_hold_more(NODE, false) && may_lead(&leadership, 1));
        for disk in [DiskState::Recovering, DiskState::Full, DiskState::Hung] {
            says(&mut leadership, NodeHealth { disk, ..NodeHealth::default() });
            assert!(!leadership.may_hold_more(NODE, false) && !may_lead(&leadership, 1), "{disk}");
        }
        says(&mut leadership, NodeHealth { disk: DiskState::Slow, ..NodeHealth::default() });
        assert!(leadership.may_hold_more(NODE, false) && may_lead(&leadership, 1));
    }

    #[test]
    fn a_node_whose_disk_hung_lately_gets_what_is_urgent_and_what_no_better_node_can_take() {
        let mut leadership = Leadership::default();
        let of = |disk| NodeHealth { disk, ..NodeHealth::default() };
        says(&mut leadership, of(DiskState::Recovering));
        assert!(leadership.may_hold_more(NODE, true) && !leadership.may_hold_more(NODE, false));
        says(&mut leadership, of(DiskState::Hung));
        assert!(!leadership.may_hold_more(NODE, true));
        let all = (1..=3).map(|node| (NodeId(node), of(DiskState::Recovering))).collect();
        leadership.learn_health(Arc::new(all));
        assert!(leadership.may_hold_more(NODE, false) && may_lead(&leadership, 1));
    }

    #[test]
    fn a_node_that_was_silent_or_crashed_leads_after_a_while() {
        for reason in [Reason::Back, Reason::Restarted] {
            let mut leadership = Leadership::default();
            told(&mut leadership, LivenessState::Alive, Reason::Heard, 1);
            assert!(may_lead(&leadership, 2), "a node that is new need not wait");
            told(&mut leadership, LivenessState::Dead, Reason::Silent, 50);
            told(&mut leadership, LivenessState::Alive, reason, 100);
            assert!(leadership.may_hold_more(NODE, false) && !may_lead(&leadership, 129), "{reason:?}");
            told(&mut leadership, LivenessState::Alive, reason, 100);
            assert!(may_lead(&leadership, 130), "{reason:?}");
        }
    }

    #[test]
    fn a_node_that_said_that_it_stops_leads_when_it_is_back_and_not_after_a_crash_later() {
        let mut leadership = Leadership::default();
        says(&mut leadership, NodeHealth { is_stopping: true, ..NodeHealth::default() });
        assert!(!may_lead(&leadership, 90));
        told(&mut leadership, LivenessState::Suspect, Reason::Silent, 95);
        leadership.learn_health(Arc::default());
        told(&mut leadership, LivenessState::Alive, Reason::Restarted, 100);
        told(&mut leadership, LivenessState::Alive, Reason::Restarted, 100);
        assert!(may_lead(&leadership, 100));
        told(&mut leadership, LivenessState::Alive, Reason::Restarted, 200);
        assert!(!may_lead(&leadership, 200));
    }

    #[test]
    fn leaderships_come_in_portions() {
        let mut leadership = Leadership::default();
        let mut portion = |now, node, shards| (0..1000).filter(|_| leadership.take_turn(now, node, shards)).count();
        assert_eq!(portion(at(1), NODE, 64), PORTION);
        assert_eq!(portion(at(1), NodeId(3), 64), PORTION, "each node has its own");
        assert_eq!(portion(at(1) + PATIENCE / 2, NODE, 64), 0);
        assert_eq!(portion(at(1) + PATIENCE, NODE, 1024), 16);
    }
}
