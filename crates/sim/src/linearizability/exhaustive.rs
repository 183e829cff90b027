//! The checker against one that tries every order, on small random histories; and its speed on a large one.

use super::*;
use crate::agenda::Agenda;
use crate::history::{ClientId, Key, OperationId};
use crate::random::Random;
use ringfort_core::time::Moment;
use std::collections::BTreeSet;

const KEY: Key = Key(0);

/// Tries every order (Wing and Gong, "Testing and verifying concurrent objects", 1993), remembering where it has been.
fn explainable(
    operations: &[Operation],
    done: u32,
    value: Option<Value>,
    been: &mut BTreeSet<(u32, Option<Value>)>,
) -> bool {
    let left = || operations.iter().enumerate().filter(|(index, _)| done & (1 << index) == 0);
    let Some(horizon) = left().filter_map(|(_, operation)| operation.completed()).min() else { return true };
    if !been.insert((done, value)) {
        return false;
    }
    left().filter(|(_, operation)| operation.invoked < horizon).any(|(index, operation)| {
        let after = match (operation.action, operation.outcome) {
            (Action::Put(_), Outcome::Failed) => return false,
            (Action::Put(value), _) => Some(value),
            (Action::Get, Outcome::Read(_, read)) if read == value => value,
            (Action::Get, _) => return false,
        };
        explainable(operations, done | 1 << index, after, been)
    })
}

/// Operations at random times that end in random ways, gets with random answers.
fn arbitrary_history(random: &mut Random) -> History {
    let count = random.between(2..=8) as usize;
    let mut order: Vec<usize> = (0..count).chain(0..count).collect();
    random.shuffle(&mut order);
    let mut history = History::default();
    let mut ids: Vec<Option<OperationId>> = vec![None; count];
    let put_permille = random.between(200..=800) as u32;
    for (now, index) in order.into_iter().enumerate() {
        let now = Moment(now as u64);
        let Some(id) = ids[index] else {
            let put = random.chance(put_permille);
            let action = if put { Action::Put(Value(index as u64)) } else { Action::Get };
            ids[index] = Some(history.invoke(ClientId(index as u32), KEY, action, now));
            continue;
        };
        let get = history.operation(id).action == Action::Get;
        match random.below(10) {
            0 => history.failed(id),
            1 | 2 => {}
            _ if get => {
                let seen: Vec<_> = (0..count)
                    .filter(|index| ids[*index].is_none_or(|id| history.operation(id).action != Action::Get))
                    .map(|index| Some(Value(index as u64)))
                    .chain([None])
                    .collect();
                history.read(id, *random.pick(&seen), now);
            }
            _ => history.written(id, now),
        }
    }
    history
}

enum Step {
    Invoke,
    TakeEffect(OperationId, Answer),
    End(OperationId, Option<Value>),
}

enum Answer {
    Arrives,
    IsLost,
}

/// What a register that works shows to clients of one operation at a time, on a network that loses a tenth.
fn honest_history(random: &mut Random, clients: u32, operations: usize) -> History {
    let mut history = History::default();
    let mut register = None;
    let mut agenda = Agenda::default();
    for client in 0..clients {
        agenda.put(Moment(random.below(20)), (client, Step::Invoke));
    }
    while let Some(now) = agenda.next_at() {
        let (_, (client, step)) = agenda.take_due(now).expect("there is a next event");
        let soon = Moment(now.0 + random.below(20));
        match step {
            Step::Invoke if history.operations().len() == operations => {}
            Step::Invoke => {
                let value = Value(history.operations().len() as u64);
                let action = if random.chance(400) { Action::Put(value) } else { Action::Get };
                let id = history.invoke(ClientId(client), KEY, action, now);
                match random.below(20) {
                    0 if random.chance(500) => history.failed(id),
                    0 => {}
                    1 => agenda.put(soon, (client, Step::TakeEffect(id, Answer::IsLost))),
                    _ => {
                        agenda.put(soon, (client, Step::TakeEffect(id, Answer::Arrives)));
                        continue;
                    }
                }
                agenda.put(Moment(now.0 + 10), (client, Step::Invoke));
            }
            Step::TakeEffect(id, answer) => {
                if let Action::Put(value) = history.operation(id).action {
                    register = Some(value);
                }
                if let Answer::Arrives = answer {
                    agenda.put(soon, (client, Step::End(id, register)));
                }
            }
            Step::End(id, read) => {
                match history.operation(id).action {
                    Action::Put(_) => history.written(id, now),
                    Action::Get => history.read(id, read, now),
                }
                agenda.put(soon, (client, Step::Invoke));
            }
        }
    }
    history
}

/// Gives one get another answer.
fn falsify(random: &mut Random, operations: &mut [Operation]) {
    let index = random.below(operations.len() as u64) as usize;
    let other = random.pick(operations).action;
    if let Outcome::Read(completed, _) = operations[index].outcome {
        let value = if let Action::Put(value) = other { Some(value) } else { None };
        operations[index].outcome = Outcome::Read(completed, value);
    }
}

/// Runs both checkers over `histories`, and returns how many are linearizable and the reasons why others are not.
fn compare(histories: impl Iterator<Item = Vec<Operation>>) -> (u32, BTreeMap<&'static str, u32>) {
    let mut linearizable = 0;
    let mut violations = BTreeMap::new();
    for operations in histories {
        let verdict = check_register(&operations);
        let expected = explainable(&operations, 0, None, &mut BTreeSet::new());
        assert_eq!(verdict.is_ok(), expected, "{verdict:#?}\n{operations:#?}");
        match verdict {
            Ok(()) => linearizable += 1,
            Err(violation) => {
                // What is told as the proof must be one, alone.
                let proof = explainable(&violation.operations, 0, None, &mut BTreeSet::new());
                assert!(!proof, "{violation}\n{operations:#?}");
                let reason = match violation.reason {
                    Reason::NeverPut(_) => "never put",
                    Reason::PutFailed(_) => "put failed",
                    Reason::ReadBeforePut(_) => "read before put",
                    Reason::BothOrders(..) => "both orders",
                };
                *violations.entry(reason).or_default() += 1;
            }
        }
    }
    (linearizable, violations)
}

#[test]
fn arbitrary_histories_are_judged_as_by_trying_every_order() {
    let mut random = Random::new(1);
    let (linearizable, violations) = compare((0..40_000).map(|_| arbitrary_history(&mut random).operations().to_vec()));
    println!("{linearizable} linearizable, not: {violations:?}");
    assert!(linearizable > 10_000, "{linearizable}");
    assert_eq!(violations.len(), 4, "{violations:?}");
    assert!(violations.values().all(|count| *count > 500), "{violations:?}");
}

#[test]
fn falsified_histories_are_judged_as_by_trying_every_order() {
    let mut random = Random::new(2);
    let (linearizable, violations) = compare((0..40_000).map(|_| {
        let (clients, operations) = (random.between(2..=5) as u32, random.between(4..=12) as usize);
        let mut operations = honest_history(&mut random, clients, operations).operations().to_vec();
        assert_eq!(check_register(&operations), Ok(()));
        falsify(&mut random, &mut operations);
        operations
    }));
    println!("{linearizable} linearizable, not: {violations:?}");
    assert!(linearizable > 10_000, "{linearizable}");
    assert!(violations["both orders"] > 2_000, "{violations:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures the checker; nothing depends on the time")]
fn hundred_thousand_operations_of_one_key_are_checked_at_once() {
    let history = honest_history(&mut Random::new(3), 50, 100_000);
    let started = std::time::Instant::now();
    assert_eq!(check(&history), Ok(()));
    println!("100,000 operations of one key checked in {:?}", started.elapsed());

    let mut operations = history.operations().to_vec();
    let late = operations.iter().rposition(|operation| matches!(operation.outcome, Outcome::Read(..))).expect("a get");
    let Outcome::Read(completed, _) = operations[late].outcome else { unreachable!("found as a get") };
    operations[late].outcome = Outcome::Read(completed, None);
    let started = std::time::Instant::now();
    let violation = check_register(&operations).expect_err("absent after thousands of puts");
    println!("... and with a stale read in {:?}:\n{violation}", started.elapsed());
    assert!(matches!(violation.reason, Reason::BothOrders(..)));
}

#[test]
#[should_panic(expected = "put twice")]
fn values_that_are_not_unique_are_refused() {
    let mut history = History::default();
    history.invoke(ClientId(1), KEY, Action::Put(Value(1)), Moment(0));
    history.invoke(ClientId(1), KEY, Action::Put(Value(1)), Moment(0));
    let _ = check(&history);
}
