//! The simulator finds the bugs that it is for: each one that can be planted, within its number of seeds.

use ringfort_core::mutation::Mutation;
use ringfort_sim::gate::{Table, run, searches};

#[test]
fn every_planted_bug_is_looked_for() {
    let looked_for: Vec<Mutation> = searches().iter().map(|search| search.mutation).collect();
    assert!(Mutation::ALL.iter().all(|mutation| looked_for.contains(mutation)), "{looked_for:?}");
}

#[test]
fn every_planted_bug_is_found() {
    let findings = run(searches());
    println!("{}", Table(&findings));
    let missed: Vec<_> = findings.iter().filter(|finding| finding.found.is_none()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}
