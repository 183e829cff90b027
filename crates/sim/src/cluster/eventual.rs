//! Writers of the eventual keyspace. What must hold of their writes in the end is checked in
//! `invariants/no_resurrection.rs` and `invariants/gossip_convergence.rs`.
//!
//! Puts, each with a unique value, and deletes go to any node at any time.

use super::node::Message;
use super::{Cluster, Wake};
use crate::history::ClientId;
use crate::network::Endpoint;
use crate::random::Random;
use bytes::Bytes;
use ringfort_core::time::HlcTimestamp;
use ringfort_core::types::NodeId;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The time between two writes.
const GAP: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_millis(400);

/// Few keys, so that they are overwritten and deleted often.
const KEYS: u64 = 5;

pub(super) struct Eventual {
    random: Random,
    active: bool,
    /// Writes so far, including those that were left out.
    begun: u64,
    writes: Vec<Write>,
}

pub(super) struct Write {
    pub key: Bytes,
    /// `None` deletes the key.
    pub value: Option<Bytes>,
    /// The answer: the write's timestamp, and the node that accepted it.
    pub written: Option<(HlcTimestamp, NodeId)>,
}

impl Eventual {
    pub fn new(random: Random) -> Eventual {
        Eventual { random, active: false, begun: 0, writes: Vec::new() }
    }

    /// Writes that have begun, including those that were left out.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// A node has answered a write.
    pub fn written(&mut self, id: usize, timestamp: HlcTimestamp, node: NodeId) {
        self.writes[id].written = Some((timestamp, node));
    }

    /// A node has lost its disk. Writes that it acknowledged but had not passed on are gone, so its writes count as
    /// unanswered.
    pub fn forget_answers_of(&mut self, lost: NodeId) {
        let is_lost = |write: &&mut Write| write.written.is_some_and(|(_, node)| node == lost);
        self.writes.iter_mut().filter(is_lost).for_each(|write| write.written = None);
    }
}

impl Cluster {
    pub(super) fn begin_eventual(&mut self) {
        self.eventual.active = true;
        self.agenda.put(self.now, Wake::WriteEventually);
    }

    pub(super) fn end_eventual(&mut self) {
        self.eventual.active = false;
    }

    /// Writes at some node, if it is up.
    pub(super) fn write_eventually(&mut self) {
        let eventual = &mut self.eventual;
        if !eventual.active {
            return;
        }
        eventual.begun += 1;
        let id = eventual.writes.len();
        let key = Bytes::from(format!("key{}", eventual.random.below(KEYS)));
        let value = eventual.random.chance(500).then(|| Bytes::from(format!("value{id}")));
        let to = Endpoint::Node(NodeId(1 + eventual.random.below(self.nodes.len() as u64)));
        let after = eventual.random.duration(&GAP);
        self.agenda.put(self.now + after, Wake::WriteEventually);
        if self.without.eventual_writes.contains(&(eventual.begun - 1)) {
            return;
        }
        eventual.writes.push(Write { key: key.clone(), value: value.clone(), written: None });
        let message = Message::WriteEventually { id, key, value };
        self.network.send(self.now, Endpoint::Client(ClientId(0)), to, message);
    }
}
