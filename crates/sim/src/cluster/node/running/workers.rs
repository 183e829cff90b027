//! The workers of a running node: their inboxes, their turns, and the effects of a turn.

use super::*;
use ringfort_core::effects::Effects;

impl Running {
    pub(in crate::cluster::node) fn give(&mut self, shard: ShardId, input: Input, out: &mut Outbox) {
        self.give_to(worker_of(shard, self.settings.workers), input, out);
    }

    pub(super) fn give_to(&mut self, worker: usize, input: Input, out: &mut Outbox) {
        let slot = &mut self.slots[worker];
        slot.inbox.push_back(input);
        if !std::mem::replace(&mut slot.turn_planned, true) {
            out.tasks.push((When::Soon, Task::Turn(worker)));
        }
    }

    pub(in crate::cluster::node) fn give_to_all(&mut self, input: impl Fn() -> Input, out: &mut Outbox) {
        for worker in 0..self.slots.len() {
            self.give_to(worker, input(), out);
        }
    }

    pub(super) fn turn(&mut self, index: usize, now: Now, out: &mut Outbox) {
        let slot = &mut self.slots[index];
        slot.turn_planned = false;
        let mut handled_bytes = 0;
        for input in std::mem::take(&mut slot.inbox) {
            let worker = &mut slot.worker;
            match input {
                Input::Raft(message) => {
                    handled_bytes += message.entry_bytes();
                    worker.handle_raft(now.moment, [*message]);
                }
                Input::Request { request, responder } => worker.handle_request(now.moment, request, responder),
                Input::Persisted(number) => worker.handle_persisted(now.moment, number),
                Input::Health(health) => worker.handle_health(health),
                Input::Topology(topology) => worker.handle_topology(now.moment, topology),
                Input::Retirements(topology) => worker.handle_retirements(&topology),
                Input::Step(step) => worker.handle_step(&step),
                Input::ChunkWritten(shard) => worker.handle_snapshot_chunk_written(shard),
                Input::SnapshotWritten { shard, name, written } => {
                    worker.handle_snapshot_written(shard, &name, written);
                }
                Input::SnapshotSent { shard, to, arrived } => worker.handle_snapshot_sent(shard, to, arrived),
                Input::Snapshot(snapshot) => {
                    let (message, name, restored) = *snapshot;
                    worker.handle_snapshot(message, name, restored);
                }
                Input::LogPressure(shard) => worker.handle_log_pressure(shard),
                Input::Quarantine { shard, replica, why } => worker.handle_quarantine(shard, replica, why),
                Input::HandOver => worker.hand_over(),
            }
        }
        slot.worker.handle_tick(now.moment);
        let (effects, more) = slot.worker.flush(now);
        if more && !std::mem::replace(&mut slot.turn_planned, true) {
            out.tasks.push((When::Soon, Task::Turn(index)));
        }
        if slot.worker.next_tick() != slot.tick_planned {
            slot.tick_planned = slot.worker.next_tick();
            out.tasks.push((When::Local(slot.tick_planned), Task::Turn(index)));
        }
        self.perform(index, effects, out);
        self.inbox_bytes -= handled_bytes;
    }

    fn perform(&mut self, worker: usize, effects: Effects<Responder>, out: &mut Outbox) {
        for (node, messages) in effects.messages {
            if let Some(to) = self.endpoint_of(node) {
                out.messages.push((to, Message::Raft(messages)));
            }
        }
        if let Some(batch) = effects.log {
            self.unsynced_bytes += batch.new_entry_bytes();
            self.log_queue.push_back((BatchSource::Worker(worker), batch));
            self.write_log(out);
        }
        for work in effects.snapshots {
            self.snapshot(work, out);
        }
        for (shard, view) in effects.views {
            match view {
                Some(view) => self.views.insert(shard, view),
                None => self.views.remove(&shard),
            };
        }
        if let Some(topology) = effects.topology {
            self.control.handle_topology(topology);
        }
        for (responder, answer) in effects.replies {
            self.reply(responder, answer, out);
        }
        for report in effects.reports {
            self.control.handle_local_report(report);
        }
        for (shard, term, leads) in effects.leadership {
            out.events.extend(leads.then_some("elections won"));
            self.control.handle_leadership(self.now.moment, shard, term, leads);
        }
        for (shard, replica, why) in effects.lost {
            if why != QuarantineReason::Log {
                self.alarms.push(format!("replica {replica} of shard {shard} ended: {why}"));
            }
            self.control.handle_lost_replica(self.now.moment, shard, replica, why);
        }
        self.perform_control(out);
    }

    pub fn hand_over(&mut self, out: &mut Outbox) {
        self.give_to_all(|| Input::HandOver, out);
    }
}
