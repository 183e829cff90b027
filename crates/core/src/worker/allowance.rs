//! How much a worker's snapshots may write.
//!
//! A snapshot writes all of a shard's keys and values, however few have changed. Where shards are large and entries
//! come fast, or where a follower asks for one snapshot after the other, snapshots would take the disk from the log. So
//! they may write a multiple of what the log writes, and a little beside that. A snapshot may begin while some allowance is
//! left, and may use more: then the next one waits for as long as that takes to earn.

use crate::limits::{SNAPSHOT_BURST_BYTES, SNAPSHOT_BYTES_PER_LOG_BYTE, SNAPSHOT_BYTES_PER_SECOND, TICK};

pub struct SnapshotAllowance {
    /// Negative after a snapshot of more than was left.
    bytes: i64,
    /// What comes with each tick, and the most that is saved up.
    per_tick: i64,
    most: i64,
}

impl SnapshotAllowance {
    /// The share of one of so many workers.
    pub fn new(workers: usize) -> SnapshotAllowance {
        let per_tick = SNAPSHOT_BYTES_PER_SECOND as i64 * TICK.as_millis() as i64 / 1000 / workers as i64;
        let most = SNAPSHOT_BURST_BYTES as i64 / workers as i64;
        SnapshotAllowance { bytes: most, per_tick, most }
    }

    pub fn is_left(&self) -> bool {
        self.bytes > 0
    }

    /// A tick has passed.
    pub fn tick(&mut self) {
        self.bytes = (self.bytes + self.per_tick).min(self.most);
    }

    /// Entries of so many bytes go to the log.
    pub fn earn(&mut self, entry_bytes: usize) {
        self.bytes = (self.bytes + (SNAPSHOT_BYTES_PER_LOG_BYTE * entry_bytes) as i64).min(self.most);
    }

    /// A snapshot of so many bytes begins.
    pub fn spend(&mut self, bytes: usize) {
        self.bytes -= bytes as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_costs_decides_how_long_the_next_one_waits() {
        let mut allowance = SnapshotAllowance::new(1);
        allowance.spend(SNAPSHOT_BURST_BYTES - 1);
        assert!(allowance.is_left());
        allowance.spend(64 << 20);
        let seconds = 8;
        let ticks = seconds * 1000 / TICK.as_millis();
        (1..ticks).for_each(|_| allowance.tick());
        assert!(!allowance.is_left());
        (0..2).for_each(|_| allowance.tick());
        assert!(allowance.is_left(), "64 MiB at 8 MiB a second");
        allowance.spend(64 << 20);
        allowance.earn(16 << 20);
        assert!(allowance.is_left(), "or 16 MiB of entries");
    }
}
