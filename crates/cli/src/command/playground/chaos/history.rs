//! The history of one key's clients, and whether it is linearizable.
//!
//! It is checked twice: the answers while faults were injected, and these together with the last read after recovery.
//! If only the second has no explanation, an acknowledged write is lost.

use crate::violation::ViolationReport;
use bytes::Bytes;
use ringfort_check::{Ending, Operation, Verdict, Violation, judge};
use serde::Serialize;

/// The operations on a key.
pub struct KeyHistory {
    pub name: String,
    /// Operations that have begun, including those under way.
    pub begun: usize,
    pub operations: Vec<Operation>,
    /// The read after all faults.
    pub last_read: Option<Operation>,
}

/// The findings from a run's histories.
#[derive(Serialize, Default, Debug)]
pub struct Findings {
    pub keys: usize,
    pub operations: usize,
    pub acknowledged_writes: usize,
    pub unknown_writes: usize,
    /// Operations that were reported as not applied, including failed gets.
    pub refused: usize,
    /// Keys whose histories are too complex to be checked in time.
    pub undecided: usize,
    pub violations: Vec<KeyViolation>,
}

#[derive(Serialize, Debug)]
pub struct KeyViolation {
    /// Whether an acknowledged write is missing at the end; otherwise answers contradicted each other before that.
    pub lost_acknowledgement: bool,
    #[serde(flatten)]
    pub report: ViolationReport,
    #[serde(skip)]
    pub violation: Violation,
}

impl KeyHistory {
    pub fn new(name: String) -> KeyHistory {
        KeyHistory { name, begun: 0, operations: Vec::new(), last_read: None }
    }
}

impl Findings {
    /// Checks all histories; may take seconds of CPU time.
    pub fn of(keys: &[KeyHistory]) -> Findings {
        let mut findings = Findings { keys: keys.len(), ..Findings::default() };
        for key in keys {
            for operation in &key.operations {
                let is_write = operation.kind.is_write();
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
        let all: Vec<Operation> = key.operations.iter().chain(&key.last_read).cloned().collect();
        match judge(&all) {
            Verdict::Linearizable => {}
            Verdict::Undecided => self.undecided += 1,
            Verdict::NotLinearizable => {
                let violation = Violation::of(&all);
                self.violations.push(KeyViolation {
                    lost_acknowledgement: judge(&key.operations) == Verdict::Linearizable,
                    report: ViolationReport::new(&Bytes::from(key.name.clone()), &violation),
                    violation,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_check::{Found, Kind, Time, Value};

    const ONE: Value = Value { writer: 1, number: 1 };
    const TWO: Value = Value { writer: 2, number: 1 };

    fn operation(kind: Kind, from: u64, to: u64) -> Operation {
        Operation { client: 1, kind, invoked: Time(from), ending: Ending::Answered(Time(to)) }
    }

    fn put(value: Value, from: u64) -> Operation {
        operation(Kind::put(value), from, from + 1)
    }

    fn get(value: Option<Value>, from: u64) -> Operation {
        let found = value.map(|value| Found { content: value.into(), version: None });
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
        let words = &findings.violations[0].report.operations;
        assert_eq!((words.len(), &words[2].operation[..]), (3, "get: 1.1"), "{words:?}");
    }
}
