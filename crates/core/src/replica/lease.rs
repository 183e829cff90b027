//! The leader's lease: until when it may answer reads without asking a quorum.
//!
//! raft-rs has a lease of its own, which relies only on the leader's own view. This one relies on promises of the
//! voters.
//!
//! - **The promise.** Before a replica echoes a heartbeat, it promises not to vote or campaign for one minimum election
//!   timeout ([`Timing::promise`]), measured on its own clock from the receipt of the heartbeat ([`Promise`]). It keeps
//!   the promise whatever term it learns of meanwhile. raft-rs alone does not do this: it forgets its leader at any
//!   message of a later term except vote requests, for example a pre-vote rejection that was delayed by a slow disk.
//! - **The round.** Each heartbeat carries the number of its round, and the echo returns it. If a quorum of every
//!   active configuration has echoed a round *in this term*, no other leader can be elected until the length of the
//!   promise has passed since the start of the round: any quorum of that election would contain a bound voter.
//! - **The clocks** of two nodes run apart by less than 1 % ([`DRIFT_PERMILLE`](crate::limits::DRIFT_PERMILLE)), and
//!   count while a machine sleeps.
//!
//! Hence `lease = start of the round + (promise - LEASE_MARGIN_TICKS x tick) x 0.99` ([`Timing::lease`]). The argument
//! also needs:
//!
//! - All replicas of a shard make promises of the same length, before and after restarts. The election timeout is
//!   chosen when the cluster is created and is part of the topology from its first epoch on; no command changes it. A
//!   node saves a topology before it starts its first replica, and does not start if it can't read that file. So an
//!   echo need not carry the length of its sender's promise, and a promise need not be written to disk: a leader knows
//!   the length of all voters' promises from its own, and a restarted replica knows the longest one that it can have
//!   made.
//! - Learners make promises, too, but do not count until they are voters.
//! - A restart forgets promises, so a restarted replica begins with a new one. No earlier promise lasts longer.
//! - The candidate of a transfer is exempt. Its leader gave up its lease before it asked for the election, and for the
//!   rest of the term: a delayed MsgTimeoutNow may force an election at any later time.
//! - A bound follower drops *answers* of a later term: adopting that term would only depose a leader that the follower
//!   must not replace. It accepts appends, heartbeats, snapshots and MsgTimeoutNow of a later term: their sender was
//!   elected by a quorum. A leader drops nothing of a later term; otherwise it could no longer lead a follower that is
//!   already in that term.
//!
//! **A failed transfer costs the lease until the next term** if its MsgTimeoutNow was sent. Reads then ask a quorum.
//! Within the term the lease can't come back: nothing proves that the message will not arrive. In the next term it can:
//! the message makes its receiver campaign for exactly that term, which already has this replica as its only leader,
//! and a receiver that is already in that term ignores it. A leader could therefore campaign for the next term, as the
//! candidate of a transfer to itself. It does not: the shard would have no leader while the votes are synced, to make
//! up for a loss that hardly ever happens.
//!
//! The model is CockroachDB's leader fortification, in which a follower grants its support for a fixed time and can't
//! withdraw it.

use crate::limits::{ELECTION_TICKS, LEASE_MARGIN_TICKS, ROUNDS_A_TICK};
use crate::time::Moment;
use crate::timing::Timing;
use crate::types::ReplicaId;
use std::collections::{BTreeMap, VecDeque};

/// How many rounds are kept. Older ones would give a lease that has already expired.
const ROUNDS_KEPT: usize = (ELECTION_TICKS - LEASE_MARGIN_TICKS) * ROUNDS_A_TICK;

/// The moment until which a replica does not campaign, and votes only for a transfer's candidate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promise {
    until: Moment,
}

impl Promise {
    /// Makes the promise at `now`. An earlier promise is never shortened.
    pub fn make(&mut self, now: Moment, timing: Timing) {
        self.until = self.until.max(now + timing.promise());
    }

    /// Whether the replica is bound at `now`.
    pub fn binds(&self, now: Moment) -> bool {
        now < self.until
    }
}

/// The heartbeat rounds of one leader in one term, and the replicas that echoed them.
#[derive(Debug)]
pub struct LeaderLease {
    timing: Timing,
    rounds: VecDeque<(u64, Moment)>,
    next_round: u64,
    echoed: BTreeMap<ReplicaId, Moment>,
    given_up: bool,
}

impl LeaderLease {
    pub fn new(timing: Timing) -> LeaderLease {
        LeaderLease { timing, rounds: VecDeque::new(), next_round: 0, echoed: BTreeMap::new(), given_up: false }
    }

    /// Forgets all rounds: there is a new term, or this replica no longer leads.
    pub fn reset(&mut self) {
        *self = LeaderLease { next_round: self.next_round, ..LeaderLease::new(self.timing) };
    }

    /// Gives up the lease for the rest of the term.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    /// The number of the round that heartbeats sent at `now` belong to. A round begins with the first of them.
    pub fn round_at(&mut self, now: Moment) -> u64 {
        if let Some(&(round, began)) = self.rounds.back()
            && now < began + self.timing.round()
        {
            return round;
        }
        self.next_round += 1;
        self.rounds.push_back((self.next_round, now));
        if self.rounds.len() > ROUNDS_KEPT {
            self.rounds.pop_front();
        }
        self.next_round
    }

    /// A follower echoed `round` in this term.
    pub fn echo(&mut self, from: ReplicaId, round: u64) {
        if let Some(&(_, sent)) = self.rounds.iter().find(|(known, _)| *known == round) {
            let latest = self.echoed.entry(from).or_default();
            *latest = sent.max(*latest);
        }
    }

    /// When the lease ends, given the latest moment at which a quorum followed
    /// ([`followed_at`](LeaderLease::followed_at)). [`Moment::default`] if there is no lease.
    pub fn until(&self, followed_at: Moment) -> Moment {
        if self.given_up || followed_at == Moment::default() {
            Moment::default()
        } else {
            followed_at + self.timing.lease()
        }
    }

    /// The latest moment at which a quorum of every active configuration (one, or two while joint) is known to have
    /// followed this leader. [`Moment::default`] if none is known.
    pub fn followed_at(&self, now: Moment, own: ReplicaId, configurations: &[Vec<ReplicaId>]) -> Moment {
        let echoed = configurations.iter().map(|voters| self.quorum_echoed(now, own, voters));
        echoed.min().unwrap_or_default()
    }

    /// When the latest round was sent that a quorum of `voters`, including the leader, has echoed.
    fn quorum_echoed(&self, now: Moment, own: ReplicaId, voters: &[ReplicaId]) -> Moment {
        let mut moments: Vec<Moment> = voters
            .iter()
            .map(|&voter| if voter == own { now } else { self.echoed.get(&voter).copied().unwrap_or_default() })
            .collect();
        moments.sort_unstable_by(|a, b| b.cmp(a));
        moments.get(voters.len() / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;
    use std::time::Duration;

    const TIMING: Timing = Timing::DEFAULT;
    const LEASE: Duration = TIMING.lease();

    fn until(lease: &LeaderLease, now: Moment, configurations: &[&[ReplicaId]]) -> Moment {
        let configurations: Vec<_> = configurations.iter().map(|voters| voters.to_vec()).collect();
        lease.until(lease.followed_at(now, replicas(1)[0], &configurations))
    }

    fn replicas(count: u64) -> Vec<ReplicaId> {
        (1..=count).map(|n| ReplicaId::new(NodeId(n), n as u32)).collect()
    }

    fn at(millis: u64) -> Moment {
        Moment(millis * 1_000_000)
    }

    #[test]
    fn a_lease_starts_when_the_round_was_sent_and_needs_a_quorum() {
        let voters = replicas(5);
        let mut lease = LeaderLease::new(TIMING);
        let round = lease.round_at(at(1000));
        lease.echo(voters[1], round);
        assert_eq!(until(&lease, at(1001), &[&voters[..]]), Moment::default());
        lease.echo(voters[2], round);
        assert_eq!(until(&lease, at(1200), &[&voters[..]]), at(1000) + LEASE);
    }

    #[test]
    fn every_active_configuration_must_agree() {
        let replicas = replicas(6);
        let (incoming, outgoing) = (&replicas[0..3], &replicas[3..6]);
        let mut lease = LeaderLease::new(TIMING);
        let round = lease.round_at(at(1000));
        lease.echo(replicas[1], round);
        assert_eq!(until(&lease, at(1001), &[incoming, outgoing]), Moment::default());
        lease.echo(replicas[3], round);
        lease.echo(replicas[4], round);
        assert_eq!(until(&lease, at(1001), &[incoming, outgoing]), at(1000) + LEASE);
    }

    #[test]
    fn learners_and_unknown_rounds_count_for_nothing() {
        let replicas = replicas(4);
        let mut lease = LeaderLease::new(TIMING);
        let round = lease.round_at(at(1000));
        lease.echo(replicas[3], round);
        lease.echo(replicas[1], round + 1);
        assert_eq!(until(&lease, at(1001), &[&replicas[0..3]]), Moment::default());
    }

    #[test]
    fn a_lease_given_up_stays_given_up_until_the_next_term() {
        let voters = replicas(3);
        let mut lease = LeaderLease::new(TIMING);
        lease.give_up();
        let round = lease.round_at(at(1000));
        lease.echo(voters[1], round);
        assert_eq!(until(&lease, at(1001), &[&voters[..]]), Moment::default());
        lease.reset();
        lease.echo(voters[1], round);
        assert_eq!(until(&lease, at(1001), &[&voters[..]]), Moment::default(), "echo of an earlier term");
        let round = lease.round_at(at(1050));
        lease.echo(voters[1], round);
        assert_eq!(until(&lease, at(1051), &[&voters[..]]), at(1050) + LEASE);
    }

    #[test]
    fn heartbeats_in_quick_succession_share_a_round_and_its_echo_counts_from_the_first() {
        let voters = replicas(3);
        let mut lease = LeaderLease::new(TIMING);
        let first = lease.round_at(at(1000));
        for millis in 1001..1012 {
            assert_eq!(lease.round_at(at(millis)), first);
        }
        for millis in 1013..1300 {
            assert!(lease.round_at(at(millis)) > first);
        }
        lease.echo(voters[1], first);
        assert_eq!(until(&lease, at(1300), &[&voters[..]]), at(1000) + LEASE, "it is kept while it is worth anything");
    }

    #[test]
    fn a_promise_is_never_shortened() {
        let mut promise = Promise::default();
        assert!(!promise.binds(at(0)));
        promise.make(at(1000), TIMING);
        promise.make(at(900), TIMING);
        assert!(promise.binds(at(1399)));
        assert!(!promise.binds(at(1400)));
    }

    #[test]
    fn a_lone_voter_holds_its_lease_by_itself() {
        let voters = replicas(1);
        assert_eq!(until(&LeaderLease::new(TIMING), at(5), &[&voters[..]]), at(5) + LEASE);
    }
}
