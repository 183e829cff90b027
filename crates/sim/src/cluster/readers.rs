//! Readers beside stalled workers.
//!
//! A node's readers run on their own threads and answer from its views for as long as the lease lasts, whatever the
//! workers do. So events that a stalled worker has not handled must not make their answers wrong. Each read is an
//! operation in the history, which must be linearizable with it. Most reads are of the key written last in a shard
//! whose lease the node holds: if another node has acknowledged that write while this node's workers were stalled, the
//! read shows it.

use super::client::{decode, key_bytes};
use super::node::Node;
use super::{Cluster, Wake};
use crate::history::{ClientId, Key};
use ringfort_check::Content;
use ringfort_core::kv::Get;
use ringfort_core::request::Reply;
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The time between two reads.
const GAP: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(10);

/// Readers are clients in the history with numbers from this one on, one per node.
const FIRST_READER: u32 = 1_000;

impl Cluster {
    /// Reads at the node through its views until `until`.
    pub(super) fn read_beside(&mut self, id: NodeId, until: Moment) {
        if self.now >= until || !self.faults.is_active() {
            return;
        }
        let after = self.readers.duration(&GAP);
        let any = Key(self.readers.below(self.options.keys as u64) as u32);
        let looks_anywhere = self.readers.chance(300);
        self.agenda.put(self.now + after, Wake::ReadBeside(id, until));
        let Some(node) = self.nodes.get(&id).filter(|node| node.stalled_until <= self.now) else { return };
        let latest = self.clients.latest_written().filter(|_| !looks_anywhere);
        let read = latest.chain([any]).find_map(|key| Some((key, read_leased(node, key, self.now)?)));
        let Some((key, read)) = read else { return };
        self.count("reads beside a stalled worker");
        self.clients.has_read(ClientId(FIRST_READER + id.0 as u32), key, read, self.now);
    }
}

/// What a reader finds under the lease; `None` if there is no lease.
fn read_leased(node: &Node, key: Key, now: Moment) -> Option<Option<Content>> {
    let running = node.running()?;
    let key = key_bytes(key);
    let view = running.view(running.topology().shards.shard_of_key(&key))?;
    let reply = view.read_leased(|| node.clock.read(now).moment, &Get { key }.into())?;
    let record = Reply::Query(reply).to::<Get>()?;
    Some(record.map(|record| decode(&record.value)))
}
