//! Parts of the keyspace and version vectors as bytes, on the wire and in the log.
//!
//! Each value has exactly one encoding. Decoding never panics, and its allocations are bounded by the size of its
//! input.

use super::keyspace::{Entry, Part};
use crate::codec::{CodecError, Reader, put_bytes, put_u64, put_varint};
use crate::limits::MAX_EVENTUAL_ENTRY_BYTES;
use crate::time::HlcTimestamp;
use crate::types::NodeId;
use crate::version::{Incarnation, Origin, Version, VersionVector};
use bytes::Bytes;

/// Why bytes can't be decoded. No state was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("format {0}, of a later version of the program")]
    Format(u8),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("{0} out of order")]
    Order(&'static str),
    #[error("no such {0}")]
    Kind(&'static str),
}

/// Encodes a part, for the wire and for the log.
pub fn put_part(out: &mut Vec<u8>, part: &Part) {
    put_origin(out, part.origin);
    put_varint(out, part.after.0);
    put_varint(out, part.upto.0 - part.after.0);
    put_varint(out, part.entries.len() as u64);
    let (mut version, mut timestamp) = (part.after.0, 0);
    for entry in &part.entries {
        put_varint(out, entry.version.0 - version);
        put_varint(out, entry.timestamp.0 - timestamp);
        (version, timestamp) = (entry.version.0, entry.timestamp.0);
        put_bytes(out, &entry.key);
        match &entry.value {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                put_bytes(out, value);
            }
        }
    }
}

/// Reads what [`put_part`] wrote.
pub fn part(reader: &mut Reader<'_>) -> Result<Part, DecodeError> {
    let origin = origin(reader)?;
    let after = Version(reader.varint()?);
    let upto = Version(after.0.checked_add(reader.varint()?).ok_or(DecodeError::Order("versions"))?);
    let mut entries: Vec<Entry> = Vec::new();
    let (mut version, mut timestamp) = (after.0, 0u64);
    for _ in 0..reader.varint()? {
        let steps = (reader.varint()?, reader.varint()?);
        let next = (version.checked_add(steps.0), timestamp.checked_add(steps.1));
        let ((Some(next_version), Some(next_timestamp)), 1.., 1..) = (next, steps.0, steps.1) else {
            return Err(DecodeError::Order("entries"));
        };
        (version, timestamp) = (next_version, next_timestamp);
        if version > upto.0 {
            return Err(DecodeError::Order("entries"));
        }
        // Copied: a slice would keep the whole message for as long as the key lives.
        let key = Bytes::copy_from_slice(reader.bytes(MAX_EVENTUAL_ENTRY_BYTES)?);
        let value = match reader.u8()? {
            0 => None,
            1 => Some(Bytes::copy_from_slice(reader.bytes(MAX_EVENTUAL_ENTRY_BYTES)?)),
            _ => return Err(DecodeError::Kind("entry")),
        };
        entries.push(Entry { version: Version(version), timestamp: HlcTimestamp(timestamp), key, value });
    }
    Ok(Part { origin, after, upto, entries })
}

pub fn put_origin(out: &mut Vec<u8>, origin: Origin) {
    put_varint(out, origin.node.0);
    put_u64(out, origin.incarnation.0);
}

pub fn origin(reader: &mut Reader<'_>) -> Result<Origin, DecodeError> {
    Ok(Origin { node: NodeId(reader.varint()?), incarnation: Incarnation(reader.u64()?) })
}

/// A version vector: count, then origins ascending with their versions.
pub fn put_versions(out: &mut Vec<u8>, seen: &VersionVector) {
    put_varint(out, seen.len() as u64);
    for (origin, version) in seen {
        put_origin(out, *origin);
        put_varint(out, version.0);
    }
}

/// Reads what [`put_versions`] wrote.
pub fn versions(reader: &mut Reader<'_>) -> Result<VersionVector, DecodeError> {
    let mut seen = VersionVector::new();
    for _ in 0..reader.varint()? {
        let (origin, version) = (origin(reader)?, Version(reader.varint()?));
        if seen.last_key_value().is_some_and(|(last, _)| *last >= origin) {
            return Err(DecodeError::Order("origins"));
        }
        seen.insert(origin, version);
    }
    Ok(seen)
}
