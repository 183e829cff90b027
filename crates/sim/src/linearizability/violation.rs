//! A violation, told so that a reader can check it by eye.
//!
//! The operations that prove it are drawn under each other. The bars are to the order of events, not
//! to scale: what counts is who was done before whom began.

use crate::history::{Action, Event, Key, Operation, Outcome};
use ringfort_core::time::Moment;
use std::fmt;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// No order explains the operations that are shown.
    Contradiction(ringfort_check::Reason),
    /// No order explains so many operations, up to the answer that is shown.
    Unexplained(usize),
    /// It takes too long to say whether one does.
    Undecided,
}

/// A key's history that is not linearizable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub key: Key,
    pub reason: Reason,
    /// In the order of their invocation.
    pub operations: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} is not linearizable: {}", self.key, self.reason)?;
        let mut events: Vec<Event> = self.operations.iter().map(|operation| operation.invoked).collect();
        events.extend(self.operations.iter().filter_map(Operation::completed));
        events.sort_unstable();
        let column = |event: Event| events.binary_search(&event).expect("collected above") * COLUMNS_PER_EVENT;
        let width = events.len() * COLUMNS_PER_EVENT;
        for operation in &self.operations {
            let start = column(operation.invoked);
            let bar = match operation.completed() {
                Some(completed) => format!("|{}|", "-".repeat(column(completed) - start - 1)),
                None => format!("|{}?", "-".repeat(width - start - 1)),
            };
            let until = operation.completed().map_or("?".to_owned(), |completed| seconds(completed.at));
            let what = describe(operation);
            let line = format!(
                "\n  {:<4} {what:<22} {:start$}{bar:<rest$}  {} .. {until}",
                operation.client.to_string(),
                "",
                seconds(operation.invoked.at),
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
    match (operation.action, operation.outcome) {
        (Action::Put(value), Outcome::Failed) => format!("put {value}, failed"),
        (Action::Put(value), Outcome::Unknown) => format!("put {value}, unknown"),
        (Action::Put(value), _) => format!("put {value}"),
        (Action::Get, Outcome::Read(_, Some(value))) => format!("get -> {value}"),
        (Action::Get, Outcome::Read(_, None)) => "get -> absent".to_owned(),
        (Action::Get, _) => "get, unanswered".to_owned(),
        (Action::Delete, Outcome::Deleted(_, true)) => "delete".to_owned(),
        (Action::Delete, Outcome::Deleted(_, false)) => "delete -> absent".to_owned(),
        (Action::Delete, Outcome::Failed) => "delete, failed".to_owned(),
        (Action::Delete, _) => "delete, unknown".to_owned(),
    }
}

fn seconds(at: Moment) -> String {
    format!("{:.6} s", at.0 as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{ClientId, History, Value};
    use crate::linearizability::check;

    #[test]
    fn stale_read_is_drawn_as_a_timeline() {
        let at = |milliseconds: u64| Moment(milliseconds * 1_000_000);
        let mut history = History::default();
        let first = history.invoke(ClientId(1), Key(3), Action::Put(Value(10)), at(1));
        history.written(first, at(2));
        let second = history.invoke(ClientId(2), Key(3), Action::Put(Value(11)), at(3));
        let seen = history.invoke(ClientId(3), Key(3), Action::Get, at(4));
        history.read(seen, Some(Value(11)), at(5));
        let stale = history.invoke(ClientId(1), Key(3), Action::Get, at(6));
        history.read(stale, Some(Value(10)), at(7));
        let _ = second;
        let expected = "\
key 3 is not linearizable: no order of these operations explains their answers
  c1   put 10                 |--|                    0.001000 s .. 0.002000 s
  c2   put 11, unknown              |--------------?  0.003000 s .. ?
  c3   get -> 11                       |--|           0.004000 s .. 0.005000 s
  c1   get -> 10                             |--|     0.006000 s .. 0.007000 s";
        assert_eq!(check(&history).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_key_that_comes_back_is_told_of() {
        let at = |milliseconds: u64| Moment(milliseconds * 1_000_000);
        let mut history = History::default();
        let put = history.invoke(ClientId(1), Key(3), Action::Put(Value(10)), at(1));
        history.written(put, at(2));
        let delete = history.invoke(ClientId(2), Key(3), Action::Delete, at(3));
        history.deleted(delete, true, at(4));
        let get = history.invoke(ClientId(1), Key(3), Action::Get, at(5));
        history.read(get, Some(Value(10)), at(6));
        let told = check(&history).unwrap_err().to_string();
        assert!(told.contains("after a delete of the key was acknowledged") && told.contains("c2   delete"), "{told}");
    }
}
