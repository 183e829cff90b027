//! The log's in-memory index of shards: enough to check appends and to release segments.

use super::codec::{Directory, Listed};
use super::item::{Change, LogItem};
use super::segment::SegmentNumber;
use crate::types::{LogIndex, ReplicaId, ShardId};
use std::collections::BTreeMap;

/// All shards with data in the log.
///
/// - `pins` counts, for each segment, the shards whose last complete state is in it; no count is zero.
/// - A shard's replica id never decreases.
pub(super) struct Index {
    shards: BTreeMap<ShardId, Held>,
    pins: BTreeMap<SegmentNumber, usize>,
    /// The last segment with a directory, which may be the only record of some removals.
    directory: SegmentNumber,
    complete: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Held {
    Live {
        replica: ReplicaId,
        base: LogIndex,
        last: LogIndex,
        /// The segment of its last complete state. All later items are in it or in later segments.
        segment: SegmentNumber,
    },
    /// Its remains are kept, from this segment on, for an operator to recover, until the shard has a new replica or is
    /// removed.
    Suspect { replica: ReplicaId, segment: SegmentNumber },
    /// Pins nothing: the directory at the start of each segment repeats it.
    Removed { replica: ReplicaId },
}

impl Held {
    fn replica(&self) -> ReplicaId {
        match self {
            Held::Live { replica, .. } | Held::Suspect { replica, .. } | Held::Removed { replica } => *replica,
        }
    }

    fn segment(&self) -> Option<SegmentNumber> {
        match self {
            Held::Live { segment, .. } | Held::Suspect { segment, .. } => Some(*segment),
            Held::Removed { .. } => None,
        }
    }
}

impl Index {
    /// `complete`: whether the shards will include every replica that this node has held.
    pub(super) fn new(directory: SegmentNumber, complete: bool) -> Index {
        Index { shards: BTreeMap::new(), pins: BTreeMap::new(), directory, complete }
    }

    pub(super) fn set_complete(&mut self) {
        self.complete = true;
    }

    pub(super) fn insert(&mut self, shard: ShardId, held: Held) {
        if let Some(segment) = held.segment() {
            *self.pins.entry(segment).or_insert(0) += 1;
        }
        let earlier = self.shards.insert(shard, held);
        if let Some(segment) = earlier.and_then(|held| held.segment()) {
            let count = self.pins.get_mut(&segment).expect("each shard is counted where its state is");
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&segment);
            }
        }
    }

    /// Records an item that is written to `segment`. Panics if it does not follow from the earlier items of its shard.
    pub(super) fn apply(&mut self, item: &LogItem, segment: SegmentNumber) {
        let LogItem { shard, replica, change } = item;
        match change {
            Change::State(state) => {
                let is_allowed = match self.shards.get(shard) {
                    None => true,
                    Some(Held::Live { replica: earlier, .. }) => replica >= earlier,
                    Some(Held::Suspect { replica: earlier, .. } | Held::Removed { replica: earlier }) => {
                        replica > earlier
                    }
                };
                assert!(is_allowed, "{replica:?} of {shard:?} was suspect, removed or replaced and must not come back");
                let base = state.base.index;
                let last = check_contiguous(shard, &state.entries, base.next()).unwrap_or(base);
                self.insert(*shard, Held::Live { replica: *replica, base, last, segment });
            }
            Change::Entries(entries) => {
                let (base, last) = self.live(item);
                let first = LogIndex(entries.first().expect("an item of entries has one at least").index);
                assert!(
                    *base < first && first <= last.next(),
                    "{shard:?}: entries from {first:?} on do not fit to a log from {base:?} to {last:?}"
                );
                *last = check_contiguous(shard, entries, first).expect("an item of entries has one at least");
            }
            Change::HardState(_) => {
                self.live(item);
            }
            Change::Suspect => {
                let pinned = match self.shards.get(shard) {
                    Some(held) if held.replica() > *replica => return,
                    Some(Held::Removed { replica: removed }) if removed == replica => return,
                    Some(held) if held.replica() == *replica => held.segment(),
                    _ => None,
                };
                self.insert(*shard, Held::Suspect { replica: *replica, segment: pinned.unwrap_or(segment) });
            }
            Change::Removed => {
                if self.shards.get(shard).is_none_or(|held| held.replica() <= *replica) {
                    self.insert(*shard, Held::Removed { replica: *replica });
                }
            }
        }
    }

    /// A directory of this index is written to `segment`.
    pub(super) fn directory_written(&mut self, segment: SegmentNumber) {
        self.directory = segment;
    }

    /// The first segment that is still needed.
    pub(super) fn first_needed(&self) -> SegmentNumber {
        self.pins.keys().next().map_or(self.directory, |pinned| self.directory.min(*pinned))
    }

    /// The shards whose last complete state is in this segment.
    pub(super) fn pinning(&self, segment: SegmentNumber) -> impl Iterator<Item = ShardId> {
        self.shards.iter().filter(move |(_, held)| held.segment() == Some(segment)).map(|(shard, _)| *shard)
    }

    pub(super) fn removed(&self) -> impl Iterator<Item = (ShardId, ReplicaId)> {
        self.shards.iter().filter_map(|(shard, held)| match held {
            Held::Removed { replica } => Some((*shard, *replica)),
            _ => None,
        })
    }

    pub(super) fn directory(&self) -> Directory {
        let listed = |(shard, held): (&ShardId, &Held)| Listed {
            shard: *shard,
            replica: held.replica(),
            live: held.segment().is_some(),
        };
        Directory { complete: self.complete, shards: self.shards.iter().map(listed).collect() }
    }

    /// The base and last index of the live replica that an item is for.
    fn live(&mut self, item: &LogItem) -> (&LogIndex, &mut LogIndex) {
        match self.shards.get_mut(&item.shard) {
            Some(Held::Live { replica, base, last, .. }) if *replica == item.replica => (base, last),
            _ => panic!("{:?} of {:?} has no state in the log for this item to change", item.replica, item.shard),
        }
    }
}

/// Panics unless the entries have the indexes from `first` on. Returns the last index, if there is one.
fn check_contiguous(shard: &ShardId, entries: &[raft::eraftpb::Entry], first: LogIndex) -> Option<LogIndex> {
    for (offset, entry) in entries.iter().enumerate() {
        assert_eq!(entry.index, first.0 + offset as u64, "{shard:?}: entries are contiguous");
    }
    entries.last().map(|entry| LogIndex(entry.index))
}
