//! A queue: a model without any hints. This shows that hints are optional, and that the search and the shrinking do not
//! depend on keys.

use super::*;
use crate::operation::Time;

#[derive(Clone, PartialEq, Debug)]
enum Kind {
    /// Not unique.
    Enqueue(u8),
    /// The first item; `None` if the queue was empty.
    Dequeue(Option<u8>),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Enqueue(u8),
    /// The answer, if there is one.
    Dequeue(Option<Option<u8>>),
}

struct Queue;

impl Model for Queue {
    type Kind = Kind;
    type State = Vec<u8>;
    type Action = Action;
    type Claim = ();

    fn of(_history: &[Operation<Kind>]) -> Queue {
        Queue
    }

    fn initial(&self) -> Vec<u8> {
        Vec::new()
    }

    fn action(&self, operation: &Operation<Kind>) -> Action {
        match operation.kind {
            Kind::Enqueue(item) => Action::Enqueue(item),
            Kind::Dequeue(item) => Action::Dequeue(operation.is_answered().then_some(item)),
        }
    }

    fn step(&self, state: &Vec<u8>, action: &Action) -> Option<Vec<u8>> {
        match action {
            Action::Enqueue(item) => Some([state, &[*item][..]].concat()),
            Action::Dequeue(told) => {
                let is_first = told.is_none_or(|told| told == state.first().copied());
                is_first.then(|| state.iter().skip(1).copied().collect())
            }
        }
    }
}

impl Plain for Queue {
    type Kind = Kind;
    type State = Vec<u8>;

    fn apply(state: &mut Vec<u8>, kind: &mut Kind) -> Option<()> {
        match kind {
            Kind::Enqueue(item) => state.push(*item),
            Kind::Dequeue(item) => *item = (!state.is_empty()).then(|| state.remove(0)),
        }
        Some(())
    }

    fn agrees(told: &Kind, full: &Kind) -> bool {
        told == full
    }
}

/// The history of clients of a queue that occasionally returns the last item instead of the first.
fn played_history(random: &mut Random, fails_percent: u64) -> Vec<Operation<Kind>> {
    let (mut state, mut history) = (Vec::new(), Vec::new());
    for number in 0..4 + random.below(5) {
        let mut kind = if random.percent(55) { Kind::Enqueue(random.below(3) as u8) } else { Kind::Dequeue(None) };
        match &mut kind {
            Kind::Dequeue(item) if random.percent(fails_percent) => *item = state.pop(),
            kind => Queue::apply(&mut state, kind).expect("a queue refuses nothing"),
        }
        let at = number * 3;
        let ending = if random.percent(10) { Ending::Refused } else { Ending::Answered(Time(at + 1)) };
        history.push(Operation {
            client: number as u32,
            kind,
            invoked: Time(at.saturating_sub(random.below(8))),
            ending,
        });
    }
    history
}

#[test]
fn queues_are_judged_as_by_trying_every_order() {
    let mut random = Random(11);
    let mut counts = [0, 0];
    for round in 0..30_000 {
        let mut history = played_history(&mut random, 50);
        if round % 2 == 0 {
            blur(&mut random, &mut history, |_| true);
        }
        counts[usize::from(assert_judged_as_by_every_order::<Queue, Queue>(&history))] += 1;
    }
    assert!(counts.iter().all(|count| *count > 3_000), "{counts:?}");
}

#[test]
fn histories_of_queues_shrink_soundly() {
    let mut random = Random(12);
    let (mut steps, mut shrunk) = (0, 0);
    for _ in 0..5_000 {
        let mut history = played_history(&mut random, 30);
        blur(&mut random, &mut history, |_| true);
        steps += assert_steps_are_sound::<Queue, Queue>(&history);
        if judge::<Queue>(&history) == Verdict::NotLinearizable {
            let smallest = shrink::smallest::<Queue>(&history);
            assert!(!explained::<Queue>(&smallest), "{history:#?} became {smallest:#?}");
            shrunk += usize::from(smallest.len() < history.len());
        }
    }
    assert!(steps > 5_000 && shrunk > 50, "{steps} steps, {shrunk} shrunk");
}
