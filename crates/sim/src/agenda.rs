//! The queue of future events, in the order in which they will happen.
//!
//! Simulated time jumps to the next event on the agenda. Events at the same moment happen in the order in which they
//! were inserted, so a run has exactly one order of events.

use ringfort_core::time::Moment;
use std::collections::BTreeMap;

/// Future events by (time, order of insertion).
#[derive(Clone, Debug)]
pub struct Agenda<E> {
    events: BTreeMap<(Moment, u64), E>,
    sequence: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Agenda<E> {
        Agenda { events: BTreeMap::new(), sequence: 0 }
    }
}

impl<E> Agenda<E> {
    pub fn put(&mut self, at: Moment, event: E) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Moment> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next event if it is due at `now`. An overdue event is returned with the time at which it was due.
    pub fn take_due(&mut self, now: Moment) -> Option<(Moment, E)> {
        let next = self.events.first_entry().filter(|next| next.key().0 <= now)?;
        let ((at, _), event) = next.remove_entry();
        Some((at, event))
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_in_order_of_insertion() {
        let mut agenda = Agenda::default();
        for (at, event) in [(5, "c"), (3, "a"), (3, "b"), (9, "d")] {
            agenda.put(Moment(at), event);
        }
        assert_eq!(agenda.next_at(), Some(Moment(3)));
        let mut due = |now| std::iter::from_fn(|| agenda.take_due(Moment(now))).collect::<Vec<_>>();
        assert_eq!(due(2), []);
        assert_eq!(due(5), [(Moment(3), "a"), (Moment(3), "b"), (Moment(5), "c")]);
        assert_eq!(due(10), [(Moment(9), "d")]);
        assert!(agenda.is_empty());
    }
}
