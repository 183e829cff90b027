//! What the clients of one key were told, and whether that can be true.
//!
//! Judged twice: the answers that came while faults were injected, and those together with the last read, when all is
//! well again. Where only the second has no explanation, something is gone that was acknowledged.

use bytes::Bytes;
use ringfort_check::{Ending, Kind, Operation, Time, Value, Verdict, Violation, judge};
use serde::Serialize;

/// Who reads each key a last time.
pub const LAST_READER: u32 = u32::MAX;

/// The operations on a key.
pub struct KeyHistory {
    pub name: String,
    /// Operations that have begun, those under way included.
    pub begun: usize,
    pub operations: Vec<Operation>,
    /// When all is over.
    pub last_read: Option<Operation>,
}

/// What came out of a run's histories.
#[derive(Serialize, Default, Debug)]
pub struct Findings {
    pub keys: usize,
    pub operations: usize,
    /// Puts and deletes.
    pub acknowledged_writes: usize,
    pub unknown_writes: usize,
    /// Operations of which the client was told that nothing happened, gets that failed among them.
    pub refused: usize,
    /// Keys whose histories are too tangled to be judged in time.
    pub undecided: usize,
    pub violations: Vec<KeyViolation>,
}

#[derive(Serialize, Debug)]
pub struct KeyViolation {
    pub key: String,
    /// Whether an acknowledged write is gone in the end; otherwise answers contradicted each other before.
    pub lost_acknowledgement: bool,
    pub reason: String,
    /// The few operations that prove it.
    pub operations: Vec<String>,
}

impl KeyHistory {
    pub fn new(name: String) -> KeyHistory {
        KeyHistory { name, begun: 0, operations: Vec::new(), last_read: None }
    }
}

impl Findings {
    /// Judges all histories; may take seconds of computing.
    pub fn of(keys: &[KeyHistory]) -> Findings {
        let mut findings = Findings { keys: keys.len(), ..Findings::default() };
        for key in keys {
            for operation in &key.operations {
                let is_write = !matches!(operation.kind, Kind::Get { .. });
                match operation.ending {
                    Ending::Answered(_) => findings.acknowledged_writes += usize::from(is_write),
                    Ending::Unknown => findings.unknown_writes += usize::from(is_write),
                    Ending::Refused => findings.refused += 1,
                }
            }
            findings.operations += key.operations.len();
            findings.judge(key);
        }
        findings
    }

    pub fn lost_acknowledgements(&self) -> usize {
        self.violations.iter().filter(|violation| violation.lost_acknowledgement).count()
    }

    fn judge(&mut self, key: &KeyHistory) {
        let all: Vec<Operation> = key.operations.iter().chain(&key.last_read).copied().collect();
        match judge(&all) {
            Verdict::Linearizable => {}
            Verdict::Undecided => self.undecided += 1,
            Verdict::NotLinearizable => {
                let violation = Violation::of(&all);
                self.violations.push(KeyViolation {
                    key: key.name.clone(),
                    lost_acknowledgement: judge(&key.operations) == Verdict::Linearizable,
                    reason: violation.reason.to_string(),
                    operations: violation.operations.iter().map(in_words).collect(),
                });
            }
        }
    }
}

/// An operation on one line: who asked for what, when, and what came back.
fn in_words(operation: &Operation) -> String {
    let milliseconds = |time: Time| time.0 as f64 / 1e6;
    let asked = match operation.kind {
        Kind::Put { value, .. } => format!("put {value}"),
        Kind::Get { .. } => "get".to_owned(),
        Kind::Delete { .. } => "delete".to_owned(),
    };
    let answer = match operation.kind {
        Kind::Put { version, .. } => version.map_or_else(String::new, |version| format!(" version {version}")),
        Kind::Get { found: None } => " nothing".to_owned(),
        Kind::Get { found: Some(found) } => format!(" {}", found.value),
        Kind::Delete { found } => found.map_or_else(String::new, |found| format!(" found {found}")),
    };
    let ending = match operation.ending {
        Ending::Answered(at) => format!("answered at {:.3} ms:{answer}", milliseconds(at)),
        Ending::Refused => "refused".to_owned(),
        Ending::Unknown => "not answered".to_owned(),
    };
    let who =
        if operation.client == LAST_READER { "last read".to_owned() } else { format!("client {}", operation.client) };
    format!("{who}: {asked}, asked at {:.3} ms, {ending}", milliseconds(operation.invoked))
}

/// The bytes of a value.
pub fn encode(value: Value) -> Bytes {
    format!("{}-{}", value.writer, value.number).into()
}

/// The value of these bytes; [`Value::FOREIGN`] where no client wrote them.
pub fn decode(bytes: &[u8]) -> Value {
    let parsed = || {
        let (writer, number) = str::from_utf8(bytes).ok()?.split_once('-')?;
        Some(Value { writer: writer.parse().ok()?, number: number.parse().ok()? })
    };
    parsed().unwrap_or(Value::FOREIGN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_check::Found;

    const ONE: Value = Value { writer: 1, number: 1 };
    const TWO: Value = Value { writer: 2, number: 1 };

    fn operation(kind: Kind, from: u64, to: u64) -> Operation {
        Operation { client: 1, kind, invoked: Time(from), ending: Ending::Answered(Time(to)) }
    }

    fn put(value: Value, from: u64) -> Operation {
        operation(Kind::Put { value, version: None }, from, from + 1)
    }

    fn get(value: Option<Value>, from: u64) -> Operation {
        let found = value.map(|value| Found { value, version: None });
        operation(Kind::Get { found }, from, from + 1)
    }

    fn findings(operations: &[Operation], last_read: Operation) -> Findings {
        let mut key = KeyHistory::new("k".to_owned());
        key.operations = operations.to_vec();
        key.last_read = Some(last_read);
        Findings::of(&[key])
    }

    #[test]
    fn a_history_that_can_be_true_is_accepted() {
        let findings = findings(&[put(ONE, 1), get(Some(ONE), 3), put(TWO, 5)], get(Some(TWO), 100));
        assert!(findings.violations.is_empty(), "{findings:?}");
        assert_eq!((findings.operations, findings.acknowledged_writes, findings.keys), (3, 2, 1));
    }

    #[test]
    fn a_write_that_is_gone_in_the_end_is_lost() {
        for last in [None, Some(ONE)] {
            let findings = findings(&[put(ONE, 1), put(TWO, 3), get(Some(TWO), 5)], get(last, 100));
            assert_eq!((findings.violations.len(), findings.lost_acknowledgements()), (1, 1), "{last:?}");
        }
    }

    #[test]
    fn a_stale_read_on_the_way_is_a_violation_but_no_loss() {
        let findings = findings(&[put(ONE, 1), put(TWO, 3), get(Some(ONE), 5)], get(Some(TWO), 100));
        assert_eq!((findings.violations.len(), findings.lost_acknowledgements()), (1, 0));
        let words = &findings.violations[0].operations;
        assert!(words[2].contains("get, asked at 0.000 ms, answered at 0.000 ms: 1.1"), "{words:?}");
    }

    #[test]
    fn values_come_back_as_they_were_written() {
        assert_eq!(decode(&encode(ONE)), ONE);
        for foreign in [&b""[..], b"1", b"x-1", b"1-99999999999", b"\xff-1"] {
            assert_eq!(decode(foreign), Value::FOREIGN);
        }
    }
}
