//! The batch of items that one turn of a worker, or of gossip, makes durable together.

use super::item::LogItem;
use crate::types::ShardId;

/// A source of batches, which is notified when they are durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchSource {
    /// A worker, by its number.
    Worker(usize),
    Gossip,
}

/// The number of a batch among those of its source, which counts them from [`BatchNumber::FIRST`]. The default comes
/// before all batches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct BatchNumber(pub u64);

impl BatchNumber {
    pub const FIRST: BatchNumber = BatchNumber(1);

    pub fn next(self) -> BatchNumber {
        BatchNumber(self.0 + 1)
    }
}

/// A batch of items. Its source numbers it, in order. It becomes durable as a whole, after all earlier batches of that
/// source.
#[derive(Debug, Default)]
pub struct LogBatch {
    pub number: BatchNumber,
    pub items: Vec<LogItem>,
    /// Shards whose replica no longer runs here and pins the log's oldest segment: the log appends what it
    /// [reads back](super::Log::read_back) of them.
    pub read_back: Vec<ShardId>,
}

impl LogBatch {
    /// The bytes of all entries that the log writes for the batch.
    pub fn entry_bytes(&self) -> u64 {
        self.items.iter().map(|item| item.entry_bytes() as u64).sum()
    }

    /// The bytes that the batch adds to the node's unsynced bytes: those of new entries. The entries of a complete
    /// state do not count: they are in memory anyway and the log itself asked for them, so client requests must not be
    /// refused because of them.
    pub fn new_entry_bytes(&self) -> u64 {
        self.items.iter().map(|item| item.new_entry_bytes() as u64).sum()
    }

    /// The bytes of entries that the batch writes again as part of complete states.
    pub fn restated_bytes(&self) -> u64 {
        self.entry_bytes() - self.new_entry_bytes()
    }
}
