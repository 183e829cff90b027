//! The streams to the other nodes.
//!
//! Each node gets two, each on a connection of its own: an urgent one for heartbeats and elections, and one for
//! everything else, so that a heartbeat never waits behind a megabyte of entries. The answers to forwarded requests
//! come back on the same stream. When a connection breaks, Raft repeats its messages, and each waiting request is told
//! whether it was never sent or lost on the way.

mod lane;
pub mod link;

use crate::answers::Answers;
use crate::convert;
use arc_swap::ArcSwap;
use bytes::Bytes;
use lane::{Lane, Outage};
use link::{Link, Links};
use parking_lot::Mutex;
use ringfort_core::control::codec;
use ringfort_core::effects::is_urgent;
use ringfort_core::message::{ControlMessage, RaftMessage};
use ringfort_core::request::{Failure, Reply, Request};
use ringfort_core::system::Members;
use ringfort_core::types::NodeId;
use ringfort_proto::v1;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Gossip messages above this size are sent with the entries.
const URGENT_GOSSIP_BYTES: usize = 16 << 10;

/// How a forwarded request ended.
#[derive(Debug)]
pub enum Forwarded {
    /// The peer answered.
    Answer(Result<Reply, Failure>),
    /// The request never left this node, or the peer stopped before it took it.
    NotSent,
    /// The connection broke before the answer came.
    Lost,
}

pub struct Peers {
    links: Links,
    peers: ArcSwap<BTreeMap<NodeId, Arc<Peer>>>,
    next_forward: AtomicU64,
    /// The streams from nodes that are no longer members. Messages to such a node are sent only there.
    removed: Mutex<BTreeMap<NodeId, Arc<Answers>>>,
    /// The workers have ended: nothing is taken from the other nodes' streams any more.
    has_stopped: watch::Sender<bool>,
}

struct Peer {
    urgent: Link,
    bulk: Link,
}

impl Peers {
    pub fn new(links: Links) -> Peers {
        Peers {
            links,
            peers: ArcSwap::default(),
            next_forward: AtomicU64::new(1),
            removed: Mutex::default(),
            has_stopped: watch::Sender::new(false),
        }
    }

    /// Connects to new members, follows changed addresses, and disconnects from nodes that are no longer members.
    pub fn set_members(&self, members: &Members) {
        let known = self.peers.load();
        let mut peers = BTreeMap::new();
        for (&node, member) in members.iter().filter(|(node, _)| **node != self.links.node()) {
            let peer = known.get(&node).cloned().unwrap_or_else(|| {
                let link = |tells| self.links.start(node, &member.raft_address, tells);
                Arc::new(Peer { urgent: link(true), bulk: link(false) })
            });
            peer.urgent.set_address(&member.raft_address);
            peer.bulk.set_address(&member.raft_address);
            peers.insert(node, peer);
        }
        self.peers.store(Arc::new(peers));
    }

    /// Sends Raft's messages to the replicas on `node`, or drops them.
    pub fn send_raft(&self, node: NodeId, messages: Vec<RaftMessage>) {
        let peers = self.peers.load();
        let Some(peer) = peers.get(&node) else { return };
        let (urgent, bulk): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_urgent);
        for (link, messages) in [(&peer.urgent, urgent), (&peer.bulk, bulk)] {
            if !messages.is_empty() {
                link.lane.send_raft(messages.into_iter().map(convert::to_wire));
            }
        }
    }

    /// Sends a message of the control plane, or drops it.
    pub fn send_control(&self, node: NodeId, message: &ControlMessage) {
        if let Some(peer) = self.peers.load().get(&node) {
            // A topology may be large; the other messages are small, and announcements prove that a node is alive.
            let is_large = matches!(message, ControlMessage::Topology(_));
            let link = if is_large { &peer.bulk } else { &peer.urgent };
            link.lane.send_control(codec::encode(message));
        } else if let Some(answers) = self.removed.lock().get(&node) {
            answers.tell(codec::encode(message));
        }
    }

    /// Sends a gossip message, or drops it.
    pub fn send_gossip(&self, node: NodeId, message: Bytes) {
        if let Some(peer) = self.peers.load().get(&node) {
            // The messages that prove that a node is alive are small.
            let link = if message.len() > URGENT_GOSSIP_BYTES { &peer.bulk } else { &peer.urgent };
            link.lane.send_gossip(message);
        }
    }

    /// Has `node` execute a request. Dropping the future stops the wait, not the request.
    pub async fn forward(&self, node: NodeId, request: &Request, remaining: Duration) -> Forwarded {
        let Some(peer) = self.peers.load().get(&node).cloned() else { return Forwarded::NotSent };
        let id = self.next_forward.fetch_add(1, Ordering::Relaxed);
        let deadline_ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX);
        let forward = v1::Forward { id, shard: request.shard().0, deadline_ms, request: request.encode() };
        let (answered, answer) = oneshot::channel();
        let waiting = Waiting { lane: &peer.bulk.lane, id };
        peer.bulk.lane.forward(forward, answered);
        let outcome = answer.await.unwrap_or(Forwarded::Lost);
        drop(waiting);
        outcome
    }

    /// The outage of the connection to `node`, if requests can't be sent there now.
    pub fn outage(&self, node: NodeId) -> Option<Outage> {
        self.peers.load().get(&node)?.bulk.lane.outage()
    }

    /// Ends the streams from the other nodes, with the answers that wait. The workers must have ended.
    pub fn stop(&self) {
        self.has_stopped.send_replace(true);
    }

    /// Returns once this node takes nothing from the other nodes' streams any more.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut has_stopped = self.has_stopped.subscribe();
        async move { drop(has_stopped.wait_for(|stopped| *stopped).await) }
    }

    /// `node` has connected to this node: it is alive, so a pause before connecting to it can end.
    pub fn seen(&self, node: NodeId) {
        if let Some(peer) = self.peers.load().get(&node) {
            peer.urgent.hurry();
            peer.bulk.hurry();
        }
    }

    /// `node` is no longer a member: messages to it go to this stream from now on.
    pub fn set_removed(&self, node: NodeId, answers: &Arc<Answers>) {
        self.removed.lock().insert(node, answers.clone());
    }

    /// The stream has ended.
    pub fn forget(&self, answers: &Arc<Answers>) {
        self.removed.lock().retain(|_, other| !Arc::ptr_eq(other, answers));
    }
}

/// Removes the entry of a forwarded request when the wait for its answer ends.
struct Waiting<'a> {
    lane: &'a Lane,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lane.forget(self.id);
    }
}
