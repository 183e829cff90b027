//! Bounds the cost of operator calls: few run at a time.

use ringfort_proto::outcome;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// Calls of one kind that run at the same time; others wait, and are refused as overload at their deadline.
const CALLS_AT_ONCE: usize = 16;

/// The kinds are bounded separately: changes that wait for a quorum must not block the status that shows why, and
/// operators must not make this node look silent to the others.
pub struct OperatorCalls {
    pub looks: Bound,
    pub looks_of_nodes: Bound,
    pub changes: Bound,
}

impl Default for OperatorCalls {
    fn default() -> OperatorCalls {
        let bound = || Bound(Semaphore::new(CALLS_AT_ONCE));
        OperatorCalls { looks: bound(), looks_of_nodes: bound(), changes: bound() }
    }
}

pub struct Bound(Semaphore);

impl Bound {
    /// Waits for a turn, which ends when the permit is dropped.
    pub async fn take(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Status> {
        match timeout_at(deadline, self.0.acquire()).await {
            Ok(turn) => Ok(turn.expect("the semaphore is never closed")),
            Err(_) => Err(outcome::overloaded("too many calls of this kind are waiting on this node; retry later")),
        }
    }
}
