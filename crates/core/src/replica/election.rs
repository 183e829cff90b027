//! Election timeouts: when a replica campaigns.
//!
//! raft-rs draws election timeouts from a thread-local random source, which makes runs unrepeatable and lets two
//! survivors draw the same tick. Here the timeout is a function of what all replicas know: the voters that could
//! campaign are ranked by a permutation that depends on shard and term, and the range of timeouts is divided among the
//! ranks. Two survivors then never share a part of the range, and no node is first for all shards.
//!
//! The range begins one tick above [`ELECTION_TICKS`]: voters ignore candidates until they have missed
//! [`ELECTION_TICKS`] heartbeats, and their count may lag the candidate's by one.

use crate::limits::{ELECTION_TICKS, MAX_ELECTION_TICKS};
use crate::types::{ReplicaId, ShardId, Term};

/// The shortest election timeout: that of the first rank.
pub const FIRST_TICKS: usize = ELECTION_TICKS + 1;

/// How many ticks after [`FIRST_TICKS`] a voter campaigns, if disks are fast.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank(usize);

impl Rank {
    pub fn ticks(self) -> usize {
        self.0
    }

    #[cfg(test)]
    pub const fn for_tests(ticks: usize) -> Rank {
        Rank(ticks)
    }
}

/// The rank of `own` among `voters`: below `MAX_ELECTION_TICKS - FIRST_TICKS`.
///
/// `voters` excludes the leader of `term`, if there is one: an election means that this leader does not answer.
pub fn rank(seed: u64, shard: ShardId, term: Term, own: ReplicaId, voters: &[ReplicaId]) -> Rank {
    const WIDTH: usize = MAX_ELECTION_TICKS - FIRST_TICKS;
    let group = mix(seed ^ mix(u64::from(shard.0)) ^ mix(term.0.wrapping_add(0x5151)));
    let key = |replica: ReplicaId| (mix(group ^ mix(replica.0)), replica);
    let rank = voters.iter().filter(|&&other| other != own && key(other) < key(own)).count();
    let ranks = voters.len().max(rank + 1);
    // If a rank's part of the range has more than one tick, its last one stays unused.
    let within = (key(own).0 >> 32) as usize % (WIDTH / ranks).saturating_sub(1).max(1);
    Rank(rank * WIDTH / ranks + within)
}

/// A bijection that spreads its input over all 64 bits (the finaliser of SplitMix64).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    fn voters(count: u64) -> Vec<ReplicaId> {
        (1..=count).map(|n| ReplicaId::new(NodeId(n), n as u32)).collect()
    }

    #[test]
    fn timeouts_of_survivors_never_meet_and_stay_in_range() {
        for survivors in 1..=4 {
            for shard in 0..64 {
                for term in 1..50 {
                    let voters = voters(survivors);
                    let mut ticks: Vec<usize> = voters
                        .iter()
                        .map(|&own| FIRST_TICKS + rank(7, ShardId(shard), Term(term), own, &voters).ticks())
                        .collect();
                    assert!(ticks.iter().all(|t| (FIRST_TICKS..MAX_ELECTION_TICKS).contains(t)), "{ticks:?}");
                    ticks.sort();
                    let least = if survivors <= 3 { 2 } else { 1 };
                    assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] >= least), "{ticks:?}");
                }
            }
        }
    }

    #[test]
    fn every_replica_is_first_for_some_shards_and_terms() {
        let voters = voters(3);
        let mut first = [0; 3];
        for shard in 0..64 {
            for term in 1..10 {
                let ticks: Vec<usize> =
                    voters.iter().map(|&own| rank(7, ShardId(shard), Term(term), own, &voters).ticks()).collect();
                first[(0..3).min_by_key(|&i| ticks[i]).unwrap()] += 1;
            }
        }
        assert!(first.iter().all(|&count| count > 64 * 9 / 5), "{first:?}");
    }
}
