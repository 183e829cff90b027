//! Drives one worker. Each turn drains the inbox, hands its contents to the worker, flushes, performs the effects, and
//! waits for more.

use crate::admission::AdmissionState;
use crate::clock;
use crate::events::{ControlEvent, Mailbox, SnapshotEvent};
use crate::inbox::{Drained, Event, Incoming};
use crate::log_queue::LogQueue;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::responder::Responder;
use crate::routing::Routing;
use crate::workers::Workers;
use ringfort_core::effects::Effects;
use ringfort_core::log::BatchSource;
use ringfort_core::message::RaftMessage;
use ringfort_core::request::Failure;
use ringfort_core::time::Now;
use ringfort_core::worker::Worker;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// What the thread uses of its node.
pub struct WorkerThread {
    pub index: usize,
    pub routing: Arc<Routing>,
    pub workers: Arc<Workers>,
    pub peers: Arc<Peers>,
    pub log: LogQueue,
    pub snapshots: Mailbox<SnapshotEvent>,
    pub control: Mailbox<ControlEvent>,
    pub admission: Arc<AdmissionState>,
    pub metrics: Arc<Metrics>,
    pub runtime: Handle,
}

impl WorkerThread {
    /// Runs until [`Event::Stop`].
    pub fn run(self, mut worker: Worker<Responder>) {
        let mut drained = Drained::default();
        // Replicas that exist at the start have effects at once.
        let mut more = true;
        loop {
            let patience = if more { Duration::ZERO } else { clock::until(worker.next_tick()) };
            self.workers.inbox(self.index).drain(&mut drained, patience);
            let now = clock::now();
            for event in drained.events.drain(..) {
                if matches!(event, Event::Stop) {
                    drained.requests.drain(..).for_each(|incoming| incoming.responder.answer(Err(Failure::NotApplied)));
                    self.workers.inbox(self.index).end();
                    return;
                }
                handle(&mut worker, now, event);
            }
            let entry_bytes = drained.messages.iter().map(RaftMessage::entry_bytes).sum();
            worker.handle_raft(now.moment, drained.messages.drain(..));
            let arrived = Instant::now();
            for Incoming { request, responder } in drained.requests.drain(..) {
                if responder.is_abandoned(arrived) {
                    responder.answer(Err(Failure::NotApplied));
                    continue;
                }
                worker.handle_request(now.moment, request, responder);
            }
            worker.handle_tick(now.moment);
            let (effects, again) = worker.flush(now);
            more = again;
            self.perform(effects);
            self.admission.handled(entry_bytes);
            self.workers.board(self.index).show(|| worker.status());
        }
    }

    /// Performs a turn's effects in the order that the core documents.
    fn perform(&self, effects: Effects<Responder>) {
        let Effects { messages, log, snapshots, views, topology, replies, reports, leadership, lost, garbage, counts } =
            effects;
        for (node, messages) in messages {
            self.peers.send_raft(node, messages);
        }
        // The receiving threads outlive the workers, so nothing is lost.
        if let Some(batch) = log {
            self.log.hand_in(BatchSource::Worker(self.index), batch);
        }
        for work in snapshots {
            self.snapshots.send(SnapshotEvent::Work(Box::new(work)));
        }
        for (shard, view) in views {
            self.routing.set_view(shard, view);
        }
        let control = |event| {
            self.control.send(event);
        };
        topology.into_iter().map(ControlEvent::Applied).for_each(control);
        for (responder, answer) in replies {
            responder.answer(answer);
        }
        reports.into_iter().map(ControlEvent::Report).for_each(control);
        self.metrics.count_turn(counts);
        for (shard, term, leads) in leadership {
            self.metrics.count_leadership(leads);
            control(ControlEvent::Leadership { shard, term, leads });
        }
        if !garbage.is_empty() {
            // Dropping a map of 4 million keys takes almost a second: not on this thread, nor on a network thread.
            self.runtime.spawn_blocking(move || drop(garbage));
        }
        for (shard, replica, why) in lost {
            self.metrics.divergence.count_lost(why);
            control(ControlEvent::Lost { shard, replica, why });
        }
    }
}

fn handle(worker: &mut Worker<Responder>, now: Now, event: Event) {
    match event {
        Event::Persisted(number) => worker.handle_persisted(now.moment, number),
        Event::Health(health) => worker.handle_health(health),
        Event::Topology(topology) => worker.handle_topology(now.moment, topology),
        Event::Retirements(topology) => worker.handle_retirements(&topology),
        Event::Step(step) => worker.handle_step(&step),
        Event::Unreachable(node) => worker.handle_unreachable(node),
        Event::ChunkWritten(shard) => worker.handle_snapshot_chunk_written(shard),
        Event::SnapshotWritten { shard, name, written } => worker.handle_snapshot_written(shard, &name, written),
        Event::SnapshotSent { shard, to, arrived } => worker.handle_snapshot_sent(shard, to, arrived),
        Event::Snapshot { message, name, restored } => worker.handle_snapshot(message, name, *restored),
        Event::LogPressure(shard) => worker.handle_log_pressure(shard),
        Event::Quarantine { shard, replica, why } => worker.handle_quarantine(shard, replica, why),
        Event::HandOver(asked) => {
            worker.hand_over();
            let _ = asked.send(worker.unfinished());
        }
        // Every turn publishes the status if a reader has asked.
        Event::Show => {}
        Event::Stop => {}
    }
}
