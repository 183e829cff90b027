//! Snapshots that are sent to other replicas.
//!
//! A leader sends the snapshot at its base to a follower whose next entry has left memory. The snapshot's **file is
//! kept** until the transfer has ended, even if a newer snapshot replaces it meanwhile: deleting it would end the
//! transfer, and a follower whose transfers take longer than the interval between the leader's snapshots would never
//! catch up. The entries after a snapshot that is being sent are kept in memory within the budgets, because the
//! follower needs them next (see [`retention`](super::retention)).
//!
//! **Few at a time.** The worker bounds how many transfers are under way. Raft asks again at each heartbeat, and a
//! request beyond the bound costs nothing. After a transfer that failed or that the receiver refused, the next one to
//! that replica waits, twice as long each time.
//!
//! **The empty state** of a shard that no command has changed yet has no file: it is sent as an ordinary message, whose
//! data says so. All other snapshots are streamed and checked.

use super::*;
use raft::SnapshotStatus;
use raft::eraftpb::{Message, MessageType};
use std::time::Duration;

/// A failed transfer is tried again after this time. The wait doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(4);

#[derive(Default)]
pub(super) struct Transfers {
    under_way: BTreeMap<ReplicaId, Transfer>,
    waits: BTreeMap<ReplicaId, Wait>,
    /// Which transfers the worker allows to begin.
    permit: TransferPermit,
}

/// Which transfers may begin, given those that the worker's replicas have under way.
#[derive(Default)]
pub enum TransferPermit {
    #[default]
    None,
    /// Any, except to these nodes.
    AllBut(Vec<NodeId>),
}

impl TransferPermit {
    /// Which transfers may begin beside these.
    pub fn beside(under_way: &[(ShardId, ReplicaId)], workers: usize) -> TransferPermit {
        if under_way.len() >= (MAX_SNAPSHOTS_SENT / workers).max(1) {
            return TransferPermit::None;
        }
        let to = |node: NodeId| under_way.iter().filter(|(_, replica)| replica.node() == node).count();
        let most = (MAX_SNAPSHOTS_SENT_TO_ONE / workers).max(1);
        let nodes = under_way.iter().map(|(_, replica)| replica.node());
        TransferPermit::AllBut(nodes.filter(|node| to(*node) >= most).collect())
    }

    fn allows(&self, node: NodeId) -> bool {
        match self {
            TransferPermit::None => false,
            TransferPermit::AllBut(nodes) => !nodes.contains(&node),
        }
    }
}

/// A file that is being sent, and the index of the state in it.
struct Transfer {
    file: String,
    index: LogIndex,
}

/// A pause after a failed transfer: the tick at which it ends, and its length.
struct Wait {
    until: Ticks,
    length: Duration,
}

impl Transfers {
    /// The index of the snapshot that is being sent to `to`; zero if there is none.
    pub(super) fn index_sent_to(&self, to: ReplicaId) -> LogIndex {
        self.under_way.get(&to).map_or(LogIndex(0), |transfer| transfer.index)
    }

    pub(super) fn holds(&self, file: &str) -> bool {
        self.under_way.values().any(|transfer| transfer.file == file)
    }

    fn may_begin(&self, to: ReplicaId, tick: Ticks) -> bool {
        !self.under_way.contains_key(&to) && self.waits.get(&to).is_none_or(|wait| tick >= wait.until)
    }

    fn begin(&mut self, to: ReplicaId, file: String, index: LogIndex) {
        self.under_way.insert(to, Transfer { file, index });
    }

    fn end(&mut self, to: ReplicaId, arrived: bool, tick: Ticks, timing: Timing) {
        if self.under_way.remove(&to).is_none() {
            return;
        }
        if arrived {
            self.waits.remove(&to);
        } else {
            let length = self.waits.get(&to).map_or(FIRST_WAIT, |wait| (2 * wait.length).min(LONGEST_WAIT));
            self.waits.insert(to, Wait { until: tick + timing.ticks(length), length });
        }
    }
}

/// The data of a message that brings the empty state.
const EMPTY_STATE: &[u8] = b"empty";

/// Whether `message` brings the empty state, for which there is no file.
pub fn is_empty_state(shard: ShardId, message: &Message) -> bool {
    let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
    is_snapshot && shard != ShardId::SYSTEM && message.get_snapshot().data == EMPTY_STATE
}

impl<T> Replica<T> {
    /// The replicas that snapshots of this replica are being sent to.
    pub fn transfers(&self) -> impl ExactSizeIterator<Item = ReplicaId> {
        self.transfers.under_way.keys().copied()
    }

    /// Sets which transfers the worker lets begin.
    pub fn permit_transfers(&mut self, permit: TransferPermit) {
        self.transfers.permit = permit;
    }

    /// Handles Raft's MsgSnapshot. Returns the message if it can be sent as it is; otherwise a transfer begins, or Raft
    /// is told that none can begin now.
    pub(super) fn send_snapshot(&mut self, mut message: RaftMessage, out: &mut Effects<T>) -> Option<RaftMessage> {
        let to = message.to;
        let base = self.base();
        let is_current = message.message.get_snapshot().get_metadata().index == base.index.0;
        if is_current && base.snapshot.is_empty() {
            message.message.mut_snapshot().data = Bytes::from_static(EMPTY_STATE);
            // Whether the message arrives is not known; Raft probes, and sends the state again if necessary.
            self.raft.report_snapshot(to.0, SnapshotStatus::Finish);
            return Some(message);
        }
        // If it is not current, the base has moved on since Raft made the message.
        if is_current && self.transfers.permit.allows(to.node()) && self.transfers.may_begin(to, self.ticks) {
            let (file, index) = (base.snapshot.clone(), base.index);
            self.transfers.begin(to, file.clone(), index);
            out.snapshots.push(SnapshotWork::Send { name: file, message });
        } else {
            self.raft.report_snapshot(to.0, SnapshotStatus::Failure);
        }
        None
    }

    /// The transfer of a snapshot to `to` has ended.
    pub fn snapshot_sent(&mut self, to: ReplicaId, arrived: bool, out: &mut Effects<T>) {
        self.transfers.end(to, arrived, self.ticks, self.config.timing);
        if self.is_leader() {
            let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
            self.raft.report_snapshot(to.0, status);
        }
        self.delete_retired_snapshots(out);
    }

    /// Deletes the files that are no longer needed: a later base is durable, and no transfer sends them.
    pub(super) fn delete_retired_snapshots(&mut self, out: &mut Effects<T>) {
        let (durable, transfers) = (self.durability.persisted(), &self.transfers);
        let forgets = self.config.mutation.is(Mutation::DeleteWhileSending);
        let unneeded = |retired: &mut snapshots::Retired| {
            retired.batch.is_some_and(|batch| batch <= durable) && (forgets || !transfers.holds(&retired.name))
        };
        for snapshots::Retired { name, .. } in self.snapshots.retired.extract_if(.., unneeded) {
            out.snapshots.push(SnapshotWork::Delete { name });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_failures_and_end_with_an_arrival() {
        let to = ReplicaId::new(NodeId(2), 2);
        let mut transfers = Transfers::default();
        let mut tick = Ticks(0);
        for wait in [10, 20, 40, 80, 80].map(Ticks) {
            assert!(transfers.may_begin(to, tick));
            transfers.begin(to, "file".into(), LogIndex(5));
            transfers.end(to, false, tick, Timing::DEFAULT);
            assert!(!transfers.may_begin(to, tick + Ticks(wait.0 - 1)));
            tick = tick + wait;
        }
        transfers.begin(to, "file".into(), LogIndex(5));
        transfers.end(to, true, tick, Timing::DEFAULT);
        transfers.begin(to, "file".into(), LogIndex(5));
        transfers.end(to, false, tick, Timing::DEFAULT);
        assert!(transfers.may_begin(to, tick + Ticks(10)), "an arrival ends the doubling");
    }
}
