//! A node crashes right after each action of its controller, while one node joins and another leaves.

use ringfort_sim::cluster::run_crashing_controller;
use ringfort_sim::network::Link;
use ringfort_sim::options::{Faults, Options, TickPhases};
use std::time::Duration;

/// A quiet cluster of four, which a fifth node joins; the operator commands depend on `seed`.
fn quiet(seed: u64) -> Options {
    Options {
        nodes: 4,
        joins: 1,
        operations: 4,
        shards: 2,
        workers: 1,
        clients: 2,
        zones: 1,
        moves: 2,
        replace_after: Duration::from_secs(4),
        tick_phases: TickPhases::Spread,
        link: Link::healthy(Duration::from_micros(200)..=Duration::from_millis(1)),
        duration: Duration::from_secs(10),
        faults: Faults::none(),
        ..Options::sample(seed)
    }
}

#[test]
fn a_controller_may_crash_at_every_step_of_a_move() {
    let mut crashes = 0;
    for seed in 0..8 {
        let mut act = 0;
        loop {
            let (outcome, acts) = run_crashing_controller(quiet(seed), act);
            assert_eq!(outcome.failure, None, "seed {seed}, crash after act {act}");
            act += 1;
            if act >= acts {
                break;
            }
        }
        crashes += act;
    }
    println!("{crashes} crashes");
    assert!(crashes > 100, "there is much to ask for");
}
