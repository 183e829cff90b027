//! A machine from the chunks of a cut.
//!
//! The chunks come from a disk or another node. What they say is believed once all of it is there and its hash is the
//! one that the cut began with; until then there is no machine.

use super::cut::{CutMeta, VERSION};
use super::entry::{Entry, EntryError, MAX_PACKED_BYTES};
use super::{Machine, state_hash};
use crate::codec::{CodecError, Reader};
use parking_lot::Mutex;

/// Puts the chunks of one cut together, in their order. After an error it is of no use: drop it.
pub struct MachineBuilder {
    meta: CutMeta,
    /// In key order.
    entries: Vec<Entry>,
    entry_hashes: u64,
    entry_bytes: usize,
}

/// Why chunks do not make a machine. There is none then; a snapshot from another replica may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("a chunk in version {0}, this build reads version {VERSION}: upgrade this node")]
    UnknownVersion(u8),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("a key is not above the one before it")]
    Order,
    #[error("a key was changed at revision {modified}, after the cut at revision {cut}")]
    Revision { modified: u64, cut: u64 },
    #[error("{found} keys or more where the cut had {expected}")]
    Count { found: u64, expected: u64 },
    #[error("the state's hash is {found:016x}, the cut's is {expected:016x}")]
    Hash { found: u64, expected: u64 },
}

impl From<CodecError> for BuildError {
    fn from(error: CodecError) -> BuildError {
        BuildError::Entry(error.into())
    }
}

impl MachineBuilder {
    pub fn new(meta: CutMeta) -> MachineBuilder {
        MachineBuilder { meta, entries: Vec::new(), entry_hashes: 0, entry_bytes: 0 }
    }

    pub fn push_chunk(&mut self, chunk: &[u8]) -> Result<(), BuildError> {
        let mut reader = Reader::new(chunk);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(BuildError::UnknownVersion(version));
        }
        while !reader.is_empty() {
            self.push(Entry::from_packed(reader.bytes(MAX_PACKED_BYTES)?)?)?;
        }
        Ok(())
    }

    /// The machine, if the chunks were all of the cut's.
    pub fn finish(self) -> Result<Machine, BuildError> {
        let CutMeta { revision, stamp, hash: expected, len } = self.meta;
        if self.entries.len() as u64 != len {
            return Err(self.count_error());
        }
        let found = state_hash(self.entry_hashes, revision, stamp, len);
        if found != expected {
            return Err(BuildError::Hash { found, expected });
        }
        Ok(Machine {
            // From sorted input, the tree is built in one go and full: less memory than the original.
            entries: self.entries.into_iter().collect(),
            entry_hashes: self.entry_hashes,
            entry_bytes: self.entry_bytes,
            revision,
            last_stamp: stamp,
            cut: None,
            is_damaged: false,
            walk: Mutex::default(),
        })
    }

    fn push(&mut self, entry: Entry) -> Result<(), BuildError> {
        let modified = entry.numbers().modify_revision;
        if modified > self.meta.revision {
            return Err(BuildError::Revision { modified, cut: self.meta.revision });
        }
        if self.entries.last().is_some_and(|last| *last >= entry) {
            return Err(BuildError::Order);
        }
        self.entry_hashes = self.entry_hashes.wrapping_add(entry.hash());
        self.entry_bytes += entry.held_bytes();
        self.entries.push(entry);
        if self.entries.len() as u64 > self.meta.len {
            return Err(self.count_error());
        }
        Ok(())
    }

    fn count_error(&self) -> BuildError {
        BuildError::Count { found: self.entries.len() as u64, expected: self.meta.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Stamp;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn cut() -> (CutMeta, Vec<Bytes>) {
        let mut machine = Machine::new();
        for key in ["a", "b", "c", "a"] {
            machine.begin(Stamp(1), &mut |_| {}).put(key.as_bytes(), b"value");
        }
        let meta = machine.begin_cut();
        (meta, std::iter::from_fn(|| machine.next_chunk(1)).collect())
    }

    fn build(meta: CutMeta, chunks: &[Bytes]) -> Result<Machine, BuildError> {
        let mut builder = MachineBuilder::new(meta);
        for chunk in chunks {
            builder.push_chunk(chunk)?;
        }
        builder.finish()
    }

    #[test]
    fn a_built_machine_goes_on_where_the_cut_was() {
        let (meta, chunks) = cut();
        let mut machine = build(meta, &chunks).expect("complete");
        assert_eq!((machine.len(), machine.revision(), machine.last_stamp()), (3, 4, Stamp(1)));
        assert_eq!(machine.get(b"a").map(|record| record.version), Some(2));
        machine.begin(Stamp(2), &mut |_| {}).delete(b"a");
        assert_eq!(machine.recomputed_hash(), machine.hash());
    }

    #[test]
    fn chunks_that_are_missing_doubled_swapped_or_of_another_state_are_refused() {
        let (meta, chunks) = cut();
        let error = |meta, chunks: &[Bytes]| build(meta, chunks).err();
        assert_eq!(error(meta, &chunks[..2]), Some(BuildError::Count { found: 2, expected: 3 }));
        let doubled = [&chunks[..1], &chunks[..]].concat();
        assert_eq!(error(meta, &doubled), Some(BuildError::Order));
        let swapped = [chunks[1].clone(), chunks[0].clone(), chunks[2].clone()];
        assert_eq!(error(meta, &swapped), Some(BuildError::Order));
        assert_eq!(error(CutMeta { len: 2, ..meta }, &chunks), Some(BuildError::Count { found: 3, expected: 2 }));
        assert_eq!(error(CutMeta { revision: 3, ..meta }, &chunks), Some(BuildError::Revision { modified: 4, cut: 3 }));
        for other in [CutMeta { revision: 9, ..meta }, CutMeta { stamp: Stamp(9), ..meta }, CutMeta { hash: 9, ..meta }]
        {
            assert!(matches!(error(other, &chunks), Some(BuildError::Hash { .. })));
        }
        assert_eq!(error(meta, &[Bytes::from_static(b"\x09")]), Some(BuildError::UnknownVersion(9)));
        assert!(error(meta, &[Bytes::new()]).is_some());
    }

    proptest! {
        #[test]
        fn a_changed_bit_is_an_error_and_never_a_panic(
            chunk in 0..3usize,
            at in any::<prop::sample::Index>(),
            bit in 0..8u32,
        ) {
            let (meta, chunks) = cut();
            let mut chunks: Vec<Vec<u8>> = chunks.into_iter().map(Vec::from).collect();
            let at = at.index(chunks[chunk].len());
            chunks[chunk][at] ^= 1 << bit;
            let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
            prop_assert!(build(meta, &chunks).is_err());
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..64), len in 0..4u64, revision: u64) {
            let meta = CutMeta { revision, stamp: Stamp(0), hash: 0, len };
            let chunk = [&[VERSION][..], &noise].concat();
            prop_assert!(len == 0 || build(meta, &[chunk.into()]).is_err());
            if let Ok(meta) = CutMeta::decode(&noise) {
                prop_assert_eq!(&meta.encode()[..], &noise[..]);
            }
        }
    }
}
