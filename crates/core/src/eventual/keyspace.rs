//! The eventual keyspace: a map that every node holds in full and any node may write.
//!
//! Each write is an *entry* of the node that took it: that node's [`Origin`] numbers its entries with versions from 1
//! on. Of two entries of one key, the one with the larger (timestamp, origin) wins on every node; the loser is dropped.
//! A deletion is an entry without a value, a *tombstone*.
//!
//! For each origin, the number `seen` says what a node has. **Invariant**: for each entry of an origin up to `seen`,
//! one of these holds: the node holds the entry or one that supersedes it; or another node holds an entry that
//! supersedes it and that this node has not seen yet; or another node held one before its disk was lost (see
//! `gossip/repair.rs`). [`Part`]s keep the invariant: a part has *all* entries of an origin that the sender holds
//! between two versions, so a node that merges it has seen them all, provided that the part begins no later than its
//! `seen`. An entry that the sender has dropped was superseded by one in the sender's keyspace, which reaches the
//! receiver in another part.
//!
//! Merging is commutative, associative and idempotent: a key's value is the maximum of all its merged entries and
//! `seen` the maximum of the parts' ends, and a maximum depends neither on order nor on repetition.
//!
//! Costs: an entry takes its bytes and about [`ENTRY_OVERHEAD_BYTES`] in two ordered maps.

use crate::kv::state::hash::hash;
use crate::limits::{MAX_SCAN_BYTES, MAX_SCAN_ENTRIES};
use crate::time::HlcTimestamp;
use crate::version::{Origin, Version, VersionVector};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// The memory charged for an entry beside its key and value. The limits count it as well.
pub const ENTRY_OVERHEAD_BYTES: usize = 128;

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub version: Version,
    /// Increases with the version.
    pub timestamp: HlcTimestamp,
    pub key: Bytes,
    /// None for a tombstone.
    pub value: Option<Bytes>,
}

/// All entries of an origin that the sender still holds above `after`, up to and including `upto`, in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub origin: Origin,
    pub after: Version,
    pub upto: Version,
    pub entries: Vec<Entry>,
}

/// A value as a reader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub value: Bytes,
    /// When it was written, by the hybrid logical clock.
    pub timestamp: HlcTimestamp,
}

/// One page of a scan, in ascending order of keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub entries: Vec<(Bytes, Found)>,
    /// Whether there are more keys after the last one.
    pub more: bool,
}

/// The eventual keyspace as one node holds it. Invariants:
///
/// - Each entry's key is in the `versions` of its origin's space, at its version, which is not above `seen`.
/// - `tombstones` are those of the `versions` whose entries have no value.
/// - `bytes` and `hash` are sums over the entries; the hash leaves out tombstones, which nodes collect at different
///   times.
#[derive(Default)]
pub struct Keyspace {
    entries: BTreeMap<Bytes, Held>,
    spaces: BTreeMap<Origin, Space>,
    bytes: usize,
    hash: u64,
    clock: HlcTimestamp,
}

struct Held {
    origin: Origin,
    version: Version,
    timestamp: HlcTimestamp,
    value: Option<Bytes>,
}

#[derive(Default)]
struct Space {
    seen: Version,
    versions: BTreeMap<Version, Bytes>,
    tombstones: BTreeSet<Version>,
}

impl Keyspace {
    pub fn get(&self, key: &[u8]) -> Option<Found> {
        let held = self.entries.get(key)?;
        Some(Found { value: held.value.clone()?, timestamp: held.timestamp })
    }

    /// The keys with a prefix, above `start_after`: at most `limit` of them, and no more bytes than a scan's answer may
    /// hold.
    pub fn scan(&self, prefix: &[u8], start_after: Option<&[u8]>, limit: usize) -> Page {
        let from = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page::default();
        let mut bytes = 0;
        for (key, held) in self.entries.range::<[u8], _>((from, Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            let Some(value) = &held.value else { continue };
            bytes += key.len() + value.len();
            let is_full = page.entries.len() >= limit.min(MAX_SCAN_ENTRIES) || bytes > MAX_SCAN_BYTES;
            if is_full && !page.entries.is_empty() {
                page.more = true;
                break;
            }
            page.entries.push((key.clone(), Found { value: value.clone(), timestamp: held.timestamp }));
        }
        page
    }

    /// The version up to which this node has seen an origin.
    pub fn seen(&self, origin: Origin) -> Version {
        self.spaces.get(&origin).map_or(Version::default(), |space| space.seen)
    }

    pub fn all_seen(&self) -> VersionVector {
        self.spaces.iter().map(|(&origin, space)| (origin, space.seen)).collect()
    }

    /// A hash that is equal for keyspaces that hold the same values.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The highest timestamp of all entries ever merged.
    pub fn clock(&self) -> HlcTimestamp {
        self.clock
    }

    /// The memory charged for the entries, tombstones included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn keys(&self) -> usize {
        self.entries.len() - self.tombstones()
    }

    pub fn tombstones(&self) -> usize {
        self.spaces.values().map(|space| space.tombstones.len()).sum()
    }

    /// Whether an entry would supersede the one held for its key, if any.
    pub fn is_beaten_by(&self, origin: Origin, entry: &Entry) -> bool {
        self.entries.get(&entry.key).is_none_or(|held| (held.timestamp, held.origin) < (entry.timestamp, origin))
    }

    /// Merges a part, including its entries that are not above [`Keyspace::seen`]: a caller that got the part from
    /// another node must remove those first, or know that no collected tombstone has superseded them.
    ///
    /// # Panics
    /// If the part leaves a gap; a caller that got it from another node must check first.
    pub fn merge(&mut self, part: Part) {
        let Part { origin, after, upto, entries } = part;
        let seen = self.seen(origin);
        assert!(after <= seen, "a part after {after:?} does not follow {seen:?} of {origin:?}");
        entries.into_iter().for_each(|entry| self.take(origin, entry));
        let space = self.spaces.entry(origin).or_default();
        space.seen = seen.max(upto);
    }

    /// The parts that a node with this version vector lacks: about `budget` bytes, but at least one entry. Starts with
    /// the `first`-th origin, and returns whether there is more.
    pub fn parts_for(&self, seen: &VersionVector, budget: usize, first: u64) -> (Vec<Part>, bool) {
        let lacking = |(origin, space): &(&Origin, &Space)| seen.get(origin).is_none_or(|seen| *seen < space.seen);
        let mut spaces: Vec<(&Origin, &Space)> = self.spaces.iter().filter(lacking).collect();
        if !spaces.is_empty() {
            let first = first as usize % spaces.len();
            spaces.rotate_left(first);
        }
        let mut parts = Vec::new();
        let mut bytes = 0;
        for (&origin, space) in spaces {
            if bytes >= budget {
                return (parts, true);
            }
            let after = seen.get(&origin).copied().unwrap_or_default();
            let mut part = Part { origin, after, upto: space.seen, entries: Vec::new() };
            bytes += PART_BYTES;
            for (&version, key) in space.versions.range((Bound::Excluded(after), Bound::Unbounded)) {
                if bytes >= budget && !(parts.is_empty() && part.entries.is_empty()) {
                    part.upto = part.entries.last().map_or(after, |entry| entry.version);
                    if part.upto > after {
                        parts.push(part);
                    }
                    return (parts, true);
                }
                let held = &self.entries[key];
                bytes += cost(key, held.value.as_ref()) - ENTRY_OVERHEAD_BYTES + PART_BYTES / 2;
                part.entries.push(Entry {
                    version,
                    timestamp: held.timestamp,
                    key: key.clone(),
                    value: held.value.clone(),
                });
            }
            parts.push(part);
        }
        (parts, false)
    }

    /// The whole keyspace, as parts that turn an empty keyspace into an equal one.
    pub fn all_parts(&self) -> Vec<Part> {
        self.parts_for(&VersionVector::new(), usize::MAX, 0).0
    }

    /// Drops the tombstones up to these versions and returns their number.
    pub fn forget_tombstones(&mut self, upto: &VersionVector) -> usize {
        let mut forgotten = Vec::new();
        for (origin, space) in &self.spaces {
            if let Some(&upto) = upto.get(origin) {
                forgotten.extend(space.tombstones.range(..=upto).map(|version| space.versions[version].clone()));
            }
        }
        forgotten.iter().for_each(|key| self.remove(key));
        forgotten.len()
    }

    /// Whether there are tombstones up to these versions.
    pub fn has_tombstones(&self, upto: &VersionVector) -> bool {
        let old = |(origin, space): (&Origin, &Space)| {
            upto.get(origin).is_some_and(|upto| space.tombstones.range(..=*upto).next().is_some())
        };
        self.spaces.iter().any(old)
    }

    fn take(&mut self, origin: Origin, entry: Entry) {
        self.clock = self.clock.max(entry.timestamp);
        if !self.is_beaten_by(origin, &entry) {
            return;
        }
        let Entry { version, timestamp, key, value } = entry;
        self.remove(&key);
        let space = self.spaces.entry(origin).or_default();
        space.versions.insert(version, key.clone());
        if value.is_none() {
            space.tombstones.insert(version);
        }
        let held = Held { origin, version, timestamp, value };
        self.bytes += cost(&key, held.value.as_ref());
        self.hash = self.hash.wrapping_add(held.hash(&key));
        self.entries.insert(key, held);
    }

    fn remove(&mut self, key: &Bytes) {
        let Some(held) = self.entries.remove(key) else { return };
        let space = self.spaces.get_mut(&held.origin).expect("an entry is in its origin's space");
        space.versions.remove(&held.version);
        space.tombstones.remove(&held.version);
        self.bytes -= cost(key, held.value.as_ref());
        self.hash = self.hash.wrapping_sub(held.hash(key));
    }
}

/// The approximate size of an encoded part beside its entries; an entry takes half of that beside its key and value.
const PART_BYTES: usize = 32;

/// The memory charged for an entry.
pub fn cost(key: &Bytes, value: Option<&Bytes>) -> usize {
    ENTRY_OVERHEAD_BYTES + key.len() + value.map_or(0, Bytes::len)
}

impl Held {
    fn hash(&self, key: &[u8]) -> u64 {
        let Some(value) = &self.value else { return 0 };
        // Three hashes, so that moving bytes between key and value changes the result.
        let words = [hash(key), hash(value), self.timestamp.0, self.origin.node.0, self.origin.incarnation.0];
        hash(words.map(u64::to_le_bytes).as_flattened())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;
    use crate::version::Incarnation;

    fn origin(node: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(100 + node) }
    }

    fn part(node: u64, version: u64, timestamp: u64, key: &'static str, value: Option<&'static str>) -> Part {
        let (key, value) = (key.into(), value.map(Bytes::from));
        let entries = vec![Entry { version: Version(version), timestamp: HlcTimestamp(timestamp), key, value }];
        Part { origin: origin(node), after: Version(version - 1), upto: Version(version), entries }
    }

    fn value(keyspace: &Keyspace, key: &str) -> Option<Bytes> {
        keyspace.get(key.as_bytes()).map(|found| found.value)
    }

    #[test]
    fn the_later_write_wins_in_either_order_and_of_equal_stamps_the_higher_origin() {
        for order in [[0, 1], [1, 0]] {
            let parts = [part(1, 1, 10, "a", Some("old")), part(2, 1, 11, "a", Some("new"))];
            let mut keyspace = Keyspace::default();
            order.iter().for_each(|&which| keyspace.merge(parts[which].clone()));
            assert_eq!(value(&keyspace, "a").unwrap(), "new");
            let parts = [part(3, 1, 10, "b", Some("three")), part(1, 2, 10, "b", Some("one"))];
            keyspace.merge(part(1, 1, 9, "c", Some("c")));
            order.iter().for_each(|&which| keyspace.merge(parts[which].clone()));
            assert_eq!(value(&keyspace, "b").unwrap(), "three");
        }
    }

    #[test]
    fn a_forgotten_tombstone_leaves_nothing_behind() {
        let mut keyspace = Keyspace::default();
        keyspace.merge(part(1, 1, 10, "a", Some("x")));
        keyspace.merge(part(2, 1, 11, "a", None));
        assert_eq!((value(&keyspace, "a"), keyspace.tombstones()), (None, 1));
        assert_eq!(keyspace.forget_tombstones(&VersionVector::from([(origin(2), Version(1))])), 1);
        assert_eq!((value(&keyspace, "a"), keyspace.tombstones(), keyspace.bytes()), (None, 0, 0));
        assert_eq!(keyspace.hash(), Keyspace::default().hash());
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn a_gap_is_never_merged() {
        Keyspace::default().merge(part(1, 2, 10, "a", None));
    }

    #[test]
    fn parts_are_bounded_and_together_make_an_equal_keyspace() {
        let mut keyspace = Keyspace::default();
        for version in 1..=50 {
            keyspace.merge(part(version % 3 + 1, (version - 1) / 3 + 1, version, "shared", Some("v")));
        }
        for (version, key) in (18..40).zip(["k1", "k2", "k3", "k4", "k5", "k6"].iter().cycle()) {
            keyspace.merge(part(3, version, 100 + version, key, Some("v")));
        }
        let mut copy = Keyspace::default();
        let mut rounds = 0;
        loop {
            let (parts, more) = keyspace.parts_for(&copy.all_seen(), 80, rounds);
            assert!(parts.iter().map(|part| part.entries.len()).sum::<usize>() <= 3);
            parts.into_iter().for_each(|part| copy.merge(part));
            rounds += 1;
            assert!(rounds < 100);
            if !more {
                break;
            }
        }
        assert_eq!((copy.hash(), copy.all_seen()), (keyspace.hash(), keyspace.all_seen()));
    }

    #[test]
    fn scans_come_in_pages_and_leave_out_what_was_deleted() {
        let mut keyspace = Keyspace::default();
        for (version, key) in (1..).zip(["a1", "a2", "a3", "b1"]) {
            keyspace.merge(part(1, version, version, key, Some("v")));
        }
        keyspace.merge(part(1, 5, 5, "a2", None));
        let keys = |page: &Page| page.entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let first = keyspace.scan(b"a", None, 1);
        assert_eq!((keys(&first), first.more), (vec![Bytes::from("a1")], true));
        let second = keyspace.scan(b"a", Some(b"a1"), 5);
        assert_eq!((keys(&second), second.more), (vec![Bytes::from("a3")], false));
        assert_eq!(keys(&keyspace.scan(b"", None, 9)).len(), 3);
    }
}
