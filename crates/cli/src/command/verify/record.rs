//! The keys of a run, and the operations on them.
//!
//! Linearizability is checked key by key, at a cost that grows quickly with the length of a history and with its
//! operations of unknown outcome. So a key takes a bounded number of both, and then the next key begins: each history
//! is cheap to check, and can be checked and dropped while the run continues.
//!
//! If the store has shards, a [`Lane`] takes its keys from them in turn. With as many lanes as shards, each shard is
//! written to all the time; with fewer lanes, all shards are written to equally often. Without writes to a shard, a
//! loss of its service would not be seen. For the same reason, a key that was closed for its unknown outcomes is
//! followed by a key of the same shard.

use crate::asked::COUNTERS_ONE_OF;
use bytes::Bytes;
use ringfort_check::{Ending, MAX_OPERATIONS, Operation};
use ringfort_ring::{ShardCount, ShardId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// How many operations a key takes.
const OPERATIONS: usize = 160;

/// A key with this many writes of unknown outcome takes no more operations.
const UNKNOWN: usize = 8;

// This leaves room for the operations that are under way when a key is closed, and for the last look.
const _: () = assert!(OPERATIONS < MAX_OPERATIONS);

/// Names the keys of a run, which all have one prefix and one length.
pub struct Keys {
    prefix: String,
    /// How many shards the store has, if it has any.
    shards: Option<ShardCount>,
    /// Whether some keys are counters.
    has_counters: bool,
    next: AtomicU64,
}

/// A key and the operations on it.
pub struct Record {
    pub key: Bytes,
    /// Whether it is incremented, and neither put nor appended to.
    pub is_counter: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    operations: Vec<Operation>,
    begun: usize,
    unknown: usize,
    under_way: usize,
    is_closed: bool,
}

/// A sequence of keys, one at a time, that a few clients share.
pub struct Lane {
    /// How many lanes there are.
    lanes: usize,
    current: Mutex<Current>,
}

struct Current {
    /// Which shard's turn it is, modulo the number of shards.
    turn: usize,
    record: Option<Arc<Record>>,
}

impl Keys {
    pub fn new(prefix: String, shards: Option<ShardCount>, has_counters: bool) -> Keys {
        Keys { prefix, shards, has_counters, next: AtomicU64::new(0) }
    }

    /// The next key of the shard whose turn it is.
    fn next(&self, turn: usize) -> Record {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            // No key is a prefix of another, so a scan for one finds only that one.
            let key = format!("{}{number:012}", self.prefix);
            let is_next = |shards: ShardCount| {
                shards.shard_of_key(key.as_bytes()) == ShardId((turn % shards.get() as usize) as u32)
            };
            if self.shards.is_none_or(is_next) {
                let is_counter = self.has_counters && number.is_multiple_of(COUNTERS_ONE_OF);
                return Record { key: key.into(), is_counter, state: Mutex::default() };
            }
        }
    }
}

impl Lane {
    /// Makes this many lanes, which begin with different shards.
    pub fn several(lanes: usize) -> Vec<Lane> {
        let lane = |turn| Lane { lanes, current: Mutex::new(Current { turn, record: None }) };
        (0..lanes).map(lane).collect()
    }

    /// The key for the next operation, which must be [ended](Record::end).
    pub fn begin(&self, keys: &Keys) -> Arc<Record> {
        let mut current = self.current();
        if let Some(record) = &current.record {
            if record.begin() {
                return record.clone();
            }
            if record.is_full() {
                current.turn += self.lanes;
            }
        }
        let record = Arc::new(keys.next(current.turn));
        assert!(record.begin(), "a new key takes operations");
        current.record = Some(record.clone());
        record
    }

    /// Ends the sequence. Returns the last key, unless it is closed already. No operation may be under way.
    pub fn close(&self) -> Option<Arc<Record>> {
        let record = self.current().record.take()?;
        let mut state = record.state();
        assert!(state.under_way == 0, "the clients have ended");
        let was_open = !state.is_closed;
        state.is_closed = true;
        drop(state);
        was_open.then_some(record)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("no code panics while it holds a lane")
    }
}

impl Record {
    fn begin(&self) -> bool {
        let mut state = self.state();
        if state.is_closed {
            return false;
        }
        state.begun += 1;
        state.under_way += 1;
        state.is_closed = state.begun == OPERATIONS;
        true
    }

    /// Whether all operations that a key takes have begun.
    fn is_full(&self) -> bool {
        self.state().begun == OPERATIONS
    }

    /// Notes the end of an operation on this key; `None` if it need not be recorded. Returns whether it was the last
    /// one of this key.
    pub fn end(&self, operation: Option<Operation>) -> bool {
        let mut state = self.state();
        state.under_way -= 1;
        if let Some(operation) = operation {
            state.unknown += usize::from(operation.ending == Ending::Unknown);
            state.operations.push(operation);
        }
        state.is_closed |= state.unknown >= UNKNOWN;
        state.is_closed && state.under_way == 0
    }

    /// Takes out the history.
    pub fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut self.state().operations)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds a record")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_check::{Kind, Time};

    fn unknown_delete() -> Option<Operation> {
        let kind = Kind::Delete { found: None };
        Some(Operation { client: 0, kind, invoked: Time(0), ending: Ending::Unknown })
    }

    fn lane_and_keys(shards: Option<u32>) -> (Lane, Keys) {
        let shards = shards.map(|count| ShardCount::new(count).unwrap());
        (Lane::several(2).remove(1), Keys::new("verify/".to_owned(), shards, true))
    }

    #[test]
    fn a_full_key_is_handed_over_once_when_its_last_operation_ends() {
        let (lane, keys) = lane_and_keys(None);
        let first = lane.begin(&keys);
        for _ in 1..OPERATIONS {
            assert!(Arc::ptr_eq(&lane.begin(&keys), &first));
        }
        let second = lane.begin(&keys);
        assert_ne!(first.key, second.key);
        let handed_over: Vec<bool> = (0..OPERATIONS).map(|_| first.end(None)).collect();
        assert_eq!(handed_over.iter().filter(|last| **last).count(), 1);
        assert!(handed_over[OPERATIONS - 1]);

        assert!(!second.end(None));
        assert_eq!(lane.close().map(|record| record.key.clone()), Some(second.key.clone()));
        assert!(lane.close().is_none());
    }

    #[test]
    fn a_key_of_many_unknown_outcomes_is_closed() {
        let (lane, keys) = lane_and_keys(None);
        let first = lane.begin(&keys);
        for _ in 1..UNKNOWN {
            assert!(!first.end(unknown_delete()));
            assert!(Arc::ptr_eq(&lane.begin(&keys), &first));
        }
        assert!(first.end(unknown_delete()));
        assert!(!Arc::ptr_eq(&lane.begin(&keys), &first));
        assert_eq!(first.take().len(), UNKNOWN);
    }

    #[test]
    fn lanes_go_through_the_shards_and_stay_where_outcomes_are_unknown() {
        let (lane, keys) = lane_and_keys(Some(8));
        let shard_of = |record: &Record| ShardCount::new(8).unwrap().shard_of_key(&record.key).0;
        let mut shards = Vec::new();
        for _ in 0..5 {
            let first = lane.begin(&keys);
            (1..OPERATIONS).for_each(|_| drop(lane.begin(&keys)));
            shards.push(shard_of(&first));
        }
        assert_eq!(shards, [1, 3, 5, 7, 1]);
        let first = lane.begin(&keys);
        for _ in 1..UNKNOWN {
            assert!(!first.end(unknown_delete()));
            lane.begin(&keys);
        }
        assert!(first.end(unknown_delete()));
        let second = lane.begin(&keys);
        assert_ne!(first.key, second.key);
        assert_eq!([&first, &second].map(|record| shard_of(record)), [3, 3]);
    }
}
