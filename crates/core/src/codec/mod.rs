//! The basic encodings from which all of Ringfort's own formats, on disk and in entries, are built.
//!
//! - varint: an unsigned LEB128 number, seven bits a byte, the lowest first;
//! - bytes: a varint length, then that many bytes;
//! - fixed `u8`, `u32`, `u64`: little-endian.
//!
//! Every value has exactly one encoding: a varint that is longer than necessary is refused. So a decoded value encodes
//! to the same bytes again, and bytes can be compared and hashed in place of values.
//!
//! [`Reader`] borrows: it allocates nothing. To keep a slice without a copy, pass it to [`bytes::Bytes::slice_ref`] of
//! the buffer that it came from. [`fields`] does this for values that consist of fields.

pub mod fields;

/// The longest varint: 64 bits in groups of seven.
pub const MAX_VARINT_BYTES: usize = 10;

/// Why bytes can't be decoded. Nothing was changed; the same bytes will fail again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("the input ends inside a field")]
    Truncated,
    #[error("a number has more digits than it needs or than 64 bits hold")]
    Varint,
    #[error("a field of {len} bytes where {max} are allowed")]
    TooLong { len: u64, max: usize },
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
    #[error("this build does not know the code {0}: upgrade this node")]
    UnknownCode(u8),
}

/// Reads fields one after the other. After an error its position is unspecified.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(input: &'a [u8]) -> Reader<'a> {
        Reader { rest: input }
    }

    /// The bytes that have not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails if anything is left to read.
    pub fn expect_end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Trailing(self.rest.len())) }
    }

    pub fn u8(&mut self) -> Result<u8, CodecError> {
        let (&first, rest) = self.rest.split_first().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, CodecError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    /// A varint length and that many bytes, at most `max` of them.
    #[inline]
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], CodecError> {
        let len = self.varint()?;
        if len > max as u64 {
            return Err(CodecError::TooLong { len, max });
        }
        self.take(len as usize)
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (&array, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(array)
    }

    fn long_varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0;
        for position in 0..MAX_VARINT_BYTES {
            let byte = self.u8()?;
            let digit = u64::from(byte & 0x7f);
            let shift = 7 * position;
            if (digit << shift) >> shift != digit {
                return Err(CodecError::Varint);
            }
            value |= digit << shift;
            if byte < 0x80 {
                let needless = byte == 0 && position > 0;
                return if needless { Err(CodecError::Varint) } else { Ok(value) };
            }
        }
        Err(CodecError::Varint)
    }
}

pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The size of [`put_varint`]'s output.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// The size of [`put_bytes`]'s output for `len` bytes.
pub const fn bytes_len(len: usize) -> usize {
    varint_len(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn varint(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        out
    }

    #[test]
    fn encodings_are_pinned() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(127), [0x7f]);
        assert_eq!(varint(128), [0x80, 0x01]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        let mut out = Vec::new();
        put_u32(&mut out, 0x0403_0201);
        put_u64(&mut out, 0x0807_0605_0403_0201);
        put_bytes(&mut out, b"ab");
        assert_eq!(out, [1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 2, b'a', b'b']);
    }

    #[test]
    fn a_number_has_one_encoding() {
        for longer in [&[0x80, 0x00][..], &[0xff, 0x80, 0x00]] {
            assert_eq!(Reader::new(longer).varint(), Err(CodecError::Varint));
        }
        let beyond_64_bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&beyond_64_bits).varint(), Err(CodecError::Varint));
        let eleven_digits = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        assert_eq!(Reader::new(&eleven_digits).varint(), Err(CodecError::Varint));
    }

    #[test]
    fn what_is_missing_or_left_is_an_error() {
        assert_eq!(Reader::new(&[]).u8(), Err(CodecError::Truncated));
        assert_eq!(Reader::new(&[1, 2, 3]).u32(), Err(CodecError::Truncated));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(CodecError::Truncated));
        assert_eq!(Reader::new(&[3, 1, 2]).bytes(3), Err(CodecError::Truncated));
        assert_eq!(Reader::new(&[3, 1, 2, 3]).bytes(2), Err(CodecError::TooLong { len: 3, max: 2 }));
        assert_eq!(Reader::new(&[1]).expect_end(), Err(CodecError::Trailing(1)));
    }

    proptest! {
        #[test]
        fn numbers_come_back(value in any::<u64>(), shift in 0..64u32) {
            let value = value >> shift;
            let encoded = varint(value);
            prop_assert_eq!(encoded.len(), varint_len(value));
            let mut reader = Reader::new(&encoded);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn accepted_numbers_encode_to_the_same_bytes(input in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&input);
            if let Ok(value) = reader.varint() {
                let used = input.len() - reader.rest().len();
                prop_assert_eq!(&varint(value), &input[..used]);
            }
        }
    }
}
