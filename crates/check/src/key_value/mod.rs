//! The model of a key, which is absent at first and can be put, deleted, incremented and appended to.
//!
//! A key holds nothing, a number, or a text. Only increments produce a number: from nothing, which counts as 0, or from
//! a number. Everything else is a text: a value that was put, or a value that was appended to nothing or to a number,
//! followed by the values appended since. An increment of a text, or beyond 64 bits, fails and changes nothing; it is
//! recorded as [`Ending::Refused`].
//!
//! **Values are unique**: a put or an append writes a value that no other operation writes, and its bytes do not look
//! like a number. So the key holds a given text at most once, and each answer that shows it is a sight of the search.
//! The text that was appended to is the parent of the resulting text. Numbers can come back, so they are not sights.
//!
//! **Differences that no answer shows are ignored.** All texts that no get reads are treated as one text; versions and
//! lengths are tracked only if an answer contains one.
//!
//! There is no separate model for registers: a history of puts, gets and deletes has no numbers, parents or lengths, so
//! the search proceeds as for a register of unique values.
//!
//! [`Ending::Refused`]: crate::Ending::Refused

mod kind;
mod removable;

#[cfg(test)]
pub use kind::short;
pub use kind::{Base, Content, Found, Kind, Value};

use crate::model::Model;
use crate::operation::{Operation, Time};
use std::collections::BTreeMap;

/// What one history shows about a key.
pub struct KeyValue {
    /// The texts that are read, and their prefixes: from the held content and the written value to the number of the
    /// resulting text.
    texts: BTreeMap<(Held, Value), usize>,
    /// For each text, the number of the text that was appended to.
    parents: Vec<Option<usize>>,
    /// For each value that is read, when the first get of it completed.
    first_reads: BTreeMap<Value, Time>,
    counts_versions: bool,
    counts_bytes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Held {
    Nothing,
    /// A text that no get reads, nor any text that results from appending to it.
    Unread,
    Text(usize),
    Number(i64),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct State {
    held: Held,
    /// 0 if the key is absent, and always if no answer contains a version.
    version: u64,
    /// 0 if the key is absent, and always if no answer contains a length.
    bytes: u64,
}

/// The effect of an operation, and its answer, if it has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Action {
    Put {
        held: Held,
        bytes: u64,
        version: Option<u64>,
    },
    Get {
        held: Held,
        version: Option<u64>,
    },
    Delete {
        found: Option<bool>,
    },
    /// `succeeds`: it has an answer, so it did not fail.
    Increment {
        by: i64,
        succeeds: bool,
        number: Option<i64>,
    },
    /// `value`: `None` if no get reads it.
    Append {
        value: Option<Value>,
        bytes: u64,
        length: Option<u64>,
    },
}

/// A part of an answer that can be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    Version,
    /// Whether a delete found the key.
    Found,
    /// The number in an increment's answer.
    Number,
    /// The length in an append's answer.
    Length,
}

impl Model for KeyValue {
    type Kind = Kind;
    type State = State;
    type Action = Action;
    type Claim = Claim;

    const CLAIMS: &'static [Claim] = &[Claim::Version, Claim::Found, Claim::Number, Claim::Length];

    fn of(history: &[Operation]) -> KeyValue {
        let counts_bytes = history.iter().any(|operation| operation.saw_length().is_some());
        let counts_versions = history.iter().any(|operation| operation.saw_version().is_some());
        let (texts, parents, first_reads) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let mut model = KeyValue { texts, parents, first_reads, counts_versions, counts_bytes };
        for get in history {
            if let (Some(content), Some(completed)) = (get.read(), get.completed()) {
                model.add_text(content);
                for value in content.values() {
                    let first = model.first_reads.entry(value).or_insert(completed);
                    *first = completed.min(*first);
                }
            }
        }
        model
    }

    fn initial(&self) -> State {
        State { held: Held::Nothing, version: 0, bytes: 0 }
    }

    fn action(&self, operation: &Operation) -> Action {
        let is_answered = operation.is_answered();
        let bytes = |bytes: u32| if self.counts_bytes { u64::from(bytes) } else { 0 };
        match &operation.kind {
            Kind::Put { value, bytes: length, version } => {
                let version = version.filter(|_| is_answered);
                Action::Put { held: self.text(Held::Nothing, *value), bytes: bytes(*length), version }
            }
            Kind::Get { found: None } => Action::Get { held: Held::Nothing, version: None },
            Kind::Get { found: Some(found) } => Action::Get { held: self.held(&found.content), version: found.version },
            Kind::Delete { found } => Action::Delete { found: found.filter(|_| is_answered) },
            Kind::Increment { by, number } => {
                Action::Increment { by: *by, succeeds: is_answered, number: number.filter(|_| is_answered) }
            }
            Kind::Append { value, bytes: length, length: told } => {
                let value = self.first_reads.contains_key(value).then_some(*value);
                Action::Append { value, bytes: bytes(*length), length: told.filter(|_| is_answered) }
            }
        }
    }

    fn step(&self, state: &State, action: &Action) -> Option<State> {
        let fits = |claim: Option<u64>, truth: u64| claim.is_none_or(|claim| claim == truth);
        let version = if self.counts_versions { state.version + 1 } else { 0 };
        match *action {
            Action::Put { held, bytes, version: told } => fits(told, version).then_some(State { held, version, bytes }),
            Action::Get { held, version: told } => (held == state.held && fits(told, state.version)).then_some(*state),
            Action::Delete { found } => {
                let fits = found.is_none_or(|found| found == (state.held != Held::Nothing));
                fits.then_some(self.initial())
            }
            Action::Increment { by, succeeds, number: told } => {
                let before = match state.held {
                    Held::Nothing => Some(0),
                    Held::Number(number) => Some(number),
                    Held::Unread | Held::Text(_) => None,
                };
                let Some(number) = before.and_then(|before: i64| before.checked_add(by)) else {
                    return (!succeeds).then_some(*state);
                };
                let bytes = if self.counts_bytes { digits(number) } else { 0 };
                told.is_none_or(|told| told == number).then_some(State { held: Held::Number(number), version, bytes })
            }
            Action::Append { value, bytes, length } => {
                let held = value.map_or(Held::Unread, |value| self.text(state.held, value));
                let bytes = state.bytes + bytes;
                fits(length, bytes).then_some(State { held, version, bytes })
            }
        }
    }

    fn only_observes(operation: &Operation) -> bool {
        matches!(operation.kind, Kind::Get { .. }) || operation.saw_absence()
    }

    fn happened_by(&self, operation: &Operation) -> Option<Time> {
        self.first_reads.get(&operation.kind.written()?).copied()
    }

    fn sight_of_state(&self, state: &State) -> Option<usize> {
        state.held.text()
    }

    fn sight_of_action(&self, action: &Action) -> Option<usize> {
        match action {
            Action::Get { held, .. } => held.text(),
            _ => None,
        }
    }

    fn parent(&self, sight: usize) -> Option<usize> {
        self.parents[sight]
    }

    fn forget(kind: &mut Kind, claim: Claim) {
        match (kind, claim) {
            (Kind::Put { version, .. }, Claim::Version) => *version = None,
            (Kind::Get { found: Some(Found { version, .. }) }, Claim::Version) => *version = None,
            (Kind::Delete { found }, Claim::Found) => *found = None,
            (Kind::Increment { number, .. }, Claim::Number) => *number = None,
            (Kind::Append { length, .. }, Claim::Length) => *length = None,
            _ => {}
        }
    }

    fn is_removable(history: &[Operation], number: usize) -> bool {
        removable::is_removable(history, number)
    }
}

impl KeyValue {
    fn add_text(&mut self, content: &Content) {
        let mut held = content.start();
        for value in content.values() {
            let next = self.texts.len();
            let number = *self.texts.entry((held, value)).or_insert(next);
            if number == next {
                self.parents.push(held.text());
            }
            held = Held::Text(number);
        }
    }

    /// The content after `value` was appended to `held`.
    fn text(&self, held: Held, value: Value) -> Held {
        self.texts.get(&(held, value)).map_or(Held::Unread, |number| Held::Text(*number))
    }

    fn held(&self, content: &Content) -> Held {
        content.values().fold(content.start(), |held, value| self.text(held, value))
    }
}

impl Held {
    fn text(self) -> Option<usize> {
        match self {
            Held::Text(number) => Some(number),
            Held::Nothing | Held::Unread | Held::Number(_) => None,
        }
    }
}

impl Content {
    /// The content before its first value was written.
    fn start(&self) -> Held {
        match self.base {
            Base::Value(_) => Held::Nothing,
            Base::Number(number) => Held::Number(number),
        }
    }
}

/// The length of a number in decimal.
fn digits(number: i64) -> u64 {
    let digits = number.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
    u64::from(digits) + u64::from(number < 0)
}
