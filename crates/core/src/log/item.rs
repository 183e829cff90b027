//! The items that a node's shards append to the log.

use crate::types::{LogIndex, ReplicaId, ShardId, Term};
use raft::eraftpb::{ConfState, Entry, HardState};

/// One change to make durable for one shard. The items of a shard take effect in the order in which they are appended.
#[derive(Clone, Debug, PartialEq)]
pub struct LogItem {
    pub shard: ShardId,
    pub replica: ReplicaId,
    pub change: Change,
}

impl LogItem {
    /// The bytes of all entries that the log writes for the item.
    pub fn entry_bytes(&self) -> usize {
        let entries = match &self.change {
            Change::State(state) => &state.entries,
            Change::Entries(entries) => entries,
            Change::HardState(_) | Change::Suspect | Change::Removed => return 0,
        };
        entries.iter().map(|entry| entry.data.len()).sum()
    }

    /// The same without the entries of a complete state, which the log has written before.
    pub fn new_entry_bytes(&self) -> usize {
        match self.change {
            Change::State(_) => 0,
            _ => self.entry_bytes(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The complete state of the replica, which replaces everything that the log holds of this shard. Written when a
    /// replica is created, when it has taken or installed a snapshot, and to release the segments that an idle shard
    /// pins.
    State(Box<ReplicaState>),
    /// New, contiguous entries. They replace the log's entries from the first one's index on.
    Entries(Vec<Entry>),
    /// Term, vote and commit index.
    HardState(HardState),
    /// The replica has lost entries that it acknowledged, or its whole log. From now on it is
    /// [suspect](super::RecoveredShard::Suspect), also after a restart. Its records are kept until the shard has a later
    /// replica here, or the replica is removed.
    Suspect,
    /// The replica is removed. This is kept forever: no replica of this shard with this id or a lower one may run on
    /// this node again.
    Removed,
}

/// Everything that a replica needs from disk to restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaState {
    pub hard_state: HardState,
    pub base: Base,
    /// Contiguous, the first with index `base.index + 1`.
    pub entries: Vec<Entry>,
}

/// Where a replica's log begins: everything up to `index` is in the snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Base {
    pub index: LogIndex,
    pub term: Term,
    /// The configuration at `index`. Empty if the replica waits for its first snapshot.
    pub conf_state: ConfState,
    /// The snapshot's file name; empty if the state at `index` is empty.
    pub snapshot: String,
}
