//! The simulator finds every bug that can be planted, within its number of seeds. Each invariant is violated by at
//! least one of them: an invariant that is never seen to fail proves nothing.

use ringfort_core::mutation::Mutation;
use ringfort_sim::gate::{Finding, Table, run, searches};
use ringfort_sim::invariant::Invariant;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// The results of all searches, which run once for all tests.
fn findings() -> &'static [Finding] {
    static FINDINGS: OnceLock<Vec<Finding>> = OnceLock::new();
    FINDINGS.get_or_init(|| run(searches()))
}

#[test]
fn every_planted_bug_is_looked_for() {
    let looked_for: Vec<Mutation> = searches().iter().map(|search| search.mutation).collect();
    assert!(Mutation::ALL.iter().all(|mutation| looked_for.contains(mutation)), "{looked_for:?}");
}

#[test]
fn every_planted_bug_is_found() {
    println!("{}", Table(findings()));
    let missed: Vec<_> = findings().iter().filter(|finding| finding.found.is_none()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_invariant_finds_a_planted_bug() {
    let found = |finding: &Finding| finding.found.as_ref().map(|(_, violation)| violation.invariant);
    let seen: BTreeSet<Invariant> = findings().iter().filter_map(found).collect();
    let unseen: Vec<_> = Invariant::ALL.iter().filter(|invariant| !seen.contains(invariant)).collect();
    assert!(unseen.is_empty(), "no planted bug breaks {unseen:?}");
}
