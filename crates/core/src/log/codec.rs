//! The encoding of items in a record's body: our own codec, pinned by golden bytes.
//!
//! Numbers are LEB128 varints (7 bits a byte, low bits first); byte strings are preceded by their length. An item is a
//! kind byte, the shard, the replica, and then
//!
//! | kind | content |
//! |---|---|
//! | 1 state | hard state, base (index, term, conf state, snapshot name), entries |
//! | 2 entries | entries |
//! | 3 hard state | term, vote, commit |
//! | 4 removed | nothing |
//! | 5 directory | no shard and replica; complete (0, 1), count, then shard, replica, held (0 removed, 1 live) |
//! | 6 suspect | nothing |
//!
//! Entries are encoded as their count, the first one's index, and for each entry its type, term, data and context.
//! Their indexes are contiguous, so only the first is kept. An entry usually takes five bytes beside its data.
//!
//! Decoding never panics, whatever the input, and never sizes an allocation by an unverified length.

use super::item::{Base, Change, LogItem, ReplicaState};
use crate::types::{LogIndex, ReplicaId, ShardId, Term};
use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState};

const STATE: u8 = 1;
const ENTRIES: u8 = 2;
const HARD_STATE: u8 = 3;
const REMOVED: u8 = 4;
const DIRECTORY: u8 = 5;
const SUSPECT: u8 = 6;

/// The destination of encoded bytes.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

/// All shards that the log knows, as the first record of each segment lists them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Directory {
    /// Whether the log knows every replica that this node has held; see [`super::Recovery::shards_unknown`].
    pub complete: bool,
    pub shards: Vec<Listed>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    pub shard: ShardId,
    pub replica: ReplicaId,
    pub live: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decoded {
    Item(LogItem),
    Directory(Directory),
}

/// The bytes are not a valid encoding of items.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed;

pub(super) fn encode_item(item: &LogItem, out: &mut impl Sink) {
    let kind = match &item.change {
        Change::State(_) => STATE,
        Change::Entries(_) => ENTRIES,
        Change::HardState(_) => HARD_STATE,
        Change::Removed => REMOVED,
        Change::Suspect => SUSPECT,
    };
    out.put(&[kind]);
    put_number(u64::from(item.shard.0), out);
    put_number(item.replica.0, out);
    match &item.change {
        Change::State(state) => {
            put_hard_state(&state.hard_state, out);
            put_base(&state.base, out);
            put_entries(&state.entries, out);
        }
        Change::Entries(entries) => put_entries(entries, out),
        Change::HardState(hard_state) => put_hard_state(hard_state, out),
        Change::Removed | Change::Suspect => {}
    }
}

pub(super) fn encode_directory(directory: &Directory, out: &mut impl Sink) {
    out.put(&[DIRECTORY, u8::from(directory.complete)]);
    put_number(directory.shards.len() as u64, out);
    for listed in &directory.shards {
        put_number(u64::from(listed.shard.0), out);
        put_number(listed.replica.0, out);
        out.put(&[u8::from(listed.live)]);
    }
}

/// Decodes a whole body.
pub(super) fn decode_body(body: &[u8]) -> Result<Vec<Decoded>, Malformed> {
    let mut reader = Reader { rest: body };
    let mut decoded = Vec::new();
    while !reader.rest.is_empty() {
        decoded.push(reader.item()?);
    }
    Ok(decoded)
}

fn put_number(mut value: u64, out: &mut impl Sink) {
    let mut bytes = [0u8; 10];
    let mut len = 0;
    loop {
        bytes[len] = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            break;
        }
        bytes[len] |= 0x80;
        len += 1;
    }
    out.put(&bytes[..=len]);
}

fn put_bytes(bytes: &[u8], out: &mut impl Sink) {
    put_number(bytes.len() as u64, out);
    out.put(bytes);
}

fn put_hard_state(hard_state: &HardState, out: &mut impl Sink) {
    put_number(hard_state.term, out);
    put_number(hard_state.vote, out);
    put_number(hard_state.commit, out);
}

fn put_base(base: &Base, out: &mut impl Sink) {
    put_number(base.index.0, out);
    put_number(base.term.0, out);
    let conf_state = &base.conf_state;
    for ids in [&conf_state.voters, &conf_state.learners, &conf_state.voters_outgoing, &conf_state.learners_next] {
        put_number(ids.len() as u64, out);
        for id in ids {
            put_number(*id, out);
        }
    }
    out.put(&[u8::from(conf_state.auto_leave)]);
    put_bytes(base.snapshot.as_bytes(), out);
}

fn put_entries(entries: &[Entry], out: &mut impl Sink) {
    put_number(entries.len() as u64, out);
    let Some(first) = entries.first() else { return };
    put_number(first.index, out);
    for (offset, entry) in entries.iter().enumerate() {
        assert_eq!(entry.index, first.index + offset as u64, "the entries of an item are contiguous");
        out.put(&[entry.entry_type as u8]);
        put_number(entry.term, out);
        put_bytes(&entry.data, out);
        put_bytes(&entry.context, out);
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn item(&mut self) -> Result<Decoded, Malformed> {
        let kind = self.byte()?;
        if kind == DIRECTORY {
            return Ok(Decoded::Directory(self.directory()?));
        }
        let shard = self.shard()?;
        let replica = ReplicaId(self.number()?);
        let change = match kind {
            STATE => Change::State(Box::new(ReplicaState {
                hard_state: self.hard_state()?,
                base: self.base()?,
                entries: self.entries()?,
            })),
            ENTRIES => Change::Entries(self.entries()?),
            HARD_STATE => Change::HardState(self.hard_state()?),
            REMOVED => Change::Removed,
            SUSPECT => Change::Suspect,
            _ => return Err(Malformed),
        };
        Ok(Decoded::Item(LogItem { shard, replica, change }))
    }

    fn directory(&mut self) -> Result<Directory, Malformed> {
        let complete = self.flag()?;
        let mut shards = Vec::new();
        for _ in 0..self.number()? {
            shards.push(Listed { shard: self.shard()?, replica: ReplicaId(self.number()?), live: self.flag()? });
        }
        Ok(Directory { complete, shards })
    }

    fn hard_state(&mut self) -> Result<HardState, Malformed> {
        Ok(HardState { term: self.number()?, vote: self.number()?, commit: self.number()?, ..Default::default() })
    }

    fn base(&mut self) -> Result<Base, Malformed> {
        let index = LogIndex(self.number()?);
        let term = Term(self.number()?);
        let conf_state = ConfState {
            voters: self.ids()?,
            learners: self.ids()?,
            voters_outgoing: self.ids()?,
            learners_next: self.ids()?,
            auto_leave: self.flag()?,
            ..Default::default()
        };
        let snapshot = std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)?.to_owned();
        Ok(Base { index, term, conf_state, snapshot })
    }

    fn ids(&mut self) -> Result<Vec<u64>, Malformed> {
        let mut ids = Vec::new();
        for _ in 0..self.number()? {
            ids.push(self.number()?);
        }
        Ok(ids)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Malformed> {
        let count = self.number()?;
        let mut entries = Vec::new();
        if count == 0 {
            return Ok(entries);
        }
        let first = self.number()?;
        first.checked_add(count).ok_or(Malformed)?;
        for index in first..first + count {
            let entry_type = match self.byte()? {
                0 => EntryType::EntryNormal,
                1 => EntryType::EntryConfChange,
                2 => EntryType::EntryConfChangeV2,
                _ => return Err(Malformed),
            };
            let term = self.number()?;
            // Copied out, so that one entry that stays in memory does not keep its whole record there.
            let data = Bytes::copy_from_slice(self.bytes()?);
            let context = Bytes::copy_from_slice(self.bytes()?);
            entries.push(Entry { entry_type, term, index, data, context, ..Default::default() });
        }
        Ok(entries)
    }

    fn shard(&mut self) -> Result<ShardId, Malformed> {
        u32::try_from(self.number()?).map(ShardId).map_err(|_| Malformed)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*first)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Sink for Vec<u8> {
        fn put(&mut self, bytes: &[u8]) {
            self.extend_from_slice(bytes);
        }
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (0..3usize, any::<u64>(), any::<Vec<u8>>(), any::<[u8; 2]>());
        (0..u64::MAX / 2, prop::collection::vec(entry, 0..4)).prop_map(|(first, contents)| {
            let types = [EntryType::EntryNormal, EntryType::EntryConfChange, EntryType::EntryConfChangeV2];
            let entry = |(offset, (entry_type, term, data, context)): (usize, (usize, u64, Vec<u8>, [u8; 2]))| Entry {
                entry_type: types[entry_type],
                term,
                index: first + offset as u64,
                data: data.into(),
                context: Bytes::copy_from_slice(&context),
                ..Default::default()
            };
            contents.into_iter().enumerate().map(entry).collect()
        })
    }

    fn hard_states() -> impl Strategy<Value = HardState> {
        any::<[u64; 3]>().prop_map(|[term, vote, commit]| HardState { term, vote, commit, ..Default::default() })
    }

    fn states() -> impl Strategy<Value = ReplicaState> {
        let ids = || prop::collection::vec(any::<u64>(), 0..3);
        let base = (any::<[u64; 2]>(), ids(), ids(), ids(), ids(), any::<bool>(), any::<String>());
        (hard_states(), base, entries()).prop_map(|(hard_state, base, entries)| {
            let ([index, term], voters, learners, voters_outgoing, learners_next, auto_leave, snapshot) = base;
            let conf_state =
                ConfState { voters, learners, voters_outgoing, learners_next, auto_leave, ..Default::default() };
            let base = Base { index: LogIndex(index), term: Term(term), conf_state, snapshot };
            ReplicaState { hard_state, base, entries }
        })
    }

    fn decoded() -> impl Strategy<Value = Decoded> {
        let change = prop_oneof![
            states().prop_map(|state| Change::State(Box::new(state))),
            entries().prop_map(Change::Entries),
            hard_states().prop_map(Change::HardState),
            Just(Change::Removed),
            Just(Change::Suspect),
        ];
        let item = (any::<u32>(), any::<u64>(), change).prop_map(|(shard, replica, change)| {
            Decoded::Item(LogItem { shard: ShardId(shard), replica: ReplicaId(replica), change })
        });
        let listed = (any::<u32>(), any::<u64>(), any::<bool>()).prop_map(|(shard, replica, live)| Listed {
            shard: ShardId(shard),
            replica: ReplicaId(replica),
            live,
        });
        let directory = (any::<bool>(), prop::collection::vec(listed, 0..5))
            .prop_map(|(complete, shards)| Decoded::Directory(Directory { complete, shards }));
        prop_oneof![4 => item, 1 => directory]
    }

    fn encode(all: &[Decoded]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for decoded in all {
            match decoded {
                Decoded::Item(item) => encode_item(item, &mut bytes),
                Decoded::Directory(directory) => encode_directory(directory, &mut bytes),
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(all in prop::collection::vec(decoded(), 0..5)) {
            prop_assert_eq!(decode_body(&encode(&all)), Ok(all));
        }

        #[test]
        fn random_bytes_do_not_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode_body(&bytes);
        }

        #[test]
        fn mutated_bytes_do_not_panic(
            all in prop::collection::vec(decoded(), 1..4),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode(&all);
            for (at, flip) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            let _ = decode_body(&bytes);
            let _ = decode_body(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut bytes = vec![ENTRIES, 1, 1];
        put_number(u64::MAX / 2, &mut bytes);
        put_number(1, &mut bytes);
        assert_eq!(decode_body(&bytes), Err(Malformed));
        let mut bytes = vec![DIRECTORY, 1];
        put_number(u64::MAX, &mut bytes);
        assert_eq!(decode_body(&bytes), Err(Malformed));
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_malformed() {
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Reader { rest: &largest }.number(), Ok(u64::MAX));
        let larger = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader { rest: &larger }.number(), Err(Malformed));
    }
}
