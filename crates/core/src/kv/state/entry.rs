//! The table of entries: each key with its value, version and revisions.
//!
//! An element's content is:
//!
//! | bytes | meaning |
//! |---|---|
//! | `01` | the type of the value: bytes. More types will come with the Redis protocol |
//! | varint | version: the writes since the key was created, counting from 1 |
//! | varint | create revision |
//! | varint | modify revision - create revision |
//! | the rest | the value |
//!
//! A key of 16 bytes with a value of 128 takes about 150 bytes and the pointer in the tree; separate pointers and
//! counters would take 80 bytes more.

use super::element::Element;
use super::tables::ElementError;
use crate::codec::{CodecError, Reader, bytes_len, put_bytes, put_varint, varint_len};
use crate::limits::MAX_VALUE_BYTES;

const BYTES: u8 = 1;

/// The numbers of an entry; revisions count a shard's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub version: u64,
    pub create_revision: u64,
    pub modify_revision: u64,
}

pub fn pack(key: &[u8], value: &[u8], numbers: Numbers) -> Element {
    let since_creation = numbers.modify_revision - numbers.create_revision;
    let len = bytes_len(key.len())
        + 1
        + varint_len(numbers.version)
        + varint_len(numbers.create_revision)
        + varint_len(since_creation)
        + value.len();
    let mut packed = Vec::with_capacity(len);
    put_bytes(&mut packed, key);
    packed.push(BYTES);
    put_varint(&mut packed, numbers.version);
    put_varint(&mut packed, numbers.create_revision);
    put_varint(&mut packed, since_creation);
    packed.extend_from_slice(value);
    Element::new(packed.into_boxed_slice())
}

/// The numbers and the value of an entry.
pub fn fields(entry: &Element) -> (Numbers, &[u8]) {
    const CHECKED: &str = "an entry was packed or checked here";
    let mut reader = Reader::new(entry.content());
    reader.u8().expect(CHECKED);
    let mut number = || reader.varint().expect(CHECKED);
    let (version, create_revision, since_creation) = (number(), number(), number());
    (Numbers { version, create_revision, modify_revision: create_revision + since_creation }, reader.rest())
}

/// Checks the content of an entry that comes from outside, in a state at `revision`.
pub fn check(content: &[u8], revision: u64) -> Result<(), ElementError> {
    let mut reader = Reader::new(content);
    let value_type = reader.u8()?;
    if value_type != BYTES {
        return Err(ElementError::UnknownType(value_type));
    }
    let version = reader.varint()?;
    let create_revision = reader.varint()?;
    let since_creation = reader.varint()?;
    let value = reader.rest();
    if value.len() > MAX_VALUE_BYTES {
        return Err(CodecError::TooLong { len: value.len() as u64, max: MAX_VALUE_BYTES }.into());
    }
    // Every put after the first increases both the version and the modify revision.
    let possible = version > 0 && create_revision > 0 && version - 1 <= since_creation;
    match create_revision.checked_add(since_creation) {
        Some(modified) if possible && modified > revision => Err(ElementError::Revision { modified, cut: revision }),
        Some(_) if possible => Ok(()),
        _ => Err(ElementError::Numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packing_and_its_hash_are_pinned() {
        let numbers = Numbers { version: 2, create_revision: 300, modify_revision: 305 };
        let entry = pack(b"key", b"value", numbers);
        assert_eq!(entry.packed(), b"\x03key\x01\x02\xac\x02\x05value");
        assert_eq!(entry.hash(), 0xcc67_c33c_5d63_ff02);
        assert_eq!(entry.key(), b"key");
        assert_eq!(fields(&entry), (numbers, &b"value"[..]));
    }

    #[test]
    fn contradictions_are_refused() {
        for content in [&b"\x01\x00\x01\x00v"[..], b"\x01\x01\x00\x00v", b"\x01\x03\x01\x01v"] {
            assert_eq!(check(content, 9).err(), Some(ElementError::Numbers));
        }
        let overflow = b"\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01v";
        assert_eq!(check(overflow, u64::MAX).err(), Some(ElementError::Numbers));
        assert_eq!(check(b"\x02", 9).err(), Some(ElementError::UnknownType(2)));
        assert_eq!(check(b"\x01\x01\x08\x02v", 9).err(), Some(ElementError::Revision { modified: 10, cut: 9 }));
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
            let mut packed = pack(&key, &value, numbers).packed().to_vec();
            if let Some((at, bit)) = flip {
                let at = at.index(packed.len());
                packed[at] ^= 1 << bit;
            }
            let mut reader = Reader::new(&packed);
            match reader.bytes(usize::MAX).map_err(ElementError::from).and_then(|_| check(reader.rest(), u64::MAX)) {
                Ok(()) => {
                    let entry = Element::new(packed.clone().into());
                    let (numbers, value) = fields(&entry);
                    let again = pack(entry.key(), value, numbers);
                    prop_assert_eq!(again.packed(), &packed[..]);
                }
                Err(_) => prop_assert!(flip.is_some()),
            }
        }
    }
}
