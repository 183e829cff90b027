//! One element of a table, packed into one allocation.
//!
//! | bytes | meaning |
//! |---|---|
//! | varint length, bytes | the key |
//! | the rest | what the table keeps under the key; never empty |
//!
//! An encoding is canonical and pinned: the state hash is taken over it, and snapshot chunks carry it as it is.

use super::hash::hash;
use crate::codec::{Reader, put_bytes};
use std::borrow::Borrow;
use std::cmp::Ordering;

/// The memory of an element besides its packed bytes: its share of a tree that is three quarters full, and the
/// allocator's overhead.
pub const ELEMENT_OVERHEAD_BYTES: usize = 40;

/// A packed element. It is ordered and compared by its key alone, so that a set of elements is a map.
pub struct Element(Box<[u8]>);

impl Element {
    /// Makes an element of bytes that begin with a key.
    pub fn new(packed: Box<[u8]>) -> Element {
        Element(packed)
    }

    /// A marker that the key does not exist. It can be stored among elements; nothing follows its key.
    pub fn absent(key: &[u8]) -> Element {
        let mut packed = Vec::new();
        put_bytes(&mut packed, key);
        Element(packed.into_boxed_slice())
    }

    pub fn packed(&self) -> &[u8] {
        &self.0
    }

    pub fn is_absent(&self) -> bool {
        self.content().is_empty()
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        self.split().0
    }

    /// What the table keeps under the key.
    pub fn content(&self) -> &[u8] {
        self.split().1
    }

    pub fn hash(&self) -> u64 {
        hash(&self.0)
    }

    /// The memory that the element holds, estimated.
    pub fn held_bytes(&self) -> usize {
        self.0.len() + ELEMENT_OVERHEAD_BYTES
    }

    /// Flips a bit of the last byte, as damaged memory would.
    #[cfg(any(test, feature = "memory-faults"))]
    pub fn flip_a_bit(&mut self, bit: u32) {
        if let Some(last) = self.0.last_mut() {
            *last ^= 1 << (bit % 7); // The highest bit could change a varint's length.
        }
    }

    #[inline]
    fn split(&self) -> (&[u8], &[u8]) {
        let mut reader = Reader::new(&self.0);
        let key = reader.bytes(usize::MAX).expect("an element begins with its key");
        (key, reader.rest())
    }
}

impl Borrow<[u8]> for Element {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Element) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Element) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Element {}
