//! Reading the state of a replica that no longer runs back from the log.
//!
//! A replica whose memory is damaged, or whose snapshot is missing, is stopped, but its records are intact: a restart
//! may run it again. Until then nobody can append its state to release the segments that it pins, so the log does.

use super::item::{Change, LogItem};
use super::replay::Replay;
use super::scan::scan;
use super::{Log, LogError, recovery};
use crate::disk::Disk;
use crate::mutation::Mutation;
use crate::types::ShardId;

impl<D: Disk> Log<D> {
    /// The item to append for a replica that no longer runs: its complete state or, if its records are damaged by now,
    /// that it is suspect. None if the shard pins nothing. Reads the segments from the shard's last complete state on,
    /// and calls `progress` after each of them.
    pub fn read_back(&self, shard: ShardId, progress: &mut dyn FnMut()) -> Result<Option<LogItem>, LogError> {
        let Some((replica, first, last)) = self.index.live_replica(shard) else { return Ok(None) };
        let mut replay = Replay::new(first, Mutation::None);
        for segment in self.segments.iter().filter(|segment| segment.number >= first) {
            let bytes = recovery::read(&self.disk, segment)?;
            let pieces = scan(segment.number, &bytes)
                .map_err(|_| LogError::UnknownFormat { file_name: segment.file_name.clone() })?;
            pieces.iter().for_each(|piece| replay.apply_only(shard, segment.number, piece));
            progress();
        }
        let change = match replay.into_state(shard) {
            Some((live, state, end)) if (live, end) == (replica, last) => Change::State(state),
            _ => Change::Suspect,
        };
        Ok(Some(LogItem { shard, replica, change }))
    }
}
