//! A failing case is made smaller, and fails in the same way, every time.

use ringfort_core::mutation::Mutation;
use ringfort_sim::cluster::{Case, replay};
use ringfort_sim::minimise::minimise;
use ringfort_sim::options::Options;

/// If fewer faults have begun, there is little to leave out.
const FAULTS: u64 = 10;

#[test]
fn a_failing_case_shrinks_to_one_that_fails_alike() {
    let case = |seed| Case { mutation: Mutation::AcknowledgeBeforeSync, ..Case::of(Options::sample(seed)) };
    let failing = |seed| {
        let replay = replay(case(seed));
        Some((case(seed), replay.outcome.failure.filter(|_| replay.begun.faults >= FAULTS)?))
    };
    let (case, failure) = (0..20).find_map(failing).expect("the planted bug is found late in one of these seeds");
    let smaller = minimise(case.clone(), 200).expect("it fails");
    assert_eq!(smaller.replay.outcome.failure.map(|failure| failure.invariant), Some(failure.invariant));
    let is_left = |number: &u64| !smaller.case.without.faults.contains(number);
    let left = (0..smaller.replay.begun.faults).filter(is_left).count() as u64;
    assert!(left < smaller.before.faults / 2, "{left} of {:?}", smaller.before);
    let is_left = |number: &u64| !smaller.case.without.operations.contains(number);
    let begun = smaller.replay.begun.operations.min(smaller.case.without.operations_from.unwrap_or(u64::MAX));
    let operations = (0..begun).filter(is_left).count() as u64;
    println!("{left} faults and {operations} operations are left of {:?}, after {} runs", smaller.before, smaller.runs);
    let told = smaller.replay.timeline.to_string();
    assert!(told.contains("crashes") && told.contains(failure.invariant.name()), "{told}");
    assert_eq!(minimise(case, 200).expect("it fails").case, smaller.case, "minimising is repeatable");
}

#[test]
fn nothing_is_left_of_a_case_that_does_not_fail() {
    assert!(minimise(Case::of(Options::sample(0)), 10).is_none());
}

#[test]
fn watching_a_run_does_not_change_it() {
    let case = Case::of(Options::sample(3));
    assert_eq!(replay(case.clone()).outcome.fingerprint, ringfort_sim::cluster::run_case(case).fingerprint);
}
