//! How long a replica waits before it campaigns when disks are slow.
//!
//! An election needs a sync of the candidate's own vote and then one of each voter's. If both together take longer than
//! an election timeout, every candidate gives up before it is elected, and voters campaign in the next term while the
//! candidate that they voted for still waits. So patience grows with the latency of the disks:
//!
//! - A replica whose own term or vote is not durable yet does not count ticks: no message that it sends could leave.
//! - A replica that has voted, for itself or for another, waits longer by the recent latency of its node's disk: the
//!   other voters' disks have yet to sync their votes.
//! - The ranks of the voters ([`election`](super::election)) are spread by the disk's latency, so that the first
//!   candidate has requested votes before the second campaigns.
//! - The latencies of other nodes' disks are not known here. Each further term without a leader doubles the patience of
//!   all replicas that saw the term, up to [`MAX_PATIENCE`].
//!
//! Only replicas that know no leader become more patient, and patience is always safe: votes and leases rely on the
//! promise ([`lease`](super::lease)), which this does not affect. A disk that answers within a tick changes nothing.

use super::election::{FIRST_TICKS, Rank};
use crate::limits::MAX_ELECTION_TICKS;
use crate::timing::Timing;
use std::time::Duration;

/// Disk latency is capped at this.
const MAX_SLOW: Duration = Duration::from_secs(1);

/// The longest patience, or twice the longest election timeout if that is more. With it, voters whose syncs take ten
/// seconds elect a leader.
const MAX_PATIENCE: Duration = Duration::from_secs(20);

/// Enough doublings for any election timeout to reach [`MAX_PATIENCE`].
const MAX_DOUBLINGS: u32 = 8;

/// How many terms a replica has seen without a leader.
#[derive(Debug)]
pub struct Patience {
    timing: Timing,
    /// The last term in which a leader was known, or the one that the replica started with.
    led_term: u64,
}

/// A replica's role in the election of the current term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub term: u64,
    pub knows_leader: bool,
    /// It has voted in this term, for itself or another.
    pub has_voted: bool,
    /// How long its node's disk took for its latest batch, or has taken so far.
    pub sync: Duration,
}

impl Patience {
    pub fn new(term: u64, timing: Timing) -> Patience {
        Patience { timing, led_term: term }
    }

    /// The ticks without a leader's message after which the replica with this rank campaigns.
    pub fn timeout_ticks(&mut self, part: Part, rank: Rank) -> usize {
        if part.knows_leader || part.term < self.led_term {
            self.led_term = part.term;
        }
        let slow = (part.sync.min(MAX_SLOW).as_nanos() / self.timing.tick().as_nanos()) as usize;
        let spread = rank.ticks() * slow.max(1);
        let voters = if part.has_voted && !part.knows_leader { slow } else { 0 };
        // The first term after a leader's has the usual timeout; doubling begins with the second.
        let failed = (part.term - self.led_term).saturating_sub(1).min(u64::from(MAX_DOUBLINGS)) as u32;
        ((FIRST_TICKS + voters + spread) << failed).min(self.most_ticks())
    }

    fn most_ticks(&self) -> usize {
        (self.timing.ticks(MAX_PATIENCE).0 as usize).max(2 * MAX_ELECTION_TICKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANK: Rank = Rank::for_tests(3);

    fn part(term: u64) -> Part {
        Part { term, knows_leader: false, has_voted: false, sync: Duration::from_millis(2) }
    }

    #[test]
    fn a_fast_disk_changes_nothing() {
        let mut patience = Patience::new(5, Timing::DEFAULT);
        assert_eq!(patience.timeout_ticks(part(5), RANK), FIRST_TICKS + 3);
        let voted = Part { has_voted: true, ..part(6) };
        assert_eq!(patience.timeout_ticks(voted, RANK), FIRST_TICKS + 3);
    }

    #[test]
    fn slow_syncs_spread_the_ranks_and_give_voters_time() {
        let mut patience = Patience::new(5, Timing::DEFAULT);
        let slow = Part { sync: Duration::from_millis(400), ..part(5) };
        assert_eq!(patience.timeout_ticks(slow, RANK), FIRST_TICKS + 3 * 8);
        let voted = Part { has_voted: true, ..slow };
        assert_eq!(patience.timeout_ticks(voted, RANK), FIRST_TICKS + 8 + 3 * 8);
        let hung = Part { sync: Duration::from_secs(3600), ..slow };
        assert_eq!(patience.timeout_ticks(hung, RANK), FIRST_TICKS + 3 * 20);
    }

    #[test]
    fn patience_reaches_what_disks_need_and_twice_the_longest_election_timeout_whatever_that_is() {
        for (ms, most) in
            [(100, Duration::from_secs(20)), (400, Duration::from_secs(20)), (10_000, Duration::from_secs(40))]
        {
            let timing = Timing::new(Duration::from_millis(ms)).unwrap();
            let mut patience = Patience::new(5, timing);
            let ticks = (5..30).map(|term| patience.timeout_ticks(part(term), RANK)).max();
            assert_eq!(timing.tick() * ticks.unwrap() as u32, most, "{timing}");
        }
    }

    #[test]
    fn terms_without_a_leader_double_patience_until_one_is_known() {
        let mut patience = Patience::new(5, Timing::DEFAULT);
        let ticks: Vec<usize> = (5..20).map(|term| patience.timeout_ticks(part(term), RANK)).collect();
        assert_eq!(ticks[..5], [12, 12, 24, 48, 96]);
        assert_eq!(ticks[14], 400, "20 s");
        let led = Part { knows_leader: true, ..part(20) };
        assert_eq!(patience.timeout_ticks(led, RANK), 12);
        assert_eq!(patience.timeout_ticks(part(21), RANK), 12);
    }
}
