//! Reports to the controller, and its steps.
//!
//! The controller decides on a leader's report. The leader carries out a step only if the configuration and the term
//! are still the reported ones, and checks again what would be unsafe if it had changed meanwhile: a learner is
//! promoted only when it has the log, a leader never removes itself, and leadership goes only to a voter that is ready.
//!
//! A change is encoded twice in its entry. raft-rs reads its own protobuf encoding when the leader proposes; what
//! replicas apply is our encoding beside it, so that no byte from another node reaches the protobuf parser.
//!
//! A configuration takes effect when it is applied, and a replica that does not know yet that it is committed still
//! campaigns in the previous one, joint or not. So the members that a change removed must be able to vote until every
//! remaining voter knows *durably* that the change is committed: each replica makes its commit index durable when it
//! applies a change, its answers carry that index, and the report names the replicas that have confirmed.
//!
//! raft-rs leaves a joint configuration automatically, but not if the leader changes in between: a leader in a joint
//! configuration with no pending change proposes to leave it, repeatedly if necessary.

use super::*;
use crate::codec::{CodecError, Reader, put_varint};
use crate::message::{Step, StepRequest};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry};
use std::collections::BTreeSet;
use std::time::Duration;

/// A replica has caught up when it lacks no more than this many entries.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// How often a shard that is not at its target repeats its report. The controller forgets a report after ten seconds.
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// Why a step was not carried out. The controller decides again on the next report.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepRefused {
    #[error("not the leader in that term, or another configuration meanwhile")]
    Stale,
    #[error("another configuration change is pending")]
    Pending,
    #[error("replica {0} has not caught up")]
    Behind(ReplicaId),
    #[error("the step would remove the leader or a quorum, or does not fit the configuration")]
    Unsafe,
}

/// What a replica knows of the members of its shard.
#[derive(Default)]
pub(super) struct Membership {
    /// The target and the replicas of this shard in the topology.
    pub group: Group,
    /// The voters of every active configuration: one, or two while joint.
    pub configurations: Vec<Vec<ReplicaId>>,
    /// The tick at which each of the other replicas was last heard.
    pub answered: BTreeMap<ReplicaId, Ticks>,
    /// The last report to the controller, and its tick.
    pub last_report: Option<(Ticks, ShardReport)>,
    /// A configuration change was applied, so the commit index is logged at once.
    pub save_commit: bool,
}

impl<T> Replica<T> {
    /// The report on this shard's membership. It is meaningful only on the leader.
    pub fn report(&self) -> ShardReport {
        let conf_state = self.raft.raft.prs().conf().to_conf_state();
        let replicas = |ids: &[u64]| {
            let mut replicas: Vec<ReplicaId> = ids.iter().map(|&id| ReplicaId(id)).collect();
            replicas.sort_unstable();
            replicas
        };
        let (voters, outgoing) = (replicas(&conf_state.voters), replicas(&conf_state.voters_outgoing));
        let learners: BTreeSet<u64> =
            conf_state.learners.iter().chain(conf_state.learners_next.iter()).copied().collect();
        let learners: Vec<ReplicaId> = learners.into_iter().map(ReplicaId).collect();
        let members: BTreeSet<ReplicaId> = voters.iter().chain(&outgoing).chain(&learners).copied().collect();
        let caught_up = members.into_iter().filter(|&replica| self.has_caught_up(replica)).collect();
        let confirmed = voters.iter().filter(|replica| self.has_confirmed(**replica)).copied().collect();
        ShardReport {
            shard: self.shard,
            leader: self.id,
            term: Term(self.raft.raft.term),
            configuration: self.applied.configuration.0,
            voters,
            outgoing,
            learners,
            caught_up,
            confirmed,
            copied_bytes: self.copied_bytes(),
        }
    }

    /// The bytes that a new replica would receive, rounded for the report.
    fn copied_bytes(&self) -> u64 {
        let state_bytes = match self.machine {
            StateMachine::Kv => self.state_bytes(),
            // The topology is small; measuring it would mean encoding it at every tick.
            StateMachine::System(_) => 0,
        };
        ((state_bytes + self.bytes_after_base()) as u64).max(LEAST_COPIED_BYTES).next_power_of_two()
    }

    /// The report, if one is due: it differs from the last one, or the shard is not at its target and [`REPEAT_AFTER`]
    /// has passed.
    pub fn due_report(&mut self) -> Option<ShardReport> {
        if !self.is_leader() || !self.raft.raft.apply_to_current_term() {
            return None;
        }
        let report = self.report();
        let due = match &self.membership.last_report {
            None => true,
            Some((_, last)) if *last != report => true,
            Some((at, _)) => !self.is_settled(&report) && self.ticks >= *at + self.config.timing.ticks(REPEAT_AFTER),
        };
        due.then(|| {
            self.membership.last_report = Some((self.ticks, report.clone()));
            report
        })
    }

    /// Whether the shard is at the topology's target.
    fn is_settled(&self, report: &ShardReport) -> bool {
        let preferred = self.membership.group.target_replicas();
        let mut target = preferred.clone();
        target.sort_unstable();
        report.voters == target
            && report.outgoing.is_empty()
            && report.learners.is_empty()
            && report.caught_up.len() == target.len()
            && preferred.first() == Some(&self.id)
            && self.membership.group.replicas.len() == target.len()
    }

    /// Carries out a step of the controller.
    pub fn step_membership(&mut self, request: &StepRequest) -> Result<(), StepRefused> {
        let raft = &self.raft.raft;
        let current = (self.id, raft.term, self.applied.configuration.0);
        if !self.is_leader() || current != (request.leader, request.term.0, request.configuration) {
            return Err(StepRefused::Stale);
        }
        if raft.has_pending_conf() || raft.lead_transferee.is_some() {
            return Err(StepRefused::Pending);
        }
        match &request.step {
            Step::AddLearner(replica) => {
                if raft.prs().get(replica.0).is_some() {
                    return Err(StepRefused::Unsafe);
                }
                self.propose_change(&[(ConfChangeType::AddLearnerNode, *replica)])
            }
            Step::Change { promote, remove } => {
                if let Some(behind) = promote.iter().find(|replica| !self.has_caught_up(**replica)) {
                    return Err(StepRefused::Behind(*behind));
                }
                let known = promote.iter().chain(remove).all(|replica| raft.prs().get(replica.0).is_some());
                if !known || remove.contains(&self.id) || !self.keeps_quorum(promote, remove) {
                    return Err(StepRefused::Unsafe);
                }
                let promote = promote.iter().map(|&replica| (ConfChangeType::AddNode, replica));
                let remove = remove.iter().map(|&replica| (ConfChangeType::RemoveNode, replica));
                self.propose_change(&promote.chain(remove).collect::<Vec<_>>())
            }
            Step::TransferLeadership(to) => self.transfer_leadership(*to),
        }
    }

    /// Transfers leadership to `to`, which must be a voter that has caught up.
    pub fn transfer_leadership(&mut self, to: ReplicaId) -> Result<(), StepRefused> {
        let raft = &self.raft.raft;
        if !self.is_leader() {
            return Err(StepRefused::Stale);
        }
        if raft.has_pending_conf() || raft.lead_transferee.is_some() {
            return Err(StepRefused::Pending);
        }
        if to == self.id || !raft.prs().conf().voters().contains(to.0) {
            return Err(StepRefused::Unsafe);
        }
        if !self.has_caught_up(to) {
            return Err(StepRefused::Behind(to));
        }
        self.raft.transfer_leader(to.0);
        Ok(())
    }

    /// Whether `replica` answers and has the log almost to its end.
    fn has_caught_up(&self, replica: ReplicaId) -> bool {
        if replica == self.id || self.config.mutation.is(Mutation::PromoteEarly) {
            return true;
        }
        let raft = &self.raft.raft;
        raft.prs().get(replica.0).is_some_and(|progress| {
            let answers = self.answers(replica);
            // If nothing matches, not even the snapshot has arrived, however short the log is.
            answers && progress.matched > 0 && progress.matched + CAUGHT_UP_ENTRIES >= raft.raft_log.last_index()
        })
    }

    /// Whether `replica` knows durably that the current configuration is committed.
    fn has_confirmed(&self, replica: ReplicaId) -> bool {
        let committed = match self.raft.raft.prs().get(replica.0) {
            _ if replica == self.id => self.durability.commit(),
            Some(progress) => progress.committed_index,
            None => 0,
        };
        committed >= self.applied.configuration.0
    }

    /// Whether a quorum of the voters after a change has caught up.
    fn keeps_quorum(&self, promote: &[ReplicaId], remove: &[ReplicaId]) -> bool {
        let voters: BTreeSet<ReplicaId> = self.raft.raft.prs().conf().voters().ids().iter().map(ReplicaId).collect();
        let after: BTreeSet<ReplicaId> =
            voters.iter().chain(promote).filter(|replica| !remove.contains(replica)).copied().collect();
        let caught_up = after.iter().filter(|&&replica| self.has_caught_up(replica)).count();
        caught_up > after.len() / 2
    }

    fn propose_change(&mut self, changes: &[(ConfChangeType, ReplicaId)]) -> Result<(), StepRefused> {
        let proposed = self.raft.propose_conf_change(encode_change(changes), for_raft(changes));
        proposed.map_err(|_| StepRefused::Pending)
    }

    /// Called at every tick of a leader.
    pub(super) fn leave_joint_if_stuck(&mut self) {
        let raft = &self.raft.raft;
        let joint = !raft.prs().conf().to_conf_state().voters_outgoing.is_empty();
        if joint && !raft.has_pending_conf() && raft.apply_to_current_term() {
            // Raft drops it during a transfer; the next tick tries again.
            let _ = self.raft.propose_conf_change(Vec::new(), ConfChangeV2::default());
        }
    }

    /// Caches the voters of every active configuration, which every turn reads.
    pub(super) fn learn_configurations(&mut self) {
        let conf_state = self.raft.raft.prs().conf().to_conf_state();
        let replicas = |ids: &[u64]| ids.iter().map(|&id| ReplicaId(id)).collect::<Vec<_>>();
        let both = [replicas(&conf_state.voters), replicas(&conf_state.voters_outgoing)];
        self.membership.configurations = both.into_iter().filter(|voters| !voters.is_empty()).collect();
    }

    pub(super) fn apply_configuration(&mut self, entry: &Entry) {
        let changes = decode_change(&entry.context).unwrap_or_else(|error| {
            panic!("configuration change {} of shard {} can't be applied: {error}", entry.index, self.shard)
        });
        // Every replica refuses an invalid change alike, and its configuration stays as it is.
        let _ = self.raft.apply_conf_change(&for_raft(&changes));
        self.learn_configurations();
        self.applied.configuration = LogIndex(entry.index);
        self.membership.save_commit = true;
        // A change that an earlier leader proposed may remove the one that commits it. raft-rs lets it continue to
        // lead, and panics when it next looks itself up among the members.
        let leads_on = self.config.mutation.is(Mutation::LeadAfterRemoval);
        if self.is_leader() && !self.raft.raft.promotable() && !leads_on {
            let term = self.raft.raft.term;
            self.raft.raft.become_follower(term, raft::INVALID_ID);
        }
    }
}

/// The change in raft-rs's form: joint if it affects more than one replica.
fn for_raft(changes: &[(ConfChangeType, ReplicaId)]) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    for &(kind, replica) in changes {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = replica.0;
        change.mut_changes().push(single);
    }
    change
}

fn encode_change(changes: &[(ConfChangeType, ReplicaId)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, replica) in changes {
        out.push(match kind {
            ConfChangeType::AddNode => 1,
            ConfChangeType::RemoveNode => 2,
            ConfChangeType::AddLearnerNode => 3,
        });
        put_varint(&mut out, replica.0);
    }
    out
}

pub(super) fn decode_change(bytes: &[u8]) -> Result<Vec<(ConfChangeType, ReplicaId)>, ChangeError> {
    let mut reader = Reader::new(bytes);
    let mut changes = Vec::new();
    while !reader.is_empty() {
        let kind = match reader.u8()? {
            1 => ConfChangeType::AddNode,
            2 => ConfChangeType::RemoveNode,
            3 => ConfChangeType::AddLearnerNode,
            other => return Err(ChangeError::Unknown(other)),
        };
        changes.push((kind, ReplicaId(reader.varint()?)));
    }
    Ok(changes)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("a change of kind {0} is not known here; a newer Ringfort wrote this")]
    Unknown(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_their_encoding_and_keep_their_bytes() {
        let changes = [
            (ConfChangeType::AddNode, ReplicaId::new(NodeId(2), 5)),
            (ConfChangeType::RemoveNode, ReplicaId(7)),
            (ConfChangeType::AddLearnerNode, ReplicaId(300)),
        ];
        let encoded = encode_change(&changes);
        assert_eq!(decode_change(&encoded).unwrap(), changes);
        assert_eq!(encoded, [1, 0x85, 0x80, 0x80, 0x80, 0x20, 2, 7, 3, 0xac, 2]);
        assert!(decode_change(&encoded[..encoded.len() - 1]).is_err());
        assert!(decode_change(&[9, 1]).is_err());
        assert!(decode_change(&[]).unwrap().is_empty());
    }
}
