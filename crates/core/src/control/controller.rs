//! The controller: what the system shard's leader decides periodically.
//!
//! 1. *Member states*: a node that has been silent for too long must hold no replicas any more, if there are enough
//!    other nodes to take its place; one that is heard again becomes active again; one that leaves and holds nothing is
//!    removed.
//! 2. *The target*: where the ring places the shards on the active nodes.
//! 3. *Next steps*: a step for each shard that is not at its target ([`plan`]).
//!
//! The first two are proposals to the system shard; the third goes to the shards' leaders. Each round decides on the
//! present state again, so the controller need not remember anything.

use super::leadership::Leadership;
use super::plan::{self, Action};
use super::progress::{Pace, Progress};
use super::{ControlConfig, ControlEffects, PATIENCE};
use crate::limits::{REPLICATION, SMALL_MOVE_BYTES, SMALL_MOVES_BYTES};
use crate::liveness::LivenessView;
use crate::message::{ControlMessage, ShardReport, StepRequest};
use crate::mutation::Mutation;
use crate::system::{MemberState, SystemCommand, SystemMachine, Topology};
use crate::time::{HlcTimestamp, Moment};
use crate::types::{Epoch, NodeId, ReplicaId, ShardId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A report that is not repeated for this long is forgotten, and with it its shard's place among the moves. A shard
/// that is not settled reports every 500 ms, or once a tick if that is longer. So a report that is not repeated arrived
/// late, after a newer one that said that the shard is settled, or is from a leader that no longer leads.
const REPORT_LIFE: Duration = Duration::from_secs(10);

pub struct Controller {
    node: NodeId,
    config: ControlConfig,
    reports: BTreeMap<ShardId, Reported>,
    /// The epoch and the time of the last proposals, which are not repeated before they had time to take effect.
    proposed: Option<(Epoch, Moment)>,
    pace: Pace,
}

/// A shard's latest report, and when the controller last acted on it.
struct Reported {
    report: ShardReport,
    /// When the controller first considered it.
    heard: Option<Moment>,
    acted: Option<Moment>,
    action: Option<Action>,
}

impl Reported {
    /// Whether the shard is receiving a replica on a node that is not silent.
    fn is_moving(&self, is_silent: impl Fn(ReplicaId) -> bool) -> bool {
        let adding = match &self.action {
            Some(Action::AddLearner(replica)) => Some(*replica),
            _ => None,
        };
        self.report.learners.iter().copied().chain(adding).any(|replica| !is_silent(replica))
    }
}

/// The shards that are being copied to new replicas. The number of large shards that move at a time is bounded. Small
/// shards are bounded by their total bytes only: otherwise a new cluster with many empty shards would move them a few
/// at a time.
#[derive(Default)]
struct Moves {
    large: usize,
    small_bytes: u64,
}

impl Moves {
    fn add(&mut self, report: &ShardReport) {
        match report.copied_bytes {
            bytes if bytes <= SMALL_MOVE_BYTES => self.small_bytes += bytes,
            _ => self.large += 1,
        }
    }

    fn has_room(&self, report: &ShardReport, most: usize) -> bool {
        match report.copied_bytes {
            bytes if bytes <= SMALL_MOVE_BYTES => self.small_bytes + bytes <= SMALL_MOVES_BYTES,
            _ => self.large < most,
        }
    }
}

/// The inputs of one round of decisions, and its output.
pub struct Round<'a> {
    pub now: Moment,
    pub topology: &'a Topology,
    pub liveness: &'a LivenessView,
    pub leadership: &'a mut Leadership,
    pub out: &'a mut ControlEffects,
}

impl Controller {
    pub fn new(node: NodeId, config: ControlConfig) -> Controller {
        Controller { node, config, reports: BTreeMap::new(), proposed: None, pace: Pace::default() }
    }

    pub fn progress(&self, now: Moment) -> Progress {
        self.pace.progress(now)
    }

    /// A node that is silent for this long is replaced if enough other nodes are alive.
    pub fn replace_after(&self) -> Duration {
        self.config.replace_after
    }

    /// Resets the controller: this node no longer leads the system shard.
    pub fn forget(&mut self) {
        *self = Controller::new(self.node, self.config);
    }

    /// Handles a shard's report.
    pub fn learn(&mut self, report: ShardReport) {
        let known = self.reports.get(&report.shard);
        let is_old = known.is_some_and(|known| {
            let version = |report: &ShardReport| (report.term, report.configuration);
            version(&report) < version(&known.report)
        });
        if is_old {
            return;
        }
        // The same report again means that the step decided on it is in progress, or was lost.
        let same = known.filter(|known| known.report == report);
        let (acted, action) = same.map_or((None, None), |known| (known.acted, known.action.clone()));
        self.reports.insert(report.shard, Reported { report, heard: None, acted, action });
    }

    /// Makes one round of decisions.
    pub fn run(&mut self, mut round: Round<'_>) {
        let Round { now, topology, liveness, .. } = round;
        self.propose(&mut round);
        self.reports.retain(|_, reported| now < *reported.heard.get_or_insert(now) + REPORT_LIFE);
        self.act(round);
        let reports = self.reports.iter().filter_map(|(shard, reported)| Some((topology.groups.get(shard)?, reported)));
        let left = reports.flat_map(|(group, reported)| plan::arriving(group, &reported.report));
        let (waiting, moving): (Vec<ReplicaId>, Vec<ReplicaId>) =
            left.partition(|replica| is_silent(self.node, liveness, *replica));
        self.pace.note(now, moving.len(), waiting.len());
    }

    /// A planted bug: proposals take effect before they are committed.
    pub fn publish_early(&self, topology: &Topology, proposals: &[SystemCommand]) -> Option<Arc<Topology>> {
        let command = proposals.first().filter(|_| self.config.mutation.is(Mutation::PublishBeforeCommit))?;
        let mut machine = SystemMachine::new(topology.clone(), HlcTimestamp::default());
        machine.apply(HlcTimestamp::default(), command.clone());
        Some(machine.topology().clone())
    }

    /// Proposes changes of the topology to the system shard.
    fn propose(&mut self, round: &mut Round<'_>) {
        let Round { now, topology, liveness, out, .. } = round;
        let now = *now;
        let epoch = topology.epoch;
        if self.proposed.is_some_and(|(at_epoch, at)| at_epoch == epoch && now < at + PATIENCE) {
            return;
        }
        self.proposed = Some((epoch, now));
        let removals = topology.member_states.iter().filter(|(_, state)| state.leaves());
        let removals = removals.filter(|(node, _)| topology.replicas_on(**node) == 0);
        out.proposals.extend(removals.map(|(&node, _)| SystemCommand::Remove { node }));
        let verdict = self.verdict(topology, liveness);
        let is_changing = verdict.is_some();
        out.proposals.extend(verdict);
        if is_changing || topology.paused {
            return;
        }
        let groups = plan::changed_targets(topology);
        if !groups.is_empty() {
            out.proposals.push(SystemCommand::Place { based_on: epoch, groups });
        }
    }

    /// The state change for the next node, if any, that has come back or has been silent for too long.
    fn verdict(&self, topology: &Topology, liveness: &LivenessView) -> Option<SystemCommand> {
        let set_state =
            |node, state| SystemCommand::SetMemberState { node, state, successor: None, fewer_replicas: false };
        let is_alive = |node: NodeId| node == self.node || liveness.is_alive(node);
        let returned = topology
            .member_states
            .iter()
            .find(|(node, state)| **state == MemberState::Dead && liveness.is_heard(**node));
        if let Some((&node, _)) = returned {
            return Some(set_state(node, None));
        }
        // Without enough other nodes its replicas can't be placed elsewhere, and the node may come back with them.
        if topology.active().filter(|(node, _)| is_alive(*node)).count() < REPLICATION {
            return None;
        }
        let is_lost = |node: &NodeId| {
            let may_leave = topology.member_states.get(node).is_none_or(|state| !state.leaves());
            may_leave && *node != self.node && liveness.is_lost(*node, self.config.replace_after)
        };
        topology.nodes.keys().copied().find(is_lost).map(|node| set_state(node, Some(MemberState::Dead)))
    }

    /// Issues the next step of every shard that is not at its target.
    fn act(&mut self, round: Round<'_>) {
        let Round { now, topology, liveness, leadership, out } = round;
        let is_silent = |replica| is_silent(self.node, liveness, replica);
        let mut moves = Moves::default();
        let moving = self.reports.values().filter(|reported| reported.is_moving(is_silent));
        moving.for_each(|reported| moves.add(&reported.report));
        for (&shard, reported) in &mut self.reports {
            let Some(group) = topology.groups.get(&shard) else { continue };
            if reported.acted.is_some_and(|at| now < at + PATIENCE) {
                continue;
            }
            let was_moving = reported.is_moving(is_silent);
            let report = &reported.report;
            let may_lead = |node| leadership.may_lead(now, node, self.config.lead_after);
            let mut next = plan::next_action(group, report, may_lead);
            if next.is_none() && self.config.mutation.is(Mutation::DropBeforeCaughtUp) {
                next = plan::drop_early(group, report);
            }
            let is_short = report.voters.len() < group.target.len();
            let mut may_take = |action: &Action| match action {
                _ if topology.paused && plan::begins(action, group, report) => false,
                // It would occupy a place among the moves without making progress.
                Action::AddLearner(replica) if is_silent(*replica) => false,
                Action::AddLearner(replica) if !leadership.may_hold_more(replica.node(), is_short) => false,
                Action::AddLearner(_) => was_moving || moves.has_room(report, self.config.moves),
                Action::Transfer(to) => leadership.take_turn(now, to.node(), topology.shards.get() as usize),
                _ => true,
            };
            reported.action = next.filter(|action| may_take(action));
            let Some(action) = reported.action.clone() else { continue };
            if matches!(action, Action::AddLearner(_)) && !was_moving {
                moves.add(&reported.report);
            }
            reported.acted = Some(now);
            let report = &reported.report;
            match action.into_step() {
                Ok(step) => {
                    let request = StepRequest {
                        shard,
                        leader: report.leader,
                        term: report.term,
                        configuration: report.configuration,
                        step,
                    };
                    if report.leader.node() == self.node {
                        out.steps.push(request);
                    } else {
                        out.messages.push((report.leader.node(), ControlMessage::Step(request)));
                    }
                }
                Err(replica) => out.proposals.push(SystemCommand::Retire { shard, replica }),
            }
        }
    }
}

/// Whether a replica's node is suspect or dead. This node itself never is.
fn is_silent(own: NodeId, liveness: &LivenessView, replica: ReplicaId) -> bool {
    replica.node() != own && !liveness.is_alive(replica.node())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{DiskState, NodeHealth};
    use crate::liveness::Detector;
    use crate::system::topology::tests::member;
    use crate::timing::Timing;
    use crate::types::{ClusterId, Term};
    use ringfort_ring::ShardCount;

    const MINUTE: Duration = Duration::from_secs(60);
    const PERIOD: Duration = Duration::from_millis(500);

    /// A cluster in which node 1 leads the system shard.
    struct Scene {
        topology: Topology,
        controller: Controller,
        detector: Detector,
        heartbeat: u64,
        liveness: LivenessView,
        copied_bytes: u64,
        leadership: Leadership,
        /// The reports that the shards' leaders repeat.
        reports: BTreeMap<u32, ShardReport>,
        now: Moment,
    }

    impl Scene {
        fn new(nodes: u64) -> Scene {
            let mut topology =
                Topology::bootstrap(ClusterId(5), ShardCount::new(4).unwrap(), Timing::DEFAULT, member("node1"));
            for node in 2..=nodes {
                topology.nodes.insert(NodeId(node), member(&format!("node{node}")));
            }
            let now = Moment(1) + MINUTE;
            let controller = Controller::new(NodeId(1), ControlConfig { moves: 2, ..ControlConfig::default() });
            let detector = Detector::new(PERIOD);
            let liveness = LivenessView::default();
            let reports = BTreeMap::new();
            let (copied_bytes, leadership) = (2 * SMALL_MOVE_BYTES, Leadership::default());
            let heartbeat = 0;
            let mut scene =
                Scene { topology, controller, detector, heartbeat, liveness, copied_bytes, leadership, reports, now };
            scene.place();
            scene
        }

        /// Puts every shard at its target.
        fn place(&mut self) {
            for (shard, nodes) in plan::changed_targets(&self.topology) {
                let replica = |&node: &NodeId| ReplicaId::new(node, shard.0 % 1000 + 1);
                let group = self.topology.groups.get_mut(&shard).unwrap();
                group.replicas = nodes.iter().map(replica).collect();
                group.replicas.sort();
                group.target = nodes;
            }
        }

        /// The controller's effects after some time in which these nodes were heard.
        fn after(&mut self, time: Duration, heard: &[u64]) -> ControlEffects {
            let end = self.now + time;
            while self.now < end {
                self.now = self.now + PERIOD;
                self.heartbeat += 1;
                let others = || self.topology.nodes.keys().copied().filter(|node| *node != NodeId(1));
                self.detector.watch(self.now, others());
                self.detector.handle_tick(self.now);
                heard.iter().for_each(|&node| self.detector.heard(self.now, NodeId(node), 1, self.heartbeat));
                let liveness = others().filter_map(|node| Some((node, self.detector.liveness(node, self.now)?)));
                let liveness = liveness.collect();
                self.leadership.learn_liveness(&liveness);
                self.liveness.tell(self.now, liveness);
            }
            self.reports.values().for_each(|report| self.controller.learn(report.clone()));
            let mut out = ControlEffects::default();
            let Scene { now, ref topology, ref liveness, ref mut leadership, .. } = *self;
            self.controller.run(Round { now, topology, liveness, leadership, out: &mut out });
            out
        }

        fn report(&mut self, shard: u32, voters: &[ReplicaId], learners: &[ReplicaId]) {
            let report = ShardReport {
                shard: ShardId(shard),
                leader: voters[0],
                term: Term(2),
                configuration: 5,
                voters: voters.to_vec(),
                outgoing: Vec::new(),
                learners: learners.to_vec(),
                caught_up: voters.to_vec(),
                confirmed: voters.to_vec(),
                copied_bytes: self.copied_bytes,
            };
            self.reports.insert(shard, report);
        }
    }

    fn set_state(node: u64, state: Option<MemberState>) -> SystemCommand {
        SystemCommand::SetMemberState { node: NodeId(node), state, successor: None, fewer_replicas: false }
    }

    #[test]
    fn a_node_is_given_up_after_five_minutes_of_silence_and_taken_back_when_it_speaks() {
        let mut scene = Scene::new(4);
        assert_eq!(scene.after(4 * MINUTE, &[2, 3]).proposals, []);
        assert_eq!(scene.after(2 * MINUTE, &[2, 3]).proposals, [set_state(4, Some(MemberState::Dead))]);
        scene.topology.member_states.insert(NodeId(4), MemberState::Dead);
        let proposals = scene.after(MINUTE, &[2, 3]).proposals;
        assert!(matches!(&proposals[..], [SystemCommand::Place { .. }]), "{proposals:?}");
        assert_eq!(scene.after(MINUTE, &[2, 3, 4]).proposals[..], [set_state(4, None)]);
    }

    #[test]
    fn nobody_is_given_up_without_enough_others_or_after_a_sleep_of_ones_own() {
        let mut three = Scene::new(3);
        assert_eq!(three.after(60 * MINUTE, &[2]).proposals, [], "two can't hold three replicas");
        let mut five = Scene::new(5);
        assert_eq!(five.after(60 * MINUTE, &[2]).proposals, [], "most are silent: it is this node that is cut off");
        let mut asleep = Scene::new(5);
        asleep.now = asleep.now + 60 * MINUTE;
        assert_eq!(asleep.after(MINUTE, &[2, 3]).proposals, []);
    }

    #[test]
    fn a_node_that_joins_late_is_not_given_up_before_it_could_speak() {
        let mut scene = Scene::new(3);
        scene.after(60 * MINUTE, &[2, 3]);
        scene.topology.nodes.insert(NodeId(4), member("node4"));
        for _ in 0..4 {
            let proposals = scene.after(MINUTE, &[2, 3]).proposals;
            assert!(matches!(&proposals[..], [SystemCommand::Place { .. }]), "{proposals:?}");
        }
    }

    #[test]
    fn a_node_that_leaves_is_removed_when_it_holds_nothing() {
        let mut scene = Scene::new(4);
        scene.topology.member_states.insert(NodeId(4), MemberState::Leaving);
        let proposals = scene.after(MINUTE, &[2, 3, 4]).proposals;
        assert!(matches!(&proposals[..], [SystemCommand::Place { .. }]), "{proposals:?}");
        scene.place();
        assert_eq!(scene.after(MINUTE, &[2, 3, 4]).proposals, [SystemCommand::Remove { node: NodeId(4) }]);
        scene.topology.member_states.insert(NodeId(4), MemberState::Drained);
        assert_eq!(scene.after(MINUTE, &[2, 3, 4]).proposals, [], "it stays");
    }

    #[test]
    fn so_many_moves_at_once_none_of_them_to_a_silent_node_and_none_while_paused() {
        let mut scene = Scene::new(3);
        for shard in 0..4 {
            scene.report(shard, &[ReplicaId::new(NodeId(1), shard + 1)], &[]);
        }
        scene.topology.paused = true;
        assert_eq!(scene.after(MINUTE, &[2, 3]).steps, []);
        scene.topology.paused = false;
        assert_eq!(scene.after(MINUTE, &[]).steps, [], "both targets are silent");
        assert_eq!(scene.after(MINUTE, &[2, 3]).steps.len(), 2, "the limit");
        assert_eq!(scene.controller.progress(scene.now).left, 8, "two replicas for each of four shards");
        let moving: Vec<u32> =
            (0..4).filter(|shard| scene.controller.reports[&ShardId(*shard)].action.is_some()).collect();
        for shard in moving {
            let group = &scene.topology.groups[&ShardId(shard)];
            let (voters, learners): (Vec<_>, Vec<_>) =
                group.replicas.clone().into_iter().partition(|replica| replica.node() == NodeId(1));
            scene.report(shard, &voters, &learners);
        }
        assert_eq!(scene.after(MINUTE, &[2, 3]).steps, [], "two are on their way");
        assert_eq!(scene.after(MINUTE, &[3]).steps, [], "one of each learners is heard");
        assert_eq!(scene.after(MINUTE, &[]).steps, []);
    }

    #[test]
    fn shards_with_little_to_copy_do_not_wait_for_one_another() {
        let mut scene = Scene::new(3);
        scene.copied_bytes = SMALL_MOVE_BYTES;
        for shard in 0..4 {
            scene.report(shard, &[ReplicaId::new(NodeId(1), shard + 1)], &[]);
        }
        assert_eq!(scene.after(MINUTE, &[2, 3]).steps.len(), 4, "more than the limit of two moves");
        let mut moves = Moves::default();
        let report = &scene.reports[&0];
        (0..SMALL_MOVES_BYTES / SMALL_MOVE_BYTES).for_each(|_| moves.add(report));
        assert!(!moves.has_room(report, 2), "their bytes are bounded");
        assert!(moves.has_room(&ShardReport { copied_bytes: 2 * SMALL_MOVE_BYTES, ..report.clone() }, 2));
    }

    #[test]
    fn a_report_that_is_not_repeated_gives_up_its_place_among_the_moves() {
        let mut scene = Scene::new(3);
        for shard in 0..3 {
            scene.report(shard, &[ReplicaId::new(NodeId(1), shard + 1)], &[]);
        }
        // Two shards are moving, as many as may move at a time.
        for shard in 0..2 {
            let (learner, voter) = (ReplicaId::new(NodeId(2), shard + 1), ReplicaId::new(NodeId(1), shard + 1));
            scene.report(shard, &[voter], &[learner]);
        }
        let waits = |steps: &[StepRequest]| steps.iter().all(|step| step.shard != ShardId(2));
        assert!(waits(&scene.after(MINUTE, &[2, 3]).steps));
        assert!(waits(&scene.after(MINUTE, &[2, 3]).steps), "for as long as they say that they move");
        // They have settled, and their last reports were lost, or overtaken by earlier ones.
        scene.reports.retain(|shard, _| *shard == 2);
        assert!(waits(&scene.after(REPORT_LIFE / 2, &[2, 3]).steps));
        assert!(!waits(&scene.after(REPORT_LIFE, &[2, 3]).steps));
    }

    #[test]
    fn a_lost_replica_is_replaced_although_all_disks_hung_lately() {
        let mut scene = Scene::new(4);
        scene.topology.member_states.insert(NodeId(4), MemberState::Dead);
        scene.place();
        for shard in 0..4 {
            let voters: Vec<ReplicaId> = (1..=2).map(|node| ReplicaId::new(NodeId(node), shard + 1)).collect();
            scene.report(shard, &voters, &[]);
        }
        // Storage that all nodes share pauses again and again.
        let recovering = NodeHealth { disk: DiskState::Recovering, ..NodeHealth::default() };
        scene.leadership.learn_health(Arc::new((1..=3).map(|node| (NodeId(node), recovering)).collect()));
        assert!(!scene.after(MINUTE, &[2, 3]).steps.is_empty());
    }
}
