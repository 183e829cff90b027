//! Leadership that this replica gives away because its node is not to lead: it stops, or its disk does not answer.
//!
//! **A node that stops** hands over to whichever voter is most ready. A voter whose disk hung a short while ago is chosen where
//! there is no other: disks may hang in turn, and a disk that answers now is better than none.
//!
//! **A disk that hangs** may be one that all replicas share, or the reason may be one that all have (a storage system that
//! pauses, a burst of writes). To elect a leader takes syncs, so a hand-over in a spike of all disks would leave the shard
//! without any leader for as long as that lasts. So the leader asks for proof first: it proposes an empty entry, and hands
//! over when a quorum *without itself* has synced that. No clock and no message of a third node is in it. The entry also
//! tells which voter has the whole log.
//!
//! Where the hand-over is not taken up, because a configuration change is pending that this disk would have to log or a
//! voter lacks something that only this disk has, the leader steps down after that proof, and the others elect.

use super::*;
use crate::health::{NodeHealth, abstention, can_lead};

/// Leadership on its way to a node whose disk answers.
pub(super) struct Shedding {
    term: u64,
    /// The entry that others must have synced.
    proof: u64,
    /// The tick at which they first had.
    proved: Option<u64>,
}

impl<T> Replica<T> {
    /// Hands leadership to whichever voter is most ready: this node is about to stop. False where nobody is, or this
    /// replica does not lead.
    pub fn hand_over(&mut self, health: &BTreeMap<NodeId, NodeHealth>) -> bool {
        let voters = self.raft.raft.prs().conf().voters().ids();
        let others: Vec<ReplicaId> = voters.iter().map(ReplicaId).filter(|&other| other != self.id).collect();
        self.hand_over_to(others, health)
    }

    /// This node's disk does not answer. Returns whether something was done that others should not do at the same time.
    pub fn shed(&mut self, health: &BTreeMap<NodeId, NodeHealth>) -> bool {
        let term = self.raft.raft.term;
        if !self.is_leader() {
            self.shedding = None;
            return false;
        }
        if self.shedding.as_ref().is_none_or(|shedding| shedding.term != term) {
            // Raft refuses it only during a transfer, and then leadership is leaving already.
            if self.raft.propose(Vec::new(), Vec::new()).is_ok() {
                let proof = self.raft.raft.raft_log.last_index();
                self.shedding = Some(Shedding { term, proof, proved: None });
            }
            return false;
        }
        let Some(Shedding { proof, proved, .. }) = &self.shedding else { return false };
        let (proof, proved) = (*proof, *proved);
        let has_proved = |replica: &ReplicaId| {
            *replica != self.id
                && can_lead(health, replica.node())
                && self.raft.raft.prs().get(replica.0).is_some_and(|progress| progress.matched >= proof)
        };
        let is_quorum = |voters: &Vec<ReplicaId>| voters.iter().filter(|id| has_proved(id)).count() > voters.len() / 2;
        if !self.configurations.iter().all(is_quorum) {
            return false;
        }
        let since = proved.unwrap_or(self.ticks);
        if let Some(shedding) = &mut self.shedding {
            shedding.proved = Some(since);
        }
        if self.ticks >= since + MAX_ELECTION_TICKS as u64 {
            self.raft.raft.become_follower(term, raft::INVALID_ID);
            return true;
        }
        let proved: Vec<ReplicaId> = self.configurations.iter().flatten().copied().filter(has_proved).collect();
        self.hand_over_to(proved, health)
    }

    /// This node's disk answers again.
    pub fn stop_shedding(&mut self) {
        self.shedding = None;
    }

    fn hand_over_to(&mut self, mut candidates: Vec<ReplicaId>, health: &BTreeMap<NodeId, NodeHealth>) -> bool {
        candidates.retain(|candidate| can_lead(health, candidate.node()));
        candidates.sort_unstable();
        let matched = |replica: &ReplicaId| self.raft.raft.prs().get(replica.0).map_or(0, |progress| progress.matched);
        candidates
            .sort_by_key(|replica| (abstention(health, replica.node()).is_some(), std::cmp::Reverse(matched(replica))));
        candidates.into_iter().any(|candidate| self.transfer_leadership(candidate).is_ok())
    }
}
