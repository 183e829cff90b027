//! The eventual keyspace in the node's log.
//!
//! The log knows only shards, so the keyspace is stored as one, [`ShardId::EVENTUAL`], that has no Raft: its entries
//! are numbered like a Raft log's and hold *records*. Appending, compaction and the quarantine of damaged data then
//! come from the log, with nothing added to its format. The replica id counts how often this node's keyspace was
//! started empty.
//!
//! | record | content |
//! |---|---|
//! | 1 own | a [`Part`] of this node's own origin |
//! | 2 foreign | a part of another origin |
//! | 3 state | the highest timestamp; whether there is an own origin, and which; the count of parts; all parts |
//!
//! A state is the complete state of the shard in the log; later parts are entries that continue it. If any of that is
//! damaged, the log reports it and the whole keyspace is discarded: an entry whose tombstone was lost would be a
//! deleted key come back. The other nodes hold what they have seen and send it. The own origin is discarded too,
//! because other nodes may have versions of it that are lost here; so the next write begins a new one.

use super::codec::{DecodeError, origin, part, put_origin, put_part};
use super::keyspace::{Keyspace, Part};
use crate::codec::{Reader, put_varint};
use crate::log::RecoveredShard;
use crate::log::item::{Base, Change, LogItem, ReplicaState};
use crate::time::HlcTimestamp;
use crate::types::{LogIndex, ReplicaId, ShardId, Term};
use crate::version::Origin;
use raft::eraftpb::Entry;

const OWN: u8 = 1;
const FOREIGN: u8 = 2;
const STATE: u8 = 3;

/// The keyspace as recovered from the log at start.
pub struct Recovered {
    pub journal: Journal,
    pub keyspace: Keyspace,
    /// This node's origin; none before its first write, and after a loss.
    pub own: Option<Origin>,
    /// No lower than any timestamp that was given out.
    pub clock: HlcTimestamp,
    /// The log's content was damaged and discarded; the other nodes send what they hold of it.
    pub lost: bool,
}

/// Encodes the records and numbers them.
#[derive(Debug)]
pub struct Journal {
    replica: ReplicaId,
    next: LogIndex,
    /// Whether the log has a complete state that records can continue.
    begun: bool,
}

impl Recovered {
    fn empty(replica: ReplicaId, lost: bool) -> Recovered {
        let journal = Journal { replica, next: LogIndex::BASE.next(), begun: false };
        Recovered { journal, keyspace: Keyspace::default(), own: None, clock: HlcTimestamp::default(), lost }
    }
}

/// Recovers the keyspace from the log's [`ShardId::EVENTUAL`]. Fails if a later version of the program wrote it.
pub fn recover(shard: Option<RecoveredShard>) -> Result<Recovered, DecodeError> {
    let (replica, state) = match shard {
        None => return Ok(Recovered::empty(ReplicaId(1), false)),
        Some(RecoveredShard::Suspect { replica } | RecoveredShard::Removed(replica)) => {
            let next = replica.0.checked_add(1).ok_or(DecodeError::Order("lives of the keyspace"))?;
            return Ok(Recovered::empty(ReplicaId(next), true));
        }
        Some(RecoveredShard::Recovered { replica, state }) => (replica, state),
    };
    let mut recovered = Recovered::empty(replica, false);
    recovered.journal.begun = true;
    let next = state.base.index.0.checked_add(state.entries.len() as u64 + 1);
    recovered.journal.next = LogIndex(next.ok_or(DecodeError::Order("records"))?);
    for entry in &state.entries {
        let mut reader = Reader::new(&entry.data);
        match reader.u8()? {
            OWN => {
                recovered.own = Some(merge(&mut recovered.keyspace, &mut reader)?);
            }
            FOREIGN => {
                merge(&mut recovered.keyspace, &mut reader)?;
            }
            STATE => {
                recovered.clock = recovered.clock.max(HlcTimestamp(reader.varint()?));
                recovered.own = match reader.u8()? {
                    0 => None,
                    _ => Some(origin(&mut reader)?),
                };
                for _ in 0..reader.varint()? {
                    merge(&mut recovered.keyspace, &mut reader)?;
                }
            }
            other => return Err(DecodeError::Format(other)),
        }
        reader.expect_end()?;
    }
    recovered.clock = recovered.clock.max(recovered.keyspace.clock());
    Ok(recovered)
}

fn merge(keyspace: &mut Keyspace, reader: &mut Reader<'_>) -> Result<Origin, DecodeError> {
    let part = part(reader)?;
    if part.after > keyspace.seen(part.origin) {
        return Err(DecodeError::Order("records"));
    }
    let origin = part.origin;
    keyspace.merge(part);
    Ok(origin)
}

impl Journal {
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    /// The log item that holds these parts. Those of the `own` origin are this node's writes.
    ///
    /// # Panics
    /// If there is no complete state yet.
    pub fn parts<'a>(&mut self, parts: impl Iterator<Item = &'a Part>, own: Option<Origin>) -> LogItem {
        assert!(self.begun, "parts continue a complete state");
        let record = |part: &Part| {
            let mut data = vec![if Some(part.origin) == own { OWN } else { FOREIGN }];
            put_part(&mut data, part);
            data
        };
        let entries = parts.map(record).map(|data| self.entry(data)).collect();
        self.item(Change::Entries(entries))
    }

    /// The log item that holds the whole keyspace and replaces all items before it.
    pub fn state(&mut self, keyspace: &Keyspace, own: Option<Origin>, clock: HlcTimestamp) -> LogItem {
        let mut data = vec![STATE];
        put_varint(&mut data, clock.0);
        data.push(u8::from(own.is_some()));
        own.into_iter().for_each(|own| put_origin(&mut data, own));
        let parts = keyspace.all_parts();
        put_varint(&mut data, parts.len() as u64);
        parts.iter().for_each(|part| put_part(&mut data, part));
        let base = Base { index: LogIndex(self.next.0 - 1), term: Term::FIRST, ..Base::default() };
        let entries = vec![self.entry(data)];
        self.begun = true;
        self.item(Change::State(Box::new(ReplicaState { base, entries, ..ReplicaState::default() })))
    }

    fn entry(&mut self, data: Vec<u8>) -> Entry {
        let index = self.next.0;
        self.next = self.next.next();
        Entry { index, term: Term::FIRST.0, data: data.into(), ..Entry::default() }
    }

    fn item(&self, change: Change) -> LogItem {
        LogItem { shard: ShardId::EVENTUAL, replica: self.replica, change }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keyspace::Entry as KeyspaceEntry;
    use super::*;
    use crate::disk::mem::MemDisk;
    use crate::log::{Log, LogConfig};
    use crate::types::NodeId;
    use crate::version::{Incarnation, Version};
    use bytes::Bytes;
    use std::sync::Arc;

    fn origin(node: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(7) }
    }

    fn write(node: u64, version: u64, key: &'static str, value: Option<&'static str>) -> Part {
        let (after, upto, value) = (Version(version - 1), Version(version), value.map(Bytes::from));
        let entry = KeyspaceEntry { version: upto, timestamp: HlcTimestamp(100 + version), key: key.into(), value };
        Part { origin: origin(node), after, upto, entries: vec![entry] }
    }

    fn open(disk: &Arc<MemDisk>) -> (Log<Arc<MemDisk>>, Recovered) {
        let (log, mut recovery) =
            Log::open(disk.clone(), LogConfig { segment_bytes: 4096, ..LogConfig::default() }).unwrap();
        (log, recover(recovery.shards.remove(&ShardId::EVENTUAL)).unwrap())
    }

    fn append(log: &mut Log<Arc<MemDisk>>, item: LogItem) {
        log.append(&[item]).unwrap();
        log.sync().unwrap();
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let disk = Arc::new(MemDisk::new());
        let (mut log, Recovered { mut journal, keyspace, own, lost, .. }) = open(&disk);
        assert_eq!((own, lost, keyspace.keys(), journal.is_begun()), (None, false, 0, false));
        append(&mut log, journal.state(&keyspace, None, HlcTimestamp(0)));
        let parts = [write(1, 1, "a", Some("1")), write(2, 1, "b", Some("2")), write(1, 2, "c", None)];
        append(&mut log, journal.parts(parts.iter(), Some(origin(1))));
        let (mut log, Recovered { mut journal, keyspace, own, clock, lost }) = open(&disk);
        assert_eq!((own, clock, lost), (Some(origin(1)), HlcTimestamp(102), false));
        assert_eq!((keyspace.keys(), keyspace.tombstones(), keyspace.seen(origin(1))), (2, 1, Version(2)));
        // A state replaces all of that; records continue it.
        append(&mut log, journal.state(&keyspace, own, HlcTimestamp(500)));
        append(&mut log, journal.parts([write(1, 3, "c", Some("3"))].iter(), own));
        let (_, again) = open(&disk);
        assert_eq!((again.own, again.clock, again.keyspace.keys()), (own, HlcTimestamp(500), 3));
    }

    #[test]
    fn a_damaged_record_loses_everything_and_the_origin() {
        let disk = Arc::new(MemDisk::new());
        let (mut log, Recovered { mut journal, keyspace, .. }) = open(&disk);
        append(&mut log, journal.state(&keyspace, None, HlcTimestamp(0)));
        for version in 1..5 {
            append(&mut log, journal.parts([write(1, version, "a", Some("1"))].iter(), Some(origin(1))));
        }
        drop(log);
        disk.corrupt("log-00000000000000000001.seg", 512 * 3 + 100, 1);
        let (mut log, Recovered { mut journal, keyspace, own, lost, .. }) = open(&disk);
        assert_eq!((own, lost, keyspace.keys(), journal.is_begun()), (None, true, 0, false));
        append(&mut log, journal.state(&keyspace, None, HlcTimestamp(0)));
        let (_, Recovered { lost, .. }) = open(&disk);
        assert!(!lost, "that was dealt with");
    }

    #[test]
    fn numbers_that_have_no_successor_are_refused() {
        let last = ReplicaId(u64::MAX);
        assert!(recover(Some(RecoveredShard::Suspect { replica: last })).is_err());
        assert!(recover(Some(RecoveredShard::Removed(last))).is_err());
        let base = Base { index: LogIndex(u64::MAX), ..Base::default() };
        let state = Box::new(ReplicaState { base, ..ReplicaState::default() });
        assert!(recover(Some(RecoveredShard::Recovered { replica: last, state })).is_err());
    }

    #[test]
    fn a_state_releases_the_segments_before_it() {
        let disk = Arc::new(MemDisk::new());
        let (mut log, Recovered { mut journal, mut keyspace, .. }) = open(&disk);
        append(&mut log, journal.state(&keyspace, None, HlcTimestamp(0)));
        for version in 1..50 {
            let part = write(1, version, "a", Some("1"));
            append(&mut log, journal.parts([part.clone()].iter(), Some(origin(1))));
            keyspace.merge(part);
        }
        assert_eq!(log.pinned_by().collect::<Vec<_>>(), [ShardId::EVENTUAL]);
        let before = log.size_bytes();
        append(&mut log, journal.state(&keyspace, Some(origin(1)), HlcTimestamp(0)));
        assert!(log.size_bytes() < before);
        let (_, recovered) = open(&disk);
        assert_eq!(recovered.keyspace.hash(), keyspace.hash());
    }
}
