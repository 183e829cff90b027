//! Gossip on a simulated node.

use super::running::{Input, Outbox, Running, When};
use super::{Message, Task};
use crate::network::Endpoint;
use ringfort_core::log::BatchSource;
use ringfort_core::time::Now;

/// The client that waits for the answer to an eventual write.
pub struct EventualResponder {
    from: Endpoint,
    id: usize,
}

impl Running {
    pub(super) fn tick_gossip(&mut self, now: Now, out: &mut Outbox) {
        self.gossip.handle_topology(now.moment, self.control.topology().clone());
        let rounds = self.gossip.rounds();
        self.gossip.handle_tick(now);
        if self.gossip.rounds() > rounds {
            self.control.handle_liveness(now.moment, self.gossip.all_liveness(now.moment));
        }
        self.compare(out);
        out.tasks.push((When::Local(self.gossip.next_tick()), Task::Gossip));
        self.perform_gossip(out);
    }

    pub(super) fn receive_gossip(&mut self, from: Endpoint, message: Message, now: Now, out: &mut Outbox) {
        match message {
            Message::Gossip { from, bytes } => {
                let refused = self.gossip.handle_message(now, from, &bytes).is_err();
                // Refused data may or may not be sent again; what counts is that all nodes converge.
                out.events.extend(refused.then_some("gossip refused"));
            }
            Message::WriteEventually { id, key, value } => {
                self.gossip.handle_write(now, key, value, EventualResponder { from, id });
            }
            _ => {}
        }
        self.perform_gossip(out);
    }

    pub(super) fn perform_gossip(&mut self, out: &mut Outbox) {
        let effects = self.gossip.take_effects();
        for (node, bytes) in effects.messages {
            if let Some(to) = self.endpoint_of(node) {
                out.messages.push((to, Message::Gossip { from: self.node, bytes }));
            }
        }
        if let Some(batch) = effects.log {
            self.unsynced_bytes += batch.new_entry_bytes();
            self.log_queue.push_back((BatchSource::Gossip, batch));
            self.write_log(out);
        }
        if let Some(health) = effects.health {
            self.give_to_all(|| Input::Health(health.clone()), out);
            self.control.handle_health(health);
        }
        for (EventualResponder { from, id }, written) in effects.replies {
            if let Ok(written) = written {
                out.events.push("eventual writes");
                out.messages
                    .push((from, Message::WrittenEventually { id, timestamp: written.timestamp, node: self.node }));
            }
        }
    }
}
