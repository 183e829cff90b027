//! The gate of planted bugs: the simulator must find each, within a stated number of seeds.
//!
//! A simulator that finds nothing may be of no use; one that finds what was planted has its invariants, its faults and its
//! checkers at work. Each bug is looked for from seed 0 on, in the runs that everybody gets from [`Options::sample`]; some
//! need a [`Focus`], which turns off what hides them or turns on what they need. A bug may also be looked for by one
//! invariant alone, with the earlier ones that would find it ignored: so those that come last are seen to work too.

use crate::cluster::{Case, Without, run_case};
use crate::invariant::{Invariant, Violation};
use crate::options::{Episodes, Faults, Options, ReadMode};
use crate::seeds::caught;
use ringfort_core::mutation::Mutation;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What a search narrows the options to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Focus {
    /// Everything, as sampled.
    None,
    /// Partitions that heal when there may be two leaders, and busy clients of two keys that are never
    /// deleted. Nothing else goes wrong.
    Partitions(ReadMode),
    /// Nodes that hear two groups that do not hear each other, and then restart or stall. Nothing else goes wrong.
    Bridges,
    /// Clients put for a few seconds into many shards, then a node finds its disk damaged. Nothing else goes wrong.
    Damage,
    /// Leadership is handed over all the time, over links that lose one direction; busy clients of two keys that are never
    /// deleted. Nothing else goes wrong.
    HandOvers,
    /// Clusters that begin with one node, which crashes all the time and is slow to sync.
    GrowingFromOne,
    /// Nodes come and go all the time, crash, and do not hear each other.
    Moving,
    /// Nodes come and go all the time, while leaders stand still, are not heard and hand over. Nothing else goes wrong.
    Removals,
    /// Busy clients of one shard, whose nodes crash so often that they get its snapshots, on disks that are slow to sync.
    Snapshots,
}

/// A bug to be found.
#[derive(Clone, Debug)]
pub struct Search {
    pub mutation: Mutation,
    pub focus: Focus,
    /// What is ignored: the invariants that would find the bug before the one that is meant.
    pub ignored: &'static [Invariant],
    /// Seeds within which it must be found.
    pub seeds: u64,
}

/// What came of a search.
#[derive(Clone, Debug)]
pub struct Finding {
    pub search: Search,
    /// How many seeds it took, and what the last one showed.
    pub found: Option<(u64, Violation)>,
}

impl Focus {
    pub fn narrow(self, sampled: Options) -> Options {
        let episodes = |gap: RangeInclusive<u64>, length: RangeInclusive<u64>| {
            let range = |range: RangeInclusive<u64>| {
                Duration::from_millis(*range.start())..=Duration::from_millis(*range.end())
            };
            Some(Episodes { gap: range(gap), length: range(length) })
        };
        let quiet = |sampled: Options, faults: Faults| Options {
            nodes: sampled.nodes.max(3),
            joins: 0,
            zones: 1,
            operations: 0,
            replace_after: Duration::from_secs(3600),
            faults,
            ..sampled
        };
        match self {
            Focus::None => sampled,
            Focus::Partitions(read_mode) => {
                let partitions = episodes(300..=2_000, 450..=1_200);
                let mut options = Options {
                    read_mode,
                    clients: 10,
                    keys: 2,
                    put_permille: 300,
                    delete_permille: 0,
                    think_time: Duration::ZERO..=Duration::from_millis(5),
                    request_timeout: Duration::from_millis(120),
                    ..quiet(sampled, Faults { partitions, ..Faults::none() })
                };
                (options.link.duplicate_permille, options.link.straggle_permille) = (500, 20);
                options
            }
            Focus::Damage => Options {
                shards: 8,
                clients: 10,
                put_permille: 900,
                think_time: Duration::ZERO..=Duration::from_millis(20),
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
                    think_time: Duration::ZERO..=Duration::from_millis(5),
                    ..quiet(sampled, Faults { one_way_cuts, handovers, ..Faults::none() })
                }
            }
            Focus::GrowingFromOne => {
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
                    think_time: Duration::ZERO..=Duration::from_millis(5),
                    slow_sync: Duration::from_millis(500)..=Duration::from_millis(2_000),
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
        }
    }
}

/// All searches that the gate makes: each bug as it is found first, then some that are found only by what comes later.
pub fn searches() -> Vec<Search> {
    use Invariant::*;
    use Mutation::*;
    let search = |mutation, focus, ignored| Search { mutation, focus, ignored, seeds: 400 };
    let (lease, quorum) = (Focus::Partitions(ReadMode::Lease), Focus::Partitions(ReadMode::Quorum));
    vec![
        search(AcknowledgeBeforeSync, Focus::None, &[]),
        search(VoteAtBoot, Focus::Bridges, &[]),
        search(ForgetVote, Focus::None, &[]),
        search(SpeakBeforeVote, Focus::GrowingFromOne, &[]),
        search(ServeAsDeposedLeader, Focus::None, &[]),
        search(ServeBeforeTermStart, Focus::HandOvers, &[]),
        search(LeaseFromEcho, lease, &[]),
        search(KeepLeaseOnTransfer, Focus::HandOvers, &[]),
        search(ReuseReadContext, quorum, &[]),
        search(StaleWithoutBound, Focus::None, &[]),
        search(FreshBeforeTermStart, Focus::None, &[]),
        search(CatchUpTicks, Focus::Bridges, &[]),
        search(DisownProposals, Focus::None, &[]),
        search(ApplyOutOfOrder, Focus::None, &[]),
        search(ForgetConfState, Focus::None, &[]),
        search(IgnoreChecksums, Focus::Damage, &[]),
        search(TruncateAtFirstBad, Focus::None, &[]),
        search(PromoteEarly, Focus::None, &[]),
        search(DropBeforeCaughtUp, Focus::None, &[]),
        search(ApplyDifferently, Focus::None, &[]),
        search(ClockInsideApply, Focus::None, &[]),
        search(HashAfterDrain, Focus::None, &[]),
        search(LeadAfterRemoval, Focus::Removals, &[]),
        search(CampaignOnSnapshot, Focus::Snapshots, &[]),
        search(PublishBeforeCommit, Focus::None, &[]),
        search(ForgetTombstones, Focus::None, &[]),
        search(HideDeletions, Focus::None, &[]),
        search(AnswerEventualEarly, Focus::Snapshots, &[]),
        search(AcknowledgeBeforeSync, Focus::None, &[DurableLog]),
        search(
            AcknowledgeBeforeSync,
            Focus::None,
            &[DurableLog, LeaderCompleteness, StateMachineSafety, BoundedStaleness, SessionMonotonicity],
        ),
        search(ServeAsDeposedLeader, lease, &[LeaseExclusivity]),
        search(ServeBeforeTermStart, Focus::None, &[Linearizability]),
        search(ApplyDifferently, Focus::None, &[StateMachineSafety]),
        search(PublishBeforeCommit, Focus::Moving, &[BoundedRecovery]),
        search(HideDeletions, Focus::None, &[GossipConvergence]),
    ]
}

impl Search {
    /// The run of a seed.
    pub fn case(&self, seed: u64) -> Case {
        Case {
            options: self.focus.narrow(Options::sample(seed)),
            mutation: self.mutation,
            without: Without::default(),
            ignored: self.ignored.iter().copied().collect::<BTreeSet<_>>(),
        }
    }

    fn run(self) -> Finding {
        let found = (0..self.seeds).find_map(|seed| {
            let case = self.case(seed);
            let violation = caught(|| run_case(case.clone())).failure?;
            if self.ignored.contains(&violation.invariant) {
                return None;
            }
            // What the product does as well is no finding.
            let product = Case { mutation: Mutation::None, ..case };
            (caught(|| run_case(product)).failure.is_none()).then_some((seed + 1, violation))
        });
        Finding { search: self, found }
    }
}

/// Makes all searches, two at a time, and returns what came of them in their order.
pub fn run(searches: Vec<Search>) -> Vec<Finding> {
    let next = AtomicUsize::new(0);
    let mut findings: Vec<(usize, Finding)> = thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(search) = searches.get(index) else { return done };
                done.push((index, search.clone().run()));
            }
        };
        let workers = [(); crate::seeds::SEEDS_AT_A_TIME].map(|()| scope.spawn(worker));
        workers.into_iter().flat_map(|worker| worker.join().expect("searches catch what panics")).collect()
    });
    findings.sort_unstable_by_key(|(index, _)| *index);
    findings.into_iter().map(|(_, finding)| finding).collect()
}

/// The findings as a table in Markdown.
pub struct Table<'a>(pub &'a [Finding]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| planted bug | focus | ignored | found by | after seeds | limit |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for Finding { search, found } in self.0 {
            let (by, after) = match found {
                Some((seeds, violation)) => (violation.invariant.name(), seeds.to_string()),
                None => ("**nothing**", "-".to_owned()),
            };
            let ignored: Vec<&str> = search.ignored.iter().map(|invariant| invariant.name()).collect();
            let Search { mutation, focus, seeds, .. } = search;
            writeln!(f, "| {mutation:?} | {focus} | {} | {by} | {after} | {seeds} |", ignored.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Focus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Focus::None => "",
            Focus::Partitions(ReadMode::Lease) => "partitions",
            Focus::Partitions(ReadMode::Quorum) => "partitions, quorum reads",
            Focus::Damage => "damage",
            Focus::Bridges => "bridges",
            Focus::HandOvers => "hand-overs",
            Focus::GrowingFromOne => "from one node",
            Focus::Snapshots => "snapshots",
            Focus::Removals => "many moves, stalls, cuts and hand-overs",
            Focus::Moving => "many moves, crashes and partitions",
        })
    }
}
