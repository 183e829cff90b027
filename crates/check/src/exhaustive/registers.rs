//! Histories of registers: puts, gets and deletes, with and without versions.

use super::key_values::PlainKey;
use super::*;
use crate::key_value::{Found, KeyValue, Kind, Value};
use crate::operation::Time;
use crate::search::judge_within;

/// Judges the history in both ways.
fn assert_judged(history: &[Operation]) -> bool {
    assert_judged_as_by_every_order::<KeyValue, PlainKey>(history)
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
                0..4 => Kind::Put { value: value(number), bytes: 0, version },
                4..8 => {
                    let found =
                        random.percent(70).then(|| Found { content: value(random.below(count)).into(), version });
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
    /// Occasionally a write is acknowledged but not applied.
    LosesWrites,
    /// Occasionally a get returns the previous value.
    ReadsStale,
    /// Occasionally a deleted value comes back.
    Resurrects,
    /// Occasionally a put is applied twice, the second time after other writes.
    AppliesTwice,
}

/// The history of clients that each have one operation at a time under way.
///
/// Answers contain versions only for the bug that nothing else shows: since versions count all writes, they would show
/// every other bug too.
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
                    0..4 => Kind::put(value(history.len() as u64)),
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
            Kind::Put { value, version: told, .. } => {
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
                *found = seen.map(|value| Found { content: value.into(), version: tells_versions.then_some(version) });
            }
            Kind::Increment { .. } | Kind::Append { .. } => panic!("a register is not asked for this"),
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
        counts[usize::from(assert_judged(&history))] += 1;
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
            unexplained += u32::from(!assert_judged(&history));
        }
        assert!(unexplained > 50, "{bug:?}: {unexplained}");
    }
}

/// Histories of a few clients in which most writes have an unknown outcome, so that different orders use different
/// writes.
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
        counts[usize::from(assert_judged(&history))] += 1;
    }
    assert!(counts.iter().all(|count| *count > 5_000), "{counts:?}");
}

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
        taken += assert_steps_are_sound::<KeyValue, PlainKey>(&history);
    }
    assert!(taken > 100_000, "{taken}");
}

#[test]
fn long_histories_of_a_store_that_works_are_explained_with_little_search() {
    let mut random = Random(3);
    for _ in 0..300 {
        let history = played_history(&mut random, 200, Bug::None);
        assert_eq!(judge_within::<KeyValue>(&history, 20_000), Verdict::Linearizable, "{history:#?}");
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
    assert_eq!(judge::<KeyValue>(&history), Verdict::Linearizable);
}

#[test]
fn long_histories_of_stores_with_bugs_shrink_to_a_few_operations() {
    for bug in [Bug::LosesWrites, Bug::ReadsStale, Bug::Resurrects, Bug::AppliesTwice] {
        let (mut random, mut found, mut sizes) = (Random(4), 0, Vec::new());
        for _ in 0..60 {
            let history = played_history(&mut random, 200, bug);
            let verdict = judge::<KeyValue>(&history);
            assert_ne!(verdict, Verdict::Undecided, "{bug:?}");
            if verdict == Verdict::NotLinearizable {
                found += 1;
                let smallest = shrink::smallest::<KeyValue>(&history);
                assert_eq!(judge::<KeyValue>(&smallest), Verdict::NotLinearizable);
                sizes.push(smallest.len());
            }
        }
        sizes.sort_unstable();
        let largest_median = if bug == Bug::AppliesTwice { 12 } else { 4 };
        assert!(found > 5 && sizes[sizes.len() / 2] <= largest_median, "{bug:?}: {found} found, {sizes:?}");
        println!("{bug:?}: {found} of 60 found, shown by {sizes:?} operations");
    }
}
