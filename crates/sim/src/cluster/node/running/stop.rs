//! A node's graceful stop, as in the shell ([`Stopping`]).

use super::*;
use ringfort_core::stopping::{STEP_INTERVAL, Step};

impl Running {
    pub fn stop(&mut self, now: Now, out: &mut Outbox) {
        self.now = now;
        if self.stopping.is_some() {
            return;
        }
        self.health.set_stopping();
        let health = self.health.report(self.now.moment).health;
        self.gossip.announce(self.now, health);
        self.perform_gossip(out);
        let is_alone = self.topology().nodes.len() == 1;
        self.stopping = Some(Stopping::new(self.now.moment, is_alone));
        out.tasks.push((When::Soon, Task::Stop));
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn step_stop(&mut self, out: &mut Outbox) {
        let unfinished = self.replicas().map(Replica::unfinished).sum();
        let has_answered = self.pending.has_answered_clients();
        let Some(stopping) = &mut self.stopping else { return };
        match stopping.next(self.now.moment, unfinished, has_answered) {
            Step::Wait => {}
            Step::StopServing => self.is_serving = false,
            Step::End => {
                out.stopped = true;
                return;
            }
        }
        self.hand_over(out);
        out.tasks.push((When::After(STEP_INTERVAL), Task::Stop));
    }
}
