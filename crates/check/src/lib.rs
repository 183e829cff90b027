//! Whether what the clients of a key-value store were told could be true.
//!
//! The input is the history of **one key**: operations with their times and answers, see [`Operation`]. Linearizability
//! is local (Herlihy and Wing, 1990), so a store is checked key by key, and a key can be checked as soon as nobody asks
//! for it any more. [`judge`] looks for an order of the operations in which one map, doing one thing at a time, would
//! have given the same answers (`search.rs`). Where there is none, [`Violation::of`] takes away all that does not matter
//! (`shrink.rs`) and says what is wrong with the rest (`violation.rs`).
//!
//! It is the one judge of the simulator, of faults on real processes and of whoever else has clients to believe or not. The
//! problem is NP-complete, so the search has a budget and may end in [`Verdict::Undecided`].
//!
//! Pure functions, the standard library and nothing else.

mod operation;
mod search;
mod shrink;
mod violation;

#[cfg(test)]
mod exhaustive;

pub use operation::{Ending, Found, Kind, Operation, Time, Value};
pub use search::{MAX_OPERATIONS, Verdict, judge};
pub use shrink::first_unexplained;
pub use violation::{Reason, Violation};
