//! Frames, of which a snapshot file consists after its eight magic bytes.
//!
//! | bytes | meaning |
//! |---|---|
//! | u32 | CRC32C of all that follows in the frame, continuing from the header frame's |
//! | u32 | length of the payload |
//! | u32 | sequence number: 0 for the header, then one more each |
//! | u8 | kind: 1 header, 2 chunk, 3 footer |
//! | payload | the header; opaque bytes; nothing |
//!
//! The number of chunks is the footer's sequence number less one.

use super::{MAX_CHUNK_BYTES, SnapshotError};
use crate::codec::{Reader, put_u32};

/// The first bytes of a snapshot file.
pub(super) const MAGIC: &[u8; 8] = b"RingSnap";

/// The size of what precedes a frame's payload.
pub(super) const PREFIX_BYTES: usize = 13;

const CHECKSUM_BYTES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 1,
    Chunk = 2,
    Footer = 3,
}

/// A frame's position in its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The header frame's checksum; 0 for the header itself.
    pub header_checksum: u32,
    pub sequence: u32,
}

/// Encodes a frame.
pub(super) fn encode(place: Place, kind: Kind, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= MAX_CHUNK_BYTES, "a snapshot's chunk of {} bytes", payload.len());
    let mut frame = Vec::with_capacity(PREFIX_BYTES + payload.len());
    put_u32(&mut frame, 0);
    put_u32(&mut frame, payload.len() as u32);
    put_u32(&mut frame, place.sequence);
    frame.push(kind as u8);
    frame.extend_from_slice(payload);
    let checksum = crc32c::crc32c_append(place.header_checksum, &frame[CHECKSUM_BYTES..]);
    frame[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    frame
}

/// A frame's own checksum, from its first bytes.
pub(super) fn checksum(frame: &[u8]) -> Result<u32, SnapshotError> {
    Ok(Reader::new(frame).u32()?)
}

/// The length of the payload that follows this prefix. Not verified yet, but within bounds.
pub(super) fn payload_len(prefix: &[u8]) -> Result<usize, SnapshotError> {
    let mut reader = Reader::new(prefix);
    reader.take(CHECKSUM_BYTES)?;
    let len = reader.u32()? as usize;
    if len <= MAX_CHUNK_BYTES { Ok(len) } else { Err(SnapshotError::Corrupt("a frame is longer than any")) }
}

/// Checks that `frame` is exactly one frame, intact and in its place.
pub(super) fn decode(place: Place, frame: &[u8]) -> Result<(Kind, &[u8]), SnapshotError> {
    let len = payload_len(frame)?;
    let mut reader = Reader::new(frame);
    let expected = reader.u32()?;
    if crc32c::crc32c_append(place.header_checksum, reader.rest()) != expected {
        return Err(SnapshotError::Corrupt("a frame does not match its checksum"));
    }
    reader.u32()?;
    if reader.u32()? != place.sequence {
        return Err(SnapshotError::Corrupt("a frame is missing or out of place"));
    }
    let kind = match reader.u8()? {
        1 => Kind::Header,
        2 => Kind::Chunk,
        3 if len == 0 => Kind::Footer,
        _ => return Err(SnapshotError::Corrupt("a frame is of no known kind")),
    };
    let payload = reader.take(len)?;
    reader.expect_end()?;
    Ok((kind, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encoding_is_pinned() {
        let frame = encode(Place { header_checksum: 0, sequence: 5 }, Kind::Chunk, b"payload");
        assert_eq!(&frame[4..], b"\x07\0\0\0\x05\0\0\0\x02payload");
        assert_eq!(checksum(&frame).expect("long enough"), crc32c::crc32c(&frame[4..]));
    }

    #[test]
    fn a_footer_says_nothing_else() {
        let place = Place { header_checksum: 0, sequence: 1 };
        assert!(decode(place, &encode(place, Kind::Footer, b"")).is_ok());
        assert!(decode(place, &encode(place, Kind::Footer, b"x")).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_bit_a_missing_end_or_another_place_is_an_error(
            payload in prop::collection::vec(any::<u8>(), 0..100),
            (header_checksum, sequence) in any::<(u32, u32)>(),
            at in any::<prop::sample::Index>(),
            bit in 0..8u32,
        ) {
            let place = Place { header_checksum, sequence };
            let frame = encode(place, Kind::Chunk, &payload);
            prop_assert_eq!(decode(place, &frame).expect("intact"), (Kind::Chunk, &payload[..]));

            let another_file = Place { header_checksum: !header_checksum, ..place };
            prop_assert!(decode(another_file, &frame).is_err());
            let another_place = Place { sequence: !sequence, ..place };
            prop_assert!(decode(another_place, &frame).is_err());
            prop_assert!(decode(place, &[&frame[..], b"!"].concat()).is_err());
            let at = at.index(frame.len());
            prop_assert!(decode(place, &frame[..at]).is_err());
            let mut changed = frame.clone();
            changed[at] ^= 1 << bit;
            prop_assert!(decode(place, &changed).is_err());
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let place = Place { header_checksum: 1, sequence: 0 };
            prop_assert!(decode(place, &noise).is_err());
        }
    }
}
