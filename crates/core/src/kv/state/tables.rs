//! The tables of a state: code that concerns all of them, for any number of tables.
//!
//! A table's number is its position. Cuts hand the tables out in that order, walks and hashes go through them in that
//! order, and the builder accepts no other order. A new table needs a number and a [`Check`].

use super::element::Element;
use super::hash::hash;
use super::scrub::Scrubbed;
use super::table::Table;
use crate::codec::{CodecError, Reader};
use crate::limits::MAX_KEY_BYTES;
use crate::time::HlcTimestamp;
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Checks the content of an element that comes from outside, in a state at `revision`: whether its table could have
/// produced it.
pub type Check = fn(content: &[u8], revision: u64) -> Result<(), ElementError>;

/// Why bytes are not a valid element of their table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    #[error("a value of type {0}, which this build does not know: upgrade this node")]
    UnknownType(u8),
    #[error("a key without content")]
    Empty,
    #[error("an entry's version or revisions contradict each other")]
    Numbers,
    #[error("a key was changed at revision {modified}, after the cut at revision {cut}")]
    Revision { modified: u64, cut: u64 },
    #[error(transparent)]
    Malformed(#[from] CodecError),
}

pub struct Tables<const N: usize> {
    tables: [Table; N],
    /// Which table the scrubber walks over.
    walked: AtomicUsize,
}

impl<const N: usize> Default for Tables<N> {
    fn default() -> Tables<N> {
        Tables::new(std::array::from_fn(|_| Table::default()))
    }
}

impl<const N: usize> Tables<N> {
    pub fn new(tables: [Table; N]) -> Tables<N> {
        Tables { tables, walked: AtomicUsize::new(0) }
    }

    pub fn table(&self, number: usize) -> &Table {
        &self.tables[number]
    }

    pub fn table_mut(&mut self, number: usize) -> &mut Table {
        &mut self.tables[number]
    }

    /// The elements of all tables.
    pub fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    pub fn held_bytes(&self) -> usize {
        self.tables.iter().map(Table::held_bytes).sum()
    }

    /// A hash of all tables, the revision and the timestamp. It uses the maintained hashes of the elements, or, if
    /// `recomputed`, computes them from memory.
    pub fn hash(&self, revision: u64, timestamp: HlcTimestamp, recomputed: bool) -> u64 {
        let sum = |table: &Table| if recomputed { table.recomputed_hashes() } else { table.hashes() };
        state_hash(revision, timestamp, self.tables.iter().map(|table| (sum(table), table.len() as u64)))
    }

    /// Whether a cut has found memory that differs from what was written to it.
    pub fn is_damaged(&self) -> bool {
        self.tables.iter().any(|table| table.is_damaged)
    }

    pub fn begin_cut(&mut self) {
        self.tables.iter_mut().for_each(Table::begin_cut);
    }

    pub fn next_chunk(&mut self, max_bytes: usize) -> Option<Bytes> {
        (0u8..).zip(&mut self.tables).find_map(|(number, table)| table.next_chunk(number, max_bytes))
    }

    pub fn abandon_cut(&mut self) {
        self.tables.iter_mut().for_each(Table::abandon_cut);
    }

    /// Continues the walk over elements of about `max_bytes`, but at least one. Only one caller at a time makes
    /// progress. An empty table takes no step of its own.
    pub fn scrub(&self, max_bytes: usize) -> Scrubbed {
        let mut walked = self.walked.load(Ordering::Relaxed);
        loop {
            let scrubbed = self.tables[walked].scrub(max_bytes);
            if scrubbed != Scrubbed::Sound {
                return scrubbed;
            }
            let was_empty = self.tables[walked].len() == 0;
            walked = (walked + 1) % N;
            self.walked.store(walked, Ordering::Relaxed);
            match (walked, was_empty) {
                (0, _) => return Scrubbed::Sound,
                (_, true) => {}
                (_, false) => return Scrubbed::Going,
            }
        }
    }

    /// Flips a bit of the `nth` element, modulo their number, without updating the hashes. False if there is none.
    #[cfg(any(test, feature = "memory-faults"))]
    pub fn flip_a_bit(&mut self, nth: usize, bit: u32) -> bool {
        let Some(mut nth) = nth.checked_rem(self.len()) else { return false };
        for table in &mut self.tables {
            let len = table.len();
            if nth < len {
                table.flip_a_bit(nth, bit);
                return true;
            }
            nth -= len;
        }
        false
    }
}

/// A hash of tables, each given by its number, the sum of its elements' hashes and their number. The order of elements
/// does not matter to a sum, and unlike exclusive-or it does not cancel duplicates.
///
/// An empty table leaves the hash unchanged: a build with an additional table agrees with earlier builds until the
/// table has an element, so that replicas can be compared, and snapshots read, during a rolling upgrade.
pub fn state_hash(revision: u64, timestamp: HlcTimestamp, tables: impl Iterator<Item = (u64, u64)>) -> u64 {
    let mix = |numbers: [u64; 4]| {
        let mut input = [0; 32];
        for (field, number) in input.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *field = number.to_le_bytes();
        }
        hash(&input)
    };
    (0..)
        .zip(tables)
        .filter(|(_, (_, len))| *len > 0)
        .fold(mix([0, 0, revision, timestamp.0]), |state, (number, (hashes, len))| mix([state, number, hashes, len]))
}

/// Builds the tables of a state from chunks that come from a disk or another node.
pub struct TablesBuilder<const N: usize> {
    parts: [Part; N],
    checks: &'static [Check; N],
    /// The table of the latest chunk.
    number: usize,
    len: u64,
}

#[derive(Default)]
struct Part {
    /// In key order.
    elements: Vec<Element>,
    hashes: u64,
    bytes: usize,
}

/// Why an element cannot follow the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Element(#[from] ElementError),
    #[error("keys or tables are out of order")]
    Order,
    #[error("a table with number {0}, which this build does not know: upgrade this node")]
    UnknownTable(u8),
}

impl From<CodecError> for PushError {
    fn from(error: CodecError) -> PushError {
        PushError::Element(error.into())
    }
}

impl<const N: usize> TablesBuilder<N> {
    pub fn new(checks: &'static [Check; N]) -> TablesBuilder<N> {
        TablesBuilder { parts: std::array::from_fn(|_| Part::default()), checks, number: 0, len: 0 }
    }

    /// The elements so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Begins the table with this number, to which the next elements belong.
    pub fn enter(&mut self, number: u8) -> Result<(), PushError> {
        match usize::from(number) {
            known if known >= N => Err(PushError::UnknownTable(number)),
            earlier if earlier < self.number => Err(PushError::Order),
            number => {
                self.number = number;
                Ok(())
            }
        }
    }

    pub fn push(&mut self, packed: &[u8], revision: u64) -> Result<(), PushError> {
        let mut reader = Reader::new(packed);
        reader.bytes(MAX_KEY_BYTES)?;
        if reader.is_empty() {
            return Err(ElementError::Empty.into());
        }
        self.checks[self.number](reader.rest(), revision)?;
        let element = Element::new(packed.into());
        let part = &mut self.parts[self.number];
        if part.elements.last().is_some_and(|last| *last >= element) {
            return Err(PushError::Order);
        }
        part.hashes = part.hashes.wrapping_add(element.hash());
        part.bytes += element.held_bytes();
        part.elements.push(element);
        self.len += 1;
        Ok(())
    }

    pub fn hash(&self, revision: u64, timestamp: HlcTimestamp) -> u64 {
        state_hash(revision, timestamp, self.parts.iter().map(|part| (part.hashes, part.elements.len() as u64)))
    }

    pub fn finish(self) -> Tables<N> {
        Tables::new(self.parts.map(|part| Table::new(part.elements, part.hashes, part.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cut;
    use super::*;
    use crate::codec::put_bytes;

    const ANY: [Check; 2] = [|_, _| Ok(()), |_, _| Ok(())];

    fn element(key: &[u8], content: &[u8]) -> Element {
        let mut packed = Vec::new();
        put_bytes(&mut packed, key);
        packed.extend_from_slice(content);
        Element::new(packed.into())
    }

    fn tables() -> Tables<2> {
        let mut tables = Tables::<2>::default();
        for (number, key) in [(0, b"a"), (0, b"b"), (1, b"a"), (1, b"c")] {
            tables.table_mut(number).set(key, element(key, b"content"));
        }
        tables
    }

    fn kept_up(tables: &Tables<2>) -> u64 {
        tables.hash(1, HlcTimestamp(1), false)
    }

    #[test]
    fn all_tables_of_one_moment_come_back_from_their_chunks() {
        let mut tables = tables();
        let expected = kept_up(&tables);
        tables.begin_cut();
        let mut chunks = vec![tables.next_chunk(1).expect("four elements")];
        tables.table_mut(0).remove(b"b");
        tables.table_mut(1).set(b"c", element(b"c", b"other"));
        tables.table_mut(1).set(b"b", element(b"b", b"new"));
        chunks.extend(std::iter::from_fn(|| tables.next_chunk(1)));
        assert!(!tables.is_damaged());
        let build = |chunks: &[Bytes]| {
            let mut builder = TablesBuilder::new(&ANY);
            chunks.iter().try_for_each(|chunk| cut::push_chunk(&mut builder, chunk, 1))?;
            Ok::<_, super::super::BuildError>(builder.finish())
        };
        let built = build(&chunks).expect("chunks of a cut");
        assert_eq!((kept_up(&built), built.len()), (expected, 4));
        assert_eq!(built.hash(1, HlcTimestamp(1), true), expected);
        chunks.reverse();
        assert!(build(&chunks).is_err(), "tables come in their order");
    }

    #[test]
    fn elements_without_a_key_or_a_content_are_refused_whatever_the_table_checks() {
        let push = |packed: &[u8]| TablesBuilder::new(&ANY).push(packed, 1).err();
        let long = element(&[b'k'; MAX_KEY_BYTES + 1], b"content");
        assert_eq!(push(b"\x01kc"), None);
        assert_eq!(push(b"\x01k"), Some(ElementError::Empty.into()), "it would say that the key is absent");
        assert_eq!(push(b"\x02k"), Some(CodecError::Truncated.into()));
        assert!(matches!(push(long.packed()), Some(PushError::Element(ElementError::Malformed(_)))));
    }

    #[test]
    fn the_hash_tells_in_which_table_an_element_is() {
        let mut swapped = Tables::<2>::default();
        for (number, key) in [(1, b"a"), (1, b"b"), (0, b"a"), (0, b"c")] {
            swapped.table_mut(number).set(key, element(key, b"content"));
        }
        assert_ne!(kept_up(&swapped), kept_up(&tables()));

        let alone = |number: usize| {
            let mut tables = Tables::<2>::default();
            tables.table_mut(number).set(b"a", element(b"a", b"content"));
            kept_up(&tables)
        };
        assert_ne!(alone(0), alone(1), "the other table is empty");
    }

    #[test]
    fn an_empty_table_is_as_good_as_none() {
        let mut older = Tables::<1>::default();
        let mut newer = Tables::<2>::default();
        for key in [b"a", b"b"] {
            older.table_mut(0).set(key, element(key, b"content"));
            newer.table_mut(0).set(key, element(key, b"content"));
        }
        let hash = older.hash(1, HlcTimestamp(1), false);
        assert_eq!(kept_up(&newer), hash, "replicas of both builds agree");
        older.begin_cut();
        let mut builder = TablesBuilder::<2>::new(&ANY);
        while let Some(chunk) = older.next_chunk(1000) {
            cut::push_chunk(&mut builder, &chunk, 1).expect("a chunk of a cut");
        }
        assert_eq!(builder.hash(1, HlcTimestamp(1)), hash, "the newer build reads the older one's snapshots");
    }

    #[test]
    fn walks_and_cuts_find_damage_in_any_table() {
        for nth in 0..4 {
            let mut tables = tables();
            assert!(tables.flip_a_bit(nth, 1));
            let walk = |tables: &Tables<2>| {
                std::iter::repeat_with(|| tables.scrub(1)).find(|scrubbed| *scrubbed != Scrubbed::Going)
            };
            assert_eq!(walk(&tables), Some(Scrubbed::Damaged));
            assert_ne!(tables.hash(1, HlcTimestamp(1), true), kept_up(&tables));
            tables.begin_cut();
            while tables.next_chunk(1).is_some() {}
            assert!(tables.is_damaged());
        }
        let tables = tables();
        let going = [Scrubbed::Going; 5];
        assert_eq!([(); 5].map(|()| tables.scrub(1)), going, "two of each table, and the end of the first one");
        assert_eq!(tables.scrub(1), Scrubbed::Sound);
    }

    #[test]
    fn an_empty_table_takes_no_step_of_a_walk() {
        let mut tables = Tables::<3>::default();
        assert_eq!(tables.scrub(1), Scrubbed::Sound);
        tables.table_mut(1).set(b"a", element(b"a", b"content"));
        assert_eq!([(); 3].map(|()| tables.scrub(1)), [Scrubbed::Going, Scrubbed::Going, Scrubbed::Sound]);
    }

    #[test]
    #[should_panic(expected = "nothing under it")]
    fn no_table_takes_an_element_that_says_that_it_is_absent() {
        Tables::<1>::default().table_mut(0).set(b"a", element(b"a", b""));
    }
}
