//! Bounds how many snapshots a node sends at a time.
//!
//! Each worker bounds the transfers of its replicas ([`TransferPermit`](super::transfers::TransferPermit)), and may
//! always begin one. Many workers together may begin more than a node may send, so a transfer waits for a slot or is
//! refused one.

use crate::limits::{MAX_SNAPSHOTS_SENT, MAX_SNAPSHOTS_SENT_TO_ONE};
use crate::types::NodeId;

/// The transfers of a node that have a slot.
#[derive(Default)]
pub struct SendSlots {
    /// The receivers, one entry for each transfer.
    under_way: Vec<NodeId>,
}

/// Whether a transfer may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// It may begin, and has a slot until [`SendSlots::end`].
    Begins,
    /// It must ask again when another transfer has ended.
    Waits,
    /// Its receiver already gets as many as it may. Each of these ends only when the receiver has the snapshot, and a
    /// transfer that waited for that would keep its worker from sending to other nodes. The transfer fails, and Raft
    /// asks again.
    Refused,
}

impl SendSlots {
    /// Asks for a slot to send a snapshot to `node`.
    pub fn ask(&mut self, node: NodeId) -> Slot {
        if self.under_way.iter().filter(|other| **other == node).count() >= MAX_SNAPSHOTS_SENT_TO_ONE {
            return Slot::Refused;
        }
        if self.under_way.len() >= MAX_SNAPSHOTS_SENT {
            return Slot::Waits;
        }
        self.under_way.push(node);
        Slot::Begins
    }

    /// A transfer to `node` that had a slot has ended.
    pub fn end(&mut self, node: NodeId) {
        if let Some(place) = self.under_way.iter().position(|other| *other == node) {
            self.under_way.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sends_few_at_a_time_and_fewer_to_one_receiver() {
        let mut slots = SendSlots::default();
        for node in 1..=MAX_SNAPSHOTS_SENT as u64 {
            assert_eq!(slots.ask(NodeId(node)), Slot::Begins);
        }
        assert_eq!(slots.ask(NodeId(99)), Slot::Waits);
        slots.end(NodeId(1));
        assert_eq!(slots.ask(NodeId(99)), Slot::Begins);
    }

    #[test]
    fn no_transfer_waits_for_a_receiver_that_gets_as_many_as_it_may() {
        let mut slots = SendSlots::default();
        for _ in 0..MAX_SNAPSHOTS_SENT_TO_ONE {
            assert_eq!(slots.ask(NodeId(1)), Slot::Begins);
        }
        assert_eq!(slots.ask(NodeId(1)), Slot::Refused, "it blocks no other receiver");
        for node in 2..=(1 + MAX_SNAPSHOTS_SENT - MAX_SNAPSHOTS_SENT_TO_ONE) as u64 {
            assert_eq!(slots.ask(NodeId(node)), Slot::Begins);
        }
        assert_eq!(slots.ask(NodeId(1)), Slot::Refused, "also while no other transfer may begin");
    }
}
