//! Builds a machine from the chunks of a cut.
//!
//! The chunks come from a disk or another node. They are trusted once all of them have arrived and their hash equals
//! the one with which the cut began; until then there is no machine.

use super::cut::{self, CutMeta, VERSION};
use super::tables::{PushError, TablesBuilder};
use super::{CHECKS, Machine, TABLES};
use crate::codec::CodecError;

/// Combines the chunks of one cut, in their order. After an error it is unusable: drop it.
pub struct MachineBuilder {
    meta: CutMeta,
    tables: TablesBuilder<TABLES>,
}

/// Why chunks do not make a machine. There is none then; a snapshot from another replica may be intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("a chunk in version {0}, this build reads version {VERSION}: use the version of Ringfort that wrote it")]
    UnknownVersion(u8),
    #[error(transparent)]
    Malformed(#[from] CodecError),
    #[error(transparent)]
    Element(#[from] PushError),
    #[error("{found} keys or more where the cut had {expected}")]
    Count { found: u64, expected: u64 },
    #[error("the state's hash is {found:016x}, the cut's is {expected:016x}")]
    Hash { found: u64, expected: u64 },
}

impl MachineBuilder {
    pub fn new(meta: CutMeta) -> MachineBuilder {
        MachineBuilder { meta, tables: TablesBuilder::new(&CHECKS) }
    }

    pub fn push_chunk(&mut self, chunk: &[u8]) -> Result<(), BuildError> {
        cut::push_chunk(&mut self.tables, chunk, self.meta.revision)?;
        match self.tables.len() {
            found if found > self.meta.len => Err(self.count_error()),
            _ => Ok(()),
        }
    }

    /// The machine, if all chunks of the cut were added.
    pub fn finish(self) -> Result<Machine, BuildError> {
        let CutMeta { revision, timestamp, hash: expected, len } = self.meta;
        if self.tables.len() != len {
            return Err(self.count_error());
        }
        let found = self.tables.hash(revision, timestamp);
        if found != expected {
            return Err(BuildError::Hash { found, expected });
        }
        Ok(Machine { tables: self.tables.finish(), revision, last_timestamp: timestamp })
    }

    fn count_error(&self) -> BuildError {
        BuildError::Count { found: self.tables.len(), expected: self.meta.len }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::ElementError;
    use super::*;
    use crate::time::HlcTimestamp;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn cut() -> (CutMeta, Vec<Bytes>) {
        let mut machine = Machine::new();
        for key in ["a", "b", "c", "a"] {
            machine.begin(HlcTimestamp(1), &mut |_| {}).put(key.as_bytes(), b"value");
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
        assert_eq!((machine.len(), machine.revision(), machine.last_timestamp()), (3, 4, HlcTimestamp(1)));
        assert_eq!(machine.get(b"a").map(|record| record.version), Some(2));
        machine.begin(HlcTimestamp(2), &mut |_| {}).delete(b"a");
        assert_eq!(machine.recomputed_hash(), machine.hash());
    }

    #[test]
    fn chunks_that_are_missing_doubled_swapped_or_of_another_state_are_refused() {
        let (meta, chunks) = cut();
        let error = |meta, chunks: &[Bytes]| build(meta, chunks).err();
        assert_eq!(error(meta, &chunks[..2]), Some(BuildError::Count { found: 2, expected: 3 }));
        let doubled = [&chunks[..1], &chunks[..]].concat();
        assert_eq!(error(meta, &doubled), Some(PushError::Order.into()));
        let swapped = [chunks[1].clone(), chunks[0].clone(), chunks[2].clone()];
        assert_eq!(error(meta, &swapped), Some(PushError::Order.into()));
        assert_eq!(error(CutMeta { len: 2, ..meta }, &chunks), Some(BuildError::Count { found: 3, expected: 2 }));
        assert_eq!(
            error(CutMeta { revision: 3, ..meta }, &chunks),
            Some(PushError::from(ElementError::Revision { modified: 4, cut: 3 }).into())
        );
        for other in [
            CutMeta { revision: 9, ..meta },
            CutMeta { timestamp: HlcTimestamp(9), ..meta },
            CutMeta { hash: 9, ..meta },
        ] {
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
            let meta = CutMeta { revision, timestamp: HlcTimestamp(0), hash: 0, len };
            let chunk = [&[VERSION, 0][..], &noise].concat();
            prop_assert!(len == 0 || build(meta, &[chunk.into()]).is_err());
            if let Ok(meta) = CutMeta::decode(&noise) {
                prop_assert_eq!(&meta.encode()[..], &noise[..]);
            }
        }
    }
}
