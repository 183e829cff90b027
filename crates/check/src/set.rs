//! A small set of small numbers.

/// One more than the largest number that a set can hold.
pub const CAPACITY: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Set([u64; CAPACITY / 64]);

impl Set {
    pub fn contains(&self, number: usize) -> bool {
        self.0[number / 64] & (1 << (number % 64)) != 0
    }

    #[must_use]
    pub fn with(mut self, number: usize) -> Set {
        self.0[number / 64] |= 1 << (number % 64);
        self
    }

    pub fn is_subset_of(&self, other: &Set) -> bool {
        self.0.iter().zip(other.0).all(|(own, other)| own & !other == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_apart() {
        let set = Set::default().with(0).with(64).with(255);
        let members: Vec<usize> = (0..CAPACITY).filter(|number| set.contains(*number)).collect();
        assert_eq!(members, [0, 64, 255]);
        assert!(set.is_subset_of(&set.with(3)) && !set.with(3).is_subset_of(&set));
    }
}
