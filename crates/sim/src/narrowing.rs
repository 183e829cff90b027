//! What each focus makes of the options that a seed sampled.

use crate::focus::Focus;
use crate::network::Link;
use crate::options::{Episodes, Faults, Options, ReadMode};
use crate::random::Random;
use ringfort_core::timing::Timing;
use std::ops::RangeInclusive;
use std::time::Duration;

impl Focus {
    /// The options of a seed under the chosen focus, or else under the one drawn from the seed.
    pub fn options_of(seed: u64, chosen: Option<Focus>) -> Options {
        chosen.unwrap_or_else(|| Focus::of_seed(seed)).options(seed)
    }

    /// The options of a seed under this focus.
    pub fn options(self, seed: u64) -> Options {
        Options { focus: self, ..self.narrow(Options::sample(seed)) }
    }

    fn narrow(self, sampled: Options) -> Options {
        match self {
            Focus::None => sampled,
            Focus::Partitions => partitions(sampled, ReadMode::Lease),
            Focus::QuorumReads => partitions(sampled, ReadMode::Quorum),
            Focus::Damage => Options {
                shards: 8,
                clients: 10,
                put_permille: 900,
                think_time: milliseconds(0..=20),
                duration: Duration::from_secs(5),
                ..quiet(sampled, Faults { corruption: true, ..Faults::none() })
            },
            Focus::Bridges => quiet(sampled, Faults { bridges: episodes(300..=1_000, 500..=1_500), ..Faults::none() }),
            Focus::HandOvers => {
                let one_way_cuts = episodes(100..=1_000, 100..=1_000);
                let handovers = episodes(100..=500, 0..=0);
                Options {
                    clients: 10,
                    keys: 2,
                    put_permille: 300,
                    delete_permille: 0,
                    think_time: milliseconds(0..=5),
                    ..quiet(sampled, Faults { one_way_cuts, handovers, ..Faults::none() })
                }
            }
            Focus::FromOneNode => {
                let mut options = Options { nodes: 1, joins: 2, shards: 8, ..sampled };
                options.faults.crashes = episodes(300..=1_000, 10..=300);
                options.faults.crashes_midway = episodes(300..=1_000, 10..=300);
                options.faults.slow_disks = episodes(100..=500, 1_000..=2_000);
                options
            }
            Focus::Snapshots => {
                let (crashes, slow_disks) = (episodes(300..=1_000, 500..=1_500), episodes(100..=500, 1_000..=3_000));
                Options {
                    shards: 1,
                    clients: 10,
                    put_permille: 900,
                    think_time: milliseconds(0..=5),
                    slow_sync: milliseconds(500..=2_000),
                    ..quiet(sampled, Faults { crashes, slow_disks, ..Faults::none() })
                }
            }
            Focus::Removals => {
                let faults = Faults {
                    one_way_cuts: episodes(300..=1_000, 300..=2_000),
                    stalls: episodes(100..=500, 500..=2_000),
                    handovers: episodes(100..=500, 0..=0),
                    ..Faults::none()
                };
                Options { nodes: 4, joins: 2, operations: 20, shards: 8, moves: 8, ..quiet(sampled, faults) }
            }
            Focus::Moving => {
                let mut options = Options { nodes: 4, joins: 2, operations: 20, shards: 8, moves: 8, ..sampled };
                options.faults.crashes = episodes(300..=1_000, 100..=1_000);
                options.faults.partitions = episodes(300..=1_000, 300..=1_500);
                options
            }
            Focus::Gray => sampled.with_gray_failures(),
            Focus::SlowDisks => slow_disks(sampled),
            Focus::SlowElections => slow_elections(sampled),
            // The gap is longer than the length: no two disks hang at a time.
            Focus::HungDisks => Options {
                shards: 4,
                workers: 1,
                clients: 10,
                keys: 20,
                put_permille: 800,
                think_time: milliseconds(0..=20),
                request_timeout: Duration::from_millis(200),
                link: Link::healthy(Duration::from_micros(100)..=Duration::from_micros(1_000)),
                duration: Duration::from_secs(40),
                ..quiet(sampled, Faults { hung_disks: episodes(15_000..=20_000, 10_000..=14_000), ..Faults::none() })
            },
            Focus::LostDirectories => {
                let lost_directories = episodes(300..=2_000, 10..=300);
                let hung_disks = episodes(6_000..=8_000, 4_000..=5_000);
                Options {
                    shards: 2,
                    clients: 3,
                    // Messages are quick, and no leader stands still: a lost replica may be replaced soon, so that the
                    // topology often changes while a disk hangs.
                    proven_after: Duration::from_millis(400),
                    link: Link::healthy(Duration::from_micros(100)..=Duration::from_micros(1_000)),
                    ..quiet(sampled, Faults { lost_directories, hung_disks, ..Faults::none() })
                }
            }
            Focus::Restarts => {
                let (crashes, slow_disks) = (episodes(200..=800, 10..=100), episodes(100..=300, 2_000..=4_000));
                Options {
                    clients: 10,
                    keys: 5,
                    put_permille: 500,
                    delete_permille: 0,
                    think_time: milliseconds(0..=20),
                    request_timeout: Duration::from_secs(3),
                    slow_sync: milliseconds(500..=2_000),
                    ..quiet(sampled, Faults { crashes, slow_disks, ..Faults::none() })
                }
            }
        }
    }
}

fn partitions(sampled: Options, read_mode: ReadMode) -> Options {
    let partitions = episodes(300..=2_000, 450..=1_200);
    let mut options = Options {
        read_mode,
        clients: 10,
        keys: 2,
        put_permille: 300,
        delete_permille: 0,
        think_time: milliseconds(0..=5),
        request_timeout: Duration::from_millis(120),
        ..quiet(sampled, Faults { partitions, ..Faults::none() })
    };
    (options.link.duplicate_permille, options.link.straggle_permille) = (500, 20);
    options
}

/// Each sync takes longer than an election timeout, and an election needs two in sequence: the candidate's and the
/// voter's.
fn slow_elections(sampled: Options) -> Options {
    let faults = Faults { power_losses: episodes(8_000..=12_000, 500..=1_000), ..Faults::none() };
    let sync = milliseconds(400..=700);
    Options { nodes: 3, shards: 4, clients: 3, slow_sync: sync.clone(), sync, ..quiet(sampled, faults) }
}

/// Syncs take as long as elections, so a node's messages about its term are late by an election, and its earlier
/// promises must hold until then. A disk is slow for one sync and fast for the next, so that a new leader acknowledges
/// writes at once while readers at the former leader, whose workers are stalled, read the same keys.
fn slow_disks(sampled: Options) -> Options {
    let mut faults = Faults {
        slow_disks: episodes(100..=400, 20..=150),
        worker_stalls: episodes(500..=1_500, 2_000..=4_000),
        ..Faults::none()
    };
    match Random::new(sampled.seed).fork("beside slow disks").below(8) {
        0 => faults.stalls = episodes(300..=1_500, 500..=900),
        1 => faults.bridges = episodes(200..=1_500, 400..=2_000),
        2 => faults.flapping = episodes(500..=3_000, 500..=2_000),
        3 => faults.partitions = episodes(500..=2_000, 500..=1_000),
        _ => {}
    }
    Options {
        nodes: 3,
        shards: 8,
        read_mode: ReadMode::Lease,
        clients: 10,
        keys: 16,
        put_permille: 500,
        delete_permille: 0,
        // Appends of unknown outcome would hide what a stale read shows.
        appends: false,
        think_time: milliseconds(0..=5),
        request_timeout: Duration::from_millis(60),
        slow_sync: milliseconds(300..=900),
        link: Link::healthy(Duration::from_micros(100)..=Duration::from_micros(1_000)),
        ..quiet(sampled, faults)
    }
}

/// No node joins, leaves or is replaced, and only these faults happen, which last as long as elections usually do.
fn quiet(sampled: Options, faults: Faults) -> Options {
    Options {
        nodes: sampled.nodes.max(3),
        joins: 0,
        zones: 1,
        operations: 0,
        replace_after: Duration::from_secs(3600),
        timing: Timing::DEFAULT,
        faults,
        ..sampled
    }
}

fn milliseconds(range: RangeInclusive<u64>) -> RangeInclusive<Duration> {
    Duration::from_millis(*range.start())..=Duration::from_millis(*range.end())
}

/// The gap between two episodes and their length, in milliseconds.
fn episodes(gap: RangeInclusive<u64>, length: RangeInclusive<u64>) -> Option<Episodes> {
    Some(Episodes { gap: milliseconds(gap), length: milliseconds(length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_focus_changes_nothing_that_it_does_not_name() {
        for seed in 0..20 {
            let sampled = Options::sample(seed);
            assert_eq!(Focus::None.options(seed), sampled);
            let focused = Focus::SlowDisks.options(seed);
            assert_eq!(focused.duration, sampled.duration);
            assert!(focused.faults.crashes.is_none() && focused.faults.slow_disks.is_some());
        }
    }
}
