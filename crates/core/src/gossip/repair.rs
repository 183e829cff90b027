//! What makes two keyspaces equal that have seen the same and are not equal.
//!
//! A part leaves out what its sender has dropped, because something in another part beats it. So a node may have seen
//! an entry without holding it or anything over it, for as long as the other part has not come: it was cut off by a
//! message's limit, or refused for its timestamp. As a rule it comes later. If the only disk that had it is lost first,
//! it never does; nor do versions tell any more what is lacking.
//!
//! Digests show it: equal versions, and not the same hash. The one who notices then asks in another form,
//! [`Body::Compare`]: for everything above a *cursor*, which begins at nothing and follows the answers. Of the entries
//! in these it takes those that beat what it holds, seen or not. When both have done so, both hold the maximum of what
//! they held, and are equal.
//!
//! **An entry that was seen may have been deleted, by a tombstone that is forgotten here.** It must not come back this
//! way. Therefore an answer is only taken so where its sender, when it sent it, had seen exactly what this node has;
//! and while a member is known to differ, no tombstone is forgotten. What is left: a node that skipped a tombstone, for
//! a later write that it refused and that was lost with the only node that had it; and that tombstone forgotten by the
//! others before they knew of the later write, or of the difference. Then the deleted key comes back.
//!
//! Costs: nothing while all is well. A repair sends the whole keyspace, from one node to another in steps of a message,
//! and is begun with the same node every [`REST_PERIODS`] at the most.
//!
//! [`Body::Compare`]: super::message::Body::Compare

use super::message::Digest;
use super::{Gossip, Refusal};
use crate::eventual::keyspace::Part;
use crate::time::{Moment, Wall};
use crate::types::NodeId;
use crate::version::VersionVector;
use std::time::Duration;

/// A difference that lasts for longer than this is reported: it is not being repaired, for its nodes do not come to
/// talk, or something is wrong that this does not know of.
pub const DIVERGED_AFTER: Duration = Duration::from_secs(30);

/// After a repair has come to its end, for so many periods the next one with the same node does not begin. It may not
/// have done so itself yet.
pub const REST_PERIODS: u64 = 20;

/// Another node's keyspace differs from this one's, though both have seen the same.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    since: Moment,
    /// Up to where this node has what the other one holds.
    cursor: VersionVector,
    /// The round from which on it is to be repaired.
    due: u64,
}

impl<T> Gossip<T> {
    /// Notes whether the sender of a digest differs.
    pub(super) fn compare(&mut self, now: Moment, node: NodeId, digest: &Digest) {
        if digest.hash != self.eventual.keyspace().hash() && digest.seen == self.eventual.keyspace().all_seen() {
            let new = Difference { since: now, cursor: VersionVector::new(), due: self.rounds };
            self.differences.entry(node).or_insert(new);
        } else {
            self.differences.remove(&node);
        }
    }

    /// The nodes whose difference lasts.
    pub(super) fn diverged(&self, now: Moment) -> impl Iterator<Item = NodeId> {
        let is_old = move |difference: &Difference| now.saturating_since(difference.since) > DIVERGED_AFTER;
        self.differences.iter().filter(move |(_, difference)| is_old(difference)).map(|(&node, _)| node)
    }

    /// Where a repair with `node` goes on, if one is due.
    pub(super) fn repair_cursor(&self, node: NodeId) -> Option<&VersionVector> {
        let difference = self.differences.get(&node)?;
        (self.rounds >= difference.due).then_some(&difference.cursor)
    }

    /// Takes what `node` holds above the cursor, or some of it if there is `more`. To be called when the digest that
    /// came with it has been compared: a difference then means that the versions are equal.
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
