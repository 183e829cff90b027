//! Compares the machine with the simplest map that behaves the same, sometimes with a cut in progress.

use super::*;
use crate::kv::{
    Append, AppendReply, Command, CommandReply, Delete, DeleteReply, Increment, IncrementReply, Put, PutReply, Refusal,
};
use crate::limits::MAX_VALUE_BYTES;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    records: BTreeMap<Bytes, Record>,
    revision: u64,
}

impl Model {
    fn apply(&mut self, command: &Command) -> CommandReply {
        match command {
            Command::Put(Put { key, value }) => {
                let (version, revision) = self.put(key, value.clone());
                CommandReply::Put(PutReply { version, revision })
            }
            Command::Increment(Increment { key, by }) => {
                let text = self.records.get(key).map(|record| String::from_utf8_lossy(&record.value).into_owned());
                let before: i64 = match text.map(|text| (text.parse().map(|number: i64| number.to_string()), text)) {
                    None => 0,
                    Some((Ok(canonical), text)) if canonical == text => text.parse().expect("it was parsed before"),
                    Some(_) => return CommandReply::Refused(Refusal::NotANumber),
                };
                let sum = i128::from(before) + i128::from(*by);
                let Ok(number) = i64::try_from(sum) else { return CommandReply::Refused(Refusal::Overflow) };
                let (version, revision) = self.put(key, sum.to_string().into());
                CommandReply::Increment(IncrementReply { number, version, revision })
            }
            Command::Append(Append { key, bytes }) => {
                let mut value = self.records.get(key).map_or_else(Vec::new, |record| record.value.to_vec());
                value.extend_from_slice(bytes);
                if value.len() > MAX_VALUE_BYTES {
                    return CommandReply::Refused(Refusal::LargeValue);
                }
                let length_bytes = value.len() as u64;
                let (version, revision) = self.put(key, value.into());
                CommandReply::Append(AppendReply { length_bytes, version, revision })
            }
            Command::Delete(Delete { key }) => {
                let existed = self.records.remove(key).is_some();
                self.revision += u64::from(existed);
                CommandReply::Delete(DeleteReply { existed, revision: self.revision })
            }
        }
    }

    /// Returns the version and the revision.
    fn put(&mut self, key: &Bytes, value: Bytes) -> (u64, u64) {
        self.revision += 1;
        let revision = self.revision;
        let previous = self.records.get(key);
        let version = previous.map_or(0, |record| record.version) + 1;
        let create_revision = previous.map_or(revision, |record| record.create_revision);
        self.records.insert(key.clone(), Record { value, version, create_revision, modify_revision: revision });
        (version, revision)
    }

    fn scan(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        up_to: Option<&[u8]>,
        limit: usize,
        max_bytes: usize,
    ) -> ScanPage {
        let matching: Vec<_> = self
            .records
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && start_after.is_none_or(|after| key[..] > *after))
            .filter(|(key, _)| up_to.is_none_or(|last| key[..] <= *last))
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect();
        let mut bytes = 0;
        let fitting = matching.iter().take_while(|(key, record)| {
            let first = bytes == 0;
            bytes += key.len() + record.value.len();
            first || bytes <= max_bytes
        });
        let taken = fitting.count().min(limit);
        ScanPage { entries: matching[..taken].to_vec(), more: taken < matching.len() }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    Scan { prefix: Bytes, start_after: Option<Bytes>, up_to: Option<Bytes>, limit: usize, max_bytes: usize },
    BeginCut,
    NextChunk(usize),
    AbandonCut,
}

/// Few keys, so that commands meet: one or two letters, sometimes with a long shared prefix.
fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        prop::collection::vec(b'a'..=b'e', 1..3).prop_map(Bytes::from),
        (b'a'..=b'c').prop_map(|last| Bytes::from([&[b'c'; 200][..], &[last]].concat())),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![9 => prop::collection::vec(any::<u8>(), 0..20), 1 => Just(vec![7; 300])].prop_map(Bytes::from)
}

fn by() -> impl Strategy<Value = i64> {
    prop_oneof![3 => -9..=9i64, 1 => any::<i64>()]
}

/// Sometimes so many bytes that a second append of them is refused.
fn appended() -> impl Strategy<Value = Bytes> {
    prop_oneof![19 => value(), 1 => Just(vec![7; MAX_VALUE_BYTES / 2 + 1].into())]
}

fn step() -> impl Strategy<Value = Step> {
    let bound = || prop::option::of(key());
    let scan = (prop::collection::vec(b'a'..=b'e', 0..2), bound(), bound(), 0..6usize, 0..300usize);
    prop_oneof![
        10 => (key(), value()).prop_map(|(key, value)| Step::Apply(Put { key, value }.into())),
        5 => key().prop_map(|key| Step::Apply(Delete { key }.into())),
        5 => (key(), by()).prop_map(|(key, by)| Step::Apply(Increment { key, by }.into())),
        5 => (key(), appended()).prop_map(|(key, bytes)| Step::Apply(Append { key, bytes }.into())),
        2 => scan.prop_map(|(prefix, start_after, up_to, limit, max_bytes)| {
            Step::Scan { prefix: prefix.into(), start_after, up_to, limit, max_bytes }
        }),
        2 => Just(Step::BeginCut),
        4 => (0..200usize).prop_map(Step::NextChunk),
        1 => (0..10u8).prop_map(|n| if n == 0 { Step::AbandonCut } else { Step::NextChunk(1) }),
    ]
}

/// A cut in progress: its expected result, and its builder.
struct Expected {
    model: Model,
    meta: CutMeta,
    builder: MachineBuilder,
}

impl Expected {
    fn check(self) {
        let rebuilt = self.builder.finish().expect("a complete cut");
        check_equal(&rebuilt, &self.model);
        assert_eq!(rebuilt.hash(), self.meta.hash);
    }
}

fn check_equal(machine: &Machine, model: &Model) {
    let everything = machine.scan(b"", None, None, usize::MAX, usize::MAX);
    assert!(!everything.more);
    assert_eq!(everything.entries.into_iter().collect::<BTreeMap<_, _>>(), model.records);
    assert_eq!(machine.len(), model.records.len());
    assert_eq!(machine.revision(), model.revision);
    assert_eq!(machine.recomputed_hash(), machine.hash());
    let entries = machine.tables.table(ENTRIES);
    let held: usize = entries.range(Bound::Unbounded).map(Element::held_bytes).sum();
    assert!(entries.held_bytes() >= held, "what a cut keeps comes on top");
}

proptest! {
    #[test]
    fn the_machine_does_what_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut machine = Machine::new();
        let mut model = Model::default();
        let mut cut: Option<Expected> = None;
        for (timestamp, step) in steps.into_iter().enumerate() {
            match step {
                Step::Apply(command) => {
                    let before = model.clone();
                    let mut replayed = before.records.clone();
                    let reply = command.apply(&mut machine.begin(HlcTimestamp(timestamp as u64), &mut |event| {
                        let record = |entry: Option<(Numbers, &[u8])>| {
                            entry.map(|(numbers, value)| record_of(numbers, value))
                        };
                        assert_eq!(record(event.old), replayed.get(event.key).cloned());
                        match record(event.new) {
                            Some(record) => replayed.insert(Bytes::copy_from_slice(event.key), record),
                            None => replayed.remove(event.key),
                        };
                    }));
                    prop_assert_eq!(reply, model.apply(&command));
                    prop_assert_eq!(&replayed, &model.records, "the events tell all that changes");
                    prop_assert_eq!(machine.last_timestamp(), HlcTimestamp(timestamp as u64));
                    let key = command.key();
                    prop_assert_eq!(machine.get(key), model.records.get(key).cloned());
                }
                Step::Scan { prefix, start_after, up_to, limit, max_bytes } => prop_assert_eq!(
                    machine.scan(&prefix, start_after.as_deref(), up_to.as_deref(), limit, max_bytes),
                    model.scan(&prefix, start_after.as_deref(), up_to.as_deref(), limit, max_bytes)
                ),
                Step::BeginCut if cut.is_none() => {
                    let meta = machine.begin_cut();
                    cut = Some(Expected { model: model.clone(), meta, builder: MachineBuilder::new(meta) });
                }
                Step::BeginCut => {}
                Step::NextChunk(max_bytes) => match (machine.next_chunk(max_bytes), &mut cut) {
                    (Some(chunk), Some(expected)) => expected.builder.push_chunk(&chunk).expect("a valid chunk"),
                    (Some(_), None) => prop_assert!(false, "a chunk without a cut"),
                    (None, _) => cut.take().into_iter().for_each(Expected::check),
                },
                Step::AbandonCut => {
                    machine.abandon_cut();
                    cut = None;
                }
            }
        }
        if let Some(mut expected) = cut {
            while let Some(chunk) = machine.next_chunk(50) {
                expected.builder.push_chunk(&chunk).expect("a valid chunk");
            }
            expected.check();
        }
        check_equal(&machine, &model);
    }

    #[test]
    fn equal_logs_make_equal_hashes_and_the_order_of_keys_does_not_matter(
        commands in prop::collection::vec((key(), value()), 1..40),
    ) {
        let run = |commands: &[(Bytes, Bytes)]| {
            let mut machine = Machine::new();
            for (key, value) in commands {
                machine.begin(HlcTimestamp(1), &mut |_| {}).put(key, value);
            }
            machine
        };
        let one = run(&commands);
        prop_assert_eq!(run(&commands).hash(), one.hash());
        let mut changed = commands.clone();
        let last = changed.last_mut().expect("one at least");
        last.1 = [&last.1[..], b"!"].concat().into();
        prop_assert_ne!(run(&changed).hash(), one.hash());
    }
}
