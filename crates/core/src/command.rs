//! What an entry of a shard's Raft log says: one stamp, and the commands of one drain.
//!
//! | bytes | meaning |
//! |---|---|
//! | `01` | version of the encoding |
//! | varint | the stamp, given by the leader |
//! | op byte, then its fields | a command; repeated until the end |
//!
//! `01` is put (key, value), `02` delete (key); keys and values are length-prefixed (see [`crate::codec`]). A committed
//! entry means the same on every replica, or replicas diverge: an unknown version or op is therefore an error of the
//! whole entry, found before any of its commands is applied. [`decode`] checks everything once and hands out commands
//! that share the entry's memory.

use crate::codec::{CodecError, MAX_VARINT_BYTES, Reader, bytes_len, put_bytes, put_varint};
use crate::limits::{COMMAND_OVERHEAD_BYTES, LARGEST_ENTRY_BYTES, MAX_ENTRY_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::time::Stamp;
use bytes::Bytes;

const VERSION: u8 = 1;
const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;

const _: () = assert!(1 + bytes_len(MAX_KEY_BYTES) + bytes_len(MAX_VALUE_BYTES) <= COMMAND_LIMIT_BYTES);
const _: () = assert!(MAX_VARINT_BYTES < COMMAND_OVERHEAD_BYTES, "version byte and stamp do not fit");
const COMMAND_LIMIT_BYTES: usize = MAX_KEY_BYTES + MAX_VALUE_BYTES + COMMAND_OVERHEAD_BYTES;

/// A change of one key. Keys and values are within [`MAX_KEY_BYTES`] and [`MAX_VALUE_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets the value, whether or not there was one.
    Put { key: Bytes, value: Bytes },
    /// Removes the key; no change where there is none.
    Delete { key: Bytes },
}

impl Command {
    pub fn key(&self) -> &Bytes {
        match self {
            Command::Put { key, .. } | Command::Delete { key } => key,
        }
    }

    /// What the command takes in an entry.
    pub fn encoded_len(&self) -> usize {
        match self {
            Command::Put { key, value } => 1 + bytes_len(key.len()) + bytes_len(value.len()),
            Command::Delete { key } => 1 + bytes_len(key.len()),
        }
    }
}

/// An entry's payload in the making.
///
/// Invariant: no larger than [`MAX_ENTRY_BYTES`], unless it holds a single command.
#[derive(Debug)]
pub struct Batch {
    encoded: Vec<u8>,
    count: usize,
}

impl Batch {
    pub fn new(stamp: Stamp) -> Batch {
        let mut encoded = vec![VERSION];
        put_varint(&mut encoded, stamp.0);
        Batch { encoded, count: 0 }
    }

    /// Whether the entry may take this command, too.
    pub fn fits(&self, command: &Command) -> bool {
        self.count == 0 || self.encoded.len() + command.encoded_len() <= MAX_ENTRY_BYTES
    }

    /// Appends a command that [`fits`](Batch::fits). Its key and value have been checked when the request came in.
    pub fn push(&mut self, command: &Command) {
        assert!(self.fits(command), "a command was pushed into an entry that is full");
        assert!(command.key().len() <= MAX_KEY_BYTES, "a key beyond its limit reached an entry");
        self.encoded.reserve(command.encoded_len());
        match command {
            Command::Put { key, value } => {
                assert!(value.len() <= MAX_VALUE_BYTES, "a value beyond its limit reached an entry");
                self.encoded.push(OP_PUT);
                put_bytes(&mut self.encoded, key);
                put_bytes(&mut self.encoded, value);
            }
            Command::Delete { key } => {
                self.encoded.push(OP_DELETE);
                put_bytes(&mut self.encoded, key);
            }
        }
        self.count += 1;
    }

    /// The number of commands.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of what [`finish`](Batch::finish) returns.
    pub fn len_bytes(&self) -> usize {
        self.encoded.len()
    }

    pub fn finish(self) -> Bytes {
        Bytes::from(self.encoded)
    }
}

/// Why an entry's payload cannot be applied. None of its commands has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("commands in version {0} of the encoding, this build reads version {VERSION}: upgrade this node")]
    UnknownVersion(u8),
    #[error("a command with operation {0}, which this build does not know: upgrade this node")]
    UnknownOperation(u8),
    #[error("commands of {0} bytes, the largest entry has {LARGEST_ENTRY_BYTES}")]
    TooLarge(usize),
    #[error(transparent)]
    Malformed(#[from] CodecError),
}

/// An entry's payload, checked.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub stamp: Stamp,
    pub commands: Commands,
}

/// Reads a payload that a [`Batch`] made. Commands share its memory.
pub fn decode(payload: Bytes) -> Result<Decoded, DecodeError> {
    if payload.len() > LARGEST_ENTRY_BYTES {
        return Err(DecodeError::TooLarge(payload.len()));
    }
    let mut reader = Reader::new(&payload);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion(version));
    }
    let stamp = Stamp(reader.varint()?);
    let first = payload.len() - reader.rest().len();
    let mut count = 0;
    while !reader.is_empty() {
        RawCommand::read(&mut reader)?;
        count += 1;
    }
    Ok(Decoded { stamp, commands: Commands { count, rest: payload.slice(first..) } })
}

/// The commands of an entry, in order.
#[derive(Clone, Debug)]
pub struct Commands {
    count: usize,
    rest: Bytes,
}

impl Iterator for Commands {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        if self.rest.is_empty() {
            return None;
        }
        let mut reader = Reader::new(&self.rest);
        let command = match RawCommand::read(&mut reader).expect("decode has read this command before") {
            RawCommand::Put { key, value } => {
                Command::Put { key: self.rest.slice_ref(key), value: self.rest.slice_ref(value) }
            }
            RawCommand::Delete { key } => Command::Delete { key: self.rest.slice_ref(key) },
        };
        self.rest = self.rest.slice_ref(reader.rest());
        self.count -= 1;
        Some(command)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Commands {}

/// A [`Command`] that borrows, so that checking an entry counts no references.
enum RawCommand<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
}

impl<'a> RawCommand<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<RawCommand<'a>, DecodeError> {
        match reader.u8()? {
            OP_PUT => Ok(RawCommand::Put { key: reader.bytes(MAX_KEY_BYTES)?, value: reader.bytes(MAX_VALUE_BYTES)? }),
            OP_DELETE => Ok(RawCommand::Delete { key: reader.bytes(MAX_KEY_BYTES)? }),
            unknown => Err(DecodeError::UnknownOperation(unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(key: &'static str, value: &'static str) -> Command {
        Command::Put { key: key.into(), value: value.into() }
    }

    fn encode(stamp: Stamp, commands: &[Command]) -> Bytes {
        let mut batch = Batch::new(stamp);
        for command in commands {
            let before = batch.len_bytes();
            batch.push(command);
            assert_eq!(batch.len_bytes() - before, command.encoded_len());
        }
        batch.finish()
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        prop_oneof![
            (bytes(), bytes()).prop_map(|(key, value)| Command::Put { key, value }),
            bytes().prop_map(|key| Command::Delete { key }),
        ]
    }

    #[test]
    fn encoding_is_pinned() {
        let encoded = encode(Stamp(300), &[put("k", "value"), Command::Delete { key: "key".into() }]);
        assert_eq!(&encoded[..], b"\x01\xac\x02\x01\x01k\x05value\x02\x03key");
        assert_eq!(&encode(Stamp(0), &[])[..], b"\x01\x00");
    }

    #[test]
    fn unknown_versions_and_operations_are_named() {
        assert_eq!(decode(Bytes::from_static(b"\x02\x00")).err(), Some(DecodeError::UnknownVersion(2)));
        assert_eq!(
            decode(Bytes::from_static(b"\x01\x00\x02\x01k\x09")).err(),
            Some(DecodeError::UnknownOperation(9)),
            "the command before it does not come out either"
        );
        assert!(DecodeError::UnknownOperation(9).to_string().contains("operation 9"));
    }

    #[test]
    fn limits_hold_in_both_directions() {
        let key = Bytes::from(vec![b'k'; MAX_KEY_BYTES]);
        let value = Bytes::from(vec![b'v'; MAX_VALUE_BYTES]);
        let largest = Command::Put { key: key.clone(), value };
        let mut batch = Batch::new(Stamp(u64::MAX));
        batch.push(&largest);
        assert!(batch.len_bytes() <= LARGEST_ENTRY_BYTES);
        assert!(!batch.fits(&Command::Delete { key: "k".into() }), "the largest command has an entry of its own");
        assert_eq!(decode(batch.finish()).expect("valid").commands.next(), Some(largest));

        let mut long_key = vec![VERSION, 0, OP_DELETE];
        put_bytes(&mut long_key, &vec![b'k'; MAX_KEY_BYTES + 1]);
        let error = DecodeError::Malformed(CodecError::TooLong { len: 1 + key.len() as u64, max: MAX_KEY_BYTES });
        assert_eq!(decode(long_key.into()).err(), Some(error));
        assert_eq!(
            decode(vec![VERSION; LARGEST_ENTRY_BYTES + 1].into()).err(),
            Some(DecodeError::TooLarge(LARGEST_ENTRY_BYTES + 1))
        );
    }

    #[test]
    fn decoding_copies_nothing() {
        let encoded = encode(Stamp(1), &[put("key", "value")]);
        let memory = encoded.as_ptr_range();
        let Some(Command::Put { value, .. }) = decode(encoded).expect("valid").commands.next() else {
            panic!("a put was encoded")
        };
        assert!(memory.contains(&value.as_ptr()));
    }

    proptest! {
        #[test]
        fn commands_come_back(stamp in any::<u64>(), commands in prop::collection::vec(any_command(), 0..20)) {
            let decoded = decode(encode(Stamp(stamp), &commands)).expect("valid");
            prop_assert_eq!(decoded.stamp, Stamp(stamp));
            prop_assert_eq!(decoded.commands.len(), commands.len());
            prop_assert_eq!(decoded.commands.collect::<Vec<_>>(), commands);
        }

        #[test]
        fn accepted_bytes_encode_to_themselves(
            commands in prop::collection::vec(any_command(), 0..6),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..8u32), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode(Stamp(7), &commands).to_vec();
            for (at, bit) in changes {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            bytes.truncate(1 + cut.index(bytes.len()));
            if let Ok(decoded) = decode(bytes.clone().into()) {
                let commands: Vec<_> = decoded.commands.collect();
                prop_assert_eq!(&encode(decoded.stamp, &commands)[..], &bytes[..]);
            }
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let with_version = [&[VERSION][..], &noise].concat();
            for bytes in [noise, with_version] {
                if let Ok(decoded) = decode(bytes.into()) {
                    prop_assert_eq!(decoded.commands.len(), decoded.commands.count());
                }
            }
        }
    }
}
