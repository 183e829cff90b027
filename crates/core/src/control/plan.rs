//! The controller's decisions, as pure functions of the topology and the shards' reports.
//!
//! A shard moves by these steps, one at a time, each decided on the configuration that the previous one left:
//!
//! 1. add the target replicas as learners; the leader sends them a snapshot and the log after it;
//! 2. promote the learners that have caught up, and in the same joint change remove members that are no longer in the
//!    target, never so many that fewer voters remain than there were or than the target has;
//! 3. the leader is never removed: it hands over first, to the preferred leader if that is ready;
//! 4. replicas that have left the configuration are retired, which tells their nodes that they may delete them. This
//!    waits until every voter knows durably that they have left, because until then their votes may be needed.
//!
//! So a quorum of voters is caught up at all times, and after a crash of any node the same rules continue from the
//! configuration that it leaves.

use crate::limits::{LARGE_SYSTEM, REPLICATION};
use crate::message::{ShardReport, Step};
use crate::system::{Group, Topology};
use crate::types::{NodeId, ReplicaId, ShardId};
use ringfort_ring::{Placement, Token, even_leaders, place, place_one};

/// The next thing to do for a shard.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    AddLearner(ReplicaId),
    Change { promote: Vec<ReplicaId>, remove: Vec<ReplicaId> },
    Transfer(ReplicaId),
    Retire(ReplicaId),
}

impl Action {
    /// The step for the shard's leader, or the replica for the system shard to retire.
    pub fn into_step(self) -> Result<Step, ReplicaId> {
        match self {
            Action::AddLearner(replica) => Ok(Step::AddLearner(replica)),
            Action::Change { promote, remove } => Ok(Step::Change { promote, remove }),
            Action::Transfer(to) => Ok(Step::TransferLeadership(to)),
            Action::Retire(replica) => Err(replica),
        }
    }
}

/// The groups whose target differs from the ring's placement, with the new target.
pub fn changed_targets(topology: &Topology) -> Vec<(ShardId, Vec<NodeId>)> {
    let sites = topology.sites();
    let placement = place(&sites, topology.shards, REPLICATION, &placement_now(topology));
    let system_replicas = if sites.len() >= LARGE_SYSTEM { LARGE_SYSTEM } else { REPLICATION };
    let system_now = current_target(topology, ShardId::SYSTEM);
    let system = place_one(Token::of_shard(ShardId::SYSTEM), &sites, system_replicas, &system_now);
    let shards = placement.iter().map(|(shard, nodes)| (shard, nodes.to_vec()));
    let target = shards.chain([(ShardId::SYSTEM, system)]);
    target.filter(|(shard, nodes)| *nodes != current_target(topology, *shard)).collect()
}

/// The shards whose preferred leader must change so that all nodes lead equally many shards, with their new targets.
pub fn with_even_leaders(topology: &Topology) -> Vec<(ShardId, Vec<NodeId>)> {
    let even = even_leaders(&placement_now(topology));
    let shards = even.iter().map(|(shard, nodes)| (shard, nodes.to_vec()));
    shards.filter(|(shard, nodes)| *nodes != current_target(topology, *shard)).collect()
}

fn current_target(topology: &Topology, shard: ShardId) -> Vec<NodeId> {
    topology.groups.get(&shard).map(|group| group.target.clone()).unwrap_or_default()
}

fn placement_now(topology: &Topology) -> Placement {
    Placement::new(topology.shards.ids().map(|shard| current_target(topology, shard)).collect())
}

/// The target replicas that are not voters yet, according to the shard's report.
pub fn arriving(group: &Group, report: &ShardReport) -> impl Iterator<Item = ReplicaId> {
    group.target_replicas().into_iter().filter(|replica| !report.voters.contains(replica))
}

/// Whether an action begins something new, which can wait, rather than complete what was begun.
pub fn begins(action: &Action, group: &Group, report: &ShardReport) -> bool {
    match action {
        Action::AddLearner(_) => report.learners.is_empty(),
        Action::Transfer(_) => group.target_replicas().contains(&report.leader),
        Action::Change { .. } | Action::Retire(_) => false,
    }
}

/// A planted bug: the replica outside the target is removed before its successor has caught up.
pub fn drop_early(group: &Group, report: &ShardReport) -> Option<Action> {
    let target = group.target_replicas();
    let dropped = report.voters.iter().find(|replica| !target.contains(replica) && **replica != report.leader)?;
    let is_due = report.outgoing.is_empty() && !report.learners.is_empty();
    is_due.then(|| Action::Change { promote: Vec::new(), remove: vec![*dropped] })
}

/// The next action for a shard in the reported state, if any. Leadership goes only to a node that may lead.
pub fn next_action(group: &Group, report: &ShardReport, may_lead: impl Fn(NodeId) -> bool) -> Option<Action> {
    if !report.outgoing.is_empty() {
        return None; // The leader leaves a joint configuration without a step.
    }
    let target = group.target_replicas();
    let is_voter = |replica: &ReplicaId| report.voters.contains(replica);
    let is_learner = |replica: &ReplicaId| report.learners.contains(replica);
    let caught_up = |replica: &ReplicaId| report.caught_up.contains(replica);

    if let Some(missing) = target.iter().find(|replica| !is_voter(replica) && !is_learner(replica)) {
        return Some(Action::AddLearner(*missing));
    }
    let promote: Vec<ReplicaId> =
        target.iter().filter(|replica| is_learner(replica) && caught_up(replica)).copied().collect();
    let mut surplus_voters: Vec<ReplicaId> = report
        .voters
        .iter()
        .filter(|replica| !target.contains(replica) && **replica != report.leader)
        .copied()
        .collect();
    surplus_voters.sort_by_key(|replica| caught_up(replica));
    let spare = (report.voters.len() + promote.len()).saturating_sub(target.len().max(1));
    let remove: Vec<ReplicaId> = surplus_voters
        .into_iter()
        .take(spare)
        .chain(report.learners.iter().filter(|replica| !target.contains(replica)).copied())
        .collect();
    if !promote.is_empty() || !remove.is_empty() {
        return Some(Action::Change { promote, remove });
    }

    let is_ready = |replica: &&ReplicaId| is_voter(replica) && caught_up(replica) && may_lead(replica.node());
    let ready: Vec<ReplicaId> = target.iter().filter(is_ready).copied().collect();
    let settled = target.iter().all(is_voter);
    let preferred = target.first().copied();
    if !target.contains(&report.leader) {
        if let Some(to) = ready.first() {
            return Some(Action::Transfer(*to));
        }
    } else if settled && preferred != Some(report.leader) && ready.first() == preferred.as_ref() {
        return preferred.map(Action::Transfer);
    }
    if !report.voters.iter().all(|voter| report.confirmed.contains(voter)) {
        return None;
    }
    let gone = |replica: &&ReplicaId| !target.contains(replica) && !is_voter(replica) && !is_learner(replica);
    group.replicas.iter().find(gone).map(|replica| Action::Retire(*replica))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;

    fn replica(node: u64) -> ReplicaId {
        ReplicaId::new(NodeId(node), node as u32)
    }

    fn replicas(nodes: &[u64]) -> Vec<ReplicaId> {
        nodes.iter().map(|&node| replica(node)).collect()
    }

    fn group(target: &[u64], held: &[u64]) -> Group {
        Group { target: target.iter().map(|&node| NodeId(node)).collect(), replicas: replicas(held) }
    }

    fn report(leader: u64, voters: &[u64], learners: &[u64], caught_up: &[u64]) -> ShardReport {
        ShardReport {
            shard: ShardId(0),
            leader: replica(leader),
            term: Term(2),
            configuration: 9,
            voters: replicas(voters),
            outgoing: vec![],
            learners: replicas(learners),
            caught_up: replicas(caught_up),
            confirmed: replicas(voters),
            copied_bytes: 0,
        }
    }

    /// The next action if all nodes may lead.
    fn next(group: &Group, report: &ShardReport) -> Option<Action> {
        next_action(group, report, |_| true)
    }

    fn change(promote: &[u64], remove: &[u64]) -> Option<Action> {
        Some(Action::Change { promote: replicas(promote), remove: replicas(remove) })
    }

    #[test]
    fn a_shard_grows_from_one_to_three() {
        let group = group(&[1, 2, 3], &[1, 2, 3]);
        assert_eq!(next(&group, &report(1, &[1], &[], &[1])), Some(Action::AddLearner(replica(2))));
        assert_eq!(next(&group, &report(1, &[1], &[2], &[1])), Some(Action::AddLearner(replica(3))));
        assert_eq!(next(&group, &report(1, &[1], &[2, 3], &[1])), None, "nobody has caught up");
        assert_eq!(next(&group, &report(1, &[1], &[2, 3], &[1, 2, 3])), change(&[2, 3], &[]));
        assert_eq!(next(&group, &report(1, &[1, 2, 3], &[], &[1, 2, 3])), None);
    }

    #[test]
    fn a_replica_is_replaced_in_one_joint_change_and_then_retired() {
        let group = group(&[1, 2, 4], &[1, 2, 3, 4]);
        assert_eq!(next(&group, &report(1, &[1, 2, 3], &[4], &[1, 2, 3])), None);
        assert_eq!(next(&group, &report(1, &[1, 2, 3], &[4], &[1, 2, 3, 4])), change(&[4], &[3]));
        assert_eq!(next(&group, &report(1, &[1, 2, 4], &[], &[1, 2, 4])), Some(Action::Retire(replica(3))));
    }

    #[test]
    fn nobody_is_retired_before_all_voters_have_confirmed() {
        let group = group(&[1, 2, 4], &[1, 2, 3, 4]);
        let mut standing = report(1, &[1, 2, 4], &[], &[1, 2, 4]);
        standing.confirmed = replicas(&[1, 4]);
        assert_eq!(next(&group, &standing), None);
    }

    #[test]
    fn the_leader_hands_over_before_it_leaves() {
        let group = group(&[2, 3, 4], &[1, 2, 3, 4]);
        let step = next(&group, &report(1, &[1, 2, 3], &[4], &[1, 2, 3, 4]));
        assert_eq!(step, change(&[4], &[]), "the new voter comes in, the leader stays");
        let step = next(&group, &report(1, &[1, 2, 3, 4], &[], &[1, 3, 4]));
        assert_eq!(step, Some(Action::Transfer(replica(3))), "to one that has caught up");
        let step = next(&group, &report(3, &[1, 2, 3, 4], &[], &[1, 2, 3, 4]));
        assert_eq!(step, change(&[], &[1]));
        let step = next(&group, &report(3, &[2, 3, 4], &[], &[2, 3, 4]));
        assert_eq!(step, Some(Action::Transfer(replica(2))), "the preferred leader");
    }

    #[test]
    fn leadership_goes_only_to_a_node_that_may_lead() {
        let report = |leader| report(leader, &[1, 2, 3], &[], &[1, 2, 3]);
        let preferred = group(&[2, 1, 3], &[1, 2, 3]);
        assert_eq!(next_action(&preferred, &report(1), |_| true), Some(Action::Transfer(replica(2))));
        assert_eq!(next_action(&preferred, &report(1), |node| node != NodeId(2)), None);
        let leaving = group(&[2, 4, 5], &[1, 2, 3, 4, 5]);
        let mut moved = report(1);
        moved.voters = replicas(&[1, 2, 4, 5]);
        moved.caught_up = moved.voters.clone();
        assert_eq!(next_action(&leaving, &moved, |node| node != NodeId(2)), Some(Action::Transfer(replica(4))));
    }

    #[test]
    fn voters_are_never_fewer_than_they_were_or_than_the_target() {
        let group = group(&[4, 5, 6], &[1, 2, 3, 4, 5, 6]);
        let step = next(&group, &report(1, &[1, 2, 3], &[4, 5, 6], &[1, 2, 3, 4]));
        assert_eq!(step, change(&[4], &[2]));
        let step = next(&group, &report(1, &[1, 3, 4], &[5, 6], &[1, 3, 4]));
        assert_eq!(step, Some(Action::Transfer(replica(4))));
    }

    #[test]
    fn nothing_is_decided_while_joint() {
        let mut joint = report(1, &[1, 2, 4], &[], &[1, 2, 4]);
        joint.outgoing = replicas(&[1, 2, 3]);
        assert_eq!(next(&group(&[1, 2, 4], &[1, 2, 3, 4]), &joint), None);
    }

    #[test]
    fn a_renewed_replica_takes_the_old_ones_place() {
        let renewed = ReplicaId::new(NodeId(3), 9);
        let group = Group {
            target: vec![NodeId(1), NodeId(2), NodeId(3)],
            replicas: vec![replica(1), replica(2), replica(3), renewed],
        };
        let mut standing = report(1, &[1, 2, 3], &[], &[1, 2]);
        assert_eq!(next(&group, &standing), Some(Action::AddLearner(renewed)));
        standing.learners = vec![renewed];
        standing.caught_up.push(renewed);
        let step = next(&group, &standing);
        assert_eq!(step, Some(Action::Change { promote: vec![renewed], remove: vec![replica(3)] }));
    }
}
