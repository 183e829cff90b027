//! Checks whether memory still holds what was written to it: walks over each table in small steps, while commands are
//! applied.
//!
//! The machine's hash is updated from what commands write, so it cannot detect damaged memory. The walk can: it hashes
//! the elements in memory, in key order with a cursor, and keeps the sum of those that it has passed. A command that
//! changes a key *at or below* the cursor changes that sum as it changes the table's own. At the end of the table both
//! must be equal.
//!
//! **No damage is missed and no alarm is false.** Without damage, the sum of the passed entries is at every moment the
//! sum of the hashes of all entries up to the cursor, so that at the end it equals the machine's. If an entry was
//! damaged before the cursor reaches it, the sums differ by the change of its hash. They still do if a command replaces
//! the entry, because the command subtracts the hash of the damaged entry from both sums. An entry damaged behind the
//! cursor is found by the next walk, even if it was replaced meanwhile: the machine's own sum is then wrong
//! permanently.
//!
//! A step takes the read side of the lock around the machine: readers continue beside it, and a writer waits for at
//! most one step.

use super::Machine;
use super::element::Element;
use super::table::Table;
use std::ops::Bound;

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// The walk continues.
    Going,
    /// The walk is complete, and memory is as it was written. The next step begins a new walk.
    Sound,
    /// Memory is not as it was written: nothing in this machine can be trusted.
    Damaged,
}

/// A walk in progress.
#[derive(Default)]
pub(super) struct Walk {
    /// The last key that the walk has passed; `None` at the beginning.
    cursor: Option<Vec<u8>>,
    /// The sum of the hashes of all entries up to the cursor.
    passed: u64,
}

impl Walk {
    /// A command has put an entry with this hash under `key`.
    pub fn add(&mut self, key: &[u8], entry_hash: u64) {
        if self.has_passed(key) {
            self.passed = self.passed.wrapping_add(entry_hash);
        }
    }

    /// A command has removed an entry with this hash under `key`.
    pub fn subtract(&mut self, key: &[u8], entry_hash: u64) {
        if self.has_passed(key) {
            self.passed = self.passed.wrapping_sub(entry_hash);
        }
    }

    fn has_passed(&self, key: &[u8]) -> bool {
        self.cursor.as_deref().is_some_and(|cursor| key <= cursor)
    }
}

impl Machine {
    /// Continues the walk over elements of about `max_bytes`, but at least one.
    pub fn scrub(&self, max_bytes: usize) -> Scrubbed {
        self.tables.scrub(max_bytes)
    }

    /// Flips a bit of the `nth` element, modulo their number, without updating the hash. False if there is none.
    #[cfg(any(test, feature = "memory-faults"))]
    pub fn flip_a_bit(&mut self, nth: usize, bit: u32) -> bool {
        self.tables.flip_a_bit(nth, bit)
    }
}

impl Table {
    pub(super) fn scrub(&self, max_bytes: usize) -> Scrubbed {
        let mut under_way = self.walk.lock();
        let mut walk = under_way.take().unwrap_or_default();
        let mut elements = self.range(walk.cursor.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let mut walked_bytes = 0;
        let mut last: Option<&Element> = None;
        while walked_bytes < max_bytes || last.is_none() {
            let Some(element) = elements.next() else {
                return if walk.passed == self.hashes { Scrubbed::Sound } else { Scrubbed::Damaged };
            };
            walked_bytes += element.held_bytes();
            walk.passed = walk.passed.wrapping_add(element.hash());
            last = Some(element);
        }
        let cursor = walk.cursor.get_or_insert_default();
        cursor.clear();
        cursor.extend_from_slice(last.map(Element::key).unwrap_or_default());
        *under_way = Some(walk);
        Scrubbed::Going
    }

    /// Flips a bit of the `nth` element, which must exist.
    #[cfg(any(test, feature = "memory-faults"))]
    pub(super) fn flip_a_bit(&mut self, nth: usize, bit: u32) {
        let key = self.elements.iter().nth(nth).map(|element| element.key().to_vec()).expect("there are so many");
        let mut element = self.elements.take(&key[..]).expect("it was there just now");
        element.flip_a_bit(bit);
        self.elements.insert(element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Command, Delete, Put};
    use crate::time::HlcTimestamp;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn machine(keys: u8) -> Machine {
        let mut machine = Machine::new();
        for key in 0..keys {
            put(&mut machine, key, 1);
        }
        machine
    }

    fn put(machine: &mut Machine, key: u8, value: u8) {
        machine.begin(HlcTimestamp(1), &mut |_| {}).put(&[key], &[value]);
    }

    fn whole_walk(machine: &Machine) -> Scrubbed {
        std::iter::repeat_with(|| machine.scrub(1)).find(|scrubbed| *scrubbed != Scrubbed::Going).expect("it ends")
    }

    #[test]
    fn a_step_is_bounded_and_a_walk_covers_all() {
        let machine = machine(2);
        let [going, sound] = [Scrubbed::Going, Scrubbed::Sound];
        assert_eq!([(); 6].map(|()| machine.scrub(1)), [going, going, sound, going, going, sound]);
        assert_eq!([(); 2].map(|()| machine.scrub(usize::MAX)), [sound; 2]);
        assert_eq!(Machine::new().scrub(1), sound);
    }

    #[test]
    fn damage_behind_the_cursor_is_found_by_the_next_walk_also_where_it_was_overwritten() {
        for is_overwritten in [false, true] {
            let mut machine = machine(4);
            machine.scrub(1);
            machine.scrub(1);
            assert!(machine.flip_a_bit(0, 3));
            if is_overwritten {
                put(&mut machine, 0, 9);
            }
            assert_eq!(whole_walk(&machine), Scrubbed::Sound, "the cursor had passed it");
            assert_eq!(whole_walk(&machine), Scrubbed::Damaged);
        }
    }

    #[test]
    fn a_cut_finds_damage_too() {
        for is_overwritten in [false, true] {
            let mut machine = machine(4);
            machine.flip_a_bit(2, 3);
            if is_overwritten {
                put(&mut machine, 2, 9);
            }
            machine.begin_cut();
            while machine.next_chunk(1).is_some() {}
            assert!(machine.is_damaged());
        }
        let mut machine = machine(4);
        machine.begin_cut();
        machine.next_chunk(1);
        put(&mut machine, 3, 9);
        while machine.next_chunk(1).is_some() {}
        assert!(!machine.is_damaged());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Apply(Command),
        Scrub(usize),
        Flip(usize, u32),
    }

    fn any_step(flips: bool) -> impl Strategy<Value = Step> {
        let key = || prop::collection::vec(0..4u8, 0..3).prop_map(Bytes::from);
        let value = prop::collection::vec(any::<u8>(), 1..9).prop_map(Bytes::from);
        prop_oneof![
            4 => (key(), value).prop_map(|(key, value)| Step::Apply(Put { key, value }.into())),
            2 => key().prop_map(|key| Step::Apply(Delete { key }.into())),
            4 => (1..200usize).prop_map(Step::Scrub),
            u32::from(flips) => (0..20usize, 0..8u32).prop_map(|(nth, bit)| Step::Flip(nth, bit)),
        ]
    }

    fn run(steps: Vec<Step>) -> (Machine, Vec<Scrubbed>, usize) {
        let mut machine = Machine::new();
        let (mut scrubbed, mut flips) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Apply(command) => drop(command.apply(&mut machine.begin(HlcTimestamp(1), &mut |_| {}))),
                Step::Scrub(bytes) => scrubbed.push(machine.scrub(bytes)),
                Step::Flip(nth, bit) => flips += usize::from(flips == 0 && machine.flip_a_bit(nth, bit)),
            }
        }
        (machine, scrubbed, flips)
    }

    proptest! {
        #[test]
        fn without_damage_there_is_no_alarm(steps in prop::collection::vec(any_step(false), 0..200)) {
            let (machine, scrubbed, _) = run(steps);
            prop_assert!(!scrubbed.contains(&Scrubbed::Damaged));
            prop_assert_eq!(whole_walk(&machine), Scrubbed::Sound);
        }

        #[test]
        fn damage_is_found_within_two_walks(steps in prop::collection::vec(any_step(true), 0..200)) {
            let (machine, scrubbed, flips) = run(steps);
            let walks = [whole_walk(&machine), whole_walk(&machine)];
            let is_found = scrubbed.contains(&Scrubbed::Damaged) || walks.contains(&Scrubbed::Damaged);
            prop_assert_eq!(is_found, flips > 0);
        }
    }
}
