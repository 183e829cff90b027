//! The times that elections, promises and leases share.
//!
//! A cluster has one setting for them, the minimum election timeout E of the Raft paper. It is chosen when the cluster
//! is created and never changes. The topology holds it ([`Topology::timing`](crate::system::Topology::timing)), so each
//! node has it on disk before it creates a replica, and knows it before its first tick. All nodes of a cluster have the
//! same value.
//!
//! Everything here is a fixed fraction or multiple of E, which preserves the relations that a lease relies on for any
//! E:
//!
//! | time | of E | what it is |
//! |---|---|---|
//! | tick | 1/8 | Raft's clock tick and the interval of heartbeats |
//! | promise | 1 | how long a voter does not vote after echoing a heartbeat, or after a start |
//! | lease | 3/4 less 1 % | how long a leader serves reads without a quorum |
//! | round | 1/32 | heartbeats sent within this time share a round |
//! | slow disk | 1/2 | a disk with this latency is slow: an election waits for two syncs in sequence |
//! | disk patience | 2 | a disk may count as hung after this time |
//!
//! Times that depend on people, disks or bandwidth do not follow E. [`Timing::ticks`] converts such a time to ticks.

use crate::limits::{
    DISK_TIMEOUT, DRIFT_PERMILLE, ELECTION_TICKS, LEASE_MARGIN_TICKS, ROUNDS_A_TICK, SLOW_DISK_BYTES_A_MS,
    SYNCED_PART_BYTES,
};
use crate::time::Ticks;
use std::fmt;
use std::time::Duration;

/// A cluster's minimum election timeout, and the times derived from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Timing {
    election_timeout_ms: u32,
}

/// An election timeout outside the permitted range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("give an election timeout of 100ms to 10s, in whole milliseconds")]
pub struct ElectionTimeoutError;

impl Default for Timing {
    fn default() -> Timing {
        Timing::DEFAULT
    }
}

impl Timing {
    /// With less, a heartbeat that is a few milliseconds late would cost its leader the leadership.
    pub const SHORTEST: Timing = Timing { election_timeout_ms: 100 };

    pub const DEFAULT: Timing = Timing { election_timeout_ms: 400 };

    /// With more, a shard whose leader dies would be without service for longer than users wait.
    pub const LONGEST: Timing = Timing { election_timeout_ms: 10_000 };

    /// The timing with this minimum election timeout.
    pub fn new(election_timeout: Duration) -> Result<Timing, ElectionTimeoutError> {
        let ms = u32::try_from(election_timeout.as_millis()).map_err(|_| ElectionTimeoutError)?;
        let timing = Timing { election_timeout_ms: ms };
        let is_allowed = (Timing::SHORTEST..=Timing::LONGEST).contains(&timing);
        if is_allowed && timing.election_timeout() == election_timeout { Ok(timing) } else { Err(ElectionTimeoutError) }
    }

    /// E: no voter elects another leader sooner after it has heard from its own.
    pub const fn election_timeout(self) -> Duration {
        Duration::from_millis(self.election_timeout_ms as u64)
    }

    pub const fn election_timeout_ms(self) -> u32 {
        self.election_timeout_ms
    }

    /// Raft's tick and its heartbeat interval, with the same phase for all shards of a node.
    pub const fn tick(self) -> Duration {
        Duration::from_nanos(self.election_timeout().as_nanos() as u64 / ELECTION_TICKS as u64)
    }

    /// How long a replica that echoes a heartbeat does not vote.
    pub const fn promise(self) -> Duration {
        self.election_timeout()
    }

    /// How long after the start of an echoed round a leader may serve reads.
    pub const fn lease(self) -> Duration {
        let ticks = (ELECTION_TICKS - LEASE_MARGIN_TICKS) as u64;
        Duration::from_nanos(self.tick().as_nanos() as u64 * ticks * (1000 - DRIFT_PERMILLE) as u64 / 1000)
    }

    /// Heartbeats sent within this time share a round of the lease.
    pub const fn round(self) -> Duration {
        Duration::from_nanos(self.tick().as_nanos() as u64 / ROUNDS_A_TICK as u64)
    }

    /// A disk counts as hung if a log record takes longer than this and ten times the mean latency: the node hands its
    /// leaderships over and refuses writes.
    pub const fn disk_patience(self) -> Duration {
        Duration::from_millis(2 * self.election_timeout_ms as u64)
    }

    /// The minimum of `--disk-timeout`: twice the disk patience, so that a node has time to hand its leaderships over.
    pub const fn least_disk_timeout(self) -> Duration {
        Duration::from_millis(4 * self.election_timeout_ms as u64)
    }

    /// A disk is slow if its records take this long.
    pub const fn slow_disk(self) -> Duration {
        Duration::from_millis(self.election_timeout_ms as u64 / 2)
    }

    /// The number of ticks that take at least this long; at least one.
    pub const fn ticks(self, time: Duration) -> Ticks {
        let ticks = (time.as_nanos() as u64).div_ceil(self.tick().as_nanos() as u64);
        Ticks(if ticks == 0 { 1 } else { ticks })
    }
}

impl fmt::Display for Timing {
    /// As settings are given: `400ms`, `2s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.election_timeout_ms {
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

const _: () = assert!(SYNCED_PART_BYTES / SLOW_DISK_BYTES_A_MS < Timing::SHORTEST.disk_patience().as_millis() as u64);
const _: () = assert!(Timing::LONGEST.least_disk_timeout().as_nanos() <= DISK_TIMEOUT.as_nanos());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MAX_ELECTION_TICKS, REPLACE_AFTER, SILENT_TICKS};

    fn all() -> impl Iterator<Item = Timing> {
        (Timing::SHORTEST.election_timeout_ms..=Timing::LONGEST.election_timeout_ms)
            .map(|ms| Timing::new(Duration::from_millis(ms.into())).expect("it is allowed"))
    }

    #[test]
    fn the_relations_hold_for_every_timing_that_a_cluster_may_have() {
        for timing in all() {
            let (tick, e) = (timing.tick(), timing.election_timeout());
            assert_eq!(tick * ELECTION_TICKS as u32, e, "{timing}: Raft's count of ticks is E to the nanosecond");
            assert_eq!(timing.promise(), e, "{timing}");
            // A voter's clock may be fast and the leader's slow, and a count of ticks may be short by one tick and by
            // one that was made up.
            let fast = 1.0 - f64::from(DRIFT_PERMILLE) / 1000.0;
            let ends = timing.lease().as_secs_f64();
            let margin = (tick * LEASE_MARGIN_TICKS as u32).as_secs_f64();
            assert!(ends <= (timing.promise().as_secs_f64() - margin) * fast + 1e-9, "{timing}");
            assert!(timing.lease() > tick * 2, "{timing}: a lease outlasts a lost heartbeat");
            assert_eq!(timing.round() * ROUNDS_A_TICK as u32, tick, "{timing}");
            assert!(tick * (SILENT_TICKS as u32) < e, "{timing}: requests leave a silent leader before it is deposed");
            assert!(timing.slow_disk() * 2 <= e && e < timing.disk_patience(), "{timing}");
            assert!(timing.disk_patience() < timing.least_disk_timeout(), "{timing}");
            assert!(timing.least_disk_timeout() <= DISK_TIMEOUT, "{timing}: the usual setting is never refused");
            assert!(
                tick * (MAX_ELECTION_TICKS as u32) * 2 < REPLACE_AFTER,
                "{timing}: nobody is replaced for an election"
            );
        }
    }

    #[test]
    fn only_what_is_allowed_is_a_timing() {
        let new = |ms| Timing::new(Duration::from_millis(ms));
        for ms in [0, 1, 99, 10_001, u64::MAX] {
            assert_eq!(new(ms), Err(ElectionTimeoutError), "{ms} ms");
        }
        assert_eq!(Timing::new(Duration::from_micros(400_500)), Err(ElectionTimeoutError));
        assert_eq!((new(100), new(10_000)), (Ok(Timing::SHORTEST), Ok(Timing::LONGEST)));
        let told = ElectionTimeoutError.to_string();
        assert!(told.contains(&format!("{} to {}", Timing::SHORTEST, Timing::LONGEST)), "{told}");
    }

    #[test]
    fn the_usual_times_are_these() {
        let (timing, ms) = (Timing::default(), Duration::from_millis);
        assert_eq!((timing.election_timeout(), timing.tick(), timing.lease()), (ms(400), ms(50), ms(297)));
        assert_eq!(
            (timing.slow_disk(), timing.disk_patience(), timing.least_disk_timeout()),
            (ms(200), ms(800), ms(1600))
        );
    }

    #[test]
    fn ticks_take_at_least_the_time_that_they_count() {
        for timing in all() {
            for time in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(500), Duration::from_secs(10)]
            {
                let ticks = timing.ticks(time).0 as u32;
                assert!(ticks >= 1 && timing.tick() * ticks >= time, "{timing}");
                assert!(ticks == 1 || timing.tick() * (ticks - 1) < time, "{timing}");
            }
        }
        assert_eq!(Timing::default().ticks(Duration::from_secs(1)), Ticks(20));
    }

    #[test]
    fn it_is_printed_as_it_is_given() {
        let told: Vec<String> =
            [100, 400, 2_000, 2_500].map(|ms| Timing { election_timeout_ms: ms }.to_string()).to_vec();
        assert_eq!(told, ["100ms", "400ms", "2s", "2500ms"]);
    }
}
