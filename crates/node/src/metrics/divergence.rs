//! Metrics of diverged replicas and corrupted memory.

use super::Maker;
use crate::events::GossipKnowledge;
use prometheus::{IntCounter, IntCounterVec, IntGauge};
use ringfort_core::divergence::{Divergence, QuarantineReason};

/// The kinds of alarms: this node's memory is corrupt; a replica differs from the majority; replicas differ without a
/// majority, so it is unknown which is wrong.
const KINDS: [&str; 3] = ["memory", "minority", "undecided"];

pub struct DivergenceMetrics {
    pub scrubbed: IntCounter,
    alarms: IntCounterVec,
    shards: IntGauge,
}

impl DivergenceMetrics {
    pub(super) fn new(maker: &Maker) -> DivergenceMetrics {
        let divergence = DivergenceMetrics {
            scrubbed: maker.counter("scrubbed_maps_total", "Complete checks of the memory of all keys of a shard."),
            alarms: maker.counters(
                "divergence_alarms_total",
                "Replicas anywhere that were found to differ, and memory here that is damaged: see docs/operating.md.",
                &["kind"],
            ),
            shards: maker.gauge("divergence_shards", "Shards of which this node knows replicas that differ."),
        };
        KINDS.iter().for_each(|kind| drop(divergence.alarms.with_label_values(&[kind])));
        divergence
    }

    /// A replica here has ended for this reason.
    pub fn count_lost(&self, why: QuarantineReason) {
        if why == QuarantineReason::Memory {
            self.alarms.with_label_values(&[KINDS[0]]).inc();
        }
    }

    pub fn count_divergence(&self, divergence: &Divergence) {
        let kind = if divergence.minority.is_empty() { KINDS[2] } else { KINDS[1] };
        self.alarms.with_label_values(&[kind]).inc();
    }

    /// Sets the gauges from the gossip thread's knowledge.
    pub(super) fn set(&self, knowledge: &GossipKnowledge) {
        self.shards.set(knowledge.divergences.len() as i64);
    }
}
