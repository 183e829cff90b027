//! The operations of a run's clients and their answers: the input of the checkers.
//!
//! The store is modelled as a map that is empty in the beginning. Operations, their endings and their values are those
//! of [`ringfort_check`]: every put writes a unique value, so that a get shows which put it saw.
//!
//! The [`Time`] of an operation is the number of an event: events are ordered by when they were *recorded*, not by
//! their simulated time alone. If a client receives an answer and invokes its next operation in the same simulated
//! nanosecond, the invocation is still later, so the checker never has to handle ties.

use ringfort_check::{Ending, Kind, Operation, Time};
use ringfort_core::time::Moment;
use std::collections::BTreeMap;
use std::fmt;

/// A client of a run. It has one operation in flight at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u32);

/// A key, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u32);

/// Names an operation of one [`History`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct OperationId(usize);

/// All operations of a run, in the order of their invocation.
///
/// # Invariants
///
/// - Time does not go backwards from one event to the next.
/// - An operation starts as [`Ending::Unknown`] and is settled at most once.
#[derive(Clone, Default, Debug)]
pub struct History {
    operations: Vec<(Key, Operation)>,
    /// When each event was recorded, by its number.
    moments: Vec<Moment>,
}

impl History {
    /// Records that a client invokes an operation. The outcome is unknown until one of the other methods settles it.
    pub fn invoke(&mut self, client: ClientId, key: Key, kind: Kind, now: Moment) -> OperationId {
        let invoked = self.event(now);
        self.operations.push((key, Operation { client: client.0, kind, invoked, ending: Ending::Unknown }));
        OperationId(self.operations.len() - 1)
    }

    /// Records the answer to an operation. `answer` is the operation together with its result.
    pub fn answered(&mut self, id: OperationId, answer: Kind, now: Moment) {
        let asked = &self.operations[id.0].1.kind;
        assert!(asked.is_same_question(&answer), "{asked:?} is answered by {answer:?}");
        let event = self.event(now);
        self.settle(id, Ending::Answered(event));
        self.operations[id.0].1.kind = answer;
    }

    /// Records the promise that the operation did not and will not take effect.
    pub fn failed(&mut self, id: OperationId) {
        self.settle(id, Ending::Refused);
    }

    pub fn key(&self, id: OperationId) -> Key {
        self.operations[id.0].0
    }

    pub fn operation(&self, id: OperationId) -> &Operation {
        &self.operations[id.0].1
    }

    /// How many operations there are.
    pub fn count(&self) -> usize {
        self.operations.len()
    }

    /// When an event of an operation was recorded.
    pub fn moment(&self, event: Time) -> Moment {
        self.moments[event.0 as usize]
    }

    /// The operations of each key, in the order of their invocation.
    pub fn by_key(&self) -> BTreeMap<Key, Vec<Operation>> {
        let mut keys: BTreeMap<Key, Vec<Operation>> = BTreeMap::new();
        for (key, operation) in &self.operations {
            keys.entry(*key).or_default().push(operation.clone());
        }
        keys
    }

    fn event(&mut self, at: Moment) -> Time {
        let last = self.moments.last().copied().unwrap_or_default();
        assert!(last <= at, "time went from {last:?} back to {at:?}");
        self.moments.push(at);
        Time(self.moments.len() as u64 - 1)
    }

    fn settle(&mut self, id: OperationId, ending: Ending) {
        let operation = &mut self.operations[id.0].1;
        assert!(operation.ending == Ending::Unknown, "an operation is settled once: {operation:?}");
        operation.ending = ending;
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

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_check::Value;

    const PUT: Kind = Kind::put(Value { writer: 1, number: 7 });
    const GET: Kind = Kind::Get { found: None };

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let mut history = History::default();
        let put = history.invoke(ClientId(1), Key(1), PUT, Moment(5));
        history.answered(put, PUT, Moment(5));
        let get = history.invoke(ClientId(1), Key(1), GET, Moment(5));
        history.answered(get, GET, Moment(5));
        let [put, get] = [put, get].map(|id| history.operation(id));
        assert!(put.invoked < put.completed().unwrap() && put.completed().unwrap() < get.invoked);
        assert_eq!(history.moment(get.invoked), Moment(5));
    }

    #[test]
    fn operations_are_unknown_until_settled() {
        let mut history = History::default();
        let put = history.invoke(ClientId(1), Key(1), PUT, Moment(5));
        assert_eq!(history.operation(put).ending, Ending::Unknown);
        history.failed(put);
        assert_eq!(history.operation(put).ending, Ending::Refused);
        assert_eq!(history.by_key().len(), 1);
    }

    #[test]
    #[should_panic(expected = "settled once")]
    fn settling_twice_is_our_bug() {
        let mut history = History::default();
        let put = history.invoke(ClientId(1), Key(1), PUT, Moment(5));
        history.answered(put, PUT, Moment(6));
        history.failed(put);
    }

    #[test]
    #[should_panic(expected = "is answered by")]
    fn an_answer_to_another_question_is_our_bug() {
        let mut history = History::default();
        let put = history.invoke(ClientId(1), Key(1), PUT, Moment(5));
        history.answered(put, GET, Moment(6));
    }
}
