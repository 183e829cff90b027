//! A stale read is not staler than promised: it reflects everything that was acknowledged [`STALENESS_BOUND`] ago.
//! Added to the bound are the time for which a leader may not know that it is deposed, and the time for which its
//! heartbeat may be delayed (docs/guarantees.md, `Get`, stale).
//!
//! The reads happen at any node at any time, directly from its view, as the shell's threads do.

use super::super::client::key_bytes;
use super::super::faults::worker_stall;
use super::super::{Cluster, Wake};
use super::Node;
use crate::history::Key;
use crate::invariant::{Invariant, Violation};
use ringfort_core::kv::Get;
use ringfort_core::limits::{MAX_ELECTION_TICKS, STALENESS_BOUND};
use ringfort_core::request::Reply;
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The time between two reads.
const GAP: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(100);

/// By how much a clock that is within its bound may stretch [`STALENESS_BOUND`].
const DRIFT: Duration = Duration::from_millis(STALENESS_BOUND.as_millis() as u64 / 100);

impl Cluster {
    pub(in super::super) fn begin_stale_reads(&mut self) {
        self.agenda.put(self.now, Wake::ReadStale);
    }

    pub(in super::super) fn read_stale(&mut self) -> Result<(), Violation> {
        if !self.faults.is_active() {
            return Ok(());
        }
        let after = self.stale_reads.duration(&GAP);
        self.agenda.put(self.now + after, Wake::ReadStale);
        let key = Key(self.stale_reads.below(self.options.keys as u64) as u32);
        let id = NodeId(1 + self.stale_reads.below(self.nodes.len() as u64));
        let Some(node) = self.nodes.get(&id).filter(|node| node.stalled_until <= self.now) else { return Ok(()) };
        let Some(revision) = revision_at(node, key, self.now) else { return Ok(()) };
        let link = &self.options.link;
        let (faults, timing) = (&self.options.faults, self.options.timing);
        let stall = faults.stalls.as_ref().map_or(Duration::ZERO, |stalls| *stalls.length.end());
        let worker_stall = faults.worker_stalls.as_ref().map_or(Duration::ZERO, |_| *worker_stall(timing).end());
        let held_up = stall + worker_stall + *link.delay.end() + *link.straggle.end();
        // A leader that hears no follower remains leader for at most two election timeouts, unless it stalls.
        let deposed = timing.tick() * 2 * MAX_ELECTION_TICKS as u32;
        let bound = STALENESS_BOUND + DRIFT + deposed + held_up;
        let must_have = Moment(self.now.0.saturating_sub(bound.as_nanos() as u64));
        let acknowledged = self.clients.acknowledged().revision_at(key, must_have);
        *self.counts.entry("stale reads").or_default() += 1;
        let is_deleted = revision == 0 && self.clients.acknowledged().may_be_absent_after(key, acknowledged);
        if revision >= acknowledged || is_deleted {
            return Ok(());
        }
        let what = format!(
            "a stale read of key {key} at node {id} found revision {revision}, and {acknowledged} was acknowledged \
             before {:.3} s",
            must_have.0 as f64 / 1e9
        );
        Err(Invariant::BoundedStaleness.broken(what))
    }
}

/// The revision of a key that a stale read finds; zero if the key is absent, `None` if the read is refused.
fn revision_at(node: &Node, key: Key, now: Moment) -> Option<u64> {
    let running = node.running()?;
    let key = key_bytes(key);
    let view = running.view(running.topology().shards.shard_of_key(&key))?;
    let clock = || node.clock.read(now).moment;
    let reply = view.read_stale(clock, STALENESS_BOUND, &Get { key }.into())?;
    let record = Reply::Query(reply).to::<Get>()?;
    Some(record.map_or(0, |record| record.modify_revision))
}
