//! The simulator finds the bugs that it is for: each one is planted, and some seed must fail.

use ringfort_core::mutation::Mutation;
use ringfort_sim::cluster::run_mutated;
use ringfort_sim::options::{Faults, Options};
use ringfort_sim::seeds::run_caught;
use std::time::Duration;

/// Seeds within which each planted bug must be found.
const SEEDS: u64 = 400;

/// The options of a seed. Of bugs that have nothing to do with nodes that come and go, those are left out: what they do to
/// a cluster hides them for many seeds.
fn options(seed: u64, mutation: Mutation) -> Options {
    let sampled = Options::sample(seed);
    if [Mutation::PromoteEarly, Mutation::DropBeforeCaughtUp].contains(&mutation) {
        return sampled;
    }
    let faults = Faults { zone_losses: None, wipes: None, death: false, ..sampled.faults };
    Options { operations: 0, zones: 1, replace_after: Duration::from_secs(3600), faults, ..sampled }
}

fn seeds_until_found(mutation: Mutation) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        let outcome = run_caught(options(seed, mutation), &|options| run_mutated(options, mutation));
        let failure = outcome.failure?;
        Some((seed + 1, failure.lines().next().unwrap_or_default().to_owned()))
    })
}

fn must_be_found(mutation: Mutation) {
    match seeds_until_found(mutation) {
        Some((seeds, failure)) => println!("{mutation:?}: found after {seeds} seeds: {failure}"),
        None => panic!("{mutation:?} was not found in {SEEDS} seeds"),
    }
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    must_be_found(Mutation::AcknowledgeBeforeSync);
}

#[test]
fn voting_right_after_a_restart_is_found() {
    must_be_found(Mutation::VoteAtBoot);
}

#[test]
fn serving_as_a_deposed_leader_is_found() {
    must_be_found(Mutation::ServeAsDeposedLeader);
}

#[test]
fn forgetting_tombstones_too_early_is_found() {
    must_be_found(Mutation::ForgetTombstones);
}

#[test]
fn catching_up_ticks_is_found() {
    must_be_found(Mutation::CatchUpTicks);
}

#[test]
fn promoting_a_learner_early_is_found() {
    must_be_found(Mutation::PromoteEarly);
}

#[test]
fn dropping_a_replica_before_the_new_one_has_caught_up_is_found() {
    must_be_found(Mutation::DropBeforeCaughtUp);
}

#[test]
fn replicas_that_apply_something_else_are_found() {
    must_be_found(Mutation::ApplyDifferently);
}
