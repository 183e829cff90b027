//! What a client sees of a key never goes back: monotonic reads, and reading one's own writes (Terry et al., "Session
//! guarantees for weakly consistent replicated data", 1994).
//!
//! The protocol has no sessions. The check compares the revisions in each client's sequence of linearizable operations:
//! it follows from linearizability, but costs nothing and names the client. Stale reads may go back
//! (docs/guarantees.md); [`super::bounded_staleness`] checks how far.

use super::AcknowledgedWrites;
use crate::history::{ClientId, Key};
use crate::invariant::{Invariant, Violation};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct SessionMonotonicity {
    seen: BTreeMap<(ClientId, Key), u64>,
}

impl SessionMonotonicity {
    /// A client has read this revision of the key, or its write with this revision was acknowledged.
    pub fn saw(&mut self, client: ClientId, key: Key, revision: u64) -> Result<(), Violation> {
        let before = self.seen.insert((client, key), revision).unwrap_or_default();
        if before <= revision {
            return Ok(());
        }
        let what = format!("client {client} saw revision {before} of key {key}, and then {revision}");
        Err(Invariant::SessionMonotonicity.broken(what))
    }

    /// A client has found the key absent: there must be a delete that may have come after the revision that it saw
    /// before.
    pub fn saw_nothing(&self, client: ClientId, key: Key, writes: &AcknowledgedWrites) -> Result<(), Violation> {
        let before = self.seen.get(&(client, key)).copied().unwrap_or_default();
        if writes.may_be_absent_after(key, before) {
            return Ok(());
        }
        let what = format!("client {client} saw revision {before} of key {key}, and then nothing");
        Err(Invariant::SessionMonotonicity.broken(what))
    }
}
