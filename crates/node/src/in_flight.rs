//! Bounds on what clients may have in flight in one node.
//!
//! Without a bound, an overloaded node accepts everything and answers all of it too late: each request waits behind
//! more work than can be done before its deadline. Two bounds limit the queue to a few seconds of work. The cheaper one
//! limits the requests of one connection: HTTP/2 makes the client wait, and the node never sees the surplus. The one
//! here covers many connections; it refuses requests, and a refusal costs almost as much CPU time as a small write.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests of all clients together; further ones are refused as overload. This is several times what is needed to keep
/// the disk's syncs busy, and what one CPU core executes in a fraction of a second.
pub const MAX_REQUESTS: usize = 8192;

/// Bytes of keys and values in these requests; further ones are refused as overload.
pub const MAX_BYTES: usize = 256 << 20;

#[derive(Debug, Default)]
pub struct InFlight {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// Requests that were admitted. They end when this is dropped.
#[derive(Debug)]
pub struct Taken<'a> {
    counts: &'a InFlight,
    requests: usize,
    bytes: usize,
}

impl InFlight {
    /// Requests that are under way.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Admits this many requests, which together hold this many bytes; `None` if that would exceed a bound.
    pub fn take(&self, requests: usize, bytes: usize) -> Option<Taken<'_>> {
        let others = self.requests.fetch_add(requests, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = Taken { counts: self, requests, bytes };
        (others + requests <= MAX_REQUESTS && held + bytes <= MAX_BYTES).then_some(taken)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.counts.requests.fetch_sub(self.requests, Ordering::Relaxed);
        self.counts.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_refused_until_something_is_over() {
        let counts = InFlight::default();
        let mut taken: Vec<_> = (0..MAX_REQUESTS).map(|_| counts.take(1, 1).expect("there is room")).collect();
        assert!(counts.take(1, 1).is_none());
        taken.pop();
        assert!(counts.take(2, 2).is_none(), "two find no room");
        assert!(counts.take(1, 1).is_some());
        drop(taken);
        let large = counts.take(1, MAX_BYTES).expect("all of it fits");
        assert!(counts.take(1, 1).is_none());
        drop(large);
        assert!(counts.take(1, 1).is_some());
    }
}
