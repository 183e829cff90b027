//! The log's in-memory index of shards: enough to check appends and to release segments.

use super::codec::{Directory, Listed};
use super::item::{Change, LogItem};
use super::segment::SegmentNumber;
use crate::types::{LogIndex, ReplicaId, ShardId};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

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

/// The segments with records of a lost replica, from its last complete state to the record that shows the loss.
pub(super) type Remains = RangeInclusive<SegmentNumber>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Held {
    Live {
        replica: ReplicaId,
        base: LogIndex,
        last: LogIndex,
        /// The segment of its last complete state. All later items are in it or in later segments.
        segment: SegmentNumber,
    },
    /// Its remains are kept for an operator, until the shard has a later replica here or is removed. They pin nothing:
    /// a segment that is needed for nothing else is set aside. None if the log has none: they were set aside before the
    /// last start, or are lost.
    Suspect { replica: ReplicaId, remains: Option<Remains> },
    /// Pins nothing: the directory at the start of each segment repeats it.
    Removed { replica: ReplicaId },
}

impl Held {
    fn replica(&self) -> ReplicaId {
        match self {
            Held::Live { replica, .. } | Held::Suspect { replica, .. } | Held::Removed { replica } => *replica,
        }
    }

    /// The segment that it pins.
    fn pin(&self) -> Option<SegmentNumber> {
        match self {
            Held::Live { segment, .. } => Some(*segment),
            Held::Suspect { .. } | Held::Removed { .. } => None,
        }
    }

    /// The first segment with records of it.
    fn first_segment(&self) -> Option<SegmentNumber> {
        match self {
            Held::Live { segment, .. } => Some(*segment),
            Held::Suspect { remains, .. } => remains.as_ref().map(|remains| *remains.start()),
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
        if let Some(segment) = held.pin() {
            *self.pins.entry(segment).or_insert(0) += 1;
        }
        let earlier = self.shards.insert(shard, held);
        if let Some(segment) = earlier.and_then(|held| held.pin()) {
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
                let held = self.shards.get(shard);
                let is_known = held.is_some_and(|held| match held {
                    Held::Live { replica: live, .. } => live > replica,
                    Held::Suspect { replica: known, .. } | Held::Removed { replica: known } => known >= replica,
                });
                if is_known {
                    return;
                }
                let first = held.and_then(Held::first_segment).unwrap_or(segment);
                self.insert(*shard, Held::Suspect { replica: *replica, remains: Some(first..=segment) });
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

    /// The live shards whose last complete state is in this segment.
    pub(super) fn pinning(&self, segment: SegmentNumber) -> impl Iterator<Item = ShardId> {
        self.shards.iter().filter(move |(_, held)| held.pin() == Some(segment)).map(|(shard, _)| *shard)
    }

    /// Whether the segment holds remains of a lost replica.
    pub(super) fn has_remains_in(&self, segment: SegmentNumber) -> bool {
        self.shards.values().any(|held| match held {
            Held::Suspect { remains: Some(remains), .. } => remains.contains(&segment),
            _ => false,
        })
    }

    /// Whether there may be a lost replica without a later one.
    pub(super) fn may_have_lost(&self) -> bool {
        !self.complete || self.shards.values().any(|held| matches!(held, Held::Suspect { .. }))
    }

    /// The shard's live replica, the segment of its last complete state, and its last index.
    pub(super) fn live_replica(&self, shard: ShardId) -> Option<(ReplicaId, SegmentNumber, LogIndex)> {
        match self.shards.get(&shard)? {
            Held::Live { replica, segment, last, .. } => Some((*replica, *segment, *last)),
            Held::Suspect { .. } | Held::Removed { .. } => None,
        }
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
            live: !matches!(held, Held::Removed { .. }),
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
