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

    /// The length of the bytes of a value, in every run.
    pub fn len_bytes(value: Value) -> u32 {
        Values { run: 0 }.bytes(value).len() as u32
    }

    /// What a key holds: values of this run, each appended to the one before, or a number that increments led to;
    /// [`Value::FOREIGN`] if it is something else.
    pub fn parse(self, bytes: &[u8]) -> Content {
        let text = str::from_utf8(bytes).unwrap_or_default();
        let number = || text.parse().ok().filter(|number: &i64| number.to_string() == text).map(Content::from);
        self.text(text).or_else(number).unwrap_or(Value::FOREIGN.into())
    }

    fn text(self, text: &str) -> Option<Content> {
        let run = format!("{:08x}.", self.run);
        // A value has this at its beginning only: its writer has fewer than 8 digits, and no dot follows its number.
        let mut values = text.strip_prefix(&run)?.split(&run).map(|rest| self.value(rest));
        let mut content = Content::from(values.next()??);
        content.appended = values.collect::<Option<_>>()?;
        let written: Vec<Bytes> = content.values().map(|value| self.bytes(value)).collect();
        (written.concat() == text.as_bytes()).then_some(content)
    }

    /// A value without the run that it begins with.
    fn value(self, text: &str) -> Option<Value> {
        let (writer, number) = text.split_once('.')?;
        Some(Value { writer: writer.parse().ok()?, number: number.parse().ok()? })
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

    #[test]
    fn appended_values_are_read_back_in_order() {
        let value = |writer, number| Value { writer, number };
        // The digits of a run can look like those of a number.
        for run in [0xab, 0x1111_1111, 0x1234_5678, 0xffff_ffff] {
            let values = Values { run };
            let written = [value(3, 1), value(1, 11_111_111), value(1, 12), value(3, 2)];
            let bytes = written.map(|value| values.bytes(value));
            assert_eq!(bytes.clone().map(|bytes| bytes.len() as u32), written.map(Values::len_bytes));
            let mut content = Content::from(written[0]);
            content.appended.extend(&written[1..]);
            assert_eq!(values.parse(&bytes.concat()), content);
            for foreign in [&bytes.concat()[1..], &[&bytes.concat()[..], b"x"].concat(), b"17000000ab.3.17"] {
                assert_eq!(values.parse(foreign), Value::FOREIGN.into());
            }
        }
    }
}
