//! A node's watch over its own disk.
//!
//! The thread that writes the log says when a record begins and when it is durable; another one looks, [`TICK`] by tick,
//! because the first sits in the system call while the disk hangs.
//!
//! **Hung** is a disk that has had a record for longer than [`DISK_PATIENCE`] and [`UNUSUAL`] times as long as usual: a
//! slow disk is not hung for being slow. *Usual* is a moving mean in which no record counts for more than twice the mean
//! so far, so that one hang does not become usual.
//!
//! **Recovering.** A disk that hung once often hangs again, and each time costs the shards that the node leads their
//! service. So it has to be well for `return_after` first, for twice that after the next hang, and so on up to
//! [`MAX_RETURN_FACTOR`] times; a disk that was well for that long begins anew.
//!
//! **A pause of the process is no hang.** A process that was stopped finds afterwards that a record took as long as the
//! pause. Time counts only up to the last look and [`LATE_LOOKS`] ticks.

use super::{DiskState, NodeHealth};
use crate::limits::{DISK_PATIENCE, TICK};
use crate::time::Moment;
use std::time::Duration;

/// A record that takes this many times as long as usual is suspicious.
const UNUSUAL: u32 = 10;

/// The weight of a record in the mean: 1 in this many.
const MEAN_WEIGHT: u32 = 16;

/// The longest latency is halved when as much time has passed.
const LATENCY_HALF_LIFE: Duration = Duration::from_secs(10);

/// A disk whose records lately took this long is slow: half of the shortest election timeout, since an election takes
/// two of them one after the other.
const SLOW: Duration = Duration::from_millis(DISK_PATIENCE.as_millis() as u64 / 4);

/// The time to return is doubled up to this factor.
const MAX_RETURN_FACTOR: u32 = 16;

/// A look that is more ticks late than this means that the process stood still.
const LATE_LOOKS: u32 = 4;

/// For how long a disk has to do what.
#[derive(Clone, Copy, Debug)]
pub struct HealthConfig {
    /// A disk that hung is trusted again after being well for this long; longer if it hangs repeatedly.
    pub return_after: Duration,
    /// A disk that has not answered for this long never will.
    pub give_up_after: Duration,
}

impl Default for HealthConfig {
    fn default() -> HealthConfig {
        HealthConfig { return_after: crate::limits::LEAD_AFTER, give_up_after: crate::limits::DISK_TIMEOUT }
    }
}

/// One node's knowledge of its own health.
#[derive(Debug)]
pub struct HealthMonitor {
    config: HealthConfig,
    /// Since when a record is on its way to the disk.
    begun: Option<Moment>,
    looked: Moment,
    mean: Duration,
    longest: (Moment, Duration),
    /// When the disk last answered after it had hung, and for how long it is not trusted since.
    hung: Option<(Moment, Duration)>,
    is_full: bool,
    is_stopping: bool,
}

/// How the disk is at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskReport {
    pub health: NodeHealth,
    /// For how long the record that is on its way has been; zero where none is.
    pub age: Duration,
    /// It has had its time, and the process must end.
    pub must_end: bool,
}

impl HealthMonitor {
    pub fn new(config: HealthConfig, now: Moment) -> HealthMonitor {
        HealthMonitor {
            config,
            begun: None,
            looked: now,
            mean: Duration::ZERO,
            longest: (now, Duration::ZERO),
            hung: None,
            is_full: false,
            is_stopping: false,
        }
    }

    /// A record is about to be written and synced.
    pub fn record_begun(&mut self, now: Moment) {
        self.begun = Some(now);
    }

    /// The record is durable.
    pub fn record_ended(&mut self, now: Moment) {
        let took = self.age(now);
        if self.begun.take().is_none() {
            return;
        }
        if took >= self.patience() {
            self.hung = Some((now, self.time_to_return(now)));
        }
        self.longest = (now, self.longest(now).max(took));
        let counted = took.min(2 * self.mean.max(Duration::from_millis(1)));
        self.mean = (self.mean * (MEAN_WEIGHT - 1) + counted) / MEAN_WEIGHT;
    }

    /// Nothing was written: there is no space. The record begins anew.
    pub fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
        if is_full {
            self.begun = None;
        }
    }

    /// The node is about to stop.
    pub fn set_stopping(&mut self) {
        self.is_stopping = true;
    }

    /// To be called once a [`TICK`].
    pub fn look(&mut self, now: Moment) -> DiskReport {
        if let Some(begun) = &mut self.begun {
            // What nobody looked at was a pause of this process.
            *begun = *begun + now.saturating_since(self.looked + LATE_LOOKS * TICK);
        }
        self.looked = now;
        self.report(now)
    }

    /// How the disk is.
    pub fn report(&self, now: Moment) -> DiskReport {
        let age = self.age(now);
        let latency = self.longest(now).max(age);
        let recovers = self.hung.is_some_and(|(answered, distrust)| now < answered + distrust);
        let disk = match () {
            () if self.is_full => DiskState::Full,
            () if age >= self.patience() => DiskState::Hung,
            () if recovers => DiskState::Recovering,
            () if latency >= SLOW => DiskState::Slow,
            () => DiskState::Healthy,
        };
        let health = NodeHealth { disk, sync_latency_ms: rounded_ms(latency), is_stopping: self.is_stopping };
        DiskReport { health, age, must_end: age >= self.config.give_up_after }
    }

    /// For how long the present record has been on its way, as far as this process was awake.
    fn age(&self, now: Moment) -> Duration {
        let awake = now.min(self.looked + LATE_LOOKS * TICK);
        self.begun.map_or(Duration::ZERO, |begun| awake.saturating_since(begun))
    }

    fn patience(&self) -> Duration {
        DISK_PATIENCE.max(self.mean * UNUSUAL)
    }

    fn longest(&self, now: Moment) -> Duration {
        let (at, longest) = self.longest;
        let halvings = now.saturating_since(at).as_nanos() / LATENCY_HALF_LIFE.as_nanos();
        longest / 1_u32.checked_shl(halvings.min(31) as u32).unwrap_or(u32::MAX)
    }

    /// For how long a disk is not trusted that answers now for the first time after it hung.
    fn time_to_return(&self, now: Moment) -> Duration {
        let (first, longest) = (self.config.return_after, self.config.return_after * MAX_RETURN_FACTOR);
        match self.hung {
            Some((answered, distrust)) if now < answered + distrust + longest => (distrust * 2).min(longest),
            _ => first,
        }
    }
}

/// Milliseconds, rounded up to a power of two; 0 below one.
fn rounded_ms(duration: Duration) -> u32 {
    match u32::try_from(duration.as_millis()).unwrap_or(u32::MAX) {
        0 => 0,
        ms => ms.checked_next_power_of_two().unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    struct Scene {
        monitor: HealthMonitor,
        now: Moment,
    }

    impl Scene {
        fn new() -> Scene {
            let config = HealthConfig { return_after: 30 * SECOND, give_up_after: 60 * SECOND };
            let now = Moment(1) + SECOND;
            Scene { monitor: HealthMonitor::new(config, now), now }
        }

        /// Looks at every tick for so long: the last report.
        fn pass(&mut self, time: Duration) -> DiskReport {
            let end = self.now + time;
            while self.now < end {
                self.now = end.min(self.now + TICK);
                self.monitor.look(self.now);
            }
            self.monitor.report(self.now)
        }

        /// A record that takes so long: how the disk was at its end.
        fn record(&mut self, took: Duration) -> DiskState {
            self.monitor.record_begun(self.now);
            let disk = self.pass(took).health.disk;
            self.monitor.record_ended(self.now);
            disk
        }

        fn disk(&self) -> DiskState {
            self.monitor.report(self.now).health.disk
        }
    }

    #[test]
    fn a_disk_hangs_that_has_not_answered_for_two_election_timeouts() {
        let mut scene = Scene::new();
        (0..100).for_each(|_| assert_eq!(scene.record(2 * MS), DiskState::Healthy));
        scene.monitor.record_begun(scene.now);
        assert_eq!(scene.pass(DISK_PATIENCE - MS).health.disk, DiskState::Slow);
        let report = scene.pass(MS);
        assert_eq!((report.health.disk, report.age, report.must_end), (DiskState::Hung, DISK_PATIENCE, false));
        assert!(!scene.pass(59 * SECOND - DISK_PATIENCE).must_end);
        assert!(scene.pass(SECOND).must_end);
    }

    #[test]
    fn a_disk_that_is_always_slow_does_not_hang() {
        let mut scene = Scene::new();
        for _ in 0..500 {
            scene.record(150 * MS);
        }
        assert_eq!(scene.record(1400 * MS), DiskState::Slow, "less than ten times as long as usual");
        assert_eq!(scene.record(2000 * MS), DiskState::Hung);
    }

    #[test]
    fn one_hang_does_not_become_usual() {
        let mut scene = Scene::new();
        for _ in 0..100 {
            scene.record(2 * MS);
        }
        scene.record(50 * SECOND);
        assert_eq!(scene.record(DISK_PATIENCE), DiskState::Hung);
    }

    #[test]
    fn a_disk_returns_after_being_well_for_longer_each_time() {
        let mut scene = Scene::new();
        for seconds in [30, 60, 120, 240, 480, 480] {
            assert_eq!(scene.record(SECOND), DiskState::Hung);
            scene.pass(seconds * SECOND - MS);
            assert_eq!(scene.disk(), DiskState::Recovering, "{seconds} s");
            scene.pass(MS);
            assert_eq!(scene.disk(), DiskState::Healthy, "{seconds} s");
        }
        scene.pass(481 * SECOND);
        assert_eq!(scene.record(SECOND), DiskState::Hung);
        scene.pass(30 * SECOND);
        assert_eq!(scene.disk(), DiskState::Healthy, "it was well for long");
    }

    #[test]
    fn a_pause_of_the_process_is_no_hang() {
        let mut scene = Scene::new();
        scene.monitor.record_begun(scene.now);
        scene.now = scene.now + 90 * SECOND;
        let report = scene.monitor.look(scene.now);
        assert_eq!((report.health.disk, report.must_end), (DiskState::Slow, false));
        let mut scene = Scene::new();
        scene.monitor.record_begun(scene.now);
        scene.now = scene.now + 90 * SECOND;
        scene.monitor.record_ended(scene.now);
        assert_eq!(scene.disk(), DiskState::Slow, "ended before anybody looked");
    }

    #[test]
    fn latency_is_the_longest_of_late_and_rounded_up() {
        let mut scene = Scene::new();
        scene.record(300 * MS);
        scene.record(MS);
        assert_eq!(scene.monitor.report(scene.now).health.sync_latency_ms, 512);
        scene.pass(LATENCY_HALF_LIFE);
        assert_eq!(scene.monitor.report(scene.now).health.sync_latency_ms, 256);
        scene.pass(10 * LATENCY_HALF_LIFE);
        assert_eq!(scene.monitor.report(scene.now).health, NodeHealth::default());
    }

    #[test]
    fn a_full_disk_is_neither_hung_nor_slow() {
        let mut scene = Scene::new();
        scene.monitor.record_begun(scene.now);
        scene.monitor.set_full(true);
        assert_eq!(scene.pass(90 * SECOND).health.disk, DiskState::Full);
        scene.monitor.set_full(false);
        assert_eq!(scene.disk(), DiskState::Healthy);
    }
}
