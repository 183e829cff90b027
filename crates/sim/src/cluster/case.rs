//! What a run is told to do and to leave out, and the kinds of runs.

use super::node::Node;
use super::timeline::Timeline;
use super::{Cluster, Options};
use crate::invariant::Invariant;
use crate::seeds::Outcome;
use ringfort_core::mutation::Mutation;
use std::collections::BTreeSet;

/// A run to execute: its options, an optional planted bug, and what it leaves out.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    pub options: Options,
    pub mutation: Mutation,
    pub without: Without,
    /// Invariants whose violations are ignored, so that the run continues. (A condition that is awaited in vain still
    /// ends the run.)
    pub ignored: BTreeSet<Invariant>,
}

/// What a run leaves out, by numbers that count from zero in the order of occurrence. The random draws for it are still
/// made, so that the rest changes as little as possible.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Without {
    pub faults: BTreeSet<u64>,
    pub operations: BTreeSet<u64>,
    /// No operation from this number on.
    pub operations_from: Option<u64>,
    pub eventual_writes: BTreeSet<u64>,
}

impl Case {
    pub fn of(options: Options) -> Case {
        Case { options, mutation: Mutation::None, without: Without::default(), ignored: BTreeSet::new() }
    }
}

/// Runs the cluster that the options describe.
pub fn run(options: Options) -> Outcome {
    run_case(Case::of(options))
}

pub fn run_case(case: Case) -> Outcome {
    Cluster::new(case).outcome()
}

/// How much a run began, including what it left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begun {
    pub faults: u64,
    pub operations: u64,
    pub eventual_writes: u64,
}

/// The outcome of a run, and the record of what happened in it.
pub struct Replay {
    pub outcome: Outcome,
    pub begun: Begun,
    pub timeline: Timeline,
}

/// Runs a case and records what happens in it. If the run panics, the record ends there.
pub fn replay(case: Case) -> Replay {
    let mut cluster = Cluster::new(case);
    cluster.timeline = Some(Timeline::default());
    let outcome = crate::seeds::caught(|| cluster.outcome());
    if let Some(failure) = &outcome.failure {
        cluster.note(failure.to_string());
    }
    let begun = Begun {
        faults: cluster.faults.begun(),
        operations: cluster.clients.begun(),
        eventual_writes: cluster.eventual.begun(),
    };
    Replay { outcome, begun, timeline: cluster.timeline.unwrap_or_default() }
}

/// Runs the options with a planted bug that makes replicas diverge. After the faults, the run continues until the
/// divergence detector has had time to find it and the cluster has recovered. Histories and states are not checked.
/// Also returns what the divergence detector found.
pub fn run_diverging(options: Options, mutation: Mutation) -> (Outcome, Vec<String>) {
    let mut cluster = Cluster::new(Case { mutation, ..Case::of(options) });
    cluster.invariants.expects_divergence = true;
    let failure = cluster.diverge().err();
    let running = cluster.nodes.values().filter_map(Node::running);
    let alarms = running.flat_map(|running| running.alarms().to_vec()).collect();
    (Outcome { failure, ..cluster.outcome_so_far() }, alarms)
}

/// Runs the options, and crashes a node right after its controller's action, the `act`th of all controllers. Also
/// returns how many actions there were.
pub fn run_crashing_controller(options: Options, act: u64) -> (Outcome, u64) {
    let mut cluster = Cluster::new(Case::of(options));
    cluster.crash_controller_at = Some(act);
    let outcome = cluster.outcome();
    (outcome, cluster.controller_acts)
}
