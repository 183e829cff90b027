//! A violation, displayed so that a reader can check it by eye.
//!
//! The operations that prove it are drawn under each other. The bars show the order of events, not their durations:
//! what counts is which operations ended before which others began.

use crate::history::{ClientId, Key};
use ringfort_check::{Ending, Kind, Operation, Time};
use ringfort_core::time::Moment;
use std::collections::BTreeMap;
use std::fmt;

/// Why the history is not linearizable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// No order explains the operations that are shown.
    Contradiction(ringfort_check::Reason),
    /// No order explains this many operations, up to the answer that is shown.
    Unexplained(usize),
    /// It takes too long to decide whether an order explains them.
    Undecided,
}

/// A key's history that is not linearizable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub key: Key,
    pub reason: Reason,
    /// In the order of their invocation.
    pub operations: Vec<Operation>,
    /// When the operations were invoked and completed.
    pub moments: BTreeMap<Time, Moment>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} is not linearizable: {}", self.key, self.reason)?;
        let column = |event: Time| self.moments.range(..event).count() * COLUMNS_PER_EVENT;
        let width = self.moments.len() * COLUMNS_PER_EVENT;
        for operation in &self.operations {
            let start = column(operation.invoked);
            let bar = match operation.completed() {
                Some(completed) => format!("|{}|", "-".repeat(column(completed) - start - 1)),
                None => format!("|{}?", "-".repeat(width - start - 1)),
            };
            let until = operation.completed().map_or("?".to_owned(), |completed| seconds(self.moments[&completed]));
            let what = describe(operation);
            let line = format!(
                "\n  {:<4} {what:<22} {:start$}{bar:<rest$}  {} .. {until}",
                ClientId(operation.client).to_string(),
                "",
                seconds(self.moments[&operation.invoked]),
                rest = width + 1 - start,
            );
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Contradiction(reason) => reason.fmt(f),
            Reason::Unexplained(count) => write!(f, "no order explains {count} operations up to this answer"),
            Reason::Undecided => f.write_str("nobody can say in time whether an order explains it"),
        }
    }
}

const COLUMNS_PER_EVENT: usize = 3;

fn describe(operation: &Operation) -> String {
    let asked = &operation.kind;
    match (operation.ending, &operation.kind) {
        (Ending::Refused, _) => format!("{asked}, failed"),
        (Ending::Unknown, _) => format!("{asked}, unknown"),
        (_, Kind::Get { found: Some(found) }) => format!("{asked} -> {}", found.content),
        (_, Kind::Get { found: None } | Kind::Delete { found: Some(false) }) => format!("{asked} -> absent"),
        (_, Kind::Increment { number: Some(number), .. }) => format!("{asked} -> {number}"),
        (_, Kind::Append { length: Some(length), .. }) => format!("{asked} -> {length} bytes"),
        _ => asked.to_string(),
    }
}

fn seconds(at: Moment) -> String {
    format!("{:.6} s", at.0 as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::History;
    use crate::linearizability::check;
    use ringfort_check::{Found, Value};

    fn put(number: u32) -> Kind {
        Kind::put(Value { writer: 1, number })
    }

    fn get(number: u32) -> Kind {
        Kind::Get { found: Some(Found { content: Value { writer: 1, number }.into(), version: None }) }
    }

    const GET: Kind = Kind::Get { found: None };

    #[test]
    fn stale_read_is_drawn_as_a_timeline() {
        let at = |milliseconds: u64| Moment(milliseconds * 1_000_000);
        let mut history = History::default();
        let first = history.invoke(ClientId(1), Key(3), put(10), at(1));
        history.answered(first, put(10), at(2));
        let _ = history.invoke(ClientId(2), Key(3), put(11), at(3));
        let seen = history.invoke(ClientId(3), Key(3), GET, at(4));
        history.answered(seen, get(11), at(5));
        let stale = history.invoke(ClientId(1), Key(3), GET, at(6));
        history.answered(stale, get(10), at(7));
        let expected = "\
key 3 is not linearizable: no order of these operations explains their answers
  c1   put 1.10               |--|                    0.001000 s .. 0.002000 s
  c2   put 1.11, unknown            |--------------?  0.003000 s .. ?
  c3   get -> 1.11                     |--|           0.004000 s .. 0.005000 s
  c1   get -> 1.10                           |--|     0.006000 s .. 0.007000 s";
        assert_eq!(check(&history).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_key_that_comes_back_is_told_of() {
        let at = |milliseconds: u64| Moment(milliseconds * 1_000_000);
        let mut history = History::default();
        let write = history.invoke(ClientId(1), Key(3), put(10), at(1));
        history.answered(write, put(10), at(2));
        let delete = history.invoke(ClientId(2), Key(3), Kind::Delete { found: None }, at(3));
        history.answered(delete, Kind::Delete { found: Some(true) }, at(4));
        let read = history.invoke(ClientId(1), Key(3), GET, at(5));
        history.answered(read, get(10), at(6));
        let told = check(&history).unwrap_err().to_string();
        assert!(told.contains("after a delete of the key was acknowledged") && told.contains("c2   delete"), "{told}");
    }
}
