//! Measures the peak memory of a piece of work with a counting allocator, which every program with this library uses.
//!
//! It counts the requested bytes on the calling thread from the start of the work: the most that is live at any time. A
//! buffer that grows counts twice while it is copied, because both copies are in memory. The allocator's own overhead
//! is not counted.
//!
//! A parser may hold a multiple of its input: an element that takes one byte on the wire may be a structure of fifty in
//! memory, and a vector that doubles holds up to three times what it needs while it grows ([`GROWTH`]). But it must not
//! trust a length before the bytes have arrived. So each target states a [`Bound`], derived from the sizes of its
//! elements; a parser that allocates gigabytes because an input of a few bytes announces them exceeds it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The most that a growing vector holds, in multiples of its content: the new allocation is twice the old one.
pub const GROWTH: usize = 3;

/// Entries of an ordered map are in nodes of eleven, which may be half full; above ten leaves there is another node.
pub const MAP_GROWTH: usize = 3;

/// The memory that reading `n` bytes may take: `fixed + n * per_byte`.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub fixed: usize,
    pub per_byte: usize,
}

impl Bound {
    /// The bound for inputs that consist of vectors of `T`, if each element takes at least `least` bytes in the input.
    pub const fn of_elements<T>(least: usize) -> Bound {
        Bound { fixed: SMALL_THINGS, per_byte: (GROWTH * size_of::<T>()).div_ceil(least) }
    }

    /// A bound that is enough for either of the two.
    pub const fn or(self, other: Bound) -> Bound {
        const fn larger(one: usize, other: usize) -> usize {
            if one > other { one } else { other }
        }
        Bound { fixed: larger(self.fixed, other.fixed), per_byte: larger(self.per_byte, other.per_byte) }
    }

    /// A bound that is enough for both in sequence, if the first result is kept.
    pub const fn and(self, other: Bound) -> Bound {
        Bound { fixed: self.fixed + other.fixed, per_byte: self.per_byte + other.per_byte }
    }
}

/// Memory that does not grow with the input: the first nodes of maps and vectors, the text of an error.
pub const SMALL_THINGS: usize = 4096;

/// Runs `work`, which reads `input_bytes`, and checks the bound.
///
/// # Panics
/// If the work took more.
pub fn within<T>(bound: Bound, input_bytes: usize, work: impl FnOnce() -> T) -> T {
    let (result, peak) = peak_bytes(work);
    let Bound { fixed, per_byte } = bound;
    assert!(
        peak <= fixed + input_bytes * per_byte,
        "{peak} bytes were allocated for {input_bytes} of input, where {fixed} and {per_byte} a byte are allowed"
    );
    result
}

/// The result of `work`, and the most bytes that it held at a time in addition to those allocated before.
pub fn peak_bytes<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LIVE.set(0);
    PEAK.set(0);
    let result = work();
    (result, usize::try_from(PEAK.get()).unwrap_or(0))
}

thread_local! {
    /// Bytes allocated minus bytes freed. Negative if memory from before is freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with the counters above.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn allocated(bytes: usize) {
        // The counters have no destructor, so they exist for as long as a thread allocates.
        let live = LIVE.get().saturating_add_unsigned(bytes);
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
    }

    fn freed(bytes: usize) {
        LIVE.set(LIVE.get().saturating_sub_unsigned(bytes));
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator, and its result is returned. The counters are
// plain thread-local numbers, initialised at compile time: counting neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::allocated(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::allocated(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Counting::freed(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`, and all memory here is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both allocations exist while the content is copied.
        Counting::allocated(size);
        Counting::freed(layout.size());
        // SAFETY: the caller keeps the contract of `realloc`, and all memory here is the system allocator's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn the_peak_counts_and_not_the_sum() {
        let (_, peak) = peak_bytes(|| (0..10).for_each(|_| drop(black_box(vec![1u8; 1000]))));
        assert_eq!(peak, 1000);
        let (_, peak) = peak_bytes(|| black_box([vec![1u8; 1000], vec![0; 500]]));
        assert_eq!(peak, 1500);
    }

    #[test]
    fn memory_from_before_is_not_counted() {
        let before = vec![1u8; 1000];
        let (_, peak) = peak_bytes(|| {
            drop(before);
            black_box(vec![1u8; 600])
        });
        assert_eq!(peak, 0);
    }

    #[test]
    fn a_growing_vector_holds_three_times_its_content_at_the_most() {
        for elements in 5..2000u64 {
            let (_, peak) = peak_bytes(|| {
                let mut grown = Vec::new();
                (0..elements).for_each(|element| grown.push(black_box(element)));
                grown
            });
            assert!(peak <= GROWTH * 8 * elements as usize, "{peak} for {elements}");
        }
    }

    #[test]
    fn a_map_holds_three_times_its_content_at_the_most() {
        for entries in 64..2000u64 {
            let (_, peak) = peak_bytes(|| {
                (0..entries).map(black_box).map(|n| (n, n)).fold(
                    std::collections::BTreeMap::new(),
                    |mut map, (key, value)| {
                        map.insert(key, value);
                        map
                    },
                )
            });
            assert!(peak <= MAP_GROWTH * 16 * entries as usize, "{peak} for {entries}");
        }
    }

    #[test]
    #[should_panic = "where 10 and 2 a byte are allowed"]
    fn more_than_the_bound_is_found() {
        within(Bound { fixed: 10, per_byte: 2 }, 5, || black_box(vec![0u8; 21]));
    }
}
