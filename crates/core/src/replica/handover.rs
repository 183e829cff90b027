//! Hand-over of leadership by a node that must not lead: it is stopping, or its disk does not answer.
//!
//! **A node that is stopping** hands over to the voter with the longest log. A voter whose disk hung recently is chosen
//! only if there is no other: disks may hang one after another, and a disk that answers now is better than none.
//!
//! **A disk that hangs** may be shared by all replicas, or all their disks may hang for the same reason (a storage
//! system that pauses, a burst of writes). An election needs syncs, so a hand-over while all disks hang would leave the
//! shard without a leader until they recover. So the leader first asks for proof: it proposes an empty entry, and hands
//! over when a quorum *without itself* has synced it. This needs no clock and no message from a third node. The entry
//! also shows which voters have the whole log.
//!
//! If no transfer succeeds after the proof, because a configuration change waits for this disk or a voter lacks an
//! entry that only this disk has, the leader steps down and the others hold an election.

use super::*;
use crate::health::{NodeHealth, abstention, can_lead};

/// A hand-over in progress to a node whose disk answers.
pub(super) struct Shedding {
    term: u64,
    /// The index of the entry that the others must sync.
    proof: u64,
    /// The tick at which they had first synced it.
    proved: Option<Ticks>,
}

impl<T> Replica<T> {
    /// Hands leadership over because this node is about to stop. False if no voter can take over, or this replica does
    /// not lead.
    pub fn hand_over(&mut self, health: &BTreeMap<NodeId, NodeHealth>) -> bool {
        let voters = self.raft.raft.prs().conf().voters().ids();
        let others: Vec<ReplicaId> = voters.iter().map(ReplicaId).filter(|&other| other != self.id).collect();
        self.hand_over_to(others, health)
    }

    /// Continues the hand-over while this node's disk does not answer. Returns whether this started an election; only a
    /// few should run at a time.
    pub fn shed(&mut self, health: &BTreeMap<NodeId, NodeHealth>) -> bool {
        let term = self.raft.raft.term;
        if !self.is_leader() {
            self.shedding = None;
            return false;
        }
        if self.shedding.as_ref().is_none_or(|shedding| shedding.term != term) {
            // Raft refuses a proposal only during a transfer, and then leadership is already moving.
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
        if !self.membership.configurations.iter().all(is_quorum) {
            return false;
        }
        let since = proved.unwrap_or(self.ticks);
        if let Some(shedding) = &mut self.shedding {
            shedding.proved = Some(since);
        }
        if self.ticks >= since + Ticks(MAX_ELECTION_TICKS as u64) {
            self.raft.raft.become_follower(term, raft::INVALID_ID);
            return true;
        }
        let proved: Vec<ReplicaId> =
            self.membership.configurations.iter().flatten().copied().filter(has_proved).collect();
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
