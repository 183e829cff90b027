//! Metrics of gossip and the eventual keyspace.

use super::Maker;
use crate::events::GossipKnowledge;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use ringfort_core::gossip::Refusal;
use ringfort_core::liveness::LivenessState;

/// Indexed by [`LivenessState`].
const STATES: [&str; 3] = ["alive", "suspect", "dead"];

pub struct Gossip {
    pub sent_bytes: IntCounter,
    pub received_bytes: IntCounter,
    rounds: IntCounter,
    refused: IntCounterVec,
    states: IntGaugeVec,
    missing: IntGauge,
    lag: IntGauge,
    keys: IntGauge,
    tombstones: IntGauge,
    bytes: IntGauge,
    diverged: IntGauge,
}

impl Gossip {
    pub(super) fn new(maker: &Maker) -> Gossip {
        let gossip = Gossip {
            sent_bytes: maker.counter("gossip_sent_bytes_total", "Bytes of gossip messages to other nodes."),
            received_bytes: maker.counter("gossip_received_bytes_total", "Bytes of gossip messages of other nodes."),
            rounds: maker.counter("gossip_rounds_total", "Rounds of gossip that this node has begun."),
            refused: maker.counters(
                "gossip_refused_total",
                "Gossip messages, or parts of them, that were refused, by the reason.",
                &["reason"],
            ),
            states: maker.gauges("gossip_nodes", "Other nodes, by their liveness as this node judges it.", "state"),
            missing: maker
                .gauge("eventual_missing_writes", "Eventual writes that other nodes have and that are missing here."),
            lag: maker.gauge(
                "eventual_lag_writes",
                "Eventual writes that the node which lags the most has not shown to have.",
            ),
            keys: maker.gauge("eventual_keys", "Keys of the eventual keyspace here."),
            tombstones: maker.gauge("eventual_tombstones", "Deletions that are remembered until all nodes know them."),
            bytes: maker.gauge("eventual_bytes", "Memory that the eventual keyspace takes here."),
            diverged: maker.gauge(
                "eventual_diverged_nodes",
                "Nodes whose eventual keyspace differs from this one and does not converge: see docs/gossip.md.",
            ),
        };
        STATES.iter().for_each(|state| gossip.states.with_label_values(&[state]).set(0));
        Refusal::KINDS.iter().for_each(|kind| drop(gossip.refused.with_label_values(&[kind])));
        gossip
    }

    /// Updates the metrics from the gossip thread's knowledge.
    pub(super) fn set(&self, knowledge: &GossipKnowledge) {
        let GossipKnowledge { status, rounds, refused, .. } = knowledge;
        raise(&self.rounds, *rounds);
        for (kind, count) in refused {
            raise(&self.refused.with_label_values(&[kind]), *count);
        }
        let mut states = [0; STATES.len()];
        for liveness in status.members.iter().filter_map(|member| member.liveness) {
            states[match liveness.state {
                LivenessState::Alive => 0,
                LivenessState::Suspect => 1,
                LivenessState::Dead => 2,
            }] += 1;
        }
        for (state, count) in STATES.iter().zip(states) {
            self.states.with_label_values(&[state]).set(count);
        }
        self.missing.set(status.missing as i64);
        self.lag.set(status.members.iter().filter_map(|member| member.lag).max().unwrap_or_default() as i64);
        self.keys.set(status.keys as i64);
        self.tombstones.set(status.tombstones as i64);
        self.bytes.set(status.bytes as i64);
        self.diverged.set(status.diverged.len() as i64);
    }
}

/// Raises a counter to a count that never decreases.
fn raise(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}
