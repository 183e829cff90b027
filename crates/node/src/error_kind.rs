//! The kinds of errors that clients, protocols and metrics tell apart.

/// What an error means to the caller. Each protocol maps these to its own codes, and the metrics count by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing was applied: this node can't execute the call now. Another node may be able to.
    Unavailable,
    /// Nothing was applied: a limit is reached. A later retry may succeed.
    Overloaded,
    /// Nothing was applied: the call itself is invalid, and a retry would fail too.
    Invalid,
    /// Nothing was applied: the call can't be executed on the current data. A retry fails too until the data changes.
    Refused,
    /// A write may or may not have been applied, and may still be.
    Unknown,
}
