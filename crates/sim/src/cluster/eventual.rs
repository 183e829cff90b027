//! Writers of the eventual keyspace, and what must have become of their writes in the end.
//!
//! Puts, each with a value of its own, and deletions go to any node at any time. When all faults have ended and some
//! time has passed, all nodes must hold the same, and of each key
//!
//! - the acknowledged write with the highest stamp, or one that was never answered and so may have come later;
//! - never an acknowledged write that another one beats: a deleted key that comes back is such.
//!
//! A write that only one node has goes with that node: what was taken by one that is no member any more may be lost, and
//! beats others only where it is found.

use super::node::{Message, Node};
use super::{Cluster, Wake};
use crate::history::ClientId;
use crate::network::Endpoint;
use crate::random::Random;
use bytes::Bytes;
use ringfort_core::gossip::detector::Standing;
use ringfort_core::time::{Moment, Stamp};
use ringfort_core::types::NodeId;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What passes between two writes.
const GAP: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_millis(400);

/// Few, so that they are overwritten and deleted often.
const KEYS: u64 = 5;

/// After the faults, messages that were held up arrive within this time.
pub(super) const REST: Duration = Duration::from_secs(10);

/// Wall clocks that have jumped ahead are caught up by all others within this time: the sum of all jumps.
pub(super) const CATCH_UP: Duration = Duration::from_secs(300);

/// Then all nodes must be the same within this time: 20 periods of gossip.
pub(super) const CONVERGENCE: Duration = Duration::from_secs(10);

pub(super) struct Eventual {
    random: Random,
    active: bool,
    writes: Vec<Write>,
}

struct Write {
    key: Bytes,
    /// None deletes.
    value: Option<Bytes>,
    /// How it was answered: its stamp, and the node that took it.
    written: Option<(Stamp, NodeId)>,
}

impl Eventual {
    pub fn new(random: Random) -> Eventual {
        Eventual { random, active: false, writes: Vec::new() }
    }

    /// A node has answered a write.
    pub fn written(&mut self, id: usize, stamp: Stamp, node: NodeId) {
        self.writes[id].written = Some((stamp, node));
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
        let id = eventual.writes.len();
        let key = Bytes::from(format!("key{}", eventual.random.below(KEYS)));
        let value = eventual.random.chance(500).then(|| Bytes::from(format!("value{id}")));
        let to = Endpoint::Node(NodeId(1 + eventual.random.below(self.nodes.len() as u64)));
        let after = eventual.random.duration(&GAP);
        eventual.writes.push(Write { key: key.clone(), value: value.clone(), written: None });
        let message = Message::WriteEventually { id, key, value };
        self.network.send(self.now, Endpoint::Client(ClientId(0)), to, message);
        self.agenda.put(self.now + after, Wake::WriteEventually);
    }

    /// No stamp is in the future of any node.
    pub(super) fn is_caught_up(&self) -> bool {
        let running = || self.nodes.values().filter_map(Node::running);
        let latest = running().map(|running| running.gossip().keyspace().clock()).max().unwrap_or_default();
        self.present().all(|(_, node)| node.clock.read(self.now).wall.0 >= latest.0)
    }

    /// All nodes hold the same, and know of all others that they are alive.
    pub(super) fn is_converged(&self) -> bool {
        let states: Option<Vec<_>> = self.present().map(|(_, node)| node_state(node, self.now)).collect();
        states.is_some_and(|states| states.iter().all(|(state, all_alive)| *all_alive && *state == states[0].0))
    }

    pub(super) fn check_eventual(&self) -> Result<(), String> {
        let mut keys: BTreeMap<&Bytes, Vec<&Write>> = BTreeMap::new();
        for write in &self.eventual.writes {
            keys.entry(&write.key).or_default().push(write);
        }
        let Some(topology) = self.topology() else { return Err("no node knows the topology".to_owned()) };
        let members = &topology.nodes;
        for (id, node) in self.present() {
            let Some(running) = node.running() else { continue };
            for (key, writes) in &keys {
                let found = running.gossip().get(key).map(|found| found.value);
                let is_kept = |write: &&&Write| write.written.is_some_and(|(_, node)| members.contains_key(&node));
                let best = writes.iter().filter(is_kept).max_by_key(|write| write.written);
                let is_best = best.map_or(found.is_none(), |best| best.value == found);
                let least = best.and_then(|best| best.written);
                let may_be_later =
                    |write: &&Write| write.value == found && (write.written.is_none() || write.written > least);
                if !is_best && !writes.iter().any(may_be_later) {
                    let best = best.map(|best| (&best.value, best.written));
                    return Err(format!("node {id} holds {found:?} of the eventual {key:?} in place of {best:?}"));
                }
            }
        }
        Ok(())
    }
}

type State = (u64, ringfort_core::gossip::keyspace::Seen);

fn node_state(node: &Node, now: Moment) -> Option<(State, bool)> {
    let gossip = node.running()?.gossip();
    let now = node.clock.read(now).moment;
    let alive = |member: &ringfort_core::gossip::status::MemberStatus| {
        member.liveness.is_none_or(|liveness| liveness.standing == Standing::Alive)
    };
    let all_alive = gossip.status(now).members.iter().all(alive);
    Some(((gossip.keyspace().hash(), gossip.keyspace().all_seen()), all_alive))
}
