//! The leader's lease: until when it may answer reads without asking anybody.
//!
//! raft-rs has a lease of its own that rests on the leader's belief alone. This one rests on what voters have promised.
//!
//! - **The promise.** Before a replica echoes a heartbeat, it promises to vote for nobody for [`PROMISE`], counted on
//!   its own clock from when it takes the heartbeat ([`Promise`]). It keeps the promise whatever term it learns
//!   meanwhile, and does not campaign itself. raft-rs alone does not keep it: it forgets its leader at any message of a
//!   later term that is no request for a vote, such as a rejected pre-vote that a slow disk has held back.
//! - **The round.** Each heartbeat carries the number of its round, and the echo returns it. A round that a quorum of
//!   every active configuration has echoed *in this term* proves that no other leader is elected until the round's start
//!   plus the promise: the quorum of that election would contain a voter that is bound.
//! - **The clocks** of two nodes run apart by less than 1 % ([`DRIFT_PERMILLE`]), and count while a machine sleeps.
//!
//! Hence `lease = start of the round + (PROMISE - LEASE_MARGIN_TICKS x TICK) x 0.99`. What else the argument needs:
//!
//! - Learners make promises, too, and do not count until they are voters.
//! - A restart forgets promises, so a replica that restarts begins with one. It can't have made an earlier one that lasts
//!   longer.
//! - The candidate of a transfer is exempt. Its leader gave up its lease before it asked for the election, and for the
//!   rest of the term: a delayed MsgTimeoutNow forces an election later than anybody expects.
//! - A follower that is bound drops *answers* of a later term: to take that term over would only depose a leader that it
//!   must not replace. It takes appends, heartbeats, snapshots and MsgTimeoutNow of a later term: their sender was elected by
//!   a quorum. A leader drops nothing of a later term, since a follower that is in that term already could not
//!   be led any more.
//!
//! The model is CockroachDB's leader fortification: support that a follower gives for a time and can't take back.

use crate::limits::{ELECTION_TICKS, LEASE_MARGIN_TICKS, TICK};
use crate::time::Moment;
use crate::types::ReplicaId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How far two nodes' monotonic clocks may run apart.
pub const DRIFT_PERMILLE: u32 = 10;

/// For how long a replica that echoes a heartbeat votes for nobody.
pub const PROMISE: Duration = Duration::from_nanos(TICK.as_nanos() as u64 * ELECTION_TICKS as u64);

/// How long after the start of an echoed round a leader may serve reads.
pub const LEASE: Duration = Duration::from_nanos(
    TICK.as_nanos() as u64 * (ELECTION_TICKS - LEASE_MARGIN_TICKS) as u64 * (1000 - DRIFT_PERMILLE) as u64 / 1000,
);

/// Heartbeats that leave within this time share a round, which begins with the first of them. Each turn of the worker
/// that asks for reads sends heartbeats: a round for each would push out those whose echoes are still under way.
const ROUND: Duration = Duration::from_nanos(TICK.as_nanos() as u64 / 4);

/// Rounds that are kept. Older ones would give a lease that has run out.
const ROUNDS_KEPT: usize = (LEASE.as_nanos() / ROUND.as_nanos()) as usize + 1;

const _: () = assert!(LEASE.as_nanos() < PROMISE.as_nanos());

/// Until when a replica votes for nobody but a transfer's candidate, and does not campaign.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promise {
    until: Moment,
}

impl Promise {
    /// Promises it at `now`. What was promised before is never shortened.
    pub fn make(&mut self, now: Moment) {
        self.until = self.until.max(now + PROMISE);
    }

    /// Whether the replica is bound at `now`.
    pub fn binds(&self, now: Moment) -> bool {
        now < self.until
    }
}

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
        if let Some(&(round, began)) = self.rounds.back()
            && now < began + ROUND
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
    fn heartbeats_in_quick_succession_share_a_round_and_its_echo_counts_from_the_first() {
        let voters = replicas(3);
        let mut lease = Lease::default();
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
        promise.make(at(1000));
        promise.make(at(900));
        assert!(promise.binds(at(1399)));
        assert!(!promise.binds(at(1400)));
    }

    #[test]
    fn a_lone_voter_holds_its_lease_by_itself() {
        let voters = replicas(1);
        assert_eq!(until(&Lease::default(), at(5), &[&voters[..]]), at(5) + LEASE);
    }
}
