//! One key with all that is known about it, packed into one allocation.
//!
//! | bytes | meaning |
//! |---|---|
//! | varint length, bytes | the key |
//! | varint | version: the puts since the key was created, from 1 |
//! | varint | create revision |
//! | varint | modify revision - create revision |
//! | the rest | the value |
//!
//! A key of 16 bytes with a value of 128 takes about 150 bytes and the pointer in the tree; pointers and counters side
//! by side would take 80 bytes more. The encoding is canonical and pinned: the state hash is taken over it, and
//! snapshot chunks carry it as it is.

use super::hash::hash;
use crate::codec::{CodecError, Reader, bytes_len, put_bytes, put_varint, varint_len};
use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use std::borrow::Borrow;
use std::cmp::Ordering;

/// The largest packed entry: key, value and four numbers.
pub const MAX_PACKED_BYTES: usize = MAX_KEY_BYTES + MAX_VALUE_BYTES + 40;

/// What an entry costs besides its packed bytes: its place in the tree, three quarters full, and the allocator's own.
pub const ENTRY_OVERHEAD_BYTES: usize = 40;

/// A packed entry. Orders and compares by its key alone, so that a set of entries is a map.
pub struct Entry(Box<[u8]>);

/// The numbers of an entry; revisions count a shard's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub version: u64,
    pub create_revision: u64,
    pub modify_revision: u64,
}

/// Why bytes are no packed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("an entry's version or revisions contradict each other")]
    Numbers,
    #[error(transparent)]
    Malformed(#[from] CodecError),
}

impl Entry {
    pub fn pack(key: &[u8], value: &[u8], numbers: Numbers) -> Entry {
        let since_creation = numbers.modify_revision - numbers.create_revision;
        let len = bytes_len(key.len())
            + varint_len(numbers.version)
            + varint_len(numbers.create_revision)
            + varint_len(since_creation)
            + value.len();
        let mut packed = Vec::with_capacity(len);
        put_bytes(&mut packed, key);
        put_varint(&mut packed, numbers.version);
        put_varint(&mut packed, numbers.create_revision);
        put_varint(&mut packed, since_creation);
        packed.extend_from_slice(value);
        Entry(packed.into_boxed_slice())
    }

    /// Says that there is no such key, where that needs a place among entries: version zero, which no key has.
    pub fn absent(key: &[u8]) -> Entry {
        Entry::pack(key, &[], Numbers { version: 0, create_revision: 0, modify_revision: 0 })
    }

    /// Checks and copies a packed entry that comes from outside. Never one that says [`absent`](Entry::absent).
    pub fn from_packed(packed: &[u8]) -> Result<Entry, EntryError> {
        let mut reader = Reader::new(packed);
        reader.bytes(MAX_KEY_BYTES)?;
        let version = reader.varint()?;
        let create_revision = reader.varint()?;
        let since_creation = reader.varint()?;
        let value = reader.rest();
        if value.len() > MAX_VALUE_BYTES {
            return Err(CodecError::TooLong { len: value.len() as u64, max: MAX_VALUE_BYTES }.into());
        }
        // Every put after the first one raises both the version and the modify revision.
        let possible = version > 0 && create_revision > 0 && version - 1 <= since_creation;
        if !possible || create_revision.checked_add(since_creation).is_none() {
            return Err(EntryError::Numbers);
        }
        Ok(Entry(packed.into()))
    }

    pub fn packed(&self) -> &[u8] {
        &self.0
    }

    pub fn is_absent(&self) -> bool {
        self.numbers().version == 0
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        self.split().0
    }

    pub fn numbers(&self) -> Numbers {
        self.fields().0
    }

    /// The numbers and the value.
    pub fn fields(&self) -> (Numbers, &[u8]) {
        let mut reader = self.split().1;
        let mut number = || reader.varint().expect(PACKED_HERE);
        let (version, create_revision, since_creation) = (number(), number(), number());
        let numbers = Numbers { version, create_revision, modify_revision: create_revision + since_creation };
        (numbers, reader.rest())
    }

    pub fn hash(&self) -> u64 {
        hash(&self.0)
    }

    /// Changes a bit of the value, or of what else comes last, as memory does that is damaged.
    #[cfg(any(test, feature = "memory-faults"))]
    pub fn flip_a_bit(&mut self, bit: u32) {
        if let Some(last) = self.0.last_mut() {
            *last ^= 1 << (bit % 7); // The highest one would make another length of a number.
        }
    }

    /// The memory that the entry holds, estimated.
    pub fn held_bytes(&self) -> usize {
        self.0.len() + ENTRY_OVERHEAD_BYTES
    }

    #[inline]
    fn split(&self) -> (&[u8], Reader<'_>) {
        let mut reader = Reader::new(&self.0);
        let key = reader.bytes(usize::MAX).expect(PACKED_HERE);
        (key, reader)
    }
}

const PACKED_HERE: &str = "an entry's bytes were packed or checked by this module";

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packing_and_its_hash_are_pinned() {
        let numbers = Numbers { version: 2, create_revision: 300, modify_revision: 305 };
        let entry = Entry::pack(b"key", b"value", numbers);
        assert_eq!(entry.packed(), b"\x03key\x02\xac\x02\x05value");
        assert_eq!(entry.hash(), 0x57f0_9fb4_e4bc_0dae);
        assert_eq!(entry.key(), b"key");
        assert_eq!(entry.fields(), (numbers, &b"value"[..]));
    }

    #[test]
    fn contradictions_are_refused() {
        for packed in [&b"\x01k\x00\x01\x00v"[..], b"\x01k\x01\x00\x00v", b"\x01k\x03\x01\x01v"] {
            assert_eq!(Entry::from_packed(packed).err(), Some(EntryError::Numbers));
        }
        let overflow = b"\x01k\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01v";
        assert_eq!(Entry::from_packed(overflow).err(), Some(EntryError::Numbers));
        assert_eq!(Entry::from_packed(Entry::absent(b"k").packed()).err(), Some(EntryError::Numbers));
    }

    proptest! {
        #[test]
        fn accepted_bytes_are_the_packing_of_what_they_say(
            key in prop::collection::vec(any::<u8>(), 0..200),
            value in prop::collection::vec(any::<u8>(), 0..200),
            (version, create_revision, more) in (1..1u64 << 40, 1..1u64 << 40, 0..1u64 << 40),
            flip in prop::option::of((any::<prop::sample::Index>(), 0..8u32)),
        ) {
            let numbers = Numbers { version, create_revision, modify_revision: create_revision + version - 1 + more };
            let mut packed = Entry::pack(&key, &value, numbers).packed().to_vec();
            if let Some((at, bit)) = flip {
                let at = at.index(packed.len());
                packed[at] ^= 1 << bit;
            }
            match Entry::from_packed(&packed) {
                Ok(entry) => {
                    let (numbers, value) = entry.fields();
                    let again = Entry::pack(entry.key(), value, numbers);
                    prop_assert_eq!(again.packed(), &packed[..]);
                }
                Err(_) => prop_assert!(flip.is_some()),
            }
        }
    }
}
