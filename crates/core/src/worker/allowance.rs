//! The write budget of a worker's snapshots.
//!
//! A snapshot writes all of a shard's keys and values, however few have changed. With large shards and a high write
//! rate, or a follower that keeps asking for snapshots, snapshots would crowd out the log on the disk. So they may
//! write a multiple of what the log writes, plus a small amount over time. A snapshot may begin while any allowance is
//! left, and may use more than is left; the next one then waits until the debt is repaid.
//!
//! After a snapshot that could not be written, no snapshot of any shard begins for a while: the cause is a full disk,
//! or a process without file descriptors. The pause doubles with each further failure. A snapshot that failed before it
//! wrote anything is refunded; otherwise one large shard would delay all others for a snapshot that never was.

use crate::limits::*;
use crate::time::Ticks;
use crate::timing::Timing;

pub struct SnapshotAllowance {
    /// Negative after a snapshot that used more than was left.
    bytes: i64,
    /// The bytes earned with each tick, and the most that can be saved up.
    per_tick: i64,
    most: i64,
    /// Consecutive failures.
    failures: u32,
    /// Ticks until the next attempt after a failure.
    ticks_to_wait: Ticks,
    timing: Timing,
}

impl SnapshotAllowance {
    /// The allowance of one worker among `workers`.
    pub fn new(workers: usize, timing: Timing) -> SnapshotAllowance {
        let per_tick = SNAPSHOT_BYTES_PER_SECOND as i64 * timing.tick().as_micros() as i64 / 1_000_000 / workers as i64;
        let most = SNAPSHOT_BURST_BYTES as i64 / workers as i64;
        SnapshotAllowance { bytes: most, per_tick, most, failures: 0, ticks_to_wait: Ticks(0), timing }
    }

    pub fn is_left(&self) -> bool {
        self.has_bytes() && self.ticks_to_wait == Ticks(0)
    }

    /// Whether a snapshot may begin once the wait after a failure is over.
    pub fn has_bytes(&self) -> bool {
        self.bytes > 0
    }

    /// A tick has passed.
    pub fn tick(&mut self) {
        self.bytes = (self.bytes + self.per_tick).min(self.most);
        self.ticks_to_wait = Ticks(self.ticks_to_wait.0.saturating_sub(1));
    }

    /// Entries of this many bytes go to the log.
    pub fn earn(&mut self, entry_bytes: usize) {
        self.bytes = (self.bytes + (SNAPSHOT_BYTES_PER_LOG_BYTE * entry_bytes) as i64).min(self.most);
    }

    /// A snapshot has been written, or could not be.
    pub fn ended(&mut self, written: bool) {
        if written {
            self.failures = 0;
        } else {
            let wait = SNAPSHOT_RETRY * (1 << self.failures.min(SNAPSHOT_RETRY_DOUBLINGS));
            self.ticks_to_wait = self.timing.ticks(wait);
            self.failures += 1;
        }
    }

    /// A snapshot of this many bytes begins.
    pub fn spend(&mut self, bytes: usize) {
        self.bytes -= bytes as i64;
    }

    /// A snapshot has ended without writing this many of the bytes that it was charged for.
    pub fn refund(&mut self, bytes: usize) {
        self.bytes = (self.bytes + bytes as i64).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_costs_decides_how_long_the_next_one_waits() {
        let mut allowance = SnapshotAllowance::new(1, Timing::DEFAULT);
        allowance.spend(SNAPSHOT_BURST_BYTES - 1);
        assert!(allowance.is_left());
        allowance.spend(64 << 20);
        let seconds = 8;
        let ticks = seconds * 1000 / Timing::DEFAULT.tick().as_millis();
        (1..ticks).for_each(|_| allowance.tick());
        assert!(!allowance.is_left());
        (0..2).for_each(|_| allowance.tick());
        assert!(allowance.is_left(), "64 MiB at 8 MiB a second");
        allowance.spend(64 << 20);
        allowance.earn(16 << 20);
        assert!(allowance.is_left(), "or 16 MiB of entries");
    }

    #[test]
    fn after_failures_the_disk_is_left_alone_for_longer_and_longer() {
        let mut allowance = SnapshotAllowance::new(1, Timing::DEFAULT);
        let mut ticks_until_next = |written| {
            allowance.ended(written);
            (0..)
                .find(|_| {
                    allowance.is_left() || {
                        allowance.tick();
                        false
                    }
                })
                .expect("it ends")
        };
        let waited: Vec<u32> = (0..7).map(|_| ticks_until_next(false)).collect();
        assert_eq!(waited, [20, 40, 80, 160, 320, 320, 320]);
        assert_eq!((ticks_until_next(true), ticks_until_next(false)), (0, 20));
    }
}
