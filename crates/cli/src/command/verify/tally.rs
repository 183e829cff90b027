//! The clients' shared counts.

use super::service::Service;
use super::store::Failed;
use crate::asked::Request;
use crate::command::bench::measurement::{histogram, record};
use hdrhistogram::Histogram;
use ringfort_client::Outcome;
use ringfort_node::Kind as Asked;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Shared by all clients.
pub struct Tally(Mutex<Counts>);

pub struct Counts {
    /// Indexed by [`Asked`]: latencies of answered operations, in nanoseconds.
    latencies: Vec<Histogram<u64>>,
    pub failures: Failures,
    pub service: Service,
    /// Of writes by shard, where the store has shards with names. Reads do not count there: a leader whose disk hangs
    /// answers them.
    pub shards: BTreeMap<u32, Service>,
}

/// Operations that had no answer.
#[derive(Clone, Default, Debug)]
pub struct Failures {
    /// Writes that were certainly not applied.
    pub refused: u64,
    /// Writes that may have been applied.
    pub ambiguous: u64,
    pub gets: u64,
    /// One of them, in words.
    pub first: Option<String>,
}

impl Failures {
    pub fn total(&self) -> u64 {
        self.refused + self.ambiguous + self.gets
    }
}

impl Tally {
    pub fn new() -> Tally {
        Tally(Mutex::new(Counts {
            latencies: Asked::ALL.iter().map(|_| histogram()).collect(),
            failures: Failures::default(),
            service: Service::default(),
            shards: BTreeMap::new(),
        }))
    }

    pub fn begin(&self, shard: Option<u32>, request: Request, now: Instant) {
        let mut counts = self.counts();
        counts.service.begin(now);
        if let Some(shard) = shard.filter(|_| request.is_write()) {
            counts.shards.entry(shard).or_default().begin(now);
        }
    }

    /// Counts an operation that took from `begun` to `now`; `failed` is why it was not answered.
    pub fn end(&self, shard: Option<u32>, request: Request, failed: Option<&Failed>, begun: Instant, now: Instant) {
        let counts = &mut *self.counts();
        counts.service.end(failed.is_none(), now);
        if let Some(service) = shard.filter(|_| request.is_write()).and_then(|shard| counts.shards.get_mut(&shard)) {
            service.end(failed.is_none(), now);
        }
        let Some(failed) = failed else {
            let latencies = &mut counts.latencies[request.operation() as usize];
            return record(latencies, now.saturating_duration_since(begun));
        };
        *match failed.outcome {
            _ if !request.is_write() => &mut counts.failures.gets,
            Outcome::NotApplied => &mut counts.failures.refused,
            Outcome::Unknown => &mut counts.failures.ambiguous,
        } += 1;
        counts.failures.first.get_or_insert_with(|| failed.message.clone());
    }

    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().expect("no code panics while it holds the counts")
    }
}

impl Counts {
    pub fn answered(&self) -> u64 {
        self.latencies.iter().map(Histogram::len).sum()
    }

    /// The operations, and the latencies of those that were answered.
    pub fn latencies(&self) -> impl Iterator<Item = (Asked, &Histogram<u64>)> {
        Asked::ALL.iter().copied().zip(&self.latencies)
    }

    /// The shard that was longest without service, and for how long.
    pub fn worst_shard(&self, now: Instant) -> Option<(u32, Duration)> {
        let longest = |(shard, service): (&u32, &Service)| (*shard, service.longest_until(now));
        self.shards.iter().map(longest).max_by_key(|(_, longest)| *longest)
    }
}
