//! Random histories and their expected outcome: a model written independently of the log's implementation.

use super::*;
use std::collections::BTreeMap;

/// Uniform choices from a seed (SplitMix64, Steele et al. 2014).
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

pub(super) type Shards = BTreeMap<ShardId, RecoveredShard>;

pub(super) const SHARDS: u32 = 6;

/// A batch that follows from `shards`, which then include it.
pub(super) fn random_batch(dice: &mut Dice, shards: &mut Shards) -> Vec<LogItem> {
    let mut batch = Vec::new();
    for _ in 0..=dice.below(4) {
        let item = random_item(dice, shards);
        apply(shards, &item);
        batch.push(item);
    }
    batch
}

fn random_item(dice: &mut Dice, shards: &Shards) -> LogItem {
    let shard = dice.below(u64::from(SHARDS)) as u32;
    let (replica, held) = match shards.get(&ShardId(shard)) {
        None => return state(shard, 1 + dice.below(3), 1),
        Some(RecoveredShard::Removed(replica) | RecoveredShard::Suspect { replica }) => {
            return state(shard, replica.0 + 1 + dice.below(3), 1 + dice.below(100));
        }
        Some(RecoveredShard::Recovered { replica, state }) => (replica.0, state),
    };
    let base = held.base.index.0;
    let last = base + held.entries.len() as u64;
    match dice.below(20) {
        0 if dice.below(2) == 0 => removed(shard, replica),
        0 => item(shard, replica, Change::Suspect),
        1 => state(shard, replica, last + dice.below(3)),
        2..4 => {
            // A snapshot of some of the entries: the rest stays.
            let kept = dice.below(held.entries.len() as u64 + 1) as usize;
            let mut compacted = held.clone();
            compacted.entries.drain(..kept);
            compacted.base.index = LogIndex(base + kept as u64);
            item(shard, replica, Change::State(compacted))
        }
        4..7 => hard_state(shard, replica, dice.below(9), base + dice.below(held.entries.len() as u64 + 1)),
        _ => {
            let first = last + 1 - dice.below(held.entries.len().min(2) as u64 + 1);
            let first = first.max(held.hard_state.commit + 1);
            let sizes: Vec<usize> = (0..=dice.below(3)).map(|_| random_size(dice)).collect();
            entries(shard, replica, first, &sizes)
        }
    }
}

/// Mostly small, sometimes of many sectors, now and then more than a segment of the tests.
fn random_size(dice: &mut Dice) -> usize {
    match dice.below(30) {
        0 => dice.below(9000) as usize,
        1..4 => dice.below(2000) as usize,
        _ => dice.below(100) as usize,
    }
}

pub(super) fn apply(shards: &mut Shards, item: &LogItem) {
    let LogItem { shard, replica, change } = item;
    match change {
        Change::State(state) => {
            shards.insert(*shard, RecoveredShard::Recovered { replica: *replica, state: state.clone() });
        }
        Change::Removed => {
            shards.insert(*shard, RecoveredShard::Removed(*replica));
        }
        Change::Suspect => {
            if let Some(RecoveredShard::Recovered { .. }) = shards.get(shard) {
                shards.insert(*shard, RecoveredShard::Suspect { replica: *replica });
            }
        }
        Change::Entries(new) => {
            let Some(RecoveredShard::Recovered { state, .. }) = shards.get_mut(shard) else { return };
            state.entries.retain(|entry| entry.index < new[0].index);
            state.entries.extend(new.iter().cloned());
        }
        Change::HardState(hard_state) => {
            let Some(RecoveredShard::Recovered { state, .. }) = shards.get_mut(shard) else { return };
            state.hard_state = hard_state.clone();
        }
    }
}
