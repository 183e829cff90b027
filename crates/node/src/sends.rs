//! Bounds how many snapshots a node sends at a time.
//!
//! Each worker begins transfers by itself, and may always begin one. Many workers together may begin more than a node
//! may send at a time, so transfers wait for their turn here, or are refused it.

use parking_lot::Mutex;
use ringfort_core::limits::{MAX_SNAPSHOTS_SENT, MAX_SNAPSHOTS_SENT_TO_ONE};
use ringfort_core::types::NodeId;
use tokio::sync::Notify;

#[derive(Default)]
pub struct Sends {
    /// The receivers, one entry for each transfer.
    under_way: Mutex<Vec<NodeId>>,
    ended: Notify,
}

impl Sends {
    /// Waits until another snapshot may be sent to `node`. It counts until the turn is dropped. None if `node` receives
    /// as many as it may: each of these ends only when `node` has the snapshot, and a caller that waited for that would
    /// keep its worker from sending to other nodes.
    pub async fn turn(&self, node: NodeId) -> Option<Turn<'_>> {
        loop {
            // Before the check, so that no end is missed.
            let ended = self.ended.notified();
            {
                let mut under_way = self.under_way.lock();
                if under_way.iter().filter(|other| **other == node).count() >= MAX_SNAPSHOTS_SENT_TO_ONE {
                    return None;
                }
                if under_way.len() < MAX_SNAPSHOTS_SENT {
                    under_way.push(node);
                    return Some(Turn { sends: self, node });
                }
            }
            ended.await;
        }
    }
}

pub struct Turn<'a> {
    sends: &'a Sends,
    node: NodeId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut under_way = self.sends.under_way.lock();
        if let Some(place) = under_way.iter().position(|node| *node == self.node) {
            under_way.swap_remove(place);
        }
        drop(under_way);
        self.sends.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn no_more_are_sent_than_a_node_may_send_however_many_workers_ask() {
        let sends = Sends::default();
        let mut turns = Vec::new();
        for node in (1..).map(NodeId).take(MAX_SNAPSHOTS_SENT) {
            turns.push(sends.turn(node).await.unwrap());
        }
        let next = sends.turn(NodeId(99));
        tokio::pin!(next);
        assert!(timeout(Duration::from_millis(10), &mut next).await.is_err());
        turns.pop();
        turns.push(timeout(Duration::from_secs(10), next).await.expect("an end makes room").unwrap());
        turns.clear();

        for _ in 0..MAX_SNAPSHOTS_SENT_TO_ONE {
            turns.push(sends.turn(NodeId(1)).await.unwrap());
        }
        // Not even while no other transfer may begin.
        for is_full in [false, true] {
            let refused = timeout(Duration::from_secs(10), sends.turn(NodeId(1))).await.expect("nobody waits for it");
            assert!(refused.is_none(), "one receiver blocks no other");
            if !is_full {
                for node in (2..).map(NodeId).take(MAX_SNAPSHOTS_SENT - MAX_SNAPSHOTS_SENT_TO_ONE) {
                    let turn = timeout(Duration::from_secs(10), sends.turn(node)).await.expect("there is room");
                    turns.push(turn.unwrap());
                }
            }
        }
    }
}
