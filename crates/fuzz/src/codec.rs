//! Properties of every pair of an encoder and a decoder.
//!
//! 1. Encoding and decoding a value gives the same value.
//! 2. If bytes decode to a value, that value encodes to bytes that decode to the same value; if the encoding is
//!    canonical, these are the same bytes.
//! 3. No bytes make the decoder panic, or take more memory than its [`Bound`] says.
//!
//! [`check`] reads an input twice: as bytes to decode, and as decisions that generate a value ([`Source`]). The
//! encoding of that value is then damaged and decoded again, so that an input passes the decoder's first steps and
//! fails in the middle.

use crate::allocation::{Bound, within};
use crate::source::Source;
use bytes::Bytes;
use std::fmt::Debug;

/// A format, for [`check`].
pub trait Codec {
    type Value: PartialEq + Debug;

    /// Whether each value has only one encoding.
    const CANONICAL: bool;

    /// The memory that decoding may take.
    const BOUND: Bound;

    /// Draws any value that can be encoded.
    fn draw(source: &mut Source) -> Self::Value;

    fn encode(value: &Self::Value) -> Bytes;

    /// `None` if the bytes are refused.
    fn decode(bytes: Bytes) -> Option<Self::Value>;
}

/// A fuzz target's body for one format.
pub fn check<C: Codec>(data: &[u8]) {
    check_bytes::<C>(data);
    let value = C::draw(&mut Source::new(data));
    let encoded = C::encode(&value);
    assert_eq!(check_bytes::<C>(&encoded).as_ref(), Some(&value), "the value that was encoded comes back");
    let mut damaged = encoded.to_vec();
    Source::end_of(data).damage(&mut damaged);
    check_bytes::<C>(&damaged);
}

/// The encoding of a value drawn from `data`.
pub fn encoding<C: Codec>(data: &[u8]) -> Bytes {
    C::encode(&C::draw(&mut Source::new(data)))
}

fn check_bytes<C: Codec>(input: &[u8]) -> Option<C::Value> {
    let bytes = Bytes::copy_from_slice(input);
    let value = within(C::BOUND, input.len(), || C::decode(bytes))?;
    let encoded = C::encode(&value);
    if C::CANONICAL {
        assert_eq!(encoded, input, "bytes that decode are the one encoding of their value: {value:?}");
    }
    assert_eq!(C::decode(encoded).as_ref(), Some(&value), "a value that was decoded survives its encoding");
    Some(value)
}
