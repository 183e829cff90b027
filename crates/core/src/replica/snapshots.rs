//! Cutting, writing and installing snapshots.
//!
//! **Cutting** does not stop writes: the map preserves what changes ahead of the cursor, and chunks go to the thread
//! that writes files, [`CHUNKS_UNDER_WAY`] at a time. When the file is complete, the base moves up to it and the
//! complete state is logged again. The older file is deleted when that record is durable and no transfer sends the file
//! any more ([`transfers`](super::transfers)).
//!
//! **Installing** comes with the data: the receiving side has written the file and built the state before the replica
//! sees the message. Raft may ignore the snapshot (it is older than the replica's state); then the file is deleted
//! again. Otherwise the snapshot takes effect with the log record that names it.

use super::*;
use crate::kv::state::CutMeta;
use crate::log::BatchNumber;
use crate::snapshot::{SnapshotHeader, snapshot_name};
use raft::eraftpb::{Message, MessageType, Snapshot};

/// Chunks of one cut that may wait to be written; the cut continues when one has been.
const CHUNKS_UNDER_WAY: usize = 2;

/// A cut that is being written to a file.
pub(super) struct Cutting {
    base: Base,
    /// The system shard's only chunk, until it is handed out; a map's chunks come from the map.
    system_chunk: Option<Bytes>,
    under_way: usize,
    exhausted: bool,
    /// The size of the state until the first chunk has been written, then 0.
    unwritten_bytes: usize,
}

impl Cutting {
    pub(super) fn base(&self) -> &Base {
        &self.base
    }
}

/// A state from the leader that has been passed to Raft.
pub(super) struct Installing {
    name: String,
    restored: Restored,
}

/// A file that a later base has replaced.
pub(super) struct Retired {
    /// The first batch whose record no longer names the file; none until the complete state is in a batch.
    pub batch: Option<BatchNumber>,
    pub name: String,
}

/// The snapshots that a replica is writing, installing or about to delete.
#[derive(Default)]
pub(super) struct Snapshots {
    pub installing: Option<Installing>,
    pub cutting: Option<Cutting>,
    /// The complete state must be logged again: the base has moved, or old segments must be released.
    pub restate: bool,
    /// Files to delete once the batch is durable and no transfer needs them.
    pub retired: Vec<Retired>,
    /// The worker lets another snapshot begin.
    is_permitted: bool,
    /// A snapshot was abandoned because memory differs from what was written to it.
    pub is_damaged: bool,
}

impl Snapshots {
    pub fn new() -> Snapshots {
        Snapshots { is_permitted: true, ..Snapshots::default() }
    }

    /// Whether no snapshot is being written or installed.
    pub fn is_idle(&self) -> bool {
        self.cutting.is_none() && self.installing.is_none()
    }

    /// Whether the file is being written or installed, or waits to be deleted.
    pub fn has(&self, name: &str) -> bool {
        let cut = self.cutting.iter().map(|cutting| &cutting.base.snapshot);
        let installed = self.installing.iter().map(|installing| &installing.name);
        cut.chain(installed).chain(self.retired.iter().map(|retired| &retired.name)).any(|own| own == name)
    }

    /// `batch` contains the complete state with the latest base.
    pub fn restated_in(&mut self, batch: BatchNumber) {
        for retired in &mut self.retired {
            retired.batch = Some(retired.batch.map_or(batch, |earlier| earlier.min(batch)));
        }
    }
}

impl<T> Replica<T> {
    /// Begins a snapshot of the applied state, unless one is under way, the last one is as new, or the worker has used
    /// up its allowance for snapshots.
    pub fn begin_snapshot(&mut self, out: &mut Effects<T>) {
        let is_needed = self.snapshots.is_idle() && self.applied.index > self.base().index;
        if !is_needed || !self.snapshots.is_permitted {
            return;
        }
        let mut base = Base {
            index: self.applied.index,
            term: self.applied.term,
            conf_state: match self.config.mutation.is(Mutation::ForgetConfState) {
                true => self.base().conf_state.clone(),
                false => self.raft.raft.prs().conf().to_conf_state(),
            },
            snapshot: String::new(),
        };
        if matches!(self.machine, StateMachine::Kv) && self.view.machine().is_new() {
            // The empty state needs no file: the base moves up at once.
            self.raft.mut_store().advance_base(base);
            self.snapshots.restate = true;
            return;
        }
        let (meta, system_chunk) = match &self.machine {
            StateMachine::Kv => (self.view.machine_mut().begin_cut(), None),
            StateMachine::System(system) => {
                let chunk = system.topology().encode();
                let meta =
                    CutMeta { revision: 0, timestamp: system.last_timestamp(), hash: 0, len: chunk.len() as u64 };
                (meta, Some(chunk))
            }
        };
        let name = snapshot_name(self.shard, self.applied.index);
        base.snapshot = name.clone();
        let header = SnapshotHeader {
            shard: self.shard,
            index: base.index,
            term: base.term,
            conf_state: base.conf_state.clone(),
            meta: meta.encode(),
        };
        out.snapshots.push(SnapshotWork::Begin { shard: self.shard, name, header });
        self.snapshots.cutting =
            Some(Cutting { base, system_chunk, under_way: 0, exhausted: false, unwritten_bytes: self.state_bytes() });
        self.cut_on(out);
    }

    pub fn is_cutting(&self) -> bool {
        self.snapshots.cutting.is_some()
    }

    /// Sets whether the worker lets another snapshot begin.
    pub fn permit_snapshot(&mut self, is_permitted: bool) {
        self.snapshots.is_permitted = is_permitted;
    }

    /// A chunk of the cut has been written.
    pub fn snapshot_chunk_written(&mut self, out: &mut Effects<T>) {
        if let Some(cutting) = &mut self.snapshots.cutting {
            cutting.under_way = cutting.under_way.saturating_sub(1);
            cutting.unwritten_bytes = 0;
            self.cut_on(out);
        }
    }

    fn cut_on(&mut self, out: &mut Effects<T>) {
        let Some(cutting) = &mut self.snapshots.cutting else { return };
        if self.snapshots.is_damaged {
            return;
        }
        while cutting.under_way < CHUNKS_UNDER_WAY && !cutting.exhausted {
            let chunk = match &self.machine {
                StateMachine::Kv => self.view.machine_mut().next_chunk(SNAPSHOT_CHUNK_BYTES),
                StateMachine::System(_) => cutting.system_chunk.take(),
            };
            let (shard, name) = (self.shard, cutting.base.snapshot.clone());
            match chunk {
                Some(payload) => {
                    cutting.under_way += 1;
                    out.snapshots.push(SnapshotWork::Chunk { shard, name, payload });
                }
                None if self.view.machine().is_damaged() => {
                    // The replica ends with this turn and abandons the file then, because it is unusable.
                    self.snapshots.is_damaged = true;
                    return;
                }
                None => {
                    cutting.exhausted = true;
                    out.snapshots.push(SnapshotWork::Finish { shard, name });
                }
            }
        }
    }

    /// The file `name` of this replica's cut is complete and durable, or could not be written. Returns the size of the
    /// state if nothing of it was written, and otherwise 0.
    pub fn snapshot_written(&mut self, name: &str, written: bool) -> usize {
        let Some(cutting) = self.snapshots.cutting.take_if(|cutting| cutting.base.snapshot == name) else { return 0 };
        if !written {
            self.view.machine_mut().abandon_cut();
            return cutting.unwritten_bytes;
        }
        self.retire_snapshot();
        self.raft.mut_store().advance_base(cutting.base);
        self.snapshots.restate = true;
        0
    }

    /// The log asks for this replica's complete state, so that it can release older segments.
    pub fn release_log(&mut self, out: &mut Effects<T>) {
        if self.bytes_after_base() <= SMALL_LOG_BYTES && self.storage().is_whole() {
            self.snapshots.restate = true;
        } else {
            self.begin_snapshot(out);
        }
    }

    /// Passes a snapshot whose file and state are here to Raft: `message` is the leader's MsgSnapshot.
    pub fn install(
        &mut self,
        from: ReplicaId,
        message: Message,
        name: String,
        restored: Restored,
        out: &mut Effects<T>,
    ) {
        let fits = message.get_msg_type() == MessageType::MsgSnapshot
            && message.from == from.0
            && message.to == self.id.0
            && matches!(
                (&restored, &self.machine),
                (Restored::Kv(_), StateMachine::Kv) | (Restored::System(_), StateMachine::System(_))
            );
        if !fits || self.snapshots.installing.is_some() {
            self.delete_unless_in_use(name, out);
            return;
        }
        self.snapshots.installing = Some(Installing { name, restored });
        // raft-rs refuses a snapshot by not returning it in the next Ready.
        let _ = self.raft.step(message);
    }

    /// Raft has accepted the snapshot: it replaces the state.
    pub(super) fn adopt_snapshot(&mut self, snapshot: &Snapshot, batch: BatchNumber, out: &mut Effects<T>) {
        let Some(Installing { name, restored }) = self.snapshots.installing.take() else {
            panic!("Raft adopts a snapshot of shard {} that no message brought", self.shard)
        };
        if let Some(cutting) = self.snapshots.cutting.take() {
            self.view.machine_mut().abandon_cut();
            out.snapshots.push(SnapshotWork::Abandon { name: cutting.base.snapshot });
        }
        let base = storage::base_of(snapshot, name);
        (self.applied.index, self.applied.term) = (base.index, base.term);
        self.applied.configuration = base.index;
        let old = self.base().snapshot.clone();
        if !old.is_empty() && old != base.snapshot {
            self.snapshots.retired.push(Retired { batch: Some(batch), name: old });
        }
        self.raft.mut_store().install(base);
        self.learn_configurations();
        match restored {
            Restored::Kv(map) => {
                self.applied.timestamp = map.last_timestamp();
                out.garbage.push(std::mem::replace(&mut *self.view.machine_mut(), map));
            }
            Restored::System(system) => {
                self.applied.timestamp = system.last_timestamp();
                out.topology = Some(system.topology().clone());
                self.machine = StateMachine::System(system);
            }
        }
        let skipped = self.proposals.drain();
        out.replies.extend(skipped.into_iter().map(|responder| (responder, Err(Failure::Unknown))));
    }

    /// Deletes a snapshot that Raft has not returned in a Ready of this turn, and so has ignored.
    pub(super) fn drop_ignored_snapshot(&mut self, out: &mut Effects<T>) {
        if let Some(installing) = self.snapshots.installing.take() {
            self.delete_unless_in_use(installing.name, out);
        }
    }

    fn delete_unless_in_use(&self, name: String, out: &mut Effects<T>) {
        if name != self.base().snapshot && !name.is_empty() {
            out.snapshots.push(SnapshotWork::Delete { name });
        }
    }

    /// The current snapshot's file is replaced; it may be deleted when the record that says so is durable.
    fn retire_snapshot(&mut self) {
        let old = self.base().snapshot.clone();
        if !old.is_empty() {
            self.snapshots.retired.push(Retired { batch: None, name: old });
        }
    }
}
