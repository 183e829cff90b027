//! What the clients of a run asked for and were told: the input of the checkers.
//!
//! The store is seen as a map of keys that are absent in the beginning. Every put writes a value that no other put of that
//! key writes, so that a get tells which put it saw. A delete tells whether there was something to delete.
//!
//! An operation ends in one of five ways, and the difference between the last two is the point of the exercise:
//!
//! | outcome | what the client knows | when it may take effect |
//! |---|---|---|
//! | [`Outcome::Written`] | the put was acknowledged | once, between invocation and completion |
//! | [`Outcome::Read`] | the get was answered | once, between invocation and completion |
//! | [`Outcome::Deleted`] | the delete was acknowledged | once, between invocation and completion |
//! | [`Outcome::Failed`] | the system promised that nothing happened | never |
//! | [`Outcome::Unknown`] | nothing: no answer, or an answer that says so | at any time after invocation, even after the client gave up, or never |
//!
//! Events are ordered by when they were *recorded*, not by their time alone: a client that hears an answer and asks
//! again in the same simulated nanosecond has still asked later. So there are no ties for a checker to be lenient about.

use ringfort_core::time::Moment;
use std::collections::BTreeMap;
use std::fmt;

/// A client of a run. It has one operation in flight at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u32);

/// A register, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u32);

/// A value, put at most once to each key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Value(pub u64);

impl Value {
    /// What was read and can't have been put by any client.
    pub const FOREIGN: Value = Value(u64::MAX);
}

/// When an invocation or a completion was recorded. Ordered, without ties, by the order of recording.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Event {
    /// From 1.
    pub(crate) order: u64,
    pub at: Moment,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Put(Value),
    Get,
    Delete,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Written(Event),
    Read(Event, Option<Value>),
    /// And whether the key was there.
    Deleted(Event, bool),
    Failed,
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    pub client: ClientId,
    pub key: Key,
    pub action: Action,
    pub invoked: Event,
    pub outcome: Outcome,
}

impl Operation {
    /// When the client was told, if it was.
    pub fn completed(&self) -> Option<Event> {
        match self.outcome {
            Outcome::Written(event) | Outcome::Read(event, _) | Outcome::Deleted(event, _) => Some(event),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }
}

/// Names an operation of one [`History`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct OperationId(usize);

/// All operations of a run, in the order of their invocation.
///
/// # Invariants
///
/// - Time does not go backwards from one event to the next.
/// - An operation starts as [`Outcome::Unknown`] and is settled at most once.
#[derive(Clone, Default, Debug)]
pub struct History {
    operations: Vec<Operation>,
    events: u64,
    last_at: Moment,
}

impl History {
    /// Records that a client asks. The outcome is unknown until one of the other methods says otherwise.
    pub fn invoke(&mut self, client: ClientId, key: Key, action: Action, now: Moment) -> OperationId {
        let invoked = self.event(now);
        self.operations.push(Operation { client, key, action, invoked, outcome: Outcome::Unknown });
        OperationId(self.operations.len() - 1)
    }

    /// Records that a put was acknowledged.
    pub fn written(&mut self, id: OperationId, now: Moment) {
        assert!(matches!(self.operations[id.0].action, Action::Put(_)), "only a put is acknowledged as written");
        let event = self.event(now);
        self.settle(id, Outcome::Written(event));
    }

    /// Records that a get was answered. `None` is the answer that the key is absent.
    pub fn read(&mut self, id: OperationId, value: Option<Value>, now: Moment) {
        assert!(self.operations[id.0].action == Action::Get, "only a get reads");
        let event = self.event(now);
        self.settle(id, Outcome::Read(event, value));
    }

    /// Records that a delete was acknowledged, and whether the key was there.
    pub fn deleted(&mut self, id: OperationId, existed: bool, now: Moment) {
        assert!(self.operations[id.0].action == Action::Delete, "only a delete deletes");
        let event = self.event(now);
        self.settle(id, Outcome::Deleted(event, existed));
    }

    /// Records the promise that the operation did not and will not take effect.
    pub fn failed(&mut self, id: OperationId) {
        self.settle(id, Outcome::Failed);
    }

    pub fn operation(&self, id: OperationId) -> &Operation {
        &self.operations[id.0]
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations of each key, in the order of their invocation.
    pub fn by_key(&self) -> BTreeMap<Key, Vec<Operation>> {
        let mut keys: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(operation.key).or_default().push(*operation);
        }
        keys
    }

    fn event(&mut self, at: Moment) -> Event {
        assert!(self.last_at <= at, "time went from {:?} back to {at:?}", self.last_at);
        self.last_at = at;
        self.events += 1;
        Event { order: self.events, at }
    }

    fn settle(&mut self, id: OperationId, outcome: Outcome) {
        let operation = &mut self.operations[id.0];
        assert!(operation.outcome == Outcome::Unknown, "an operation is settled once: {operation:?}");
        operation.outcome = outcome;
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let mut history = History::default();
        let put = history.invoke(ClientId(1), Key(1), Action::Put(Value(7)), Moment(5));
        history.written(put, Moment(5));
        let get = history.invoke(ClientId(1), Key(1), Action::Get, Moment(5));
        history.read(get, None, Moment(5));
        let [put, get] = history.operations() else { panic!("two operations") };
        assert!(put.invoked < put.completed().unwrap() && put.completed().unwrap() < get.invoked);
    }

    #[test]
    fn operations_are_unknown_until_settled() {
        let mut history = History::default();
        let put = history.invoke(ClientId(1), Key(1), Action::Put(Value(7)), Moment(5));
        assert_eq!(history.operations()[0].outcome, Outcome::Unknown);
        history.failed(put);
        assert_eq!(history.operations()[0].outcome, Outcome::Failed);
        assert_eq!(history.by_key().len(), 1);
    }

    #[test]
    #[should_panic(expected = "settled once")]
    fn settling_twice_is_our_bug() {
        let mut history = History::default();
        let put = history.invoke(ClientId(1), Key(1), Action::Put(Value(7)), Moment(5));
        history.written(put, Moment(6));
        history.failed(put);
    }
}
