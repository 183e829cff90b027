//! Monitors a node's own disk.
//!
//! The thread that writes the log reports when a record begins and when it is durable. Another thread evaluates that
//! once a tick, because the first one is blocked in the system call while the disk hangs.
//!
//! **Hung.** A disk is hung if the current record has taken longer than [`Timing::disk_patience`] and longer than
//! [`UNUSUAL`] times the mean latency: a disk that is always slow is not hung. The mean is a moving average in which no
//! record counts for more than twice the mean so far, so that a single hang hardly changes it.
//!
//! **Recovering.** A disk that hung or was full once often is again, and each time it interrupts the shards that the
//! node leads. (A disk has little space left after a log that is over its budget has deleted a segment, or another
//! program a file.) So the disk must be healthy for `return_after` before the node leads again, for twice that after
//! the next failure, and so on up to [`MAX_RETURN_FACTOR`] times. A disk that then stays healthy for
//! [`MAX_RETURN_FACTOR`] times `return_after` starts over.
//!
//! **A pause of the process is not a hang.** After a pause of the process, a record seems to have taken as long as the
//! pause. So time counts only up to [`LATE_LOOKS`] ticks after the last evaluation.

use super::{DiskState, NodeHealth};
use crate::time::Moment;
use crate::timing::Timing;
use std::time::Duration;

/// A disk is hung only if a record takes this many times the mean latency.
const UNUSUAL: u32 = 10;

/// A record's weight in the mean is 1 divided by this.
const MEAN_WEIGHT: u32 = 16;

/// The longest latency seen is halved each time this much time passes.
const LATENCY_HALF_LIFE: Duration = Duration::from_secs(10);

/// The time until a disk is trusted again doubles up to this factor.
const MAX_RETURN_FACTOR: u32 = 16;

/// If an evaluation comes later than this many ticks after the last one, the process was paused.
const LATE_LOOKS: u32 = 4;

/// The times after which a disk is trusted again, or declared failed.
#[derive(Clone, Copy, Debug)]
pub struct HealthConfig {
    /// A disk that hung or was full is trusted again after it has been healthy for this long; longer if that repeats.
    pub return_after: Duration,
    /// A disk that has not answered for this long has failed: the process must end.
    pub give_up_after: Duration,
    /// The cluster's timing.
    pub timing: Timing,
}

/// One node's knowledge of its own health.
#[derive(Debug)]
pub struct HealthMonitor {
    config: HealthConfig,
    /// When the record began that is being synced.
    begun: Option<Moment>,
    looked: Moment,
    mean: Duration,
    longest: (Moment, Duration),
    /// When the disk last answered after a hang or had space again, and how long it is not trusted from then on.
    returned: Option<(Moment, Duration)>,
    is_full: bool,
    is_stopping: bool,
}

/// The state of the disk at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskReport {
    pub health: NodeHealth,
    /// How long the record that is being synced has taken so far; zero if there is none.
    pub age: Duration,
    /// The longest recent latency, which the health rounds up.
    pub latency: Duration,
    /// The disk has failed, and the process must end.
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
            returned: None,
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
            self.returned = Some((now, self.time_to_return(now)));
        }
        self.longest = (now, self.longest(now).max(took));
        let counted = took.min(2 * self.mean.max(Duration::from_millis(1)));
        self.mean = (self.mean * (MEAN_WEIGHT - 1) + counted) / MEAN_WEIGHT;
    }

    /// Sets whether the disk has no space for the log. If so, no record is in progress: the next attempt begins a new
    /// one.
    pub fn set_full(&mut self, now: Moment, is_full: bool) {
        let was_full = std::mem::replace(&mut self.is_full, is_full);
        if is_full {
            self.begun = None;
        } else if was_full {
            self.returned = Some((now, self.time_to_return(now)));
        }
    }

    /// The node is about to stop.
    pub fn set_stopping(&mut self) {
        self.is_stopping = true;
    }

    /// Evaluates the disk. Call it once a tick.
    pub fn look(&mut self, now: Moment) -> DiskReport {
        if let Some(begun) = &mut self.begun {
            // The process was paused for the time beyond the allowed lateness.
            *begun = *begun + now.saturating_since(self.looked + LATE_LOOKS * self.config.timing.tick());
        }
        self.looked = now;
        self.report(now)
    }

    /// The state of the disk, without evaluating pauses again.
    pub fn report(&self, now: Moment) -> DiskReport {
        let age = self.age(now);
        let latency = self.longest(now).max(age);
        let recovers = self.returned.is_some_and(|(returned, distrust)| now < returned + distrust);
        let disk = match () {
            () if self.is_full => DiskState::Full,
            () if age >= self.patience() => DiskState::Hung,
            () if recovers => DiskState::Recovering,
            () if latency >= self.config.timing.slow_disk() => DiskState::Slow,
            () => DiskState::Healthy,
        };
        let health = NodeHealth { disk, sync_latency_ms: rounded_ms(latency), is_stopping: self.is_stopping };
        DiskReport { health, age, latency, must_end: age >= self.config.give_up_after }
    }

    /// How long the current record has taken so far, without pauses of the process.
    fn age(&self, now: Moment) -> Duration {
        let awake = now.min(self.looked + LATE_LOOKS * self.config.timing.tick());
        self.begun.map_or(Duration::ZERO, |begun| awake.saturating_since(begun))
    }

    fn patience(&self) -> Duration {
        self.config.timing.disk_patience().max(self.mean * UNUSUAL)
    }

    fn longest(&self, now: Moment) -> Duration {
        let (at, longest) = self.longest;
        let halvings = now.saturating_since(at).as_nanos() / LATENCY_HALF_LIFE.as_nanos();
        longest / 1_u32.checked_shl(halvings.min(31) as u32).unwrap_or(u32::MAX)
    }

    /// How long to distrust a disk that has just answered after a hang, or has space again.
    fn time_to_return(&self, now: Moment) -> Duration {
        let (first, longest) = (self.config.return_after, self.config.return_after * MAX_RETURN_FACTOR);
        match self.returned {
            Some((returned, distrust)) if now < returned + distrust + longest => (distrust * 2).min(longest),
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
    const TICK: Duration = Timing::DEFAULT.tick();
    const DISK_PATIENCE: Duration = Timing::DEFAULT.disk_patience();

    struct Scene {
        monitor: HealthMonitor,
        now: Moment,
    }

    impl Scene {
        fn new() -> Scene {
            let config =
                HealthConfig { return_after: 30 * SECOND, give_up_after: 60 * SECOND, timing: Timing::DEFAULT };
            let now = Moment(1) + SECOND;
            Scene { monitor: HealthMonitor::new(config, now), now }
        }

        /// Evaluates at every tick for this long. Returns the last report.
        fn pass(&mut self, time: Duration) -> DiskReport {
            let end = self.now + time;
            while self.now < end {
                self.now = end.min(self.now + TICK);
                self.monitor.look(self.now);
            }
            self.monitor.report(self.now)
        }

        /// Runs a record that takes this long. Returns the state of the disk just before its end.
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
        let report = scene.monitor.report(scene.now);
        assert_eq!((report.latency, report.health.sync_latency_ms), (300 * MS, 512));
        scene.pass(LATENCY_HALF_LIFE);
        assert_eq!(scene.monitor.report(scene.now).health.sync_latency_ms, 256);
        scene.pass(10 * LATENCY_HALF_LIFE);
        assert_eq!(scene.monitor.report(scene.now).health, NodeHealth::default());
    }

    #[test]
    fn a_full_disk_is_neither_hung_nor_slow() {
        let mut scene = Scene::new();
        scene.monitor.record_begun(scene.now);
        scene.monitor.set_full(scene.now, true);
        assert_eq!(scene.pass(90 * SECOND).health.disk, DiskState::Full);
    }

    #[test]
    fn a_disk_at_the_edge_of_full_does_not_take_and_lose_leadership_again_and_again() {
        let mut scene = Scene::new();
        scene.monitor.set_full(scene.now, false);
        assert_eq!(scene.disk(), DiskState::Healthy, "it was not full");
        for _ in 0..100 {
            scene.monitor.set_full(scene.now, true);
            assert_eq!(scene.pass(SECOND).health.disk, DiskState::Full);
            scene.monitor.set_full(scene.now, false);
            assert_eq!(scene.pass(2 * SECOND).health.disk, DiskState::Recovering);
        }
        scene.pass(477 * SECOND);
        assert_eq!(scene.disk(), DiskState::Recovering);
        scene.pass(SECOND);
        assert_eq!(scene.disk(), DiskState::Healthy);
    }
}
