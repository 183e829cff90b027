//! Bounds how many snapshots a node sends at a time.
//!
//! Each worker begins transfers by itself, and may always begin one. Many workers together may begin more than a node
//! may send at a time, so transfers wait for their turn here.

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
    /// Waits until another snapshot may be sent to `node`. It counts until the turn is dropped.
    pub async fn turn(&self, node: NodeId) -> Turn<'_> {
        loop {
            // Before the check, so that no end is missed.
            let ended = self.ended.notified();
            if self.begin(node) {
                return Turn { sends: self, node };
            }
            ended.await;
        }
    }

    fn begin(&self, node: NodeId) -> bool {
        let mut under_way = self.under_way.lock();
        let to_node = under_way.iter().filter(|other| **other == node).count();
        let may_begin = under_way.len() < MAX_SNAPSHOTS_SENT && to_node < MAX_SNAPSHOTS_SENT_TO_ONE;
        if may_begin {
            under_way.push(node);
        }
        may_begin
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
            turns.push(sends.turn(node).await);
        }
        let next = sends.turn(NodeId(99));
        tokio::pin!(next);
        assert!(timeout(Duration::from_millis(10), &mut next).await.is_err());
        turns.pop();
        turns.push(timeout(Duration::from_secs(10), next).await.expect("an end makes room"));
        turns.clear();

        for _ in 0..MAX_SNAPSHOTS_SENT_TO_ONE {
            turns.push(sends.turn(NodeId(1)).await);
        }
        assert!(
            timeout(Duration::from_millis(10), sends.turn(NodeId(1))).await.is_err(),
            "one receiver blocks no other"
        );
        drop(timeout(Duration::from_secs(10), sends.turn(NodeId(2))).await.expect("there is room"));
    }
}
