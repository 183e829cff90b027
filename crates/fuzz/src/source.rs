//! Generates values from bytes: a fuzzer that changes the bytes changes the decisions that generate a value.
//!
//! A [`Source`] hands out the bytes of an input one after the other, as numbers, choices and byte strings. When they
//! are used up, it hands out zeros, which mean "the first", "none" and "empty", so every draw ends. The same bytes give
//! the same value, in a fuzzer and in a test.

use bytes::Bytes;
use ringfort_core::codec::CodecError;
use ringfort_core::codec::fields;

/// The most elements of a collection. Few, because most bugs show with three.
const MAX_ELEMENTS: usize = 6;

/// The most bytes of a byte string, except for rare long ones.
const MAX_SHORT_BYTES: usize = 24;
const MAX_LONG_BYTES: usize = 2000;

/// How many bytes [`Source::end_of`] takes.
const END_BYTES: usize = 24;

pub struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub fn new(data: &'a [u8]) -> Source<'a> {
        Source { rest: data }
    }

    /// The end of an input, for decisions that must not depend on how much of the input an earlier value consumed.
    pub fn end_of(data: &'a [u8]) -> Source<'a> {
        Source { rest: &data[data.len().saturating_sub(END_BYTES)..] }
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    /// A number of any size: small and large ones are equally frequent, and the largest number is possible.
    pub fn number(&mut self) -> u64 {
        match self.byte() % 10 {
            9 => u64::MAX,
            width => (0..width).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    pub fn number_u32(&mut self) -> u32 {
        self.number() as u32
    }

    /// One of `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "there is a number below the bound");
        let number = match bound {
            ..=256 => usize::from(self.byte()),
            _ => usize::from(self.byte()) << 8 | usize::from(self.byte()),
        };
        number % bound
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn option<T>(&mut self, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| draw(self))
    }

    pub fn list<T>(&mut self, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(MAX_ELEMENTS + 1)).map(|_| draw(self)).collect()
    }

    /// The following bytes of the input, without zeros after its end.
    pub fn bytes(&mut self) -> Bytes {
        let max = if self.byte() == u8::MAX { MAX_LONG_BYTES } else { MAX_SHORT_BYTES };
        let len = self.below(max + 1).min(self.rest.len());
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Bytes::copy_from_slice(taken)
    }

    /// Text of at most `max` bytes.
    pub fn text(&mut self, max: usize) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes()).into_owned();
        text.truncate(text.floor_char_boundary(max));
        text
    }

    /// Damages an encoding as disks, networks and other versions of a program do.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            let until = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(7) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.byte(),
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..until)),
                4 => {
                    let doubled = bytes[at..until].to_vec();
                    bytes.splice(at..at, doubled);
                }
                // A length of 32 bits, and one of 64 as a varint.
                5 => bytes[at..(at + 4).min(until)].fill(u8::MAX),
                _ => drop(bytes.splice(at..=at, [&[u8::MAX; 9][..], &[1]].concat())),
            }
        }
    }
}

/// Generates a value of any type that is encoded field by field: the type reads its fields from this source.
impl fields::Source for Source<'_> {
    fn byte(&mut self) -> Result<u8, CodecError> {
        Ok(Source::byte(self))
    }

    fn number(&mut self) -> Result<u64, CodecError> {
        Ok(Source::number(self))
    }

    fn bytes(&mut self, max: usize) -> Result<Bytes, CodecError> {
        let mut bytes = Source::bytes(self);
        bytes.truncate(max);
        Ok(bytes)
    }

    fn code(&mut self, known: &[u8]) -> Result<u8, CodecError> {
        Ok(known[self.below(known.len())])
    }

    fn list<T>(
        &mut self,
        max: usize,
        mut decode: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        (0..self.below(MAX_ELEMENTS.min(max) + 1)).map(|_| decode(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_of_nothing_is_nothing() {
        let mut source = Source::new(&[]);
        assert_eq!((source.number(), source.below(5), source.flag()), (0, 0, false));
        assert!(source.bytes().is_empty() && source.list(Source::number).is_empty());
    }

    #[test]
    fn numbers_of_all_sizes_are_drawn() {
        assert_eq!(Source::new(&[9]).number(), u64::MAX);
        assert_eq!(Source::new(&[1, 7]).number(), 7);
        assert_eq!(Source::new(&[8, 1, 2, 3, 4, 5, 6, 7, 8]).number(), 0x0102_0304_0506_0708);
        assert_eq!((Source::new(&[1, 200]).below(1000), Source::new(&[200]).below(150)), (456, 50));
    }

    #[test]
    fn every_damage_is_damage_and_keeps_to_the_bytes() {
        for choice in 0..=u8::MAX {
            for at in 0..4 {
                let mut bytes = vec![1, 2, 3, 4];
                Source::new(&[0, at, 1, choice, 99]).damage(&mut bytes);
                assert_ne!(bytes, [1, 2, 3, 4], "{choice} at {at}");
            }
        }
    }
}
