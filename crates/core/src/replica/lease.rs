//! The leader's lease: until when it may answer reads without asking anybody.
//!
//! raft-rs has a lease of its own that checks none of what follows (it answers reads from the leader's belief alone).
//! Here a lease rests on promises that voters really gave:
//!
//! - A follower that takes a heartbeat sent at `t` neither campaigns nor votes for at least [`ELECTION_TICKS`] of its
//!   ticks. n ticks span at least n - 1 intervals.
//! - Each heartbeat carries the number of its round; the follower echoes it. Rounds echoed *in this term* by a quorum
//!   of every active configuration prove that no other leader can be elected until `t` plus that time.
//! - Clocks of two nodes may run apart by 1 % ([`DRIFT_PERMILLE`]).
//!
//! Hence `lease = t + (ELECTION_TICKS - LEASE_MARGIN_TICKS) x TICK x 0.99`. Learners promise nothing and do not count.
//! A leader that begins a transfer gives its lease up for the rest of the term, because the transferee's election
//! overrides the promises, and a delayed MsgTimeoutNow does so later than anybody expects.

use crate::limits::{ELECTION_TICKS, LEASE_MARGIN_TICKS, TICK};
use crate::time::Moment;
use crate::types::ReplicaId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How far two nodes' monotonic clocks may run apart.
pub const DRIFT_PERMILLE: u32 = 10;

/// How long after the start of an echoed round a leader may serve reads.
pub const LEASE: Duration = Duration::from_nanos(
    TICK.as_nanos() as u64 * (ELECTION_TICKS - LEASE_MARGIN_TICKS) as u64 * (1000 - DRIFT_PERMILLE) as u64 / 1000,
);

/// Rounds that are still worth an answer: older ones would give a lease that has run out.
const ROUNDS_KEPT: usize = 2 * ELECTION_TICKS;

/// The rounds of heartbeats of one leader in one term, and who echoed them.
#[derive(Debug, Default)]
pub struct Lease {
    rounds: VecDeque<(u64, Moment)>,
    next_round: u64,
    echoed: BTreeMap<ReplicaId, Moment>,
    given_up: bool,
}

impl Lease {
    /// Forgets everything: a new term, or no leader any more.
    pub fn reset(&mut self) {
        let next_round = self.next_round;
        *self = Lease { next_round, ..Lease::default() };
    }

    /// No lease for the rest of the term.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    /// The number of the round that heartbeats sent at `now` belong to.
    pub fn round_at(&mut self, now: Moment) -> u64 {
        if let Some(&(round, sent)) = self.rounds.back()
            && sent == now
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

    /// Until when the lease lasts, given since when a quorum follows ([`followed_at`](Lease::followed_at)).
    /// [`Moment::default`] where there is none.
    pub fn until(&self, followed_at: Moment) -> Moment {
        if self.given_up || followed_at == Moment::default() { Moment::default() } else { followed_at + LEASE }
    }

    /// The latest moment at which a quorum of every active configuration (one, or two while joint) is known to have
    /// followed this leader. [`Moment::default`] where that is not known.
    pub fn followed_at(&self, now: Moment, own: ReplicaId, configurations: &[Vec<ReplicaId>]) -> Moment {
        let echoed = configurations.iter().map(|voters| self.quorum_echoed(now, own, voters));
        echoed.min().unwrap_or_default()
    }

    /// The latest moment at which a round was sent that a quorum of `voters` has echoed, the leader included.
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

    fn until(lease: &Lease, now: Moment, configurations: &[&[ReplicaId]]) -> Moment {
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
        let mut lease = Lease::default();
        let round = lease.round_at(at(1000));
        lease.echo(voters[1], round);
        assert_eq!(until(&lease, at(1001), &[&voters[..]]), Moment::default());
        lease.echo(voters[2], round);
        assert_eq!(until(&lease, at(1200), &[&voters[..]]), at(1000) + LEASE);
        assert_eq!(LEASE, Duration::from_millis(297));
    }

    #[test]
    fn every_active_configuration_must_agree() {
        let replicas = replicas(6);
        let (incoming, outgoing) = (&replicas[0..3], &replicas[3..6]);
        let mut lease = Lease::default();
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
        let mut lease = Lease::default();
        let round = lease.round_at(at(1000));
        lease.echo(replicas[3], round);
        lease.echo(replicas[1], round + 1);
        assert_eq!(until(&lease, at(1001), &[&replicas[0..3]]), Moment::default());
    }

    #[test]
    fn a_lease_given_up_stays_given_up_until_the_next_term() {
        let voters = replicas(3);
        let mut lease = Lease::default();
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
    fn a_lone_voter_holds_its_lease_by_itself() {
        let voters = replicas(1);
        assert_eq!(until(&Lease::default(), at(5), &[&voters[..]]), at(5) + LEASE);
    }
}
