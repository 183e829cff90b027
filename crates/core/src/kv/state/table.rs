//! A table: elements in the order of their keys, with sums that are updated as they change.
//!
//! A table does not interpret the contents of its elements. It provides their bytes in order, their hashes, their size,
//! and the previous element of each change. The cut (`cut`), the walk (`scrub`) and the state's hash need no more.

use super::cut::Cut;
use super::element::Element;
use super::scrub::Walk;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::collections::btree_set::Range;
use std::ops::Bound;

/// Invariants: `hashes` is the wrapping sum of all elements' hashes, `bytes` is the sum of their sizes, and no element
/// is an absent one.
#[derive(Default)]
pub struct Table {
    pub(super) elements: BTreeSet<Element>,
    pub(super) hashes: u64,
    bytes: usize,
    pub(super) cut: Option<Cut>,
    /// A cut has handed out other elements than the table held when it began.
    pub(super) is_damaged: bool,
    /// The scrubber's walk. It has its own lock, because the scrubber only read-locks the state.
    pub(super) walk: Mutex<Option<Walk>>,
}

impl Table {
    /// Makes a table of elements in key order, with the sums of their hashes and sizes.
    pub fn new(elements: Vec<Element>, hashes: u64, bytes: usize) -> Table {
        // From sorted input, the tree is built in one pass and full: it takes less memory than the original.
        Table { elements: elements.into_iter().collect(), hashes, bytes, ..Table::default() }
    }

    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// The memory held, estimated: elements with their overhead, and the pre-images of a cut in progress.
    pub fn held_bytes(&self) -> usize {
        self.bytes + self.cut.as_ref().map_or(0, Cut::held_bytes)
    }

    pub fn get(&self, key: &[u8]) -> Option<&Element> {
        self.elements.get(key)
    }

    /// The elements from a key on.
    pub fn range(&self, start: Bound<&[u8]>) -> Range<'_, Element> {
        self.elements.range::<[u8], _>((start, Bound::Unbounded))
    }

    /// The sum of the elements' hashes, as updated with each change.
    pub fn hashes(&self) -> u64 {
        self.hashes
    }

    /// The value that [`hashes`](Table::hashes) should have, computed from all bytes in memory.
    pub fn recomputed_hashes(&self) -> u64 {
        self.elements.iter().fold(0, |sum: u64, element| sum.wrapping_add(element.hash()))
    }

    /// Puts an element under `key`, and replaces any previous one.
    ///
    /// # Panics
    /// If the element is an absent one, with nothing under its key: a cut could not tell it from a key that does not
    /// exist.
    pub fn set(&mut self, key: &[u8], element: Element) {
        assert!(!element.is_absent(), "a table was given a key with nothing under it");
        let hash = element.hash();
        self.hashes = self.hashes.wrapping_add(hash);
        if let Some(walk) = self.walk.get_mut() {
            walk.add(key, hash);
        }
        self.bytes += element.held_bytes();
        let previous = self.elements.replace(element);
        self.forget(key, previous);
    }

    /// Removes what is under `key`.
    pub fn remove(&mut self, key: &[u8]) {
        if let Some(previous) = self.elements.take(key) {
            self.forget(key, Some(previous));
        }
    }

    /// Subtracts the previous element under `key` from the sums, and passes it to the cut.
    fn forget(&mut self, key: &[u8], previous: Option<Element>) {
        if let Some(previous) = &previous {
            let hash = previous.hash();
            self.hashes = self.hashes.wrapping_sub(hash);
            if let Some(walk) = self.walk.get_mut() {
                walk.subtract(key, hash);
            }
            self.bytes -= previous.held_bytes();
        }
        if let Some(cut) = &mut self.cut {
            cut.keep(key, previous);
        }
    }
}
