//! A violation as a text drawing: one line per operation, narrow enough for a terminal.
//!
//! The bars show the order of events, not their durations: what counts is which operations ended before which others
//! began.

use super::FIRST_LOOKER;
use ringfort_check::{Ending, Found, Kind, Operation, Time, Violation};

/// The width of the bars; together with the rest a line has at most 100 characters.
const COLUMNS: usize = 40;

/// The places of a violation's events: 0 for the first, and one more for each that follows.
pub struct Axis(Vec<Time>);

impl Axis {
    pub fn new(violation: &Violation) -> Axis {
        let operations = violation.operations.iter();
        let mut times: Vec<Time> =
            operations.flat_map(|operation| [Some(operation.invoked), operation.completed()]).flatten().collect();
        times.sort_unstable();
        times.dedup();
        Axis(times)
    }

    /// Where an operation begins and ends, each from 0.0 to 1.0. Without an answer it does not end.
    pub fn span(&self, operation: &Operation) -> (f64, Option<f64>) {
        // An operation that never ends extends beyond the last event.
        let width = self.0.len() as f64;
        let place = |time: Time| self.0.partition_point(|other| *other < time) as f64 / width;
        (place(operation.invoked), operation.completed().map(place))
    }
}

/// The lines of a drawing.
pub fn draw(violation: &Violation) -> Vec<String> {
    let axis = Axis::new(violation);
    let line = |operation: &Operation| {
        let column = |place: f64| (place * (COLUMNS - 1) as f64) as usize;
        let (start, end) = axis.span(operation);
        let start = column(start);
        let bar = match end.map(column) {
            Some(end) => format!("|{}|", "-".repeat((end.max(start + 1) - start).saturating_sub(1))),
            None if operation.ending == Ending::Refused => "x".to_owned(),
            None => format!("|{}?", "-".repeat(COLUMNS - 1 - start)),
        };
        let mark = if violation.contradicted() == Some(operation) { '>' } else { ' ' };
        let bar = format!("{:start$}{bar}", "");
        format!(
            "{mark} {:<5} {:<28} {bar:<columns$}  {}",
            client(operation),
            describe(operation),
            times(operation),
            columns = COLUMNS + 1
        )
    };
    violation.operations.iter().map(line).collect()
}

/// `c3`, or `end` for a last look.
pub fn client(operation: &Operation) -> String {
    match operation.client {
        FIRST_LOOKER.. => "end".to_owned(),
        client => format!("c{client}"),
    }
}

/// The operation and its answer.
pub fn describe(operation: &Operation) -> String {
    let asked = &operation.kind;
    let version = |version: &Option<u64>| version.map_or(String::new(), |version| format!(", version {version}"));
    match (operation.ending, &operation.kind) {
        (Ending::Refused, _) => format!("{asked}: refused"),
        (Ending::Unknown, _) => format!("{asked}: unknown"),
        (_, Kind::Put { version: told, .. }) => format!("{asked}: done{}", version(told)),
        (_, Kind::Get { found: Some(Found { content, version: told }) }) => {
            format!("{asked}: {content}{}", version(told))
        }
        (_, Kind::Get { found: None }) => format!("{asked}: nothing"),
        (_, Kind::Increment { number: Some(number), .. }) => format!("{asked}: {number}"),
        (_, Kind::Append { length: Some(length), .. }) => format!("{asked}: length {length}"),
        (_, Kind::Delete { found: None } | Kind::Increment { .. } | Kind::Append { .. }) => format!("{asked}: done"),
        (_, Kind::Delete { found: Some(true) }) => format!("{asked}: found"),
        (_, Kind::Delete { found: Some(false) }) => format!("{asked}: found nothing"),
    }
}

/// When the operation began and ended, in seconds of the run.
pub fn times(operation: &Operation) -> String {
    let seconds = |time: Time| time.0 as f64 / 1e9;
    match operation.completed() {
        Some(completed) => format!("{:.4}..{:.4}", seconds(operation.invoked), seconds(completed)),
        None => format!("{:.4}..", seconds(operation.invoked)),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ringfort_check::Value;

    /// A stale read, with a put of unknown outcome that other clients have seen.
    pub fn violation() -> Violation {
        let value = |writer| Value { writer, number: 7 };
        let operation =
            |client, kind, invoked: u64, ending| Operation { client, kind, invoked: Time(invoked * 1_000_000), ending };
        let answered = |completed: u64| Ending::Answered(Time(completed * 1_000_000));
        let get = |writer| Kind::Get { found: Some(Found { content: value(writer).into(), version: None }) };
        Violation::of(&[
            operation(1, Kind::put(value(1)), 10, answered(12)),
            operation(2, Kind::put(value(2)), 20, Ending::Unknown),
            operation(3, get(2), 30, answered(32)),
            operation(FIRST_LOOKER, get(1), 5040, answered(5042)),
        ])
    }

    #[test]
    fn a_stale_read_is_drawn() {
        let drawn = draw(&violation());
        let expected = [
            "  c1    put 1.7: done                |----|                                     0.0100..0.0120",
            "  c2    put 2.7: unknown                        |----------------------------?  0.0200..",
            "  c3    get: 2.7                                     |-----|                    0.0300..0.0320",
            "> end   get: 1.7                                                |-----|         5.0400..5.0420",
        ];
        assert_eq!(drawn, expected, "\n{}", drawn.join("\n"));
        assert!(drawn.iter().all(|line| line.len() <= 100));
    }
}
