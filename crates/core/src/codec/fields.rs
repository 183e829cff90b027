//! Values that consist of fields, which are written to a [`Sink`] and read from a [`Source`].
//!
//! Operations, requests and answers are encoded with these. A type writes its fields in one function and reads them in
//! another. Everything else derives from the two: its size is counted by writing to [`Length`], it is checked by
//! reading from [`Checking`], which keeps nothing, and a fuzzer generates values by acting as the source.

use super::{CodecError, Reader, bytes_len, put_bytes, put_varint, varint_len};
use bytes::Bytes;
use std::fmt::Debug;

/// A value that is encoded as its fields, one after the other.
pub trait Encoded: Sized + Clone + Debug + PartialEq + Send + Sync + 'static {
    fn encode(&self, out: &mut impl Sink);

    /// Reads what [`encode`](Encoded::encode) wrote. It must not depend on the contents of byte strings, since not
    /// every source provides them ([`Checking`]).
    fn decode(source: &mut impl Source) -> Result<Self, CodecError>;

    /// The size of what [`encode`](Encoded::encode) writes.
    fn encoded_len(&self) -> usize {
        let mut length = Length(0);
        self.encode(&mut length);
        length.0
    }
}

/// The destination of fields.
pub trait Sink {
    fn byte(&mut self, byte: u8);
    fn number(&mut self, number: u64);
    /// Writes a length, and that many bytes.
    fn bytes(&mut self, bytes: &[u8]);

    fn flag(&mut self, flag: bool) {
        self.byte(flag.into());
    }

    /// Writes a flag that says whether there is a value, then the value.
    fn option<T>(&mut self, value: Option<&T>, encode: impl FnOnce(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            encode(self, value);
        }
    }

    /// Writes the number of values, then the values.
    fn list<T>(&mut self, values: &[T], mut encode: impl FnMut(&mut Self, &T)) {
        self.number(values.len() as u64);
        values.iter().for_each(|value| encode(self, value));
    }
}

/// The origin of fields.
pub trait Source {
    fn byte(&mut self) -> Result<u8, CodecError>;
    fn number(&mut self) -> Result<u64, CodecError>;
    /// Reads a length and that many bytes, at most `max`.
    fn bytes(&mut self, max: usize) -> Result<Bytes, CodecError>;

    /// Reads a byte that selects what follows; `known` lists the valid values.
    fn code(&mut self, known: &[u8]) -> Result<u8, CodecError> {
        let code = self.byte()?;
        if known.contains(&code) { Ok(code) } else { Err(CodecError::UnknownCode(code)) }
    }

    fn flag(&mut self) -> Result<bool, CodecError> {
        Ok(self.code(&[0, 1])? == 1)
    }

    fn option<T>(&mut self, decode: impl FnOnce(&mut Self) -> Result<T, CodecError>) -> Result<Option<T>, CodecError> {
        if self.flag()? { decode(self).map(Some) } else { Ok(None) }
    }

    /// Reads a count, at most `max`, and that many values.
    fn list<T>(
        &mut self,
        max: usize,
        mut decode: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let len = self.number()?;
        if len > max as u64 {
            return Err(CodecError::TooLong { len, max });
        }
        // No memory is reserved for values that have not arrived.
        let mut values = Vec::new();
        for _ in 0..len {
            values.push(decode(self)?);
        }
        Ok(values)
    }
}

impl Sink for Vec<u8> {
    fn byte(&mut self, byte: u8) {
        self.push(byte);
    }

    fn number(&mut self, number: u64) {
        put_varint(self, number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        put_bytes(self, bytes);
    }
}

/// Counts the bytes that would be written.
struct Length(usize);

impl Sink for Length {
    fn byte(&mut self, _: u8) {
        self.0 += 1;
    }

    fn number(&mut self, number: u64) {
        self.0 += varint_len(number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes_len(bytes.len());
    }
}

/// Reads fields of received memory. Byte strings are slices of it: nothing is copied.
pub struct Fields<'a> {
    memory: &'a Bytes,
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    pub fn new(memory: &'a Bytes) -> Fields<'a> {
        Fields { memory, reader: Reader::new(memory) }
    }

    pub fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// Fails if anything is left to read.
    pub fn expect_end(&self) -> Result<(), CodecError> {
        self.reader.expect_end()
    }

    /// The bytes that have not been read yet.
    pub fn rest(&self) -> Bytes {
        self.memory.slice_ref(self.reader.rest())
    }
}

impl Source for Fields<'_> {
    fn byte(&mut self) -> Result<u8, CodecError> {
        self.reader.u8()
    }

    fn number(&mut self) -> Result<u64, CodecError> {
        self.reader.varint()
    }

    fn bytes(&mut self, max: usize) -> Result<Bytes, CodecError> {
        Ok(self.memory.slice_ref(self.reader.bytes(max)?))
    }
}

/// Reads fields only to check that they can be read. Byte strings are returned empty, which saves counting references.
pub struct Checking<'a>(pub Reader<'a>);

impl Source for Checking<'_> {
    fn byte(&mut self) -> Result<u8, CodecError> {
        self.0.u8()
    }

    fn number(&mut self) -> Result<u64, CodecError> {
        self.0.varint()
    }

    fn bytes(&mut self, max: usize) -> Result<Bytes, CodecError> {
        self.0.bytes(max)?;
        Ok(Bytes::new())
    }
}
