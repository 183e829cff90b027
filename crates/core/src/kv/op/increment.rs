//! Adds to a number.
//!
//! A number is stored as any other value, as decimal text. A value is a number if Redis' `INCRBY` accepts it: digits
//! without leading zeros, after a minus if the number is negative, within 64 bits. Any other value is text, and the
//! increment is refused: a plus, a space, `-0`, a fraction, an empty value.

use super::*;

/// Adds to the key's number; a missing key counts as 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Increment {
    pub key: Bytes,
    /// Negative to subtract. 0 is a write, too: it creates a missing key and counts as a version.
    pub by: i64,
}

/// The key's number and its numbers as a key after the increment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IncrementReply {
    /// The sum.
    pub number: i64,
    pub version: u64,
    /// The key's modify revision, which is the shard's.
    pub revision: u64,
}

impl Operation for Increment {
    const NAME: &'static str = "increment";
    /// A retry would add twice.
    const REPEATS: bool = false;
    type Reply = IncrementReply;

    fn check(&self) -> Result<(), Invalid> {
        check_key(&self.key)
    }
}

impl Mutate for Increment {
    const GROWS: bool = true;

    fn key(&self) -> &Bytes {
        &self.key
    }

    fn apply(&self, state: &mut Transaction<'_>) -> Result<IncrementReply, Refusal> {
        let before = match state.get(&self.key) {
            Some((_, value)) => number_of(value).ok_or(Refusal::NotANumber)?,
            None => 0,
        };
        let number = before.checked_add(self.by).ok_or(Refusal::Overflow)?;
        let numbers = state.put(&self.key, number.to_string().as_bytes());
        Ok(IncrementReply { number, version: numbers.version, revision: numbers.modify_revision })
    }
}

/// The number in a value, if the value has the form that an increment writes.
fn number_of(value: &[u8]) -> Option<i64> {
    // As long as the longest number.
    const MAX_BYTES: usize = "-9223372036854775808".len();
    let text = str::from_utf8(value).ok().filter(|text| text.len() <= MAX_BYTES)?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl Encoded for Increment {
    fn encode(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
        out.number(self.by.cast_unsigned());
    }

    fn decode(source: &mut impl Source) -> Result<Increment, CodecError> {
        Ok(Increment { key: source.bytes(MAX_KEY_BYTES)?, by: source.number()?.cast_signed() })
    }
}

impl Encoded for IncrementReply {
    fn encode(&self, out: &mut impl Sink) {
        out.number(self.number.cast_unsigned());
        out.number(self.version);
        out.number(self.revision);
    }

    fn decode(source: &mut impl Source) -> Result<IncrementReply, CodecError> {
        Ok(IncrementReply {
            number: source.number()?.cast_signed(),
            version: source.number()?,
            revision: source.number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::HlcTimestamp;

    const LEAST: &str = "-9223372036854775808";
    const LARGEST: &str = "9223372036854775807";

    /// Increments a key that holds `before`. Returns the answer, and what the key holds then.
    fn increment(before: Option<&str>, by: i64) -> (Result<IncrementReply, Refusal>, Option<String>) {
        let mut machine = Machine::new();
        if let Some(before) = before {
            machine.begin(HlcTimestamp(1), &mut |_| {}).put(b"k", before.as_bytes());
        }
        let before = (machine.revision(), machine.get(b"k"));
        let answer = Increment { key: "k".into(), by }.apply(&mut machine.begin(HlcTimestamp(2), &mut |_| {}));
        if answer.is_err() {
            assert_eq!((machine.revision(), machine.get(b"k")), before, "a refusal changes nothing");
        }
        let text = |record: crate::kv::Record| String::from_utf8(record.value.to_vec()).expect("it was text");
        (answer, machine.get(b"k").map(text))
    }

    #[track_caller]
    fn assert_sum(before: Option<&str>, by: i64, sum: &str) {
        let (answer, after) = increment(before, by);
        let version = 1 + u64::from(before.is_some());
        let reply = IncrementReply { number: sum.parse().expect("a number"), version, revision: version };
        assert_eq!((answer, after.as_deref()), (Ok(reply), Some(sum)));
    }

    #[track_caller]
    fn assert_refused(before: &str, by: i64, refusal: Refusal) {
        assert_eq!(increment(Some(before), by), (Err(refusal), Some(before.to_owned())), "{before:?}");
    }

    #[test]
    fn a_missing_key_counts_as_zero() {
        assert_sum(None, 5, "5");
        assert_sum(None, -5, "-5");
        assert_sum(None, 0, "0");
        assert_sum(None, i64::MIN, LEAST);
        assert_sum(None, i64::MAX, LARGEST);
    }

    #[test]
    fn numbers_reach_the_limits_and_not_beyond() {
        assert_sum(Some("41"), 1, "42");
        assert_sum(Some("-1"), 1, "0");
        assert_sum(Some(LARGEST), i64::MIN, "-1");
        assert_sum(Some(LEAST), i64::MAX, "-1");
        assert_sum(Some("9223372036854775806"), 1, LARGEST);
        assert_sum(Some("-9223372036854775807"), -1, LEAST);
        assert_refused(LARGEST, 1, Refusal::Overflow);
        assert_refused(LEAST, -1, Refusal::Overflow);
        assert_refused("1", i64::MAX, Refusal::Overflow);
        assert_refused("-1", i64::MIN, Refusal::Overflow);
    }

    #[test]
    fn what_redis_takes_for_no_number_is_none() {
        let text = ["", "-", "+1", " 1", "1 ", "1\n", "01", "-01", "-0", "00", "1.0", "1e3", "0x1", "one", "\u{661}"];
        let beyond = ["9223372036854775808", "-9223372036854775809", "18446744073709551616", "00000000000000000000001"];
        for value in text.into_iter().chain(beyond) {
            assert_refused(value, 1, Refusal::NotANumber);
        }
        assert_eq!(number_of(b"\xff"), None);
    }
}
