//! Requests that wait for a leader of their shard.
//!
//! A request whose shard has no leader waits here and is sent again, until its deadline. An election takes a fraction
//! of a second, and then all requests of a busy node may have to wait. A shard that has lost its quorum, however, gets
//! no leader: requests for it would soon occupy all places of the node ([`in_flight`](crate::in_flight)), and requests
//! for other shards would be refused. So once a shard has had no leader for longer than elections take, its requests
//! share [`MAX_LONG_WAITS`] places with those of all such shards. Further ones fail at once.

use crate::in_flight::MAX_REQUESTS;
use parking_lot::Mutex;
use ringfort_core::types::ShardId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many requests may wait for the leaders of shards that have had none for long; further ones fail at once.
pub const MAX_LONG_WAITS: usize = MAX_REQUESTS / 4;

/// A shard for which no request has waited for this long has probably had a leader meanwhile.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Waits {
    shards: Mutex<BTreeMap<ShardId, Series>>,
    long: AtomicUsize,
}

/// The waits for one shard since a request for it was last answered.
#[derive(Debug)]
struct Series {
    first: Instant,
    latest: Instant,
}

/// A request that waits. Dropping this ends the wait.
#[derive(Debug)]
pub struct Wait<'a> {
    waits: &'a Waits,
    is_long: bool,
}

impl Waits {
    /// Lets a request wait; `None` if the shard has had no leader for longer than `patience` and too many requests wait
    /// for such shards.
    pub fn begin(&self, shard: ShardId, now: Instant, patience: Duration) -> Option<Wait<'_>> {
        let first = {
            let mut shards = self.shards.lock();
            let series = shards.entry(shard).or_insert(Series { first: now, latest: now });
            if now.saturating_duration_since(series.latest) > FORGOTTEN_AFTER {
                series.first = now;
            }
            series.latest = now;
            series.first
        };
        let is_long = now.saturating_duration_since(first) > patience;
        let others = if is_long { self.long.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let wait = Wait { waits: self, is_long };
        (others < MAX_LONG_WAITS).then_some(wait)
    }

    /// A request for the shard that had waited was answered: the shard has a leader.
    pub fn answered(&self, shard: ShardId) {
        self.shards.lock().remove(&shard);
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.is_long {
            self.waits.long.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);
    const LOST: ShardId = ShardId(1);
    const ELECTING: ShardId = ShardId(2);

    #[test]
    fn a_shard_without_a_quorum_takes_no_place_of_one_that_elects_a_leader() {
        let (waits, begun) = (Waits::default(), Instant::now());
        let begin = |shard, after| waits.begin(shard, begun + after, PATIENCE);
        let all: Vec<_> =
            (0..MAX_REQUESTS).map(|_| begin(LOST, Duration::ZERO).expect("it may be an election")).collect();
        drop(all);
        let late = 2 * PATIENCE;
        let mut lost: Vec<_> = (0..MAX_LONG_WAITS).map(|_| begin(LOST, late).expect("there is room")).collect();
        assert!(begin(LOST, late).is_none() && begin(LOST, late).is_none());
        let electing: Vec<_> = (0..MAX_REQUESTS).map(|_| begin(ELECTING, late)).collect();
        assert!(electing.iter().all(Option::is_some));
        lost.pop();
        assert!(begin(LOST, late).is_some());
    }

    #[test]
    fn each_election_begins_anew() {
        let (waits, begun) = (Waits::default(), Instant::now());
        let is_long = |after| waits.begin(LOST, begun + after, PATIENCE).expect("there is room").is_long;
        assert_eq!([0, 1, 3].map(|secs| is_long(Duration::from_secs(secs))), [false, false, true]);
        waits.answered(LOST);
        assert_eq!([4, 7].map(|secs| is_long(Duration::from_secs(secs))), [false, true]);
        let next = Duration::from_secs(8) + FORGOTTEN_AFTER;
        assert_eq!([next, next + 2 * PATIENCE].map(is_long), [false, true]);
    }
}
