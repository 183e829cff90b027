//! Slot -> shard: with N shards, shard i owns the 16384/N consecutive slots from i x 16384/N on.
//!
//! N is a power of two, so that every shard owns equally many slots, and is fixed when the cluster is bootstrapped.
//! Shards own runs of consecutive slots because `CLUSTER SLOTS` lists ranges: one line per shard.

use crate::{ShardId, Slot, slot_of};
use std::{error, fmt, ops::Range};

/// How many shards a cluster has: a power of two in `1..=16384`. 64 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardCount(u16);

impl ShardCount {
    /// A slot is never divided between shards.
    pub const MAX: ShardCount = ShardCount(Slot::COUNT);

    /// # Errors
    /// When `count` is not a power of two in `1..=16384`.
    pub const fn new(count: u32) -> Result<ShardCount, InvalidShardCount> {
        if count.is_power_of_two() && count <= ShardCount::MAX.get() {
            Ok(ShardCount(count as u16))
        } else {
            Err(InvalidShardCount(count))
        }
    }

    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// The shard that owns `slot`.
    pub const fn shard_of(self, slot: Slot) -> ShardId {
        ShardId((slot.get() / self.slots_per_shard()) as u32)
    }

    /// The shard that owns the slot of `key`.
    pub fn shard_of_key(self, key: &[u8]) -> ShardId {
        self.shard_of(slot_of(key))
    }

    /// The slots that `shard` owns, as numbers in `0..16384`. A shard that is not one of [`ids`](Self::ids), such as
    /// the system shard, owns none.
    pub const fn slots_of(self, shard: ShardId) -> Range<u16> {
        if shard.0 >= self.get() {
            return 0..0;
        }
        let first = shard.0 as u16 * self.slots_per_shard();
        first..first + self.slots_per_shard()
    }

    /// All shards that own slots, in the order of their slots.
    pub fn ids(self) -> impl ExactSizeIterator<Item = ShardId> + DoubleEndedIterator {
        (0..self.0).map(|shard| ShardId(shard.into()))
    }

    const fn slots_per_shard(self) -> u16 {
        Slot::COUNT / self.0
    }
}

impl Default for ShardCount {
    fn default() -> ShardCount {
        ShardCount(64)
    }
}

impl fmt::Display for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The requested number of shards is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidShardCount(pub u32);

impl error::Error for InvalidShardCount {}

impl fmt::Display for InvalidShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the number of shards must be a power of two from 1 to {}, not {}", ShardCount::MAX, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_accepts_exactly_the_powers_of_two_up_to_the_number_of_slots() {
        let accepted: Vec<u32> = (0..=70_000).filter(|&count| ShardCount::new(count).is_ok()).collect();
        assert_eq!(accepted, (0..=14).map(|exponent| 1 << exponent).collect::<Vec<u32>>());
        assert_eq!(ShardCount::new(1 << 31), Err(InvalidShardCount(1 << 31)));
        assert_eq!(ShardCount::new(ShardCount::default().get()), Ok(ShardCount::default()));
    }

    #[test]
    fn shards_partition_the_slots_in_order_and_equally() {
        for exponent in 0..=14 {
            let count = ShardCount::new(1 << exponent).unwrap();
            let mut next = 0;
            for shard in count.ids() {
                let slots = count.slots_of(shard);
                assert_eq!((slots.start, slots.len()), (next, 16_384 >> exponent), "{shard} of {count}");
                next = slots.end;
                for slot in slots {
                    assert_eq!(count.shard_of(Slot::new(slot).unwrap()), shard);
                }
            }
            assert_eq!(next, Slot::COUNT);
        }
    }

    #[test]
    fn shards_that_are_none_own_no_slots() {
        let count = ShardCount::default();
        assert!(count.slots_of(ShardId(64)).is_empty());
        assert!(count.slots_of(ShardId::SYSTEM).is_empty());
    }

    #[test]
    fn key_goes_to_the_shard_of_its_slot() {
        assert_eq!(ShardCount::default().shard_of_key(b"foo"), ShardId(12182 / 256));
        assert_eq!(ShardCount::MAX.shard_of_key(b"foo"), ShardId(12182));
    }
}
