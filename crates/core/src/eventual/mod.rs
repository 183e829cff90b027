//! The eventual keyspace of one node: what it holds, and how writes and updates of other nodes become durable.
//!
//! Users write it at any node, without a quorum. Of two writes of a key the later one wins, by a bounded hybrid logical
//! [`clock`], then by the origin. Every node holds the whole keyspace ([`keyspace`]) and persists it in its log
//! ([`journal`]). [Gossip](crate::gossip) carries it between nodes.
//!
//! A part of the keyspace, written here or received, is *staged*, goes to the log in a batch, and is *pending* until
//! the batch is durable. Only then is it merged, acknowledged and sent to other nodes. So what this node claims to have
//! seen survives a crash. A node whose log was damaged starts empty, under a new origin, and receives what the others
//! hold, including its own earlier entries.
//!
//! Tombstones are kept until nothing can bring back what they deleted ([`tombstones`]).

pub mod clock;
pub mod codec;
pub mod journal;
pub mod keyspace;
pub mod tombstones;

use crate::limits::{MAX_EVENTUAL_BYTES, MAX_EVENTUAL_ENTRY_BYTES, MAX_EVENTUAL_PENDING_BYTES};
use crate::log::{BatchNumber, LogBatch};
use crate::mutation::Mutation;
use crate::time::{HlcTimestamp, Wall};
use crate::types::{Epoch, NodeId};
use crate::version::{Incarnation, Origin, Version, VersionVector};
use bytes::Bytes;
use clock::HybridClock;
use journal::{Journal, Recovered};
use keyspace::{Entry, Keyspace, Part, cost};
use std::collections::VecDeque;
use std::time::Duration;
use tombstones::Collector;

/// The result of a durable write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    /// The reading of the hybrid logical clock: larger than the timestamp of any entry that this node had seen.
    pub timestamp: HlcTimestamp,
    /// Whether the key had a value on this node before.
    pub existed: bool,
}

/// Why a write was refused. It has changed nothing and never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("key and value have {0} bytes, the limit of the eventual keyspace is {MAX_EVENTUAL_ENTRY_BYTES}")]
    TooLarge(usize),
    #[error("the eventual keyspace is full ({MAX_EVENTUAL_BYTES} bytes); delete some keys")]
    Full,
    #[error("too many eventual writes wait for the disk; retry later")]
    Overloaded,
}

/// Checks the limit on an entry.
pub fn check_size(key: &Bytes, value: Option<&Bytes>) -> Result<(), WriteError> {
    match key.len() + value.map_or(0, Bytes::len) {
        bytes if bytes > MAX_EVENTUAL_ENTRY_BYTES => Err(WriteError::TooLarge(bytes)),
        _ => Ok(()),
    }
}

/// Why a part of another node was refused, whole or in part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PartRefusal {
    /// It has versions of this node's own origin that were never written.
    Forged(NodeId),
    /// It skips versions that this node has not seen.
    Gap(NodeId),
    /// A timestamp is too far ahead of this node's clock.
    FromTheFuture { node: NodeId, ahead: Duration },
}

/// - `keyspace` holds what is durable; `pending` holds the batches on their way to the disk, in order. `reserved` has
///   the highest version of each origin in `staged` or `pending`.
/// - `own` is this node's origin; this node has given out all of its versions up to `seen` or `reserved`.
///
/// `T` is the shell's responder for a write.
pub struct Eventual<T> {
    node: NodeId,
    mutation: Mutation,
    keyspace: Keyspace,
    own: Option<Origin>,
    clock: HybridClock,
    journal: Journal,
    /// Not part of a batch yet.
    staged: Batch<T>,
    pending: VecDeque<(BatchNumber, Batch<T>)>,
    pending_bytes: usize,
    reserved: VersionVector,
    next_batch: BatchNumber,
    wants_state: bool,
    collector: Collector,
    replies: Vec<(T, Result<Written, WriteError>)>,
}

/// Parts that are made durable together.
struct Batch<T> {
    /// Only this node's own writes have a responder.
    parts: Vec<(Part, Option<T>)>,
    bytes: usize,
    /// The node to ask for more once this is durable.
    again: Option<NodeId>,
}

impl<T> Default for Batch<T> {
    fn default() -> Batch<T> {
        Batch { parts: Vec::new(), bytes: 0, again: None }
    }
}

impl<T> Eventual<T> {
    pub fn new(node: NodeId, recovered: Recovered, mutation: Mutation) -> Eventual<T> {
        let Recovered { journal, keyspace, own, clock, .. } = recovered;
        Eventual {
            node,
            mutation,
            keyspace,
            own,
            clock: HybridClock::after(clock),
            wants_state: !journal.is_begun(),
            journal,
            staged: Batch::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            reserved: VersionVector::new(),
            next_batch: BatchNumber::FIRST,
            collector: Collector::new(mutation),
            replies: Vec::new(),
        }
    }

    /// The durable keyspace.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// This node's origin, if it has one.
    pub fn origin(&self) -> Option<Origin> {
        self.own
    }

    /// The next timestamp.
    pub fn tick(&mut self, wall: Wall) -> HlcTimestamp {
        self.clock.tick(wall)
    }

    /// The latest timestamp that this node has given out or observed.
    pub fn latest(&self) -> HlcTimestamp {
        self.clock.latest()
    }

    /// Sets a key, or deletes it. The reply to `responder` comes when the write is durable on this node. `random` names
    /// a new origin if this node has none.
    pub fn handle_write(
        &mut self,
        wall: Wall,
        key: Bytes,
        value: Option<Bytes>,
        responder: T,
        random: impl FnOnce() -> u64,
    ) {
        if let Err(error) = self.check_write(&key, value.as_ref()) {
            self.replies.push((responder, Err(error)));
            return;
        }
        let node = self.node;
        let own = *self.own.get_or_insert_with(|| Origin { node, incarnation: Incarnation(random()) });
        let after = self.reserved(own);
        let version = after.next();
        let timestamp = self.clock.tick(wall);
        let entries = vec![Entry { version, timestamp, key, value }];
        let part = Part { origin: own, after, upto: version, entries };
        if self.mutation.is(Mutation::AnswerEventualEarly) {
            self.replies.push((responder, Ok(Written { timestamp, existed: false })));
            return self.stage(part, None);
        }
        self.stage(part, Some(responder));
    }

    /// Stages a part from another node. Returns whether it contained anything new.
    pub fn handle_part(&mut self, wall: Wall, mut part: Part) -> Result<bool, PartRefusal> {
        let origin = part.origin;
        let reserved = self.reserved(origin);
        if Some(origin) == self.own && part.upto > reserved {
            return Err(PartRefusal::Forged(origin.node));
        }
        if part.after > reserved {
            return Err(PartRefusal::Gap(origin.node));
        }
        // A seen entry may have been deleted by a tombstone that is collected by now: it must not come back.
        part.entries.retain(|entry| entry.version > reserved);
        part.after = part.after.max(reserved);
        // Timestamps increase with versions, so the entries before the first that is too far ahead are accepted.
        let ahead = |entry: &Entry| HybridClock::too_far_ahead(entry.timestamp, wall);
        let mut taken = Ok(true);
        if let Some(first) = part.entries.iter().position(|entry| ahead(entry).is_some()) {
            let entry = &part.entries[first];
            let ahead = ahead(entry).unwrap_or_default();
            part.upto = Version(entry.version.0 - 1);
            part.entries.truncate(first);
            taken = Err(PartRefusal::FromTheFuture { node: origin.node, ahead });
        }
        if part.upto <= reserved {
            return taken.map(|_| false);
        }
        if self.pending_bytes >= MAX_EVENTUAL_PENDING_BYTES {
            return Ok(false);
        }
        for entry in &part.entries {
            self.clock.observe(entry.timestamp);
        }
        self.stage(part, None);
        taken
    }

    /// Stages those entries of a part that supersede the ones held here, whether or not their versions are seen. See
    /// `gossip/repair.rs`.
    pub fn handle_repair(&mut self, wall: Wall, mut part: Part) -> Result<(), PartRefusal> {
        let origin = part.origin;
        if part.upto > self.keyspace.seen(origin) {
            return Err(PartRefusal::Gap(origin.node));
        }
        part.entries.retain(|entry| self.keyspace.is_beaten_by(origin, entry));
        // Entries that were seen had timestamps within the bound, unless this node's clock has since been set back.
        let ahead = |entry: &Entry| HybridClock::too_far_ahead(entry.timestamp, wall);
        if let Some(ahead) = part.entries.iter().find_map(ahead) {
            return Err(PartRefusal::FromTheFuture { node: origin.node, ahead });
        }
        if !part.entries.is_empty() {
            let (origin, entries) = (origin.node, part.entries.len());
            tracing::info!(%origin, entries, "received eventual writes that this node had missed");
            self.stage(part, None);
        }
        Ok(())
    }

    /// Handles the versions that a node's digest claims, in this incarnation and under the topology of this epoch.
    pub fn handle_claim(&mut self, node: NodeId, incarnation: Incarnation, epoch: Epoch, seen: &VersionVector) {
        self.collector.handle_claim(node, incarnation, epoch, seen);
        if let Some(own) = self.own
            && seen.get(&own).is_some_and(|seen| *seen > self.reserved(own))
        {
            // Other nodes have writes of this origin that are lost here. Reusing their versions would lose the new
            // writes, because the other nodes have seen those versions already.
            tracing::warn!(
                "other nodes have eventual writes of this node that are not in its log: they are restored from there"
            );
            self.own = None;
            self.wants_state = true;
        }
    }

    /// The versions that `node` has claimed.
    pub fn claimed(&self, node: NodeId) -> Option<&VersionVector> {
        self.collector.claimed(node)
    }

    /// Drops the claims of nodes that are not members.
    pub fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.collector.retain(is_member);
    }

    /// Collects tombstones that are not needed any more: see [`Collector::collect`].
    pub fn collect(&mut self, others: impl Iterator<Item = NodeId>, epoch: Epoch) {
        self.collector.collect(&mut self.keyspace, others, epoch);
    }

    /// `node` has more: it is asked again when what is staged is durable.
    pub fn ask_again(&mut self, node: NodeId) {
        self.staged.again = Some(node);
    }

    pub fn has_staged(&self) -> bool {
        !self.staged.parts.is_empty()
    }

    /// Whether nothing is on its way to the disk.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && !self.has_staged()
    }

    /// The batch with this number, and all before it, are durable. Returns the nodes to ask for more.
    pub fn handle_persisted(&mut self, number: BatchNumber) -> Vec<NodeId> {
        let mut again = Vec::new();
        while self.pending.front().is_some_and(|(pending, _)| *pending <= number) {
            let Some((_, batch)) = self.pending.pop_front() else { break };
            self.pending_bytes -= batch.bytes;
            for (part, responder) in batch.parts {
                if let Some(responder) = responder {
                    let written = part.entries.first().map(|entry| Written {
                        timestamp: entry.timestamp,
                        existed: self.keyspace.get(&entry.key).is_some(),
                    });
                    let written = written.expect("a write is a part of one entry");
                    self.replies.push((responder, Ok(written)));
                }
                self.keyspace.merge(part);
            }
            again.extend(batch.again);
        }
        if self.is_settled() {
            self.reserved.clear();
        }
        again
    }

    /// The log asks for a new state of the keyspace, to release its oldest segments.
    pub fn handle_log_pressure(&mut self) {
        self.wants_state = true;
    }

    /// The next batch for the log, to be made durable after all earlier ones; then call [`Eventual::handle_persisted`].
    pub fn take_batch(&mut self) -> Option<LogBatch> {
        // A state holds what is durable and replaces all parts before it in the log. So it waits until no part is on
        // its way to the disk, and the next parts wait for it.
        let mut items = Vec::new();
        let waits = self.wants_state && !self.pending.is_empty();
        if self.wants_state && !waits {
            self.wants_state = false;
            let latest = self.clock.latest();
            items.push(self.journal.state(&self.keyspace, self.own, latest));
        }
        if self.has_staged() && !waits {
            items.push(self.journal.parts(self.staged.parts.iter().map(|(part, _)| part), self.own));
        }
        if items.is_empty() {
            return None;
        }
        let number = self.next_batch;
        self.next_batch = number.next();
        self.pending.push_back((number, std::mem::take(&mut self.staged)));
        Some(LogBatch { number, items, ..LogBatch::default() })
    }

    pub fn take_replies(&mut self) -> Vec<(T, Result<Written, WriteError>)> {
        std::mem::take(&mut self.replies)
    }

    fn check_write(&self, key: &Bytes, value: Option<&Bytes>) -> Result<(), WriteError> {
        check_size(key, value)?;
        if self.pending_bytes >= MAX_EVENTUAL_PENDING_BYTES {
            return Err(WriteError::Overloaded);
        }
        // Deleting a key that is held here makes room eventually.
        let makes_room = value.is_none() && self.keyspace.get(key).is_some();
        if !makes_room && self.keyspace.bytes() + self.pending_bytes + cost(key, value) > MAX_EVENTUAL_BYTES {
            return Err(WriteError::Full);
        }
        Ok(())
    }

    fn stage(&mut self, part: Part, responder: Option<T>) {
        let bytes: usize = part.entries.iter().map(|entry| cost(&entry.key, entry.value.as_ref())).sum();
        self.pending_bytes += bytes;
        self.staged.bytes += bytes;
        let reserved = self.reserved.entry(part.origin).or_default();
        *reserved = part.upto.max(*reserved);
        self.staged.parts.push((part, responder));
    }

    /// The version of an origin up to which everything is durable here or on its way to the disk.
    fn reserved(&self, origin: Origin) -> Version {
        let reserved = self.reserved.get(&origin).copied().unwrap_or_default();
        reserved.max(self.keyspace.seen(origin))
    }
}
