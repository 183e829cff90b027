//! How much clients may have under way in one node at the same time.
//!
//! An overloaded node that takes everything in answers all of it too late: each request waits behind more than can be done
//! before its deadline. So the surplus is refused at once, and what is taken in is done in time. How much is too much
//! depends on the machine and the disk, so it is measured by what it causes: where even the luckiest write of the last
//! [`LOOK_INTERVAL`] took [`STANDING_WAIT`], a queue stands that does not go away by itself (the idea of CoDel, RFC
//! 8289), and no more writes are taken in than [`FEW_REQUESTS`] until it has gone. Only writes that were done count: those
//! of a shard without a quorum say nothing about the others.

use crate::shell::Shell;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Requests of all clients together; more are refused as overload, however fast the node is.
pub const MAX_REQUESTS: usize = 8192;

/// Bytes of keys and values in them; more are refused as overload.
pub const MAX_BYTES: usize = 256 << 20;

/// Requests that are taken in while a queue stands: what a sync of the log needs to be worth it.
pub const FEW_REQUESTS: usize = 256;

/// More than a batch waits for a disk, and well below the time limits that clients set: under twice the load that a node can
/// carry, the queue that this lets grow before it is noticed is twice as long.
const STANDING_WAIT: Duration = Duration::from_millis(500);

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

const _: () = assert!(FEW_REQUESTS < MAX_REQUESTS);

#[derive(Debug)]
pub struct InFlight {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// The shortest time that a write took since the last look, in microseconds; all ones where none was done.
    least_wait_us: AtomicU64,
    queue_stands: AtomicBool,
}

/// A request that was taken in; it is over when this is dropped.
#[derive(Debug)]
pub struct Taken<'a> {
    counts: &'a InFlight,
    bytes: usize,
    begun: Instant,
}

impl Default for InFlight {
    fn default() -> InFlight {
        InFlight {
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            least_wait_us: AtomicU64::new(u64::MAX),
            queue_stands: AtomicBool::new(false),
        }
    }
}

impl InFlight {
    /// Takes in a read that may hold so many bytes, or nothing at the bounds.
    pub fn take_read(&self, bytes: usize) -> Option<Taken<'_>> {
        self.take(bytes, MAX_REQUESTS)
    }

    /// Takes in a write of so many bytes, or nothing at the bounds.
    pub fn take_write(&self, bytes: usize) -> Option<Taken<'_>> {
        let most = if self.queue_stands.load(Ordering::Relaxed) { FEW_REQUESTS } else { MAX_REQUESTS };
        self.take(bytes, most)
    }

    fn take(&self, bytes: usize, most: usize) -> Option<Taken<'_>> {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = Taken { counts: self, bytes, begun: Instant::now() };
        (requests < most && held + bytes <= MAX_BYTES).then_some(taken)
    }

    /// Looks at what was done since the last time. Where nothing was, nothing is known that was not known before.
    fn look(&self) {
        let least_us = self.least_wait_us.swap(u64::MAX, Ordering::Relaxed);
        if least_us != u64::MAX {
            self.queue_stands.store(Duration::from_micros(least_us) >= STANDING_WAIT, Ordering::Relaxed);
        }
    }
}

impl Taken<'_> {
    /// The write was done.
    pub fn write_done(&self) {
        let wait_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counts.least_wait_us.fetch_min(wait_us, Ordering::Relaxed);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.counts.requests.fetch_sub(1, Ordering::Relaxed);
        self.counts.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Looks for queues for as long as the node is there.
pub async fn watch_queue(shell: Weak<Shell>) {
    while let Some(shell) = shell.upgrade() {
        shell.in_flight.look();
        drop(shell);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_refused_until_something_is_over() {
        let counts = InFlight::default();
        let mut taken: Vec<_> = (0..MAX_REQUESTS).map(|_| counts.take_read(1).expect("there is room")).collect();
        assert!(counts.take_write(1).is_none());
        taken.pop();
        assert!(counts.take_write(1).is_some());
        drop(taken);
        let large = counts.take_write(MAX_BYTES).expect("all of it fits");
        assert!(counts.take_read(1).is_none());
        drop(large);
        assert!(counts.take_read(1).is_some());
    }

    #[test]
    fn while_a_queue_stands_few_writes_are_taken_in() {
        let counts = InFlight::default();
        let done_after = |waits: &[Duration]| {
            for wait in waits {
                let mut taken = counts.take_write(0).expect("there is room");
                taken.begun -= *wait;
                taken.write_done();
            }
            counts.look();
            let taken: Vec<_> = (0..=FEW_REQUESTS).map_while(|_| counts.take_write(0)).collect();
            taken.len() <= FEW_REQUESTS
        };
        assert!(!done_after(&[]));
        assert!(!done_after(&[STANDING_WAIT, STANDING_WAIT / 2]), "one was lucky");
        assert!(done_after(&[STANDING_WAIT, 2 * STANDING_WAIT]));
        assert!(done_after(&[]), "nothing has been done since");
        assert!(counts.take_read(0).is_some());
        assert!(!done_after(&[Duration::ZERO]));
    }
}
