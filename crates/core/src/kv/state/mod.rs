//! A shard's state machine: the tables that result from applying its Raft log.
//!
//! **Tables.** A state is a list of tables (`tables`), each a set of packed elements in the order of their keys. Today
//! there is one, of the entries (`entry`). All tables have the same interface: elements as bytes in order, their hashes
//! and sizes, and the previous element of each change. So the state's hash, the cut for snapshots, the builder and the
//! scrubber are written once. A new table (sessions, leases, an expiry index, history) needs only a number here and a
//! check of its elements.
//!
//! **Deterministic.** Replicas that applied the same entries hold the same bytes: a [`Transaction`] depends only on the
//! state, the entry's timestamp and the command.
//!
//! **Revisions**, as in etcd: the shard's revision counts the commands that changed something; a key carries the
//! revision that created it, the one that changed it last, and its version, the number of writes since its creation.
//!
//! **Memory.** A key takes one allocation (`element`) and one place in a B-tree: for keys of 16 bytes and values of
//! 128, 180 to 197 bytes of resident memory (`cargo run --release -p ringfort-core --example machine_load`).
//!
//! **Hash.** Each change updates [`Machine::hash`] in constant time. It is, for each table, the sum of the elements'
//! 64-bit hashes ([`hash`](mod@hash)), mixed with revision, timestamp and counts. It cannot detect damaged memory:
//! [`Machine::recomputed_hash`] reads all elements for that, and [`Machine::scrub`] does so in small steps while
//! commands are applied.
//!
//! **Changes.** A command sees the state through a [`Transaction`], which reports each change as a [`ChangeEvent`].
//!
//! **Snapshots.** `cut` hands out the state at one moment in chunks while further commands are applied, and `builder`
//! makes a machine from them.

mod builder;
mod cut;
mod element;
mod entry;
pub mod hash;
#[cfg(test)]
mod model_tests;
mod scrub;
mod table;
mod tables;
mod transaction;

pub use builder::{BuildError, MachineBuilder};
pub use cut::{CutMeta, CutMetaError};
pub use entry::Numbers;
pub use scrub::Scrubbed;
pub use tables::{ElementError, PushError};
pub use transaction::{ChangeEvent, Transaction};

use crate::time::HlcTimestamp;
use bytes::Bytes;
use element::Element;
use std::ops::Bound;
use tables::{Check, Tables};

/// The number of the table of entries. Table numbers are part of snapshots and never change their meaning.
const ENTRIES: usize = 0;
const TABLES: usize = 1;

/// The checks of elements from outside, by the number of their table.
const CHECKS: [Check; TABLES] = [entry::check];

/// The state of one shard on one replica.
///
/// Invariant: no entry's modify revision is above `revision`.
#[derive(Default)]
pub struct Machine {
    tables: Tables<TABLES>,
    revision: u64,
    last_timestamp: HlcTimestamp,
}

/// A key's record: its value and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub value: Bytes,
    /// Writes since the key was created, counting from 1.
    pub version: u64,
    pub create_revision: u64,
    pub modify_revision: u64,
}

/// Keys in order, with their records.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ScanPage {
    pub entries: Vec<(Bytes, Record)>,
    /// Whether more of the requested keys follow the last entry.
    pub more: bool,
}

impl Machine {
    /// The empty state that every shard starts from.
    pub fn new() -> Machine {
        Machine::default()
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.tables.table(ENTRIES).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no command has ever been applied.
    pub fn is_new(&self) -> bool {
        self.tables.len() == 0 && self.revision == 0 && self.last_timestamp == HlcTimestamp::default()
    }

    /// The memory held, estimated: elements with their overhead, and the pre-images of a cut in progress.
    pub fn bytes(&self) -> usize {
        self.tables.held_bytes()
    }

    /// The number of commands that changed something.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The highest timestamp applied.
    pub fn last_timestamp(&self) -> HlcTimestamp {
        self.last_timestamp
    }

    /// A hash of the whole state, comparable between replicas at the same index of the log.
    pub fn hash(&self) -> u64 {
        self.tables.hash(self.revision, self.last_timestamp, false)
    }

    /// The value that [`hash`](Machine::hash) should have, computed from all bytes in memory.
    pub fn recomputed_hash(&self) -> u64 {
        self.tables.hash(self.revision, self.last_timestamp, true)
    }

    pub fn get(&self, key: &[u8]) -> Option<Record> {
        self.tables.table(ENTRIES).get(key).map(record)
    }

    /// The entries whose keys start with `prefix`, are above `start_after` and not above `up_to`: at most `limit` of
    /// them and, except for the first one, at most `max_bytes` of keys and values.
    pub fn scan(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        up_to: Option<&[u8]>,
        limit: usize,
        max_bytes: usize,
    ) -> ScanPage {
        let start = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        let mut page = ScanPage { entries: Vec::new(), more: false };
        let mut page_bytes = 0;
        for entry in self.tables.table(ENTRIES).range(start) {
            let key = entry.key();
            if !key.starts_with(prefix) || up_to.is_some_and(|last| key > last) {
                break;
            }
            page_bytes += key.len() + entry::fields(entry).1.len();
            if page.entries.len() >= limit || (page_bytes > max_bytes && !page.entries.is_empty()) {
                page.more = true;
                break;
            }
            page.entries.push((Bytes::copy_from_slice(key), record(entry)));
        }
        page
    }
}

fn record(entry: &Element) -> Record {
    let (numbers, value) = entry::fields(entry);
    record_of(numbers, value)
}

fn record_of(numbers: Numbers, value: &[u8]) -> Record {
    let Numbers { version, create_revision, modify_revision } = numbers;
    Record { value: Bytes::copy_from_slice(value), version, create_revision, modify_revision }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(machine: &mut Machine, key: &str, value: &str) -> Numbers {
        machine.begin(HlcTimestamp(1), &mut |_| {}).put(key.as_bytes(), value.as_bytes())
    }

    fn delete(machine: &mut Machine, key: &str) -> bool {
        machine.begin(HlcTimestamp(1), &mut |_| {}).delete(key.as_bytes())
    }

    #[test]
    fn versions_count_puts_and_start_again_after_a_delete() {
        let numbers = |version, create_revision, modify_revision| Numbers { version, create_revision, modify_revision };
        let mut machine = Machine::new();
        assert_eq!(put(&mut machine, "k", "a"), numbers(1, 1, 1));
        assert_eq!(put(&mut machine, "k", "b"), numbers(2, 1, 2));
        let record = Record { value: "b".into(), version: 2, create_revision: 1, modify_revision: 2 };
        assert_eq!(machine.get(b"k"), Some(record));
        assert!(delete(&mut machine, "k"));
        assert!(!delete(&mut machine, "k"));
        assert_eq!(machine.revision(), 3);
        assert_eq!(put(&mut machine, "k", "c"), numbers(1, 4, 4));
    }

    #[test]
    fn a_page_ends_at_its_limits_and_says_whether_more_follows() {
        let mut machine = Machine::new();
        for key in ["a", "b1", "b2", "b3", "c"] {
            put(&mut machine, key, "12345678");
        }
        let keys = |page: &ScanPage| page.entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let scan = |after: Option<&[u8]>, limit, max_bytes| {
            let page = machine.scan(b"b", after, None, limit, max_bytes);
            (keys(&page), page.more)
        };
        let all = vec![Bytes::from("b1"), "b2".into(), "b3".into()];
        assert_eq!(scan(None, 3, 30), (all.clone(), false));
        assert_eq!(scan(None, 2, 30), (all[..2].to_vec(), true));
        assert_eq!(scan(None, 3, 29), (all[..2].to_vec(), true));
        assert_eq!(scan(None, 3, 0), (all[..1].to_vec(), true), "the first one is given whatever its size");
        assert_eq!(scan(Some(b"b1"), 3, 30), (all[1..].to_vec(), false));
        assert_eq!(scan(Some(b"a"), 1, 30), (all[..1].to_vec(), true));
        assert_eq!(scan(Some(b"b3"), 3, 30), (vec![], false));
        assert_eq!(scan(Some(b"zz"), 3, 30), (vec![], false));
    }

    #[test]
    fn state_hash_is_pinned() {
        let mut machine = Machine::new();
        assert_eq!(machine.hash(), 0xf6e9_be5d_7063_2cf5);
        put(&mut machine, "a", "1");
        put(&mut machine, "b", "2");
        assert_eq!(machine.hash(), 0x594f_76dd_7f6e_f9df);
    }

    #[test]
    fn hash_sees_everything_that_replicas_must_agree_on() {
        let mut one = Machine::new();
        put(&mut one, "k", "v");
        let first = one.hash();
        put(&mut one, "k", "v");
        assert_ne!(one.hash(), first, "the same value, another version");
        let mut other = Machine::new();
        put(&mut other, "k", "v");
        assert_eq!(other.hash(), first);
        other.begin(HlcTimestamp(2), &mut |_| {}).delete(b"absent");
        assert_ne!(other.hash(), first, "another timestamp");
    }

    #[test]
    fn recomputing_finds_memory_that_changed_by_itself() {
        let mut machine = Machine::new();
        put(&mut machine, "k", "v");
        assert_eq!(machine.recomputed_hash(), machine.hash());
        machine.flip_a_bit(0, 1);
        assert_ne!(machine.recomputed_hash(), machine.hash());
    }
}
