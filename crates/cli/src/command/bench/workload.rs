//! The requests: puts and gets of random keys under the run's own prefix.

use crate::random::Random;
use bytes::Bytes;
use ringfort_node::Kind;
use std::sync::OnceLock;
use std::time::Instant;

/// All keys of all runs begin with this.
const PREFIX: &str = "bench/";

/// The mix of requests, shared by all tasks that send them.
pub struct Workload {
    /// `bench/<random>/`, so that runs do not touch each other's keys.
    pub prefix: String,
    pub keys: u64,
    /// The value of every put.
    pub value: Bytes,
    /// The percentage of gets.
    pub reads_percent: u8,
    pub in_flight: usize,
    /// Requests per second; `None` for as many as are answered.
    pub rate: Option<u32>,
    stopped_at: OnceLock<Instant>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    Put(Bytes),
    Get(Bytes),
}

impl Workload {
    /// `keys` must not be 0.
    pub fn new(keys: u64, value_bytes: usize, reads_percent: u8, in_flight: usize, rate: Option<u32>) -> Workload {
        let mut random = Random::new();
        let value = (0..value_bytes).map(|_| random.next() as u8).collect();
        let prefix = format!("{PREFIX}{:08x}/", random.next() as u32);
        Workload { prefix, keys, value, reads_percent, in_flight, rate, stopped_at: OnceLock::new() }
    }

    /// Lets no further requests begin.
    pub fn stop(&self) {
        self.stopped_at.get_or_init(Instant::now);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped_at.get().is_some()
    }

    pub fn stopped_at(&self) -> Option<Instant> {
        self.stopped_at.get().copied()
    }

    pub fn key(&self, number: u64) -> Bytes {
        format!("{}{number:08}", self.prefix).into()
    }

    /// The next request, its key drawn uniformly.
    pub fn draw(&self, random: &mut Random) -> Operation {
        let key = self.key(random.next() % self.keys);
        match Kind::drawn(|kind| self.share(kind), |sum| (random.next() % u64::from(sum)) as u32) {
            Kind::Get => Operation::Get(key),
            Kind::Put | Kind::Delete | Kind::Increment | Kind::Append | Kind::Scan => Operation::Put(key),
        }
    }

    /// The share of a kind of request, in percent; the shares add up to 100.
    fn share(&self, kind: Kind) -> u32 {
        let reads_percent = u32::from(self.reads_percent);
        match kind {
            Kind::Get => reads_percent,
            Kind::Put => 100 - reads_percent,
            // Deletes and increments take the same path as a put, and so do appends, which would let the values grow. A
            // scan reads all shards, and would be a separate measurement.
            Kind::Delete | Kind::Increment | Kind::Append | Kind::Scan => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_mixed_as_asked_and_stay_in_the_key_space() {
        for percent in [0, 30, 100] {
            let workload = Workload::new(10, 16, percent, 1, None);
            let known: Vec<Bytes> = (0..10).map(|number| workload.key(number)).collect();
            let (mut random, mut gets) = (Random::new(), 0);
            for _ in 0..10_000 {
                let operation = workload.draw(&mut random);
                gets += u32::from(matches!(operation, Operation::Get(_)));
                let (Operation::Put(key) | Operation::Get(key)) = operation;
                assert!(known.contains(&key), "{key:?}");
            }
            let expected = u32::from(percent) * 100;
            assert!(gets.abs_diff(expected) < 300 && (gets == expected || percent == 30), "{percent} %: {gets}");
        }
    }

    #[test]
    fn runs_do_not_share_keys() {
        let runs = [Workload::new(1, 0, 0, 1, None), Workload::new(1, 0, 0, 1, None)];
        assert_ne!(runs[0].prefix, runs[1].prefix);
        assert!(runs[0].key(0).starts_with(b"bench/"));
    }
}
