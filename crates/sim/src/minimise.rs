//! Reduces a failing run to a small one that fails in the same way and that people can read.
//!
//! First it reduces what makes a run large: its length, clients and keys, nodes that join, faults of single messages.
//! Then it applies delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002)
//! to the eventual writes, faults and operations that a case may leave out by their numbers. Leaving something out
//! changes what comes after it, so a smaller case is accepted only if it was run and violated the same invariant. The
//! result depends only on the case: minimising twice gives the same one.

use crate::cluster::{Begun, Case, Replay, replay};
use crate::invariant::Invariant;
use ringfort_core::timing::Timing;
use std::collections::BTreeSet;

/// The result of minimising.
pub struct Minimised {
    pub case: Case,
    pub before: Begun,
    pub replay: Replay,
    /// How many cases were run.
    pub runs: u32,
}

/// Makes a failing case smaller, with at most `most_runs` runs. `None` if the case does not fail.
pub fn minimise(case: Case, most_runs: u32) -> Option<Minimised> {
    let first = replay(case.clone());
    let invariant = first.outcome.failure.as_ref()?.invariant;
    let before = first.begun;
    let mut search = Search { invariant, runs: 1, most_runs, best: case, replay: first };
    search.shorten();
    search.simplify();
    search.end_operations();
    for kind in [Kind::EventualWrites, Kind::Faults, Kind::Operations, Kind::Faults] {
        search.leave_out(kind);
    }
    Some(Minimised { case: search.best, before, replay: search.replay, runs: search.runs })
}

struct Search {
    invariant: Invariant,
    runs: u32,
    most_runs: u32,
    best: Case,
    /// The replay of the best case.
    replay: Replay,
}

/// What can be left out by number.
#[derive(Clone, Copy)]
enum Kind {
    Faults,
    Operations,
    EventualWrites,
}

impl Search {
    /// Accepts the smaller case if it fails as the first one did.
    fn try_case(&mut self, case: Case) -> bool {
        if self.runs == self.most_runs || case == self.best {
            return false;
        }
        self.runs += 1;
        let replay = replay(case.clone());
        let fails = replay.outcome.failure.as_ref().is_some_and(|failure| failure.invariant == self.invariant);
        if fails {
            (self.best, self.replay) = (case, replay);
        }
        fails
    }

    /// Makes the faults end earlier.
    fn shorten(&mut self) {
        for eighths in [1, 2, 4, 6] {
            let mut case = self.best.clone();
            case.options.duration = case.options.duration * eighths / 8;
            if self.try_case(case) {
                return;
            }
        }
    }

    /// Stops the clients after as few operations as suffice.
    fn end_operations(&mut self) {
        let (mut too_few, mut enough) = (0, self.replay.begun.operations);
        while too_few + 1 < enough {
            let middle = (too_few + enough) / 2;
            let mut case = self.best.clone();
            case.without.operations_from = Some(middle);
            match self.try_case(case) {
                true => enough = middle,
                false => too_few = middle,
            }
        }
    }

    /// Tries each simplification by itself; for numbers, the smaller ones first.
    fn simplify(&mut self) {
        let simpler: [fn(&mut Case); 13] = [
            |case| case.options.clients = 1,
            |case| case.options.clients = case.options.clients.div_ceil(2),
            |case| case.options.keys = 1,
            |case| case.options.joins = 0,
            |case| case.options.operations = 0,
            |case| case.options.shards = 1,
            |case| case.options.timing = Timing::DEFAULT,
            |case| case.options.link.straggle_permille = 0,
            |case| case.options.link.duplicate_permille = 0,
            |case| case.options.link.reorder_permille = 0,
            |case| case.options.link.drop_permille = 0,
            |case| case.options.faults.clock_drift = false,
            |case| case.options.faults.corruption = false,
        ];
        for simplify in simpler {
            let mut case = self.best.clone();
            simplify(&mut case);
            self.try_case(case);
        }
    }

    /// Leaves out as many as possible: first everything, then halves, quarters, down to single ones.
    fn leave_out(&mut self, kind: Kind) {
        let Begun { faults, operations, eventual_writes } = self.replay.begun;
        let all = match kind {
            Kind::Faults => faults,
            Kind::Operations => self.best.without.operations_from.unwrap_or(operations).min(operations),
            Kind::EventualWrites => eventual_writes,
        };
        let left = |case: &Case| -> Vec<u64> { (0..all).filter(|number| !kind.of(case).contains(number)).collect() };
        let mut size = left(&self.best).len();
        while size > 0 {
            let mut at = 0;
            loop {
                let kept = left(&self.best);
                let Some(chunk) = kept.get(at..kept.len().min(at + size)).filter(|chunk| !chunk.is_empty()) else {
                    break;
                };
                let mut case = self.best.clone();
                kind.of_mut(&mut case).extend(chunk);
                if !self.try_case(case) {
                    at += size;
                }
            }
            size /= 2;
        }
    }
}

impl Kind {
    fn of(self, case: &Case) -> &BTreeSet<u64> {
        match self {
            Kind::Faults => &case.without.faults,
            Kind::Operations => &case.without.operations,
            Kind::EventualWrites => &case.without.eventual_writes,
        }
    }

    fn of_mut(self, case: &mut Case) -> &mut BTreeSet<u64> {
        match self {
            Kind::Faults => &mut case.without.faults,
            Kind::Operations => &mut case.without.operations,
            Kind::EventualWrites => &mut case.without.eventual_writes,
        }
    }
}
