//! What a node accepts while it lacks memory, disk space, or a disk that answers.
//!
//! A write is refused before its proposal, when nothing has happened yet. While the log has no space or the disk does
//! not answer, writes would otherwise wait until their deadlines and end with an unknown outcome.
//!
//! Entries from other leaders are dropped if there is no space, or if too many bytes wait for the disk: otherwise they
//! would accumulate in memory without bound. Raft sends them again. All other messages are accepted, so that a node
//! with a bad disk does not look dead.

use crate::limits::MAX_UNSYNCED_BYTES;
use crate::message::RaftMessage;
use crate::mutation::Mutation;
use crate::request::{Action, Failure, Request};

/// The shortages of a node at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    pub is_disk_hung: bool,
    pub is_disk_full: bool,
    /// The log has no file descriptor for its next segment: while that lasts, it has the same effect as a full disk.
    pub is_without_files: bool,
    /// The maps have reached their memory limit.
    pub is_memory_full: bool,
    /// Bytes of batches on their way to the disk, and of entries that wait for a worker. The latter count because a
    /// worker that was stalled takes all of them at once and would otherwise exceed the bound.
    pub unsynced_bytes: u64,
    /// The bound on `unsynced_bytes`: [`MAX_UNSYNCED_BYTES`], except in the simulator.
    pub max_unsynced_bytes: u64,
    pub mutation: Mutation,
}

impl Default for Admission {
    /// There is room for everything.
    fn default() -> Admission {
        Admission {
            is_disk_hung: false,
            is_disk_full: false,
            is_without_files: false,
            is_memory_full: false,
            unsynced_bytes: 0,
            max_unsynced_bytes: MAX_UNSYNCED_BYTES,
            mutation: Mutation::None,
        }
    }
}

impl Admission {
    /// Why a request must not be proposed by this node now.
    pub fn refusal(&self, request: &Request) -> Option<Failure> {
        let command = match request.action() {
            Action::Query(_) => return None,
            Action::Command(_) | Action::System(_) if self.is_disk_hung => return Some(Failure::DiskHung),
            // Commands of the cluster itself are few, and may resolve the shortage.
            Action::System(_) => return None,
            Action::Command(command) => command,
        };
        if self.is_disk_full {
            Some(Failure::DiskFull)
        } else if self.is_without_files || self.has_too_much_unsynced() {
            Some(Failure::Overloaded)
        } else if command.grows() && self.is_memory_full {
            Some(Failure::MemoryFull)
        } else {
            None
        }
    }

    /// Whether a message from another node may be passed to its replica.
    pub fn takes(&self, message: &RaftMessage) -> bool {
        let has_no_room = self.is_disk_full || self.is_without_files || self.has_too_much_unsynced();
        message.message.entries.is_empty() || !has_no_room
    }

    fn has_too_much_unsynced(&self) -> bool {
        self.unsynced_bytes >= self.max_unsynced_bytes && !self.mutation.is(Mutation::TakeUnsynced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Delete, Get, Put};
    use crate::types::ShardId;
    use bytes::Bytes;
    use ringfort_ring::ShardCount;

    /// The refusals of a put, a delete and a read.
    fn refusals(admission: Admission) -> [Option<Failure>; 3] {
        let key = Bytes::from("k");
        [
            Request::command(ShardCount::MAX, Put { key: key.clone(), value: Bytes::new() }),
            Request::command(ShardCount::MAX, Delete { key: key.clone() }),
            Request::query(ShardCount::MAX, Get { key }),
        ]
        .map(|request| admission.refusal(&request.unwrap()))
    }

    fn takes_entries(admission: Admission) -> bool {
        let mut message = RaftMessage {
            shard: ShardId(0),
            from: Default::default(),
            to: Default::default(),
            message: Default::default(),
        };
        assert!(admission.takes(&message), "a heartbeat is always taken");
        message.message.entries.push(Default::default());
        admission.takes(&message)
    }

    #[test]
    fn full_memory_refuses_puts_alone() {
        let admission = Admission { is_memory_full: true, ..Admission::default() };
        assert_eq!(refusals(admission), [Some(Failure::MemoryFull), None, None]);
        assert!(takes_entries(admission));
        assert_eq!(refusals(Admission::default()), [None; 3]);
    }

    #[test]
    fn a_disk_that_hangs_refuses_writes_and_takes_entries_up_to_the_bound() {
        let hung = Admission { is_disk_hung: true, unsynced_bytes: MAX_UNSYNCED_BYTES - 1, ..Admission::default() };
        assert_eq!(refusals(hung), [Some(Failure::DiskHung), Some(Failure::DiskHung), None]);
        assert!(takes_entries(hung));
        let unsynced = Admission { is_disk_hung: false, unsynced_bytes: MAX_UNSYNCED_BYTES, ..hung };
        assert_eq!(refusals(unsynced), [Some(Failure::Overloaded), Some(Failure::Overloaded), None]);
        assert!(!takes_entries(unsynced));
    }

    #[test]
    fn a_full_disk_refuses_writes_and_entries_but_not_what_keeps_a_leader() {
        let full = Admission { is_disk_full: true, ..Admission::default() };
        assert_eq!(refusals(full), [Some(Failure::DiskFull), Some(Failure::DiskFull), None]);
        assert!(!takes_entries(full));
        let without_files = Admission { is_without_files: true, ..Admission::default() };
        assert_eq!(refusals(without_files), [Some(Failure::Overloaded), Some(Failure::Overloaded), None]);
        assert!(!takes_entries(without_files));
    }
}
