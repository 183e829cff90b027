//! The search and the steps of shrinking against a judge that tries every order of small random histories; and the
//! search on long histories of a store that works, and of stores that do not.

use crate::operation::{Ending, Found, Kind, Operation, Time, Value};
use crate::search::{Verdict, judge, judge_within};
use crate::shrink;
use std::collections::BTreeSet;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// Whether some order explains the operations: by trying all. What is remembered is only which operations were left, and
/// what the key held, where that led nowhere.
fn explained(operations: &[Operation]) -> bool {
    let all = (1 << operations.len()) - 1;
    EveryOrder { operations, hopeless: BTreeSet::new() }.explains(all, None, 0)
}

struct EveryOrder<'a> {
    operations: &'a [Operation],
    hopeless: BTreeSet<(u32, Option<Value>, u64)>,
}

impl EveryOrder<'_> {
    /// `left`: a bit for each operation.
    fn explains(&mut self, left: u32, value: Option<Value>, version: u64) -> bool {
        let operations = self.operations;
        let numbers = || (0..operations.len()).filter(|number| left & (1 << number) != 0);
        if numbers().all(|number| !operations[number].is_answered()) {
            return true;
        }
        if self.hopeless.contains(&(left, value, version)) {
            return false;
        }
        let is_explained = numbers().any(|number| {
            let (next, rest) = (operations[number], left & !(1 << number));
            if numbers().any(|other| operations[other].precedes(&next)) || next.ending == Ending::Refused {
                return false;
            }
            let is_answered = next.is_answered();
            match next.kind {
                Kind::Put { value, version: told } => {
                    let version = version + 1;
                    let fits = !is_answered || told.is_none_or(|told| told == version);
                    fits && self.explains(rest, Some(value), version)
                }
                Kind::Get { .. } if !is_answered => self.explains(rest, value, version),
                Kind::Get { found } => {
                    found.map(|found| found.value) == value
                        && found.and_then(|found| found.version).is_none_or(|told| told == version)
                        && self.explains(rest, value, version)
                }
                Kind::Delete { found } => {
                    let fits = !is_answered || found.is_none_or(|found| found == value.is_some());
                    fits && self.explains(rest, None, 0)
                }
            }
        });
        if !is_explained {
            self.hopeless.insert((left, value, version));
        }
        is_explained
    }
}

fn value(number: u64) -> Value {
    Value { writer: 0, number: number as u32 }
}

/// Operations at random times with random answers.
fn arbitrary_history(random: &mut Random) -> Vec<Operation> {
    let count = 2 + random.below(5);
    let versions = random.percent(30);
    let span = 4 + random.below(10);
    (0..count)
        .map(|number| {
            let version = (versions && random.percent(60)).then(|| 1 + random.below(3));
            let kind = match random.below(10) {
                0..4 => Kind::Put { value: value(number), version },
                4..8 => {
                    let found = random.percent(70).then(|| Found { value: value(random.below(count)), version });
                    Kind::Get { found }
                }
                _ => Kind::Delete { found: random.percent(60).then(|| random.percent(60)) },
            };
            let invoked = random.below(span);
            let ending = match random.below(10) {
                0 => Ending::Refused,
                1 => Ending::Unknown,
                _ => Ending::Answered(Time(invoked + random.below(4))),
            };
            Operation { client: number as u32, kind, invoked: Time(invoked), ending }
        })
        .collect()
}

/// What a store does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    None,
    /// Now and then a write is acknowledged and not done.
    LosesWrites,
    /// Now and then a get is answered with what was there before.
    ReadsStale,
    /// Now and then what was deleted comes back.
    Resurrects,
    /// Now and then a put is done twice, the second time after others.
    AppliesTwice,
}

/// What clients of a store see who have one operation at a time under way.
///
/// Versions are told only where nothing else shows the bug: they show all the others too, by counting from the start.
fn played_history(random: &mut Random, operations: usize, bug: Bug) -> Vec<Operation> {
    const CLIENTS: usize = 4;
    let tells_versions = matches!(bug, Bug::None | Bug::AppliesTwice);
    let mut history: Vec<Operation> = Vec::new();
    // Each client's operation under way, and when it takes effect.
    let mut under_way: [Option<(usize, u64)>; CLIENTS] = [None; CLIENTS];
    let (mut held, mut before, mut again) = ((None, 0), (None, 0), None);
    let mut now = 0;
    while history.len() < operations || under_way.iter().any(Option::is_some) {
        now += 1;
        let client = random.below(CLIENTS as u64) as usize;
        let Some((number, effect_at)) = under_way[client] else {
            if history.len() < operations {
                let kind = match random.below(10) {
                    0..4 => Kind::Put { value: value(history.len() as u64), version: None },
                    4..8 => Kind::Get { found: None },
                    _ => Kind::Delete { found: None },
                };
                under_way[client] = Some((history.len(), now + random.below(6)));
                let invoked = Time(now);
                history.push(Operation { client: client as u32, kind, invoked, ending: Ending::Unknown });
            }
            continue;
        };
        if effect_at > now {
            continue;
        }
        under_way[client] = None;
        let fails = bug != Bug::None && random.percent(if operations < 10 { 30 } else { 5 });
        let refused = random.percent(3);
        if refused {
            history[number].ending = Ending::Refused;
            continue;
        }
        let previous = held;
        let (present, version) = held;
        match &mut history[number].kind {
            Kind::Put { value, version: told } => {
                let after = (Some(*value), version + 1);
                *told = tells_versions.then_some(after.1);
                if bug == Bug::AppliesTwice && fails {
                    again = Some(*value);
                }
                if !(bug == Bug::LosesWrites && fails) {
                    held = after;
                }
            }
            Kind::Get { found } => {
                let (seen, version) = if bug == Bug::ReadsStale && fails { before } else { held };
                *found = seen.map(|value| Found { value, version: tells_versions.then_some(version) });
            }
            Kind::Delete { found } => {
                *found = Some(present.is_some());
                held = (None, 0);
                if bug == Bug::Resurrects && fails {
                    held = previous;
                }
            }
        }
        if held != previous {
            before = previous;
        }
        if let Some(value) = again.take_if(|_| bug == Bug::AppliesTwice && random.percent(20)) {
            held = (Some(value), held.1 + 1);
        }
        now += 1;
        if !random.percent(3) {
            history[number].ending = Ending::Answered(Time(now));
        }
    }
    history
}

#[test]
fn arbitrary_histories_are_judged_as_by_trying_every_order() {
    let mut random = Random(1);
    let mut counts = [0, 0];
    for _ in 0..40_000 {
        let history = arbitrary_history(&mut random);
        let expected = explained(&history);
        let verdict = if expected { Verdict::Linearizable } else { Verdict::NotLinearizable };
        assert_eq!(judge(&history), verdict, "{history:#?}");
        counts[usize::from(expected)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 10_000), "{counts:?}");
}

#[test]
fn played_histories_are_judged_as_by_trying_every_order() {
    for (seed, bug) in [Bug::LosesWrites, Bug::ReadsStale, Bug::Resurrects, Bug::AppliesTwice].into_iter().enumerate() {
        let mut random = Random(seed as u64);
        let mut unexplained = 0;
        for _ in 0..3_000 {
            let operations = 3 + random.below(5) as usize;
            let history = played_history(&mut random, operations, bug);
            let expected = explained(&history);
            assert_eq!(judge(&history) == Verdict::Linearizable, expected, "{bug:?}: {history:#?}");
            unexplained += u32::from(!expected);
        }
        assert!(unexplained > 50, "{bug:?}: {unexplained}");
    }
}

/// Histories of a few clients most of whose writes have an unknown outcome, so that the ways differ in what they used.
#[test]
fn unknown_outcomes_are_judged_as_by_trying_every_order() {
    let mut random = Random(6);
    let mut counts = [0, 0];
    for round in 0..100_000 {
        let bug = [Bug::LosesWrites, Bug::ReadsStale, Bug::Resurrects, Bug::AppliesTwice][round % 4];
        let operations = 6 + random.below(6) as usize;
        let mut history = played_history(&mut random, operations, bug);
        for operation in &mut history {
            let is_write = !matches!(operation.kind, Kind::Get { .. });
            if is_write && random.percent(50) {
                operation.ending = Ending::Unknown;
            } else if let Ending::Answered(Time(completed)) = &mut operation.ending {
                *completed += random.below(6);
            }
            if let Kind::Delete { found: Some(found) } = &mut operation.kind
                && random.percent(40)
            {
                *found = !*found;
            }
        }
        let expected = explained(&history);
        let verdict = if expected { Verdict::Linearizable } else { Verdict::NotLinearizable };
        assert_eq!(judge(&history), verdict, "{history:#?}");
        counts[usize::from(expected)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 5_000), "{counts:?}");
}

/// Each step alone must be sound, whether or not it would be kept.
#[test]
fn steps_of_shrinking_never_accuse_wrongly() {
    let mut random = Random(2);
    let mut taken = 0;
    for round in 0..30_000 {
        let history = match round % 2 {
            0 => arbitrary_history(&mut random),
            _ => {
                let operations = 3 + random.below(5) as usize;
                played_history(&mut random, operations, Bug::None)
            }
        };
        if judge(&history) != Verdict::Linearizable {
            continue;
        }
        for shorter in shrink::all_steps(&history) {
            taken += 1;
            assert!(explained(&shorter), "{history:#?} became {shorter:#?}");
        }
    }
    assert!(taken > 100_000, "{taken}");
}

#[test]
fn long_histories_of_a_store_that_works_are_explained_with_little_search() {
    let mut random = Random(3);
    for _ in 0..300 {
        let history = played_history(&mut random, 200, Bug::None);
        assert_eq!(judge_within(&history, 20_000), Verdict::Linearizable, "{history:#?}");
    }
}

#[test]
fn a_history_of_twenty_thousand_operations_is_explained() {
    let mut history = played_history(&mut Random(5), 20_000, Bug::None);
    for operation in &mut history {
        if let Kind::Put { version, .. } | Kind::Get { found: Some(Found { version, .. }) } = &mut operation.kind {
            *version = None;
        }
    }
    assert_eq!(judge(&history), Verdict::Linearizable);
}

#[test]
fn long_histories_of_stores_with_bugs_shrink_to_a_few_operations() {
    for bug in [Bug::LosesWrites, Bug::ReadsStale, Bug::Resurrects, Bug::AppliesTwice] {
        let (mut random, mut found, mut sizes) = (Random(4), 0, Vec::new());
        for _ in 0..60 {
            let history = played_history(&mut random, 200, bug);
            let verdict = judge(&history);
            assert_ne!(verdict, Verdict::Undecided, "{bug:?}");
            if verdict == Verdict::NotLinearizable {
                found += 1;
                let smallest = shrink::smallest(&history);
                assert_eq!(judge(&smallest), Verdict::NotLinearizable);
                sizes.push(smallest.len());
            }
        }
        sizes.sort_unstable();
        let largest_median = if bug == Bug::AppliesTwice { 12 } else { 4 };
        assert!(found > 5 && sizes[sizes.len() / 2] <= largest_median, "{bug:?}: {found} found, {sizes:?}");
        println!("{bug:?}: {found} of 60 found, shown by {sizes:?} operations");
    }
}
