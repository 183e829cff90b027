//! The changes that one command makes to the state.
//!
//! All changes of a command share one revision, the shard's next one; a command that changes nothing uses none. Each
//! change is reported as a [`ChangeEvent`] before it is made, while the old entry still exists. These events are all
//! that a consumer of changes (a watch, a history, an invalidation) needs.

use super::entry::{self, Numbers};
use super::{ENTRIES, Machine};
use crate::time::HlcTimestamp;

/// A change of one key. `old` is `None` if the key did not exist before, and `new` is `None` if it no longer exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeEvent<'a> {
    /// The shard's revision, shared by all changes of a command.
    pub revision: u64,
    pub timestamp: HlcTimestamp,
    pub key: &'a [u8],
    pub old: Option<(Numbers, &'a [u8])>,
    pub new: Option<(Numbers, &'a [u8])>,
}

/// The state as one command sees it. If the watcher gets no event, nothing has changed.
pub struct Transaction<'a> {
    machine: &'a mut Machine,
    watcher: &'a mut dyn FnMut(ChangeEvent<'_>),
    /// The command has changed something, so the shard's revision is already the command's.
    has_changed: bool,
    touched_bytes: usize,
}

impl Machine {
    /// Begins the next command of a committed entry with this timestamp. `watcher` gets its changes.
    ///
    /// Timestamps in a log do not go backwards. If a faulty leader has written one that does, the latest timestamp so
    /// far is used instead: an assertion here would stop all replicas of the shard permanently.
    pub fn begin<'a>(
        &'a mut self,
        timestamp: HlcTimestamp,
        watcher: &'a mut dyn FnMut(ChangeEvent<'_>),
    ) -> Transaction<'a> {
        self.last_timestamp = self.last_timestamp.max(timestamp);
        Transaction { machine: self, watcher, has_changed: false, touched_bytes: 0 }
    }
}

impl Transaction<'_> {
    /// The shard's revision, this command included.
    pub fn revision(&self) -> u64 {
        self.machine.revision
    }

    /// The sizes of the entries that the command has written, and of those that they replaced: all of these bytes were
    /// hashed, so this is what the command cost.
    pub fn touched_bytes(&self) -> usize {
        self.touched_bytes
    }

    /// A key's numbers and value.
    pub fn get(&self, key: &[u8]) -> Option<(Numbers, &[u8])> {
        self.machine.tables.table(ENTRIES).get(key).map(entry::fields)
    }

    /// Sets a key, and returns the numbers that it has now: the version is 1 if it did not exist.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Numbers {
        let revision = self.next_revision();
        let old = self.machine.tables.table(ENTRIES).get(key).map(entry::fields);
        let (version, create_revision) = match old {
            Some((numbers, _)) => (numbers.version + 1, numbers.create_revision),
            None => (1, revision),
        };
        let numbers = Numbers { version, create_revision, modify_revision: revision };
        let timestamp = self.machine.last_timestamp;
        (self.watcher)(ChangeEvent { revision, timestamp, key, old, new: Some((numbers, value)) });
        self.has_changed = true;
        self.touched_bytes += key.len() + value.len() + old.map_or(0, |(_, value)| key.len() + value.len());
        self.machine.revision = revision;
        self.machine.tables.table_mut(ENTRIES).set(key, entry::pack(key, value, numbers));
        numbers
    }

    /// Removes a key. Returns whether it existed.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let revision = self.next_revision();
        let old = self.machine.tables.table(ENTRIES).get(key).map(entry::fields);
        let Some((_, value)) = old else { return false };
        (self.watcher)(ChangeEvent { revision, timestamp: self.machine.last_timestamp, key, old, new: None });
        self.has_changed = true;
        self.touched_bytes += key.len() + value.len();
        self.machine.revision = revision;
        self.machine.tables.table_mut(ENTRIES).remove(key);
        true
    }

    /// The revision of this command's changes.
    fn next_revision(&self) -> u64 {
        self.machine.revision + u64::from(!self.has_changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changes_of_a_command_share_a_revision_and_are_told_with_what_was_there() {
        let mut machine = Machine::new();
        machine.begin(HlcTimestamp(1), &mut |_| {}).put(b"a", b"1");
        let mut told = Vec::new();
        let mut watcher = |event: ChangeEvent<'_>| {
            let value = |entry: Option<(Numbers, &[u8])>| entry.map(|(_, value)| value.to_vec());
            told.push((event.revision, event.timestamp, event.key.to_vec(), value(event.old), value(event.new)));
        };
        let mut transaction = machine.begin(HlcTimestamp(2), &mut watcher);
        assert_eq!(transaction.put(b"b", b"2").modify_revision, 2);
        assert_eq!(transaction.put(b"a", b"3"), Numbers { version: 2, create_revision: 1, modify_revision: 2 });
        assert!(transaction.delete(b"b"));
        assert_eq!((transaction.get(b"b"), transaction.revision()), (None, 2));
        let event = |key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>| {
            (2, HlcTimestamp(2), key.to_vec(), old.map(<[u8]>::to_vec), new.map(<[u8]>::to_vec))
        };
        assert_eq!(
            told,
            [event(b"b", None, Some(b"2")), event(b"a", Some(b"1"), Some(b"3")), event(b"b", Some(b"2"), None)]
        );
    }

    #[test]
    fn a_command_that_changes_nothing_tells_nothing_and_uses_no_revision() {
        let mut machine = Machine::new();
        let mut watcher = |event: ChangeEvent<'_>| panic!("{event:?}");
        assert!(!machine.begin(HlcTimestamp(7), &mut watcher).delete(b"absent"));
        assert_eq!((machine.revision(), machine.last_timestamp()), (0, HlcTimestamp(7)));
    }

    #[test]
    fn a_stamp_never_steps_back() {
        let mut machine = Machine::new();
        machine.begin(HlcTimestamp(9), &mut |_| {});
        machine.begin(HlcTimestamp(3), &mut |_| {});
        assert_eq!(machine.last_timestamp(), HlcTimestamp(9));
    }
}
