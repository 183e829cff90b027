//! How much memory a piece of work holds at its peak, counted by an allocator that every program with this library has.
//!
//! Counted are the bytes that were asked for, on the calling thread, from the start of the work: what is live at the
//! most at any time. A buffer that grows counts twice while it is copied, as it does in memory. What the allocator
//! itself needs is not counted.
//!
//! A parser may hold a multiple of its input: an element that takes one byte on the wire may be a structure of fifty in
//! memory, and a vector that doubles holds up to three times what it needs while it grows ([`GROWTH`]). What it may not
//! do is believe a length before the bytes are there. So each target states a [`Bound`], derived from the sizes of its
//! elements, and an input of a few bytes that announces gigabytes breaks it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a growing vector holds at the most, in multiples of its content: the new memory is twice the old.
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
    /// The bound of inputs that consist of vectors of `T`, each of which takes `least` bytes or more in the input.
    pub const fn of_elements<T>(least: usize) -> Bound {
        Bound { fixed: SMALL_THINGS, per_byte: (GROWTH * size_of::<T>()).div_ceil(least) }
    }

    /// Enough for both.
    pub const fn or(self, other: Bound) -> Bound {
        const fn larger(one: usize, other: usize) -> usize {
            if one > other { one } else { other }
        }
        Bound { fixed: larger(self.fixed, other.fixed), per_byte: larger(self.per_byte, other.per_byte) }
    }

    /// Enough for one after the other where the first stays.
    pub const fn and(self, other: Bound) -> Bound {
        Bound { fixed: self.fixed + other.fixed, per_byte: self.per_byte + other.per_byte }
    }
}

/// What does not grow with the input: the first nodes of maps and vectors, the text of an error.
pub const SMALL_THINGS: usize = 4096;

/// Does the work of reading `input_bytes`, within the bound.
///
/// # Panics
/// If it took more.
pub fn within<T>(bound: Bound, input_bytes: usize, work: impl FnOnce() -> T) -> T {
    let (result, peak) = peak_bytes(work);
    let Bound { fixed, per_byte } = bound;
    assert!(
        peak <= fixed + input_bytes * per_byte,
        "{peak} bytes were allocated for {input_bytes} of input, where {fixed} and {per_byte} a byte are allowed"
    );
    result
}

/// The most bytes that `work` held at a time, beside what was there before.
pub fn peak_bytes<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LIVE.set(0);
    PEAK.set(0);
    let result = work();
    (result, usize::try_from(PEAK.get()).unwrap_or(0))
}

thread_local! {
    /// Bytes allocated less bytes freed. Negative where what was there before is freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with the counters above.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn allocated(bytes: usize) {
        // The counters have no destructor, so they are there for as long as a thread allocates.
        let live = LIVE.get().saturating_add_unsigned(bytes);
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
    }

    fn freed(bytes: usize) {
        LIVE.set(LIVE.get().saturating_sub_unsigned(bytes));
    }
}

// SAFETY: every call goes to the system's allocator as it came, and what that returns is returned. The counters are
// plain numbers of the thread, initialised at compile time: to count neither allocates nor panics.
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
        // Both are there while the content is copied.
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
