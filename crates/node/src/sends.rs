//! Snapshots to be sent wait here for one of the node's send slots ([`ringfort_core::replica::send_slots`]).

use parking_lot::Mutex;
use ringfort_core::replica::send_slots::{SendSlots, Slot};
use ringfort_core::types::NodeId;
use tokio::sync::Notify;

#[derive(Default)]
pub struct Sends {
    slots: Mutex<SendSlots>,
    ended: Notify,
}

impl Sends {
    /// Waits until another snapshot may be sent to `node`. It holds its slot until the turn is dropped. `None` if
    /// `node` already receives as many as it may.
    pub async fn turn(&self, node: NodeId) -> Option<Turn<'_>> {
        loop {
            // Before the check, so that no end is missed.
            let ended = self.ended.notified();
            let slot = self.slots.lock().ask(node);
            match slot {
                Slot::Begins => return Some(Turn { sends: self, node }),
                Slot::Refused => return None,
                Slot::Waits => ended.await,
            }
        }
    }
}

pub struct Turn<'a> {
    sends: &'a Sends,
    node: NodeId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.sends.slots.lock().end(self.node);
        self.sends.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_core::limits::{MAX_SNAPSHOTS_SENT, MAX_SNAPSHOTS_SENT_TO_ONE};
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_transfer_waits_until_another_one_has_ended_unless_its_receiver_is_busy() {
        let sends = Sends::default();
        let mut turns = Vec::new();
        for _ in 0..MAX_SNAPSHOTS_SENT_TO_ONE {
            turns.push(sends.turn(NodeId(1)).await.unwrap());
        }
        let refused = timeout(Duration::from_secs(10), sends.turn(NodeId(1))).await.expect("nobody waits for it");
        assert!(refused.is_none(), "one receiver blocks no other");
        for node in (2..).map(NodeId).take(MAX_SNAPSHOTS_SENT - MAX_SNAPSHOTS_SENT_TO_ONE) {
            turns.push(sends.turn(node).await.unwrap());
        }
        let next = sends.turn(NodeId(99));
        tokio::pin!(next);
        assert!(timeout(Duration::from_millis(10), &mut next).await.is_err());
        turns.pop();
        timeout(Duration::from_secs(10), next).await.expect("an end makes room").unwrap();
    }
}
