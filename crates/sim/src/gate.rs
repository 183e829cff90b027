//! The gate of planted bugs: the simulator must find each, within a stated number of seeds.
//!
//! A simulator that finds nothing may be useless; one that finds planted bugs has working invariants, faults and
//! checkers. Each bug is searched for from seed 0 on, or from a later seed if the first finding is far away, in the
//! runs that [`Options::sample`](crate::options::Options::sample) gives; some need a [`Focus`], which turns off what
//! hides them or turns on what they need. A bug may also be searched for with one invariant, while the invariants that
//! would find it earlier are ignored: this shows that the later ones work too.

use crate::cluster::{Case, Without, run_case};
use crate::focus::Focus;
use crate::invariant::{Invariant, Violation};
use crate::seeds::caught;
use ringfort_core::mutation::Mutation;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A planted bug and where to search for it.
#[derive(Clone, Debug)]
pub struct Search {
    pub mutation: Mutation,
    pub focus: Focus,
    /// Ignored invariants, which would find the bug before the intended one.
    pub ignored: &'static [Invariant],
    /// The first seed to try: earlier ones are known to find nothing, and cost time.
    pub first: u64,
    /// The number of seeds within which the bug must be found.
    pub seeds: u64,
}

/// The result of a search.
#[derive(Clone, Debug)]
pub struct Finding {
    pub search: Search,
    /// How many seeds it took, and the violation that the last one showed.
    pub found: Option<(u64, Violation)>,
}

/// All searches of the gate: each bug with the invariant that finds it first, then some with invariants that would find
/// it later.
pub fn searches() -> Vec<Search> {
    use Invariant::*;
    use Mutation::*;
    let search_from = |first, mutation, focus, ignored| Search { mutation, focus, ignored, first, seeds: 400 };
    let search = |mutation, focus, ignored| search_from(0, mutation, focus, ignored);
    vec![
        search(AcknowledgeBeforeSync, Focus::None, &[]),
        search(VoteAtBoot, Focus::Bridges, &[]),
        search(ForgetTiming, Focus::Bridges, &[]),
        search(ForgetPromise, Focus::SlowDisks, &[]),
        search(CampaignImpatiently, Focus::SlowElections, &[]),
        search(ForgetVote, Focus::None, &[]),
        search(SpeakBeforeVote, Focus::FromOneNode, &[]),
        search(ServeAsDeposedLeader, Focus::None, &[]),
        search(ServeBeforeTermStart, Focus::HandOvers, &[]),
        search(LeaseFromEcho, Focus::Partitions, &[]),
        search(KeepLeaseOnTransfer, Focus::HandOvers, &[]),
        search(ReuseReadContext, Focus::QuorumReads, &[]),
        search(StaleWithoutBound, Focus::None, &[]),
        search_from(130, FreshBeforeTermStart, Focus::None, &[]),
        search_from(150, DisownProposals, Focus::None, &[]),
        search(ApplyOutOfOrder, Focus::None, &[]),
        search(ForgetConfState, Focus::None, &[]),
        search(IgnoreChecksums, Focus::Damage, &[]),
        search(TruncateAtFirstBad, Focus::None, &[]),
        search(TakeLostLogForNew, Focus::Damage, &[]),
        search(ForgetLostReplicas, Focus::Damage, &[]),
        search(WelcomeWithOldTopology, Focus::LostDirectories, &[]),
        search(PromoteEarly, Focus::None, &[]),
        search(DropBeforeCaughtUp, Focus::None, &[]),
        search(ApplyDifferently, Focus::None, &[]),
        search(ClockInsideApply, Focus::None, &[]),
        search(HashAfterTurn, Focus::None, &[]),
        search(LeadAfterRemoval, Focus::Removals, &[]),
        search_from(100, CampaignOnSnapshot, Focus::Snapshots, &[]),
        search(PublishBeforeCommit, Focus::None, &[]),
        search(ForgetTombstones, Focus::None, &[]),
        search(HideDeletions, Focus::None, &[]),
        search(AnswerEventualEarly, Focus::Snapshots, &[]),
        search_from(40, ReplyAcrossLives, Focus::Restarts, &[]),
        search_from(190, RepeatUnknown, Focus::Restarts, &[]),
        search_from(70, DeleteWhileSending, Focus::Snapshots, &[]),
        search(IgnoreHungDisk, Focus::HungDisks, &[]),
        search(TakeUnsynced, Focus::HungDisks, &[]),
        search(KeepForLaggards, Focus::HungDisks, &[]),
        search(AcknowledgeBeforeSync, Focus::None, &[DurableLog, ElectionSafety]),
        search(
            AcknowledgeBeforeSync,
            Focus::None,
            &[
                DurableLog,
                ElectionSafety,
                LeaderCompleteness,
                StateMachineSafety,
                BoundedStaleness,
                SessionMonotonicity,
            ],
        ),
        search(ServeAsDeposedLeader, Focus::Partitions, &[LeaseExclusivity]),
        search_from(460, ForgetPromise, Focus::SlowDisks, &[LeaseExclusivity, SessionMonotonicity, BoundedStaleness]),
        search(ServeBeforeTermStart, Focus::None, &[Linearizability]),
        search(ServeBeforeTermStart, Focus::HandOvers, &[Linearizability, BoundedStaleness]),
        search(ApplyDifferently, Focus::None, &[StateMachineSafety]),
        search(PublishBeforeCommit, Focus::Moving, &[BoundedRecovery]),
        search(AnswerEventualEarly, Focus::Snapshots, &[NoResurrection, GossipConvergence]),
    ]
}

impl Search {
    /// The case for a seed.
    pub fn case(&self, seed: u64) -> Case {
        Case {
            options: self.focus.options(seed),
            mutation: self.mutation,
            without: Without::default(),
            ignored: self.ignored.iter().copied().collect::<BTreeSet<_>>(),
        }
    }

    fn run(self) -> Finding {
        let found = (self.first..self.first + self.seeds).find_map(|seed| {
            let case = self.case(seed);
            let violation = caught(|| run_case(case.clone())).failure?;
            if self.ignored.contains(&violation.invariant) {
                return None;
            }
            // A violation that also occurs without the planted bug is not a finding.
            let product = Case { mutation: Mutation::None, ..case };
            (caught(|| run_case(product)).failure.is_none()).then_some((seed - self.first + 1, violation))
        });
        Finding { search: self, found }
    }
}

/// Runs all searches, two at a time, and returns their results in the same order.
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
        writeln!(f, "| planted bug | focus | ignored | found by | first seed | after seeds | limit |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for Finding { search, found } in self.0 {
            let (by, after) = match found {
                Some((seeds, violation)) => (violation.invariant.name(), seeds.to_string()),
                None => ("**nothing**", "-".to_owned()),
            };
            let ignored: Vec<&str> = search.ignored.iter().map(|invariant| invariant.name()).collect();
            let Search { mutation, focus, first, seeds, .. } = search;
            writeln!(f, "| {mutation:?} | {focus} | {} | {by} | {first} | {after} | {seeds} |", ignored.join(", "))?;
        }
        Ok(())
    }
}
