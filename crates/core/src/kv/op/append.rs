//! Appends to a value.
//!
//! The whole value is written anew, so an append costs as much as a put of the result. A result beyond the limit on a
//! value is refused here and not in `check`, which does not know what the key holds.

use super::*;

/// Appends to the key's value; a missing key counts as empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    pub key: Bytes,
    /// If empty, this is a write, too: it creates a missing key and counts as a version.
    pub bytes: Bytes,
}

/// The length of the key's value and its numbers after the append.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AppendReply {
    /// Of the whole value.
    pub length_bytes: u64,
    pub version: u64,
    /// The key's modify revision, which is the shard's.
    pub revision: u64,
}

impl Operation for Append {
    const NAME: &'static str = "append";
    /// A retry would append twice.
    const REPEATS: bool = false;
    type Reply = AppendReply;

    fn check(&self) -> Result<(), Invalid> {
        check_key(&self.key)?;
        check_value(&self.bytes)
    }
}

impl Mutate for Append {
    const GROWS: bool = true;

    fn key(&self) -> &Bytes {
        &self.key
    }

    fn apply(&self, state: &mut Transaction<'_>) -> Result<AppendReply, Refusal> {
        let before = state.get(&self.key).map_or(&b""[..], |(_, value)| value);
        if before.len() + self.bytes.len() > MAX_VALUE_BYTES {
            return Err(Refusal::LargeValue);
        }
        let value = [before, &self.bytes].concat();
        let numbers = state.put(&self.key, &value);
        let (version, revision) = (numbers.version, numbers.modify_revision);
        Ok(AppendReply { length_bytes: value.len() as u64, version, revision })
    }
}

impl Encoded for Append {
    fn encode(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
        out.bytes(&self.bytes);
    }

    fn decode(source: &mut impl Source) -> Result<Append, CodecError> {
        Ok(Append { key: source.bytes(MAX_KEY_BYTES)?, bytes: source.bytes(MAX_VALUE_BYTES)? })
    }
}

impl Encoded for AppendReply {
    fn encode(&self, out: &mut impl Sink) {
        out.number(self.length_bytes);
        out.number(self.version);
        out.number(self.revision);
    }

    fn decode(source: &mut impl Source) -> Result<AppendReply, CodecError> {
        Ok(AppendReply { length_bytes: source.number()?, version: source.number()?, revision: source.number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::HlcTimestamp;

    /// Appends to a key that holds `before`. Returns the answer, and what the key holds then.
    fn append(before: Option<&[u8]>, bytes: &[u8]) -> (Result<AppendReply, Refusal>, Option<Bytes>) {
        let mut machine = Machine::new();
        if let Some(before) = before {
            machine.begin(HlcTimestamp(1), &mut |_| {}).put(b"k", before);
        }
        let before = (machine.revision(), machine.get(b"k"));
        let append = Append { key: "k".into(), bytes: Bytes::copy_from_slice(bytes) };
        assert_eq!(append.check(), Ok(()));
        let answer = append.apply(&mut machine.begin(HlcTimestamp(2), &mut |_| {}));
        if answer.is_err() {
            assert_eq!((machine.revision(), machine.get(b"k")), before, "a refusal changes nothing");
        }
        (answer, machine.get(b"k").map(|record| record.value))
    }

    #[track_caller]
    fn assert_result(before: Option<&[u8]>, bytes: &[u8], result: &[u8]) {
        let (answer, after) = append(before, bytes);
        let version = 1 + u64::from(before.is_some());
        let reply = AppendReply { length_bytes: result.len() as u64, version, revision: version };
        assert_eq!((answer, after.as_deref()), (Ok(reply), Some(result)));
    }

    #[test]
    fn a_missing_key_counts_as_empty() {
        assert_result(None, b"abc", b"abc");
        assert_result(None, b"", b"");
        assert_result(Some(b""), b"abc", b"abc");
    }

    #[test]
    fn bytes_come_after_the_value_whatever_they_are() {
        assert_result(Some(b"abc"), b"\x00\xff", b"abc\x00\xff");
        assert_result(Some(b"abc"), b"", b"abc");
        assert_result(Some(b"41"), b"1", b"411");
    }

    #[test]
    fn values_reach_the_limit_and_not_beyond() {
        let largest = vec![b'v'; MAX_VALUE_BYTES];
        let (most, last) = largest.split_at(MAX_VALUE_BYTES - 1);
        assert_result(None, &largest, &largest);
        assert_result(Some(most), last, &largest);
        assert_result(Some(&largest), b"", &largest);
        assert_eq!(append(Some(&largest), b"v").0, Err(Refusal::LargeValue));
        assert_eq!(append(Some(b"v"), &largest).0, Err(Refusal::LargeValue));
    }

    #[test]
    fn bytes_beyond_the_limit_are_refused_whatever_the_key_holds() {
        let bytes = vec![0; MAX_VALUE_BYTES + 1].into();
        assert_eq!(Append { key: "k".into(), bytes }.check(), Err(Invalid::LargeValue(MAX_VALUE_BYTES + 1)));
        assert_eq!(Append { key: Bytes::new(), bytes: "v".into() }.check(), Err(Invalid::EmptyKey));
    }
}
