//! A cut: the state at one moment, handed out in chunks while further commands are applied.
//!
//! A cut walks each table in key order with a cursor. What is at or below the cursor has been handed out, and may
//! change freely. When a command changes a key *ahead* of the cursor for the first time, the cut keeps its pre-image:
//! the element that the command replaced, which costs no copy, or a marker that there was none. The walk merges both,
//! and a pre-image takes precedence over the table. So the chunks together are the tables as they were when the cut
//! began.
//!
//! The cut costs memory only for keys that change while it runs. It needs no copy of a table and no second version of
//! an element in it.
//!
//! The elements handed out are hashed again and compared with the hash that the machine had when the cut began. If
//! memory was damaged, no machine can be built from the cut, and this machine is [damaged](Machine::is_damaged).
//!
//! A chunk is a version byte, the number of a table, then packed elements (`super::element`), each after a varint
//! length.

use super::element::Element;
use super::table::Table;
use super::tables::TablesBuilder;
use super::{BuildError, Machine};
use crate::codec::{CodecError, Reader, bytes_len, put_bytes, put_u64, put_varint};
use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES, SNAPSHOT_CHUNK_BYTES};
use crate::time::HlcTimestamp;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Version of the chunks and of [`CutMeta`]'s encoding.
pub(super) const VERSION: u8 = 2;

/// The largest packed element: key, value and five numbers.
const MAX_PACKED_BYTES: usize = MAX_KEY_BYTES + MAX_VALUE_BYTES + 50;

/// The expected properties of a cut's chunks as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutMeta {
    pub revision: u64,
    pub timestamp: HlcTimestamp,
    /// [`Machine::hash`] when the cut began.
    pub hash: u64,
    /// The number of elements in all tables.
    pub len: u64,
}

impl CutMeta {
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        put_u64(&mut out, self.hash);
        put_varint(&mut out, self.revision);
        put_varint(&mut out, self.timestamp.0);
        put_varint(&mut out, self.len);
        out.into()
    }

    pub fn decode(input: &[u8]) -> Result<CutMeta, CutMetaError> {
        let mut reader = Reader::new(input);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(CutMetaError::UnknownVersion(version));
        }
        let hash = reader.u64()?;
        let (revision, timestamp, len) = (reader.varint()?, HlcTimestamp(reader.varint()?), reader.varint()?);
        reader.expect_end()?;
        Ok(CutMeta { revision, timestamp, hash, len })
    }
}

/// Why bytes are not a valid [`CutMeta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutMetaError {
    #[error("a shard's state in version {0}, this build reads version {VERSION}: upgrade this node")]
    UnknownVersion(u8),
    #[error(transparent)]
    Malformed(#[from] CodecError),
}

impl Machine {
    /// Begins a cut of the present state. There is one cut at a time.
    pub fn begin_cut(&mut self) -> CutMeta {
        self.tables.begin_cut();
        let len = self.tables.len() as u64;
        CutMeta { revision: self.revision, timestamp: self.last_timestamp, hash: self.hash(), len }
    }

    /// The cut's next chunk, of about `max_bytes` but at least one element; `None` if none is left or there is no cut.
    ///
    /// Keys that were created since the cut began count against `max_bytes` too, although they are not handed out,
    /// because writers wait while the walk passes them. So a chunk may be smaller, or have no elements.
    pub fn next_chunk(&mut self, max_bytes: usize) -> Option<Bytes> {
        self.tables.next_chunk(max_bytes)
    }

    /// Whether a cut has found that this machine's memory differs from what was written to it. Then neither the cut's
    /// chunks nor the machine can be used.
    pub fn is_damaged(&self) -> bool {
        self.tables.is_damaged()
    }

    /// Abandons the cut, if there is one, and drops its pre-images.
    pub fn abandon_cut(&mut self) {
        self.tables.abandon_cut();
    }
}

impl Table {
    pub(super) fn begin_cut(&mut self) {
        assert!(self.cut.is_none(), "a cut began while another one is under way");
        let len = self.elements.len() as u64;
        self.cut = self.elements.last().map(|last| Cut::new(len, self.hashes, last.key().into()));
    }

    /// The next chunk of this table, whose number is `number`.
    pub(super) fn next_chunk(&mut self, number: u8, max_bytes: usize) -> Option<Bytes> {
        let cut = self.cut.as_mut()?;
        let chunk = cut.next_chunk(&self.elements, number, max_bytes);
        if cut.remaining == 0 {
            self.is_damaged |= cut.missing_hashes != 0;
            self.cut = None;
        }
        Some(chunk)
    }

    pub(super) fn abandon_cut(&mut self) {
        self.cut = None;
    }
}

/// Adds a chunk from [`Tables::next_chunk`](super::tables::Tables::next_chunk) of a state at `revision` to the builder.
pub(super) fn push_chunk<const N: usize>(
    builder: &mut TablesBuilder<N>,
    chunk: &[u8],
    revision: u64,
) -> Result<(), BuildError> {
    let mut reader = Reader::new(chunk);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(BuildError::UnknownVersion(version));
    }
    builder.enter(reader.u8()?)?;
    while !reader.is_empty() {
        builder.push(reader.bytes(MAX_PACKED_BYTES)?, revision)?;
    }
    Ok(())
}

/// A cut in progress.
///
/// Invariants: all of `pre_images` are above `cursor` and none is above `last`; for a key between them, the state at
/// the beginning is its pre-image if there is one (an absent element if the key did not exist), otherwise what the
/// table holds.
pub(super) struct Cut {
    /// The last key that the walk has passed, or `None` at the beginning.
    cursor: Option<Vec<u8>>,
    /// The table's last key when the cut began. The walk does not go beyond it.
    last: Box<[u8]>,
    pre_images: BTreeSet<Element>,
    pre_image_bytes: usize,
    /// Elements not yet handed out. At zero the cut is complete, whatever has been created ahead of the cursor.
    remaining: u64,
    /// The sum of their hashes, as the table had it.
    missing_hashes: u64,
}

impl Cut {
    fn new(len: u64, hashes: u64, last: Box<[u8]>) -> Cut {
        Cut {
            cursor: None,
            last,
            pre_images: BTreeSet::new(),
            pre_image_bytes: 0,
            remaining: len,
            missing_hashes: hashes,
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.pre_image_bytes
    }

    /// Keeps the element that a command replaced or removed under `key`, if the walk still needs it.
    pub(super) fn keep(&mut self, key: &[u8], previous: Option<Element>) {
        let passed = self.cursor.as_deref().is_some_and(|cursor| key <= cursor);
        if passed || key > &self.last[..] || self.pre_images.contains(key) {
            return;
        }
        let pre_image = previous.unwrap_or_else(|| Element::absent(key));
        self.pre_image_bytes += pre_image.held_bytes();
        self.pre_images.insert(pre_image);
    }

    fn next_chunk(&mut self, elements: &BTreeSet<Element>, number: u8, max_bytes: usize) -> Bytes {
        let start = self.cursor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut live = elements.range::<[u8], _>((start, Bound::Unbounded)).peekable();
        let mut chunk = Vec::with_capacity(max_bytes.min(SNAPSHOT_CHUNK_BYTES));
        chunk.extend([VERSION, number]);
        let mut used_bytes = chunk.len();
        let mut passed_elements = 0;
        while self.remaining > 0 {
            let kept = self.pre_images.first();
            let is_kept = match (kept, live.peek()) {
                (Some(kept), Some(live)) => kept <= *live,
                (kept, _) => kept.is_some(),
            };
            let next = if is_kept { kept } else { live.peek().copied() };
            let next = next.expect("a cut ran out of elements before all of them were handed out");
            used_bytes += bytes_len(next.packed().len());
            if used_bytes > max_bytes && passed_elements > 0 {
                break;
            }
            passed_elements += 1;
            if !next.is_absent() {
                put_bytes(&mut chunk, next.packed());
                self.remaining -= 1;
                self.missing_hashes = self.missing_hashes.wrapping_sub(next.hash());
            }
            let cursor = self.cursor.get_or_insert_default();
            cursor.clear();
            cursor.extend_from_slice(next.key());
            live.next_if(|live| *live == next);
            if is_kept {
                self.pre_image_bytes -= next.held_bytes();
                self.pre_images.pop_first();
            }
        }
        chunk.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::MachineBuilder;
    use super::*;

    fn put(machine: &mut Machine, key: &[u8], value: &[u8]) {
        machine.begin(HlcTimestamp(5), &mut |_| {}).put(key, value);
    }

    fn delete(machine: &mut Machine, key: &[u8]) {
        machine.begin(HlcTimestamp(6), &mut |_| {}).delete(key);
    }

    /// The memory that the cut keeps for its walk.
    fn kept_bytes(machine: &Machine) -> usize {
        machine.tables.table(super::super::ENTRIES).cut.as_ref().map_or(0, Cut::held_bytes)
    }

    fn rebuild(meta: CutMeta, chunks: &[Bytes]) -> Machine {
        let mut builder = MachineBuilder::new(meta);
        for chunk in chunks {
            builder.push_chunk(chunk).expect("a chunk of a cut");
        }
        builder.finish().expect("all chunks of a cut")
    }

    #[test]
    fn encodings_are_pinned() {
        let mut machine = Machine::new();
        put(&mut machine, b"a", b"1");
        put(&mut machine, b"b", b"2");
        let meta = machine.begin_cut();
        assert_eq!(
            &machine.next_chunk(1000).expect("a chunk")[..],
            b"\x02\x00\x07\x01a\x01\x01\x01\x001\x07\x01b\x01\x01\x02\x002"
        );
        assert_eq!(machine.next_chunk(1000), None);
        let meta = CutMeta { hash: 0x0102_0304_0506_0708, ..meta };
        assert_eq!(&meta.encode()[..], b"\x02\x08\x07\x06\x05\x04\x03\x02\x01\x02\x05\x02");
        assert_eq!(CutMeta::decode(&meta.encode()), Ok(meta));
        assert_eq!(CutMeta::decode(b"\x07"), Err(CutMetaError::UnknownVersion(7)));
    }

    #[test]
    fn chunks_are_of_the_size_asked_for_and_one_entry_at_least() {
        let mut machine = Machine::new();
        for key in 0..100u8 {
            put(&mut machine, &[key], &[0; 50]);
        }
        let meta = machine.begin_cut();
        let chunks: Vec<Bytes> = std::iter::from_fn(|| machine.next_chunk(200)).collect();
        assert_eq!(chunks.len(), 34, "three elements of 57 bytes, lengths included, in each");
        assert!(chunks.iter().all(|chunk| chunk.len() <= 200));
        assert_eq!(rebuild(meta, &chunks).hash(), machine.hash());

        machine.begin_cut();
        assert_eq!(std::iter::from_fn(|| machine.next_chunk(1)).count(), 100);
    }

    #[test]
    fn changes_on_both_sides_of_the_cursor_do_not_show() {
        let mut machine = Machine::new();
        for key in [b"b", b"d", b"f", b"h"] {
            put(&mut machine, key, b"before");
        }
        let meta = machine.begin_cut();
        let expected = machine.hash();
        let mut chunks = vec![machine.next_chunk(1).expect("b")];

        put(&mut machine, b"b", b"behind");
        put(&mut machine, b"a", b"behind");
        assert_eq!(kept_bytes(&machine), 0, "nothing is kept of what is behind");
        put(&mut machine, b"d", b"first change");
        put(&mut machine, b"d", b"second change");
        delete(&mut machine, b"f");
        put(&mut machine, b"f", b"created again");
        put(&mut machine, b"e", b"created");
        delete(&mut machine, b"e");
        put(&mut machine, b"g", b"created");
        delete(&mut machine, b"h");

        chunks.extend(std::iter::from_fn(|| machine.next_chunk(1)));
        assert_eq!(rebuild(meta, &chunks).hash(), expected);
        assert_eq!(machine.recomputed_hash(), machine.hash());
    }

    #[test]
    fn a_cut_ends_although_keys_are_created_ahead_of_it_for_ever() {
        let mut machine = Machine::new();
        put(&mut machine, b"a", b"");
        put(&mut machine, b"b", b"");
        let meta = machine.begin_cut();
        let mut chunks = Vec::new();
        for n in 0..1000u64 {
            put(&mut machine, &[b"c", &n.to_be_bytes()[..]].concat(), b"");
            assert_eq!(kept_bytes(&machine), 0, "the walk will not come to these keys");
            match machine.next_chunk(1) {
                Some(chunk) => chunks.push(chunk),
                None => break,
            }
        }
        assert_eq!(chunks.len(), 2);
        assert_eq!(rebuild(meta, &chunks).len(), 2);
    }

    #[test]
    fn passing_over_new_keys_counts_against_a_chunk() {
        let mut machine = Machine::new();
        put(&mut machine, b"z", b"");
        machine.begin_cut();
        for key in 0..100u8 {
            put(&mut machine, &[key], b"");
        }
        let chunks: Vec<Bytes> = std::iter::from_fn(|| machine.next_chunk(64)).collect();
        assert!(chunks.len() > 5, "the walk over 100 new keys was not one step: {}", chunks.len());
    }

    #[test]
    fn an_abandoned_cut_keeps_nothing() {
        let mut machine = Machine::new();
        put(&mut machine, b"a", b"1");
        let bytes = machine.bytes();
        machine.begin_cut();
        put(&mut machine, b"a", b"2");
        assert!(machine.bytes() > bytes);
        machine.abandon_cut();
        assert_eq!(machine.bytes(), bytes);
        assert_eq!(machine.next_chunk(100), None);
    }

    #[test]
    fn an_empty_map_has_no_chunks() {
        let mut machine = Machine::new();
        let meta = machine.begin_cut();
        assert_eq!(machine.next_chunk(100), None);
        assert_eq!(rebuild(meta, &[]).hash(), machine.hash());
    }
}
