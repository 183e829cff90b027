//! Repair: makes two keyspaces equal that have seen the same versions but hold different values.
//!
//! A part leaves out the entries that its sender has dropped because a later write superseded them; that write travels
//! in another part. So a node may have seen an entry without holding it or anything that supersedes it, until the other
//! part arrives: the message limit cut it off, or its timestamp was refused. Usually it arrives later. If the only disk
//! that had it is lost first, it never does, and the versions no longer show that anything is missing.
//!
//! Digests reveal it: equal versions, but different hashes. The node that notices then asks with another message,
//! [`Body::Compare`], for everything above a *cursor*, which starts empty and follows the answers. Of the entries in
//! these answers it takes those that supersede what it holds, whether or not it has seen their versions. When both
//! nodes have done so, both hold the maximum of what they held, and are equal.
//!
//! **An entry that was seen may have been deleted by a tombstone that this node has collected.** A repair must not
//! bring it back. So an answer is used for repair only if its sender, when it sent it, had seen exactly the versions
//! that this node has seen; and while any member is known to differ, no tombstone is collected. One case remains: a
//! node skipped a tombstone in favour of a later write, which it refused and which was lost with the only node that had
//! it; and the other nodes collected that tombstone before they knew of the later write, or of the difference. Then the
//! deleted key comes back.
//!
//! Costs: nothing while keyspaces agree. A repair sends the whole keyspace from one node to another, one message at a
//! time, and is started with the same node at most every [`REST_PERIODS`].
//!
//! [`Body::Compare`]: super::message::Body::Compare

use super::message::Digest;
use super::{Gossip, Refusal};
use crate::eventual::keyspace::Part;
use crate::time::{Moment, Wall};
use crate::types::NodeId;
use crate::version::VersionVector;
use std::time::Duration;

/// A difference that lasts longer than this is reported: the nodes don't reach each other, or there is a fault that
/// repair does not handle.
pub const DIVERGED_AFTER: Duration = Duration::from_secs(30);

/// The number of periods between the end of a repair and the start of the next one with the same node. That node may
/// not have finished its own repair yet.
pub const REST_PERIODS: u64 = 20;

/// Another node's keyspace differs from this one's, though both have seen the same versions.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    since: Moment,
    /// The versions up to which this node has received what the other node holds.
    cursor: VersionVector,
    /// The first round in which a repair may start.
    due: u64,
}

impl<T> Gossip<T> {
    /// Records whether the keyspace of a digest's sender differs.
    pub(super) fn compare(&mut self, now: Moment, node: NodeId, digest: &Digest) {
        if digest.hash != self.eventual.keyspace().hash() && digest.seen == self.eventual.keyspace().all_seen() {
            let new = Difference { since: now, cursor: VersionVector::new(), due: self.rounds };
            self.differences.entry(node).or_insert(new);
        } else {
            self.differences.remove(&node);
        }
    }

    /// The nodes whose keyspaces have differed for longer than [`DIVERGED_AFTER`].
    pub(super) fn diverged(&self, now: Moment) -> impl Iterator<Item = NodeId> {
        let is_old = move |difference: &Difference| now.saturating_since(difference.since) > DIVERGED_AFTER;
        self.differences.iter().filter(move |(_, difference)| is_old(difference)).map(|(&node, _)| node)
    }

    /// The cursor from which a repair with `node` continues, if one is due.
    pub(super) fn repair_cursor(&self, node: NodeId) -> Option<&VersionVector> {
        let difference = self.differences.get(&node)?;
        (self.rounds >= difference.due).then_some(&difference.cursor)
    }

    /// Handles what `node` holds above the cursor, or some of it if there is `more`. Call it after comparing the digest
    /// that came with it: a difference then means that the versions are equal.
    pub(super) fn take_all(&mut self, wall: Wall, node: NodeId, parts: Vec<Part>, more: bool) -> Result<(), Refusal> {
        if !self.eventual.is_settled() {
            return Ok(());
        }
        let Some(difference) = self.differences.get_mut(&node) else { return Ok(()) };
        for Part { origin, after, upto, .. } in &parts {
            let cursor = difference.cursor.entry(*origin).or_default();
            if *after <= *cursor {
                *cursor = (*cursor).max(*upto);
            }
        }
        if !more {
            difference.cursor.clear();
            difference.due = self.rounds + REST_PERIODS;
        }
        let mut taken = Ok(());
        for part in parts {
            if let Err(refusal) = self.eventual.handle_repair(wall, part) {
                taken = Err(refusal.into());
            }
        }
        if more && self.eventual.has_staged() {
            self.eventual.ask_again(node);
        } else if more {
            self.ask(wall, node);
        }
        taken
    }
}
