//! Applying committed entries to the state machine, in order.

use super::*;
use crate::codec::fields::{Encoded, Fields};
use crate::kv::entry::decode;
use crate::kv::state::ChangeEvent;
use parking_lot::RwLockWriteGuard;
use raft::eraftpb::{Entry, EntryType};

impl<T> Replica<T> {
    pub(super) fn apply(&mut self, mut entries: Vec<Entry>, out: &mut Effects<T>) {
        if self.config.mutation.is(Mutation::ApplyOutOfOrder) && self.applied.index == self.base().index {
            swap_first_commands(&mut entries);
        }
        let view = self.view.clone();
        let mut writer = Writer::new(&view);
        let mut noted_late = None; // only by a planted bug
        out.counts.applied_entries += entries.len() as u64;
        for entry in entries {
            assert_eq!(entry.index, self.applied.index.0 + 1, "entries are applied in order, without gaps");
            let settled = self.proposals.settle(entry.index, entry.term);
            out.replies.extend(settled.not_applied.into_iter().map(|responder| (responder, Err(Failure::NotApplied))));
            match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => self.apply_commands(&entry, settled.applied, &mut writer, out),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.apply_configuration(&entry);
                }
            }
            (self.applied.index, self.applied.term) = (LogIndex(entry.index), Term(entry.term));
            let index = LogIndex(entry.index);
            if Marks::is_due(index) && self.config.mutation.is(Mutation::HashAfterTurn) {
                noted_late = Some(index);
            } else if Marks::is_due(index) {
                let hash = writer.hash().unwrap_or_else(|| self.state_hash());
                self.marks.note(index, hash, self.ticks);
            }
        }
        drop(writer);
        if let Some(index) = noted_late {
            self.marks.note(index, self.state_hash(), self.ticks);
        }
        self.tell_applied();
    }

    /// Tells Raft the applied index. Raft requires an installed snapshot to be durable before it counts as applied.
    pub(super) fn tell_applied(&mut self) {
        let log = &self.raft.raft.raft_log;
        if log.applied < self.applied.index.0 && self.applied.index.0 <= log.persisted {
            self.raft.advance_apply_to(self.applied.index.0);
        }
    }

    /// # Panics
    /// If the entry can't be read: it was committed, so skipping it would make this replica diverge from the others. A
    /// replica accepts no such entry ([`Replica::keep_readable`]), so a newer version logged it on this node. The
    /// process stops; the operator runs the newer version again.
    fn apply_commands(&mut self, entry: &Entry, responders: Vec<T>, writer: &mut Writer, out: &mut Effects<T>) {
        let unreadable = |error: &dyn std::fmt::Display| -> ! {
            panic!("entry {} of shard {} can't be applied: {error}", entry.index, self.shard)
        };
        let mut responders = responders.into_iter();
        match &mut self.machine {
            StateMachine::Kv => {
                let mut decoded = decode(entry.data.clone()).unwrap_or_else(|error| unreadable(&error));
                if self.config.mutation.is(Mutation::ClockInsideApply) {
                    decoded.timestamp = self.applied.timestamp;
                }
                let is_planted = self.config.mutation.is(Mutation::ApplyDifferently)
                    && self.id.number().is_multiple_of(3)
                    && entry.index.is_multiple_of(20);
                for mut command in decoded.commands {
                    if is_planted {
                        command = spoiled(command);
                    }
                    // Nothing consumes the changes yet.
                    let watcher = &mut |_: ChangeEvent<'_>| {};
                    let mut transaction = writer.machine().begin(decoded.timestamp, watcher);
                    let reply = command.apply(&mut transaction);
                    let touched_bytes = transaction.touched_bytes();
                    writer.count(touched_bytes);
                    if let Some(responder) = responders.next() {
                        out.replies.push((responder, Ok(Reply::Command(reply))));
                    }
                }
                self.applied.timestamp = self.applied.timestamp.max(decoded.timestamp);
            }
            StateMachine::System(system) => {
                let (timestamp, command) =
                    SystemCommand::decode(&entry.data).unwrap_or_else(|error| unreadable(&error));
                let before = system.topology().epoch;
                let reply = system.apply(timestamp, command);
                if system.topology().epoch != before {
                    out.topology = Some(system.topology().clone());
                }
                if let Some(responder) = responders.next() {
                    out.replies.push((responder, Ok(Reply::System(reply))));
                }
                self.applied.timestamp = self.applied.timestamp.max(timestamp);
            }
        }
    }
}

/// A planted bug: the commands of the first two entries are swapped.
fn swap_first_commands(entries: &mut [Entry]) {
    if let [first, second, ..] = entries
        && [&*first, &*second].iter().all(|entry| entry.get_entry_type() == EntryType::EntryNormal)
    {
        std::mem::swap(&mut first.data, &mut second.data);
    }
}

/// A planted bug: the command with a bit of its last field changed.
fn spoiled(command: Command) -> Command {
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    bytes.last_mut().into_iter().for_each(|last| *last ^= 1);
    Command::decode(&mut Fields::new(&bytes.into())).unwrap_or(command)
}

/// The write side of a map, released after [`APPLY_SLICE_COMMANDS`] or [`APPLY_SLICE_BYTES`] so that readers get in.
/// What a command touches is known after it has been applied, so a slice exceeds its bytes by at most one command.
struct Writer<'a> {
    view: &'a ShardView,
    guard: Option<RwLockWriteGuard<'a, Machine>>,
    commands: usize,
    bytes: usize,
}

impl<'a> Writer<'a> {
    fn new(view: &'a ShardView) -> Writer<'a> {
        Writer { view, guard: None, commands: 0, bytes: 0 }
    }

    /// The map's hash, if the lock is already held.
    fn hash(&self) -> Option<u64> {
        self.guard.as_ref().map(|machine| machine.hash())
    }

    /// The map, for one command.
    fn machine(&mut self) -> &mut Machine {
        self.guard.get_or_insert_with(|| self.view.machine_mut())
    }

    /// The command has been applied, and has touched this many bytes.
    fn count(&mut self, touched_bytes: usize) {
        self.commands += 1;
        self.bytes += touched_bytes;
        if self.commands >= APPLY_SLICE_COMMANDS || self.bytes >= APPLY_SLICE_BYTES {
            *self = Writer::new(self.view);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_get_in_after_a_slice_of_commands_or_of_bytes_that_they_touched() {
        let view = ShardView::new(ShardId(0), ReplicaId(1), Machine::new());
        let mut writer = Writer::new(&view);
        let mut holds_lock_after = |touched_bytes| {
            writer.machine();
            writer.count(touched_bytes);
            writer.hash().is_some()
        };
        assert!(holds_lock_after(APPLY_SLICE_BYTES - 1));
        assert!(!holds_lock_after(1));
        assert!((1..APPLY_SLICE_COMMANDS).all(|_| holds_lock_after(0)));
        assert!(!holds_lock_after(0));
    }
}
