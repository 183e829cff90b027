//! Replaying the pieces of the segments, in order, into the state of each shard.
//!
//! Every shard is unknown at first. A complete state makes a shard live, whatever was lost of it before; items that
//! continue the state keep it live; a loss that may have affected it makes it suspect. The directory at the start of a
//! segment names every shard, so a shard whose state is lost is suspect too, not forgotten.

use super::codec::{Decoded, Directory, decode_body};
use super::index::{Held, Index, Remains};
use super::item::{Change, LogItem, ReplicaState};
use super::record::{Header, Record, Sequence};
use super::scan::Piece;
use super::segment::SegmentNumber;
use super::{RecoveredShard, Recovery};
use crate::mutation::Mutation;
use crate::types::{LogIndex, ReplicaId, ShardId};
use raft::eraftpb::Entry;
use std::collections::BTreeMap;

pub(super) struct Replay {
    shards: BTreeMap<ShardId, Replayed>,
    shards_unknown: bool,
    mutation: Mutation,
    findings: Vec<String>,
    next: Option<Next>,
    /// Whether the last record was intact.
    last_is_intact: bool,
    /// Damaged sectors found since the last record, as (segment, first sector, count).
    damage: Option<(SegmentNumber, usize, usize)>,
    /// The last segment with an intact directory.
    directory: Option<SegmentNumber>,
}

/// What the next record's header must contain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Next {
    pub sequence: Sequence,
    pub previous: u32,
}

enum Replayed {
    Live { replica: ReplicaId, state: Box<ReplicaState>, segment: SegmentNumber },
    Suspect { replica: ReplicaId, remains: Option<Remains> },
    Removed { replica: ReplicaId },
}

impl Replayed {
    fn replica(&self) -> ReplicaId {
        match self {
            Replayed::Live { replica, .. } | Replayed::Suspect { replica, .. } | Replayed::Removed { replica } => {
                *replica
            }
        }
    }

    /// The first segment with records of it.
    fn first_segment(&self) -> Option<SegmentNumber> {
        match self {
            Replayed::Live { segment, .. } => Some(*segment),
            Replayed::Suspect { remains, .. } => remains.as_ref().map(|remains| *remains.start()),
            Replayed::Removed { .. } => None,
        }
    }
}

impl Replay {
    /// Starts with the lowest existing segment. Only in the very first segment is the first record known in advance.
    pub(super) fn new(lowest: SegmentNumber, mutation: Mutation) -> Replay {
        let is_whole = lowest == SegmentNumber::FIRST;
        let first = Next { sequence: Sequence::FIRST, previous: 0 };
        Replay {
            shards: BTreeMap::new(),
            shards_unknown: !is_whole,
            mutation,
            findings: Vec::new(),
            next: is_whole.then_some(first),
            last_is_intact: true,
            damage: None,
            directory: None,
        }
    }

    /// The record that is expected next; `None` if no record was found yet.
    pub(super) fn next(&self) -> Option<Next> {
        self.next
    }

    pub(super) fn set_next(&mut self, next: Next) {
        self.next = Some(next);
    }

    pub(super) fn find(&mut self, finding: String) {
        self.findings.push(finding);
    }

    /// Whether nothing has been damaged since the last intact record, or since the start.
    pub(super) fn is_sound_here(&self) -> bool {
        self.last_is_intact && self.damage.is_none()
    }

    /// Whether this header belongs to the very next record.
    pub(super) fn expects(&self, header: &Header) -> bool {
        self.next == Some(Next { sequence: header.sequence, previous: header.previous })
    }

    /// Handles a sector that belongs to no record. The next record shows whether it was part of one.
    pub(super) fn damaged(&mut self, segment: SegmentNumber, sector: usize) {
        let (_, _, count) = self.damage.get_or_insert((segment, sector, 0));
        *count += 1;
    }

    /// Reports the sectors passed to [`Replay::damaged`] since the last record. Returns whether there are any.
    pub(super) fn report_damage(&mut self) -> bool {
        let Some((segment, sector, count)) = self.damage.take() else { return false };
        self.find(format!("{count} damaged sectors in segment {}, from sector {sector} on", segment.0));
        true
    }

    /// A record in or before `segment` is lost, and it is unknown which shards' items it had.
    pub(super) fn lose_all(&mut self, finding: String, segment: SegmentNumber) {
        self.find(format!("{finding}: every shard is suspect"));
        self.shards_unknown = true;
        for held in self.shards.values_mut().filter(|held| !matches!(held, Replayed::Removed { .. })) {
            let first = held.first_segment().unwrap_or(segment);
            *held = Replayed::Suspect { replica: held.replica(), remains: Some(first..=segment) };
        }
    }

    /// Checks that no record is missing before this one. Returns whether the record is later than all before.
    pub(super) fn follow(&mut self, header: &Header) -> bool {
        self.report_damage();
        let (place, segment) = (place(header), header.segment);
        match self.next {
            _ if self.expects(header) => true,
            Some(next) if next.sequence > header.sequence => {
                self.lose_all(format!("{place} comes after record {}", next.sequence.0 - 1), segment);
                false
            }
            Some(next) => {
                self.lose_all(format!("{place} does not follow record {}", next.sequence.0 - 1), segment);
                true
            }
            None if header.sector == 0 => true,
            None => {
                self.lose_all(format!("the records before {place} are lost"), segment);
                true
            }
        }
    }

    /// Applies a record's items or, if they fail their checks, quarantines the shards that it names.
    pub(super) fn apply(&mut self, record: &Record<'_>) {
        let header = &record.header;
        self.next = Some(Next { sequence: header.sequence.next(), previous: header.checksum });
        let place = place(header);
        self.last_is_intact = false;
        let Some(named) = record.named() else {
            return self.lose_all(format!("the shard list of {place} is corrupt"), header.segment);
        };
        let unchecked = self.mutation.is(Mutation::IgnoreChecksums) && !record.is_cut_short();
        let body = if unchecked { Some(record.unchecked_body()) } else { record.body() };
        let Some(decoded) = body.and_then(|body| decode_body(&body).ok()) else {
            self.find(format!("{place} is corrupt, so the shards that it names are suspect: {named:?}"));
            for (shard, replica) in named {
                self.suspect(shard, replica, header.segment);
            }
            return;
        };
        for decoded in decoded {
            match decoded {
                Decoded::Item(item) => self.apply_item(item, header.segment),
                Decoded::Directory(directory) => self.apply_directory(directory, header.segment),
            }
        }
        self.last_is_intact = true;
    }

    /// Applies only the items of `shard`, of a log that was open already. Damaged pieces that may have had some make it
    /// suspect.
    pub(super) fn apply_only(&mut self, shard: ShardId, segment: SegmentNumber, piece: &Piece<'_>) {
        let Piece::Record(record) = piece else {
            return self.lose_all("damaged sectors".to_owned(), segment);
        };
        let Some(named) = record.named() else {
            return self.lose_all(format!("{} is corrupt", place(&record.header)), segment);
        };
        let Some((_, replica)) = named.into_iter().find(|(named, _)| *named == shard) else { return };
        let Some(decoded) = record.body().and_then(|body| decode_body(&body).ok()) else {
            return self.suspect(shard, replica, segment);
        };
        for decoded in decoded {
            match decoded {
                Decoded::Item(item) if item.shard == shard => self.apply_item(item, segment),
                Decoded::Item(_) | Decoded::Directory(_) => {}
            }
        }
    }

    /// The complete state of the shard's replica, if it is live, and its last index.
    pub(super) fn into_state(mut self, shard: ShardId) -> Option<(ReplicaId, Box<ReplicaState>, LogIndex)> {
        match self.shards.remove(&shard)? {
            Replayed::Live { replica, state, .. } if is_sound(&state) => {
                let last = last_index(&state);
                Some((replica, state, last))
            }
            _ => None,
        }
    }

    /// The result for the node, and the index with which the log continues. `lowest` and `last` are its segments.
    pub(super) fn finish(mut self, lowest: SegmentNumber, last: SegmentNumber) -> (Recovery, Index) {
        if self.next.is_none() {
            self.find(format!("no records are left in the log, whose first segment is {}", lowest.0));
        }
        let mut index = Index::new(self.directory.unwrap_or(lowest), !self.shards_unknown);
        let mut shards = BTreeMap::new();
        for (shard, replayed) in self.shards {
            let (held, recovered) = match replayed {
                Replayed::Live { replica, state, segment } if is_sound(&state) => {
                    let (base, last) = (state.base.index, last_index(&state));
                    (Held::Live { replica, base, last, segment }, RecoveredShard::Recovered { replica, state })
                }
                Replayed::Live { .. } | Replayed::Suspect { .. } => {
                    let (replica, remains) = match replayed {
                        Replayed::Suspect { replica, remains } => (replica, remains),
                        unsound => (unsound.replica(), unsound.first_segment().map(|first| first..=last)),
                    };
                    self.findings.push(format!("shard {shard}: replica {replica} is suspect"));
                    (Held::Suspect { replica, remains }, RecoveredShard::Suspect { replica })
                }
                Replayed::Removed { replica } => (Held::Removed { replica }, RecoveredShard::Removed(replica)),
            };
            index.insert(shard, held);
            shards.insert(shard, recovered);
        }
        (Recovery { shards, shards_unknown: self.shards_unknown, findings: self.findings }, index)
    }

    fn apply_item(&mut self, item: LogItem, segment: SegmentNumber) {
        let LogItem { shard, replica, change } = item;
        let held = self.shards.get_mut(&shard);
        let is_gone = held.as_ref().is_some_and(|held| match held {
            Replayed::Removed { replica: removed } => replica <= *removed,
            other => replica < other.replica(),
        });
        if is_gone {
            return;
        }
        match (change, held) {
            (Change::State(state), _) => {
                self.shards.insert(shard, Replayed::Live { replica, state, segment });
            }
            (Change::Removed, _) => {
                self.shards.insert(shard, Replayed::Removed { replica });
            }
            (Change::Suspect, _) => {
                self.suspect(shard, replica, segment);
            }
            (Change::Entries(entries), Some(Replayed::Live { replica: live, state, .. })) if *live == replica => {
                if !extend(state, entries) {
                    self.find(format!("shard {shard}: entries in segment {} do not fit to its log", segment.0));
                    self.suspect(shard, replica, segment);
                }
            }
            (Change::HardState(hard_state), Some(Replayed::Live { replica: live, state, .. })) if *live == replica => {
                state.hard_state = hard_state;
            }
            (Change::Entries(_) | Change::HardState(_), _) => self.suspect(shard, replica, segment),
        }
    }

    fn apply_directory(&mut self, directory: Directory, segment: SegmentNumber) {
        self.directory = Some(segment);
        self.shards_unknown &= !directory.complete;
        for listed in directory.shards {
            let held = self.shards.get(&listed.shard).map(Replayed::replica);
            if !listed.live && held <= Some(listed.replica) {
                self.shards.insert(listed.shard, Replayed::Removed { replica: listed.replica });
            } else if listed.live && held < Some(listed.replica) {
                // Its records were before this segment. Those of an earlier replica are still here.
                let first = self.shards.get(&listed.shard).and_then(Replayed::first_segment);
                let remains = first.map(|first| first..=segment);
                self.shards.insert(listed.shard, Replayed::Suspect { replica: listed.replica, remains });
            }
        }
    }

    /// Data of this replica is lost, as `segment` shows. A removed replica has none to lose.
    fn suspect(&mut self, shard: ShardId, replica: ReplicaId, segment: SegmentNumber) {
        let (replica, first) = match self.shards.get(&shard) {
            Some(Replayed::Removed { replica: removed }) if *removed >= replica => return,
            Some(held) => (held.replica().max(replica), held.first_segment()),
            None => (replica, None),
        };
        let remains = Some(first.unwrap_or(segment)..=segment);
        self.shards.insert(shard, Replayed::Suspect { replica, remains });
    }
}

pub(super) fn place(header: &Header) -> String {
    format!("record {} at sector {} of segment {}", header.sequence.0, header.sector, header.segment.0)
}

fn last_index(state: &ReplicaState) -> LogIndex {
    LogIndex(state.base.index.0.saturating_add(state.entries.len() as u64))
}

/// Whether Raft can start from this state and the log can continue with it; both assert that.
fn is_sound(state: &ReplicaState) -> bool {
    let follows = state.entries.first().is_none_or(|first| first.index.checked_sub(1) == Some(state.base.index.0));
    let has_successor = last_index(state).0 < u64::MAX;
    follows && has_successor && state.hard_state.commit <= last_index(state).0
}

/// Adds entries to a state's log, replacing those from the first one's index on. Returns whether they fit.
fn extend(state: &mut ReplicaState, entries: Vec<Entry>) -> bool {
    let Some(first) = entries.first() else { return true };
    let Some(kept) = first.index.checked_sub(state.base.index.0.saturating_add(1)) else { return false };
    if kept > state.entries.len() as u64 {
        return false;
    }
    state.entries.truncate(kept as usize);
    state.entries.extend(entries);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records with correct checksums that this program would not write.
    #[test]
    fn states_that_do_not_follow_from_their_base_are_not_sound() {
        let state = |base, first| {
            let mut state = ReplicaState::default();
            state.base.index = LogIndex(base);
            state.entries = vec![Entry { index: first, ..Entry::default() }];
            state
        };
        assert!(is_sound(&state(7, 8)));
        assert!(!is_sound(&state(7, 9)), "an entry is missing");
        assert!(!is_sound(&state(7, 0)));
        assert!(!is_sound(&state(u64::MAX - 1, u64::MAX)), "no entry can follow");
        assert!(!is_sound(&state(u64::MAX, 0)));
    }
}
