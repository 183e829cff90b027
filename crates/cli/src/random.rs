//! Random numbers for loads and faults: never for secrets.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): uniform enough for keys and faults, and almost free.
pub struct Random(u64);

impl Random {
    /// A generator with a different seed each time.
    pub fn new() -> Random {
        Random(RandomState::new().hash_one(0))
    }

    /// A generator that returns the same numbers for the same seed.
    pub fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound` - 1; `bound` must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn percent(&mut self, chance: u8) -> bool {
        self.next() % 100 < u64::from(chance)
    }

    /// Whole milliseconds, both bounds included.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_millis() as u64;
        least + Duration::from_millis(self.next() % (span + 1))
    }

    /// One of `choices`, which must not be empty.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// The numbers from 0 to `count` - 1 in random order (Fisher and Yates).
    pub fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            numbers.swap(last, self.below(last + 1));
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let mut random = Random::seeded(seed);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut random = Random::seeded(1);
        let (least, most) = (Duration::from_millis(3), Duration::from_millis(5));
        let drawn: std::collections::BTreeSet<Duration> = (0..100).map(|_| random.between(least, most)).collect();
        assert_eq!((drawn.len(), drawn.first(), drawn.last()), (3, Some(&least), Some(&most)));
        let mut numbers = random.shuffled(9);
        assert_ne!(numbers, (0..9).collect::<Vec<_>>());
        numbers.sort_unstable();
        assert_eq!(numbers, (0..9).collect::<Vec<_>>());
    }
}
