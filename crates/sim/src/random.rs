//! The simulator's only source of randomness.
//!
//! Every draw of a run comes from one seed. A part of the simulation does not share a generator with the others: it
//! forks its own *by name* (`fork("network")`), and a fork depends on the parent's seed and on the name alone, not on
//! what the parent has drawn. So one more draw in the network does not change which node crashes, and a seed that once
//! found a bug keeps producing nearly the same run while the simulator grows.
//!
//! The generator is xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018), seeded
//! by splitmix64 as its authors recommend. It is implemented here because a seed's run depends on its exact output,
//! which tests pin with golden values.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A seeded generator: xoshiro256**.
#[derive(Clone, Debug)]
pub struct Random {
    /// What forks derive from; never changes.
    seed: u64,
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut splitmix = seed;
        Random { seed, state: std::array::from_fn(|_| next_splitmix64(&mut splitmix)) }
    }

    /// The stream of this name. The same for the same seed and name, whatever this generator has drawn before.
    pub fn fork(&self, name: &str) -> Random {
        let mut derived = self.seed ^ fnv1a64(name.as_bytes());
        Random::new(next_splitmix64(&mut derived))
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform in `0..bound`, without bias (Lemire, "Fast random integer generation in an interval", 2019).
    ///
    /// # Panics
    ///
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Uniform in the range, both ends included.
    ///
    /// # Panics
    ///
    /// If the range is empty.
    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (start, end) = range.into_inner();
        assert!(start <= end, "the range {start}..={end} is empty");
        match (end - start).checked_add(1) {
            Some(size) => start + self.below(size),
            None => self.next_u64(),
        }
    }

    /// True in `permille` of 1,000 cases. Draws once, also for 0 and 1,000.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.below(1000) < u64::from(permille)
    }

    /// Uniform in the range, to the nanosecond, both ends included.
    ///
    /// # Panics
    ///
    /// If the range is empty.
    pub fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let (start, end) = (range.start().as_nanos() as u64, range.end().as_nanos() as u64);
        Duration::from_nanos(self.between(start..=end))
    }

    /// One of the choices, each as likely as the others.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// One of the choices, with a probability proportional to its weight.
    ///
    /// # Panics
    ///
    /// If the weights sum to zero.
    pub fn pick_weighted<'a, T>(&mut self, choices: &'a [(u32, T)]) -> &'a T {
        let mut rest = self.below(choices.iter().map(|(weight, _)| u64::from(*weight)).sum());
        for (weight, choice) in choices {
            match rest.checked_sub(u64::from(*weight)) {
                Some(left) => rest = left,
                None => return choice,
            }
        }
        unreachable!("the draw is below the sum of the weights");
    }

    /// Shuffles the items; every order is equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn next_splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix64(*state)
}

/// A bijection of 64 bits in which every bit of the input moves about half of the output's.
pub(crate) fn mix64(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the authors' reference programs.
    #[test]
    fn generators_match_their_references() {
        let mut state = 1_234_567;
        let splitmix: [u64; 3] = std::array::from_fn(|_| next_splitmix64(&mut state));
        assert_eq!(splitmix, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);

        let mut random = Random { seed: 0, state: [1, 2, 3, 4] };
        let xoshiro: [u64; 5] = std::array::from_fn(|_| random.next_u64());
        assert_eq!(xoshiro, [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240, 1_216_172_134_540_287_360]);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn seeds_and_forks_mean_what_they_meant() {
        let golden = |random: &mut Random| -> [u64; 2] { std::array::from_fn(|_| random.next_u64()) };
        assert_eq!(golden(&mut Random::new(42)), [1_546_998_764_402_558_742, 6_990_951_692_964_543_102]);
        assert_eq!(
            golden(&mut Random::new(42).fork("network")),
            [11_923_885_920_547_503_337, 17_500_257_549_027_942_168]
        );
    }

    #[test]
    fn forks_do_not_depend_on_draws() {
        let mut random = Random::new(7);
        let before = random.fork("network").next_u64();
        random.next_u64();
        assert_eq!(random.fork("network").next_u64(), before);
        assert_ne!(random.fork("disk").next_u64(), before);
    }

    #[test]
    fn draws_are_in_range_and_even() {
        let mut random = Random::new(1);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[random.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");

        let hits = (0..100_000).filter(|_| random.chance(250)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| random.chance(1000) && !random.chance(0)));

        let range = Duration::from_nanos(3)..=Duration::from_nanos(5);
        let drawn: std::collections::BTreeSet<_> = (0..1000).map(|_| random.duration(&range).as_nanos()).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
        random.between(0..=u64::MAX);
    }

    #[test]
    fn weights_are_proportions() {
        let mut random = Random::new(2);
        let mut counts = [0u32; 3];
        for _ in 0..100_000 {
            counts[*random.pick_weighted(&[(1, 0), (0, 1), (3, 2)])] += 1;
        }
        assert!((24_000..26_000).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
    }

    #[test]
    fn shuffling_reaches_every_order() {
        let mut random = Random::new(3);
        let orders: std::collections::BTreeSet<_> = (0..200)
            .map(|_| {
                let mut items = [1, 2, 3];
                random.shuffle(&mut items);
                items
            })
            .collect();
        assert_eq!(orders.len(), 6);
    }
}
