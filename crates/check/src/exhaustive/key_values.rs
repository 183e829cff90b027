//! Histories of keys that are also incremented and appended to.

use super::*;
use crate::key_value::{Base, Content, Found, KeyValue, Kind, Value};
use crate::operation::Time;

/// The plainest model of a key: its whole content is stored, with nothing abstracted away.
pub struct PlainKey;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PlainState {
    is_present: bool,
    number: Option<i64>,
    values: Vec<Value>,
    bytes: u64,
    version: u64,
}

impl Plain for PlainKey {
    type Kind = Kind;
    type State = PlainState;

    fn apply(state: &mut PlainState, kind: &mut Kind) -> Option<()> {
        match kind {
            Kind::Put { value, bytes, version } => {
                let now = state.version + 1;
                *state = PlainState {
                    is_present: true,
                    number: None,
                    values: vec![*value],
                    bytes: u64::from(*bytes),
                    version: now,
                };
                *version = Some(now);
            }
            Kind::Get { found } => {
                *found = state.is_present.then(|| {
                    let (base, appended) = match state.number {
                        Some(number) => (Base::Number(number), &state.values[..]),
                        None => (Base::Value(state.values[0]), &state.values[1..]),
                    };
                    let content = Content { base, appended: appended.to_vec() };
                    Found { content, version: Some(state.version) }
                });
            }
            Kind::Delete { found } => {
                *found = Some(state.is_present);
                *state = PlainState::default();
            }
            Kind::Increment { by, number } => {
                if !state.values.is_empty() {
                    return None;
                }
                let sum = state.number.unwrap_or_default().checked_add(*by)?;
                let (bytes, version) = (sum.to_string().len() as u64, state.version + 1);
                *state = PlainState { is_present: true, number: Some(sum), values: Vec::new(), bytes, version };
                *number = Some(sum);
            }
            Kind::Append { value, bytes, length } => {
                state.is_present = true;
                state.values.push(*value);
                state.bytes += u64::from(*bytes);
                state.version += 1;
                *length = Some(state.bytes);
            }
        }
        Some(())
    }

    fn agrees(told: &Kind, full: &Kind) -> bool {
        fn is_part<T: PartialEq>(told: &Option<T>, full: &Option<T>) -> bool {
            told.is_none() || told == full
        }
        match (told, full) {
            (Kind::Put { version: told, .. }, Kind::Put { version: full, .. }) => is_part(told, full),
            (Kind::Get { found: Some(told) }, Kind::Get { found: Some(full) }) => {
                told.content == full.content && is_part(&told.version, &full.version)
            }
            (Kind::Get { found: told }, Kind::Get { found: full }) => told.is_none() && full.is_none(),
            (Kind::Delete { found: told }, Kind::Delete { found: full }) => is_part(told, full),
            (Kind::Increment { number: told, .. }, Kind::Increment { number: full, .. }) => is_part(told, full),
            (Kind::Append { length: told, .. }, Kind::Append { length: full, .. }) => is_part(told, full),
            _ => panic!("an answer is of the kind of the question"),
        }
    }
}

fn value(number: u64) -> Value {
    Value { writer: 0, number: number as u32 }
}

/// How many bytes a value has: few different lengths, so that a length does not identify the value.
fn bytes_of(value: Value) -> u32 {
    value.number % 2 + 1
}

/// A random operation without an answer.
fn arbitrary_question(random: &mut Random, number: u64) -> Kind {
    let value = value(number);
    match random.below(20) {
        0..4 => Kind::Put { value, bytes: bytes_of(value), version: None },
        4..9 => Kind::Get { found: None },
        9..12 => Kind::Delete { found: None },
        12..16 => Kind::Increment { by: random.below(4) as i64 - 1, number: None },
        _ => Kind::Append { value, bytes: bytes_of(value), length: None },
    }
}

/// Operations at random times with random answers.
fn arbitrary_history(random: &mut Random) -> Vec<Operation> {
    let count = 2 + random.below(5);
    let tells = random.below(4);
    let span = 4 + random.below(10);
    (0..count)
        .map(|number| {
            let mut kind = arbitrary_question(random, number);
            match &mut kind {
                Kind::Put { version, .. } => *version = (tells & 1 > 0).then(|| 1 + random.below(3)),
                Kind::Get { found } => {
                    let base = match random.below(3) {
                        0 => Base::Number(random.below(4) as i64 - 1),
                        _ => Base::Value(value(random.below(count))),
                    };
                    let appended = (0..random.below(3)).map(|_| value(random.below(count))).collect();
                    let version = (tells & 1 > 0).then(|| 1 + random.below(3));
                    let content = Content { base, appended };
                    *found = random.percent(80).then_some(Found { content, version });
                }
                Kind::Delete { found } => *found = random.percent(60).then(|| random.percent(60)),
                Kind::Increment { number, .. } => *number = random.percent(60).then(|| random.below(4) as i64 - 1),
                Kind::Append { length, .. } => *length = (tells & 2 > 0).then(|| 1 + random.below(4)),
            }
            let invoked = random.below(span);
            let ending = match random.below(10) {
                0 => Ending::Refused,
                1 | 2 => Ending::Unknown,
                _ => Ending::Answered(Time(invoked + random.below(4))),
            };
            Operation { client: number as u32, kind, invoked: Time(invoked), ending }
        })
        .collect()
}

/// What a store does wrong occasionally.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    None,
    /// A write is acknowledged but not applied.
    LosesWrites,
    /// A get returns the previous value.
    ReadsStale,
    /// An increment or append is applied twice.
    AppliesTwice,
}

/// The history of clients of a store that executes one operation at a time, each between its invocation and its
/// completion.
fn played_history(random: &mut Random, count: usize, bug: Bug, fails_percent: u64) -> Vec<Operation> {
    let (mut state, mut before) = (PlainState::default(), PlainState::default());
    let tells = random.below(8);
    let mut history = Vec::new();
    for number in 0..count as u64 {
        let mut kind = arbitrary_question(random, number);
        let fails = random.percent(fails_percent);
        let after = match bug {
            Bug::ReadsStale if fails && !kind.is_write() => before.clone(),
            _ => state.clone(),
        };
        let mut after = after;
        let happened = PlainKey::apply(&mut after, &mut kind).is_some();
        if bug == Bug::AppliesTwice && fails && matches!(kind, Kind::Increment { .. } | Kind::Append { .. }) {
            let _ = PlainKey::apply(&mut after, &mut kind.clone());
        }
        if kind.is_write() && !(bug == Bug::LosesWrites && fails) {
            before = std::mem::replace(&mut state, after);
        }
        if tells & 1 == 0 {
            KeyValue::forget(&mut kind, crate::key_value::Claim::Version);
        }
        if tells & 2 == 0 {
            KeyValue::forget(&mut kind, crate::key_value::Claim::Length);
        }
        if tells & 4 == 0 {
            KeyValue::forget(&mut kind, crate::key_value::Claim::Number);
        }
        let at = number * 4;
        let ending = match random.below(20) {
            _ if !happened => Ending::Refused,
            0 => Ending::Unknown,
            _ => Ending::Answered(Time(at + 1 + random.below(8))),
        };
        let invoked = Time(at.saturating_sub(random.below(8)));
        history.push(Operation { client: number as u32, kind, invoked, ending });
    }
    history
}

const BUGS: [Bug; 3] = [Bug::LosesWrites, Bug::ReadsStale, Bug::AppliesTwice];

#[test]
fn arbitrary_histories_are_judged_as_by_trying_every_order() {
    let mut random = Random(21);
    let mut counts = [0, 0];
    for _ in 0..60_000 {
        let history = arbitrary_history(&mut random);
        counts[usize::from(assert_judged_as_by_every_order::<KeyValue, PlainKey>(&history))] += 1;
    }
    assert!(counts.iter().all(|count| *count > 10_000), "{counts:?}");
}

#[test]
fn played_histories_are_judged_as_by_trying_every_order() {
    for (seed, bug) in BUGS.into_iter().enumerate() {
        let mut random = Random(22 + seed as u64);
        let mut counts = [0, 0];
        for round in 0..20_000 {
            let count = 3 + random.below(7) as usize;
            let mut history = played_history(&mut random, count, bug, 50);
            if round % 2 == 0 {
                blur(&mut random, &mut history, Kind::is_write);
            }
            counts[usize::from(assert_judged_as_by_every_order::<KeyValue, PlainKey>(&history))] += 1;
        }
        assert!(counts.iter().all(|count| *count > 500), "{bug:?}: {counts:?}");
    }
}

#[test]
fn steps_of_shrinking_never_accuse_wrongly() {
    let mut random = Random(31);
    let mut taken = 0;
    for round in 0..40_000 {
        let count = 3 + random.below(6) as usize;
        let mut history = match round % 2 {
            0 => arbitrary_history(&mut random),
            _ => played_history(&mut random, count, Bug::None, 0),
        };
        if round % 4 == 3 {
            blur(&mut random, &mut history, Kind::is_write);
        }
        taken += assert_steps_are_sound::<KeyValue, PlainKey>(&history);
    }
    assert!(taken > 100_000, "{taken}");
}

#[test]
fn long_histories_are_explained_with_little_search_or_shrink_to_a_few_operations() {
    let mut random = Random(41);
    for bug in [Bug::None].into_iter().chain(BUGS) {
        let mut sizes = Vec::new();
        for _ in 0..60 {
            let history = played_history(&mut random, 200, bug, 5);
            let verdict = crate::search::judge_within::<KeyValue>(&history, 20_000);
            if bug == Bug::None {
                assert_eq!(verdict, Verdict::Linearizable, "{history:#?}");
            }
            if verdict == Verdict::NotLinearizable {
                let smallest = shrink::smallest::<KeyValue>(&history);
                assert_eq!(judge::<KeyValue>(&smallest), Verdict::NotLinearizable);
                sizes.push(smallest.len());
            }
        }
        sizes.sort_unstable();
        println!("{bug:?}: {} of 60 found, shown by {sizes:?} operations", sizes.len());
        assert!(bug == Bug::None || (sizes.len() > 10 && sizes[sizes.len() / 2] <= 12), "{bug:?}: {sizes:?}");
    }
}
