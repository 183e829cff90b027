//! Exchanges: sending digests, answering them with deltas, and merging the deltas that come back.

use super::message::{Body, Delta, Digest, Exchange, Message};
use super::node_state::NodeStatePart;
use super::{Gossip, MAX_EXCHANGE_PERIODS, Refusal};
use crate::eventual::keyspace::Part;
use crate::limits::GOSSIP_DELTA_BYTES;
use crate::mutation::Mutation;
use crate::time::{Moment, Now, Wall};
use crate::types::NodeId;
use crate::version::{Incarnation, Version, VersionVector};

impl<T> Gossip<T> {
    /// Handles a message that came from `from`. Refusals are counted; the last one is returned, for the log.
    pub fn handle_message(&mut self, now: Now, from: NodeId, bytes: &[u8]) -> Result<(), Refusal> {
        let result = self.receive(now, from, bytes);
        if let Err(refusal) = &result {
            self.count(refusal);
        }
        result
    }

    pub(super) fn exchange(&self) -> Exchange {
        let (incarnation, version) = self.node_states.heard(self.node);
        Exchange { incarnation, version }
    }

    pub(super) fn digest(&self, wall: Wall) -> Digest {
        Digest {
            exchange: self.exchange(),
            wall,
            epoch: self.topology.epoch,
            hash: self.eventual.keyspace().hash(),
            heard: self.node_states.all_heard(),
            seen: self.eventual.keyspace().all_seen(),
        }
    }

    /// The delta that the sender of a digest lacks.
    fn delta(&mut self, digest: &Digest) -> Delta {
        let first = self.random.next();
        let node_states = self.node_states.parts_for(&digest.heard, GOSSIP_DELTA_BYTES, first);
        let (parts, more) = self.parts_above(&digest.seen, first);
        Delta { exchange: digest.exchange, node_states, parts, more }
    }

    /// The parts that this node holds above `seen`, up to the size limit of a message, and whether there is more.
    fn parts_above(&self, seen: &VersionVector, first: u64) -> (Vec<Part>, bool) {
        let (mut parts, more) = self.eventual.keyspace().parts_for(seen, GOSSIP_DELTA_BYTES, first);
        if self.config.mutation.is(Mutation::HideDeletions) {
            parts.iter_mut().for_each(|part| part.entries.retain(|entry| entry.value.is_some()));
        }
        (parts, more)
    }

    pub(super) fn ask(&mut self, wall: Wall, node: NodeId) {
        let digest = self.digest(wall);
        let body = match self.repair_cursor(node) {
            None => Body::Ask(digest),
            Some(cursor) => Body::Compare(digest, cursor.clone()),
        };
        self.send(node, body);
    }

    fn send(&mut self, to: NodeId, body: Body) {
        let message = Message { from: self.node, to, body };
        self.messages.push((to, message.encode()));
    }

    fn receive(&mut self, now: Now, from: NodeId, bytes: &[u8]) -> Result<(), Refusal> {
        if !self.topology.nodes.contains_key(&from) || from == self.node {
            return Err(Refusal::Stranger(from));
        }
        let Message { from: said, to, body } = Message::decode(bytes)?;
        if said != from || to != self.node {
            return Err(Refusal::Misdelivered { from, said, to });
        }
        match body {
            Body::Ask(digest) => {
                self.take_digest(now, from, &digest);
                let delta = self.delta(&digest);
                let own = self.digest(now.wall);
                self.send(from, Body::Answer(own, delta));
                Ok(())
            }
            Body::Compare(digest, cursor) => {
                self.take_digest(now, from, &digest);
                let mut delta = self.delta(&digest);
                let own = self.digest(now.wall);
                let body = if own.seen == digest.seen {
                    (delta.parts, delta.more) = self.parts_above(&cursor, 0);
                    Body::All(own, delta)
                } else {
                    Body::Answer(own, delta)
                };
                self.send(from, body);
                Ok(())
            }
            Body::Answer(digest, delta) => {
                self.take_digest(now, from, &digest);
                let taken = self.take_delta(now, from, delta);
                self.give(from, &digest);
                taken
            }
            Body::All(digest, mut delta) => {
                self.take_digest(now, from, &digest);
                self.check_exchange(&delta)?;
                let parts = std::mem::take(&mut delta.parts);
                let more = std::mem::take(&mut delta.more);
                let taken = self.take_delta(now, from, delta);
                let repaired = self.take_all(now.wall, from, parts, more);
                self.give(from, &digest);
                taken.and(repaired)
            }
            Body::Give(delta) => self.take_delta(now, from, delta),
        }
    }

    /// Ends an exchange by sending the delta that the other node lacks, if any.
    fn give(&mut self, to: NodeId, digest: &Digest) {
        let delta = self.delta(digest);
        if !(delta.node_states.is_empty() && delta.parts.is_empty()) {
            self.send(to, Body::Give(delta));
        }
    }

    fn take_digest(&mut self, now: Now, from: NodeId, digest: &Digest) {
        // The sender's version in the digest does not feed the failure detector; only its node state does. Other nodes
        // keep node states and report the versions back, so that a node that restarts with a clock that was set back
        // learns which incarnation to exceed.
        self.eventual.handle_claim(from, digest.exchange.incarnation, digest.epoch, &digest.seen);
        self.offsets.insert(from, digest.wall.0 as i64 - now.wall.0 as i64);
        self.compare(now.moment, from, digest);
        if let Some((incarnation, version)) = digest.heard.get(&self.node) {
            self.defend(*incarnation, *version);
        }
    }

    fn count(&mut self, refusal: &Refusal) {
        *self.refused.entry(refusal.kind()).or_default() += 1;
    }

    /// Begins a new incarnation if another node knows a later version of this node than the node itself does: it was
    /// restarted with a clock that had been set back.
    fn defend(&mut self, incarnation: Incarnation, version: Version) {
        if (incarnation, version) > self.node_states.heard(self.node) {
            self.node_states.begin(self.node, Incarnation(incarnation.0.saturating_add(1)));
        }
    }

    /// Checks that a delta answers a recent digest of this incarnation.
    fn check_exchange(&self, delta: &Delta) -> Result<(), Refusal> {
        let Exchange { incarnation, version } = self.exchange();
        let is_of_late = delta.exchange.incarnation == incarnation
            && delta.exchange.version <= version
            && version.0 - delta.exchange.version.0 <= MAX_EXCHANGE_PERIODS;
        is_of_late.then_some(()).ok_or(Refusal::Late)
    }

    fn take_delta(&mut self, now: Now, from: NodeId, delta: Delta) -> Result<(), Refusal> {
        self.check_exchange(&delta)?;
        let mut refused = Vec::new();
        for part in delta.node_states {
            refused.extend(self.take_node_state(now.moment, part).err());
        }
        let mut is_news = false;
        for part in delta.parts {
            match self.take_part(now.wall, part) {
                Ok(taken) => is_news |= taken,
                Err(refusal) => refused.push(refusal),
            }
        }
        if delta.more && is_news {
            self.eventual.ask_again(from);
        }
        let Some(last) = refused.pop() else { return Ok(()) };
        refused.iter().for_each(|refusal| self.count(refusal));
        Err(last)
    }

    fn take_node_state(&mut self, now: Moment, part: NodeStatePart) -> Result<(), Refusal> {
        let node = part.node;
        if node == self.node {
            self.defend(part.incarnation, part.upto);
            return Err(Refusal::Forged(node));
        }
        if !self.topology.nodes.contains_key(&node) {
            return Err(Refusal::Stranger(node));
        }
        if !self.node_states.follows(&part) {
            return Err(Refusal::Gap(node));
        }
        self.detector.heard(now, node, part.incarnation.0, part.upto.0);
        self.node_states.merge(part);
        Ok(())
    }

    fn take_part(&mut self, wall: Wall, part: Part) -> Result<bool, Refusal> {
        let node = part.origin.node;
        if !self.topology.has_handed_out(node) {
            return Err(Refusal::Stranger(node));
        }
        Ok(self.eventual.handle_part(wall, part)?)
    }
}
