//! The values that the clients of a checked workload write, which identify their writer.

use crate::random::Random;
use bytes::Bytes;
use ringfort_check::{Content, Value};

/// How the values of a run are written: `<run>.<writer>.<number>`.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    /// Distinguishes this run's values from those that another run left behind.
    pub run: u32,
}

impl Values {
    pub fn new() -> Values {
        Values { run: Random::new().next() as u32 }
    }

    pub fn bytes(self, value: Value) -> Bytes {
        format!("{:08x}.{}.{}", self.run, value.writer, value.number).into()
    }

    /// Parses a key's content: a value, the number that increments led to, or [`Value::FOREIGN`] if this run has not
    /// written it.
    pub fn parse(self, bytes: &[u8]) -> Content {
        let text = str::from_utf8(bytes).unwrap_or_default();
        let number = || text.parse().ok().filter(|number: &i64| number.to_string() == text).map(Content::from);
        self.value(text).map(Content::from).or_else(number).unwrap_or(Value::FOREIGN.into())
    }

    fn value(self, text: &str) -> Option<Value> {
        let mut parts = text.split('.');
        let is_ours = u32::from_str_radix(parts.next()?, 16).ok()? == self.run;
        let value = Value { writer: parts.next()?.parse().ok()?, number: parts.next()?.parse().ok()? };
        (is_ours && self.bytes(value) == text).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_and_others_are_foreign() {
        let values = Values { run: 0xab };
        let value = Value { writer: 3, number: 17 };
        assert_eq!(&values.bytes(value)[..], b"000000ab.3.17");
        assert_eq!(values.parse(&values.bytes(value)), value.into());
        let foreign: [&[u8]; 7] = [b"", b"+1", b"01", b"000000ac.3.17", b"000000ab.3", b"000000ab.3.17.1", b"\xff"];
        for bytes in foreign {
            assert_eq!(values.parse(bytes), Value::FOREIGN.into());
        }
        assert_eq!(values.parse(b"-17"), (-17).into());
    }
}
