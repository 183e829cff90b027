//! Drives gossip, and serves the eventual keyspace.
//!
//! One thread is enough: a message is merged in microseconds, and updates that must be durable go to the log thread,
//! which reports back with an event. Reads run on this thread too and never wait for the disk.

use crate::clock;
use crate::events::{ControlEvent, GossipEvent, GossipKnowledge, Mailbox, NoAnswer, WriteAnswer};
use crate::inbox::Event;
use crate::log_queue::{LogQueue, LogSize};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::routing::Routing;
use crate::workers::Workers;
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use ringfort_core::divergence::{self, DivergenceDetector, QuarantineReason};
use ringfort_core::gossip::node_state::{Fact, Load};
use ringfort_core::gossip::{Gossip, Refusal};
use ringfort_core::log::BatchSource;
use ringfort_core::types::{NodeId, ShardId};
use std::sync::Arc;

/// Messages from other nodes that may wait; further ones are dropped, and gossip sends their contents again.
const MAX_WAITING: usize = 1024;

/// Messages that are handled together, and whose updates become durable together.
const MAX_DRAINED: usize = 256;

/// How often the node publishes its load, in gossip rounds. The load changes all the time.
const LOAD_ROUNDS: u64 = 10;

/// Of each kind of refusal, one in this many is logged.
const REFUSALS_A_LINE: u64 = 1000;

impl Mailbox<GossipEvent> {
    /// Passes on a message from another node, or drops it if too many wait.
    pub fn deliver(&self, from: NodeId, bytes: Bytes) {
        self.offer(GossipEvent::Message { from, bytes }, MAX_WAITING);
    }

    /// What the gossip thread knows.
    pub async fn knowledge(&self) -> Result<GossipKnowledge, NoAnswer> {
        self.ask(GossipEvent::Status).await
    }
}

/// What the thread uses of its node.
pub struct GossipThread {
    pub routing: Arc<Routing>,
    pub workers: Arc<Workers>,
    pub peers: Arc<Peers>,
    pub control: Mailbox<ControlEvent>,
    pub log: LogQueue,
    pub log_size: Arc<LogSize>,
    pub metrics: Arc<Metrics>,
}

impl GossipThread {
    /// Runs until [`GossipEvent::Stop`].
    pub fn run(
        self,
        mut gossip: Gossip<WriteAnswer>,
        mut divergence: DivergenceDetector,
        events: Receiver<GossipEvent>,
    ) {
        gossip.say(&Fact::Build(env!("CARGO_PKG_VERSION").to_owned()));
        let mut said_rounds = None;
        loop {
            let mut next = match events.recv_timeout(clock::until(gossip.next_tick())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut drained = 0;
            while let Some(event) = next {
                if matches!(event, GossipEvent::Stop) {
                    return;
                }
                if let GossipEvent::Message { bytes, .. } = &event {
                    self.metrics.gossip.received_bytes.inc_by(bytes.len() as u64);
                }
                handle(&mut gossip, &divergence, event);
                drained += 1;
                next = if drained < MAX_DRAINED { events.try_recv().ok() } else { None };
            }
            let rounds_before = gossip.rounds();
            let now = clock::now();
            gossip.handle_tick(now);
            let rounds = gossip.rounds();
            if rounds > rounds_before {
                self.control.tell_liveness(now.moment, gossip.all_liveness(now.moment));
            }
            if said_rounds.is_none_or(|said| rounds >= said + LOAD_ROUNDS) {
                said_rounds = Some(rounds);
                self.speak(&mut gossip);
            }
            self.compare(&mut gossip, &mut divergence);
            self.perform(&mut gossip);
        }
    }

    fn perform(&self, gossip: &mut Gossip<WriteAnswer>) {
        let effects = gossip.take_effects();
        for (node, message) in effects.messages {
            self.metrics.gossip.sent_bytes.inc_by(message.len() as u64);
            self.peers.send_gossip(node, message);
        }
        if let Some(batch) = effects.log {
            self.log.hand_in(BatchSource::Gossip, batch);
        }
        if let Some(health) = effects.health {
            self.workers.push_event_to_all(|| Event::Health(health.clone()));
            self.control.send(ControlEvent::Health(health));
        }
        for (answer, written) in effects.replies {
            let _ = answer.send(written);
        }
    }

    /// Compares the replicas of all nodes, and acts on the result.
    fn compare(&self, gossip: &mut Gossip<WriteAnswer>, divergence: &mut DivergenceDetector) {
        let topology = self.routing.topology();
        let own = topology.groups.keys().filter_map(|&shard| self.routing.view(shard)?.point());
        for event in divergence.handle_round(gossip, &topology, own) {
            match event {
                divergence::Event::Alarm(divergence) => {
                    self.metrics.divergence.count_divergence(&divergence);
                    tracing::error!("{divergence}");
                }
                divergence::Event::Minority { shard, replica } => {
                    self.workers.of(shard).push_event(Event::Quarantine {
                        shard,
                        replica,
                        why: QuarantineReason::Minority,
                    });
                }
                divergence::Event::Over(shard) => tracing::info!(%shard, "the replicas of this shard no longer differ"),
            }
        }
    }

    /// Publishes this node's load and the shards that it leads.
    fn speak(&self, gossip: &mut Gossip<WriteAnswer>) {
        let topology = self.routing.topology();
        let mut load = Load { log_bytes: self.log_size.bytes(), ..Load::default() };
        let mut leads = Vec::new();
        for &shard in topology.groups.keys() {
            let Some(view) = self.routing.view(shard) else { continue };
            load.replicas += 1;
            if shard != ShardId::SYSTEM {
                let (keys, bytes) = view.size();
                load.keys += keys as u64;
                load.key_value_bytes += bytes as u64;
            }
            if view.leader() == Some(self.routing.node()) {
                leads.push(shard);
            }
        }
        gossip.say(&Fact::Load(load));
        gossip.say(&Fact::Leads(leads));
    }
}

fn handle(gossip: &mut Gossip<WriteAnswer>, divergence: &DivergenceDetector, event: GossipEvent) {
    // The asking task may have stopped waiting for the answer.
    match event {
        GossipEvent::Message { from, bytes } => {
            if let Err(refusal) = gossip.handle_message(clock::now(), from, &bytes) {
                log(gossip, from, &refusal);
            }
        }
        GossipEvent::Topology(topology) => gossip.handle_topology(clock::moment(), topology),
        GossipEvent::Health(health) => gossip.announce(clock::now(), health),
        GossipEvent::Write { key, value, answer } if !answer.is_closed() => {
            gossip.handle_write(clock::now(), key, value, answer);
        }
        GossipEvent::Get { key, answer } => drop(answer.send(gossip.get(&key))),
        GossipEvent::Scan { prefix, start_after, limit, answer } => {
            drop(answer.send(gossip.scan(&prefix, start_after.as_deref(), limit)));
        }
        GossipEvent::Persisted(number) => gossip.handle_persisted(clock::now(), number),
        GossipEvent::LogPressure => gossip.handle_log_pressure(),
        GossipEvent::Status(answer) => {
            let status = gossip.status(clock::moment());
            let (rounds, refused) = (gossip.rounds(), gossip.refused().clone());
            let divergences = divergence.divergences().cloned().collect();
            drop(answer.send(GossipKnowledge { status, rounds, refused, divergences }));
        }
        GossipEvent::Write { .. } | GossipEvent::Stop => {}
    }
}

/// Logs the first refusal of each kind, and then one in [`REFUSALS_A_LINE`]. If the data will be sent again anyway, the
/// refusal is logged at debug level.
fn log(gossip: &Gossip<WriteAnswer>, from: NodeId, refusal: &Refusal) {
    let count = gossip.refused().get(refusal.kind()).copied().unwrap_or_default();
    if count % REFUSALS_A_LINE != 1 {
        return;
    }
    match refusal.comes_again() {
        true => tracing::debug!(node = %from, count, "a gossip message was refused: {refusal}"),
        false => tracing::warn!(node = %from, count, "a gossip message was refused: {refusal}"),
    }
}
