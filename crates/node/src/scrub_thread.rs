//! The scrubber: walks over this node's maps, and compares them with what was written.
//!
//! It has its own thread, so that neither requests nor shards wait for it, and the system can schedule it when the node
//! is idle.

use crate::clock;
use crate::inbox::Event;
use crate::metrics::Metrics;
use crate::routing::Routing;
use crate::workers::Workers;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use ringfort_core::divergence::{QuarantineReason, Scrubber};

/// Runs until the sender of `stopped` is dropped.
pub fn run(routing: &Routing, workers: &Workers, metrics: &Metrics, mut scrubber: Scrubber, stopped: Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(clock::until(scrubber.next_step())) {
        let before = scrubber.walks();
        let shards = routing.topology().shards;
        let damaged = scrubber.handle_step(clock::moment(), shards, |shard| routing.view(shard));
        metrics.divergence.scrubbed.inc_by(scrubber.walks() - before);
        if let Some((shard, replica)) = damaged {
            workers.of(shard).push_event(Event::Quarantine { shard, replica, why: QuarantineReason::Memory });
        }
    }
}
