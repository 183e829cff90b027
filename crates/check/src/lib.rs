//! Whether what the clients of a key-value store were told could be true.
//!
//! The input is the history of **one key**: operations with their times and answers, see [`Operation`]. Linearizability
//! is local (Herlihy and Wing, 1990), so a store is checked key by key, and a key can be checked as soon as nobody asks
//! for it any more. [`judge`] looks for an order of the operations in which one map, doing one thing at a time, would
//! have given the same answers (`search.rs`). Where there is none, [`Violation::of`] takes away all that does not matter
//! (`shrink.rs`) and says what is wrong with the rest (`violation.rs`).
//!
//! Unlike the simulator's checker of registers, this one knows deletes and versions, and pays for it: the problem is
//! NP-complete, so the search has a budget and may end in [`Verdict::Undecided`]. Histories of some hundred operations
//! by a few clients, of which a handful have no known outcome, take milliseconds.
//!
//! Pure functions, the standard library and nothing else.

mod operation;
mod search;
mod set;
mod shrink;
mod violation;

#[cfg(test)]
mod exhaustive;

pub use operation::{Ending, Found, Kind, Operation, Time, Value};
pub use search::{MAX_OPERATIONS, Verdict, judge};
pub use violation::{Reason, Violation};
