//! The requests: puts, gets, increments and appends of random keys under the run's own prefix.

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
    /// The value of every put, and what every append adds.
    pub value: Bytes,
    pub mix: Mix,
    pub in_flight: usize,
    /// Requests per second; `None` for as many as are answered.
    pub rate: Option<u32>,
    stopped_at: OnceLock<Instant>,
}

/// Of a hundred requests so many are of these kinds; the rest are puts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mix {
    pub gets: u8,
    pub increments: u8,
    pub appends: u8,
}

#[derive(Debug, thiserror::Error)]
#[error("the shares of gets, increments and appends are {0} % together: give at most 100")]
pub struct TooMuch(u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Put,
    Get,
    Increment,
    Append,
}

impl Mix {
    pub fn check(self) -> Result<Mix, TooMuch> {
        match self.others() {
            ..=100 => Ok(self),
            percent => Err(TooMuch(percent)),
        }
    }

    fn others(self) -> u32 {
        [self.gets, self.increments, self.appends].map(u32::from).iter().sum()
    }

    /// The share of a kind of request, in percent; the shares add up to 100.
    fn share(self, kind: Kind) -> u32 {
        match kind {
            Kind::Get => self.gets.into(),
            Kind::Increment => self.increments.into(),
            Kind::Append => self.appends.into(),
            Kind::Put => 100 - self.others(),
            // A delete takes the same path as a put. A scan reads all shards, and would be a separate measurement.
            Kind::Delete | Kind::Scan => 0,
        }
    }
}

impl Workload {
    /// `keys` must not be 0.
    pub fn new(keys: u64, value_bytes: usize, mix: Mix, in_flight: usize, rate: Option<u32>) -> Workload {
        let mut random = Random::new();
        let value = (0..value_bytes).map(|_| random.next() as u8).collect();
        let prefix = format!("{PREFIX}{:08x}/", random.next() as u32);
        Workload { prefix, keys, value, mix, in_flight, rate, stopped_at: OnceLock::new() }
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

    /// The key of a put or get.
    pub fn key(&self, number: u64) -> Bytes {
        format!("{}{number:08}", self.prefix).into()
    }

    /// The next request, its key drawn uniformly. Increments and appends have keys of their own: an increment of what was
    /// put would be refused, and gets find values of one size.
    pub fn draw(&self, random: &mut Random) -> (Action, Bytes) {
        let number = random.next() % self.keys;
        match Kind::drawn(|kind| self.mix.share(kind), |sum| (random.next() % u64::from(sum)) as u32) {
            Kind::Get => (Action::Get, self.key(number)),
            Kind::Increment => (Action::Increment, format!("{}counter/{number:08}", self.prefix).into()),
            Kind::Append => (Action::Append, format!("{}log/{number:08}", self.prefix).into()),
            Kind::Put | Kind::Delete | Kind::Scan => (Action::Put, self.key(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_mixed_as_asked_and_stay_in_the_key_space() {
        for (gets, increments, appends) in [(0, 0, 0), (30, 0, 0), (100, 0, 0), (20, 40, 10), (0, 0, 100)] {
            let mix = Mix { gets, increments, appends };
            let workload = Workload::new(10, 16, mix.check().unwrap(), 1, None);
            let known: Vec<Bytes> = (0..10).map(|number| workload.key(number)).collect();
            let mut random = Random::new();
            let drawn: Vec<_> = (0..10_000).map(|_| workload.draw(&mut random)).collect();
            for (action, percent) in [(Action::Get, gets), (Action::Increment, increments), (Action::Append, appends)] {
                let (count, expected) =
                    (drawn.iter().filter(|one| one.0 == action).count(), usize::from(percent) * 100);
                let is_certain = percent == 0 || percent == 100;
                assert!(count.abs_diff(expected) < 300 && (count == expected || !is_certain), "{action:?}: {count}");
            }
            for (action, key) in drawn {
                let is_put_or_got = matches!(action, Action::Put | Action::Get);
                assert_eq!(known.contains(&key), is_put_or_got, "{action:?} {key:?}");
                assert!(key.starts_with(workload.prefix.as_bytes()));
            }
        }
        assert!(Mix { gets: 50, increments: 50, appends: 1 }.check().is_err());
    }

    #[test]
    fn runs_do_not_share_keys() {
        let runs = [(); 2].map(|()| Workload::new(1, 0, Mix::default(), 1, None));
        assert_ne!(runs[0].prefix, runs[1].prefix);
        assert!(runs[0].key(0).starts_with(b"bench/"));
    }
}
