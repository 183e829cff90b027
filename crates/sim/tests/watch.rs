//! The divergence detector by itself: a replica that applies something different from the others is found, ends, and is
//! replaced.

use ringfort_core::mutation::Mutation;
use ringfort_sim::cluster::run_diverging;
use ringfort_sim::options::{Faults, Options};

/// Three nodes, one shard, no faults: one of the three replicas has the number that the planted bug applies to.
fn options(seed: u64) -> Options {
    let sampled = Options::sample(seed);
    Options {
        nodes: 3,
        joins: 0,
        operations: 0,
        zones: 1,
        shards: 1,
        put_permille: 900,
        faults: Faults::none(),
        ..sampled
    }
}

#[test]
fn a_replica_that_applies_something_else_is_found_and_replaced() {
    let mut found = 0;
    for seed in 0..20 {
        let (outcome, alarms) = run_diverging(options(seed), Mutation::ApplyDifferently);
        let ended = alarms.iter().filter(|alarm| alarm.contains("most replicas have another state")).count();
        if ended > 0 {
            found += 1;
            assert!(alarms.iter().any(|alarm| alarm.contains("differ at index")), "seed {seed}: {alarms:?}");
            assert_eq!(outcome.failure, None, "seed {seed}: {alarms:?}");
        }
        println!("seed {seed}: {alarms:?} {:?}", outcome.failure);
    }
    assert!(found >= 5, "found in {found} of 20 runs");
}

#[test]
fn without_a_planted_bug_there_is_no_alarm() {
    for seed in 0..5 {
        let (outcome, alarms) = run_diverging(options(seed), Mutation::None);
        assert_eq!((outcome.failure, alarms), (None, vec![]), "seed {seed}");
    }
}
