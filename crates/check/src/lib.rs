//! A linearizability checker: whether the answers that a store's clients received can be explained.
//!
//! The input is the history of **one object**, for a key-value store one key: operations with their times and answers,
//! see [`Operation`]. Linearizability is local (Herlihy and Wing, 1990), so a store is checked key by key, and a key
//! can be checked as soon as no client uses it any more. [`judge`] searches for an order of the operations in which one
//! object, executing one operation at a time, would have given the same answers. If there is none, [`Violation::of`]
//! removes all operations and answers that the contradiction does not need, and reports what is wrong with the rest.
//!
//! | module | |
//! |---|---|
//! | `model` | the trait `Model`: what an object does, and hints that keep the search short |
//! | `search` | the search for an order, for every model |
//! | `shrink` | reduces a history without an order to the few operations that show it, for every model |
//! | `key_value` | the model of a key: put, get, delete, increment and append, with versions |
//! | `violation` | describes what is wrong with a key's history |
//!
//! The simulator, the chaos playground and `ringfort verify` all use it. The problem is NP-complete, so the search has
//! a budget and may end in [`Verdict::Undecided`].
//!
//! The crate consists of pure functions and uses only the standard library.

mod key_value;
mod model;
mod operation;
mod search;
mod shrink;
mod violation;

#[cfg(test)]
mod exhaustive;

pub use key_value::{Base, Content, Found, Kind, Value};
pub use operation::{Ending, Operation, Time};
pub use search::{MAX_OPERATIONS, Verdict};
pub use violation::{Reason, Violation};

/// Judges the history of one key, in any order.
///
/// # Panics
///
/// If there are more than [`MAX_OPERATIONS`].
pub fn judge(operations: &[Operation]) -> Verdict {
    search::judge::<key_value::KeyValue>(operations)
}

/// The earliest completion up to which the history of one key cannot be explained, if there is one.
pub fn first_unexplained(operations: &[Operation]) -> Option<Time> {
    shrink::first_unexplained::<key_value::KeyValue>(operations)
}
