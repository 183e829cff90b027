//! Snapshots of a simulated node: files that it writes, and transfers to and from other nodes.
//!
//! As in the shell, the sender streams a file's frames as they are and reads each when its turn comes, at the bandwidth of
//! the run: a file that goes in the meantime ends the transfer. The receiver writes the frames as they arrive; one that is
//! missing ends the transfer, too. Only when the state is built from the whole file does the worker hear of it.

use super::message::CallId;
use super::running::{Input, Outbox, Running, When};
use super::{Message, Task};
use crate::network::Endpoint;
use bytes::Bytes;
use ringfort_core::disk::Disk;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::effects::SnapshotWork;
use ringfort_core::message::RaftMessage;
use ringfort_core::replica::{Restored, restore};
use ringfort_core::snapshot::{Received, SnapshotError, SnapshotHeader, SnapshotReader, SnapshotWriter};
use ringfort_core::types::{ReplicaId, ShardId};
use std::collections::BTreeMap;
use std::time::Duration;

/// A sender gives up when there is no answer this long after the last frame has left.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Snapshots that may be arriving; beyond, the one that began first is given up. Its sender is gone, as a rule.
const MAX_RECEIVED: usize = 4;

/// One message of a transfer.
#[derive(Clone, Hash)]
pub enum Part {
    Header(Bytes),
    Frame(Bytes),
}

/// The snapshot files that are open on this node.
pub struct Files {
    bytes_per_second: u64,
    writers: BTreeMap<String, SnapshotWriter<MemDisk>>,
    sent: BTreeMap<CallId, Sent>,
    received: BTreeMap<CallId, Arriving>,
    next: u64,
    gone: Vec<(ShardId, ReplicaId)>,
}

struct Sent {
    shard: ShardId,
    from: ReplicaId,
    replica: ReplicaId,
    to: Endpoint,
    reader: SnapshotReader<MemDisk>,
    next_part: u32,
}

struct Arriving {
    /// Which transfer of this life it is, counted from the first.
    began: u64,
    message: RaftMessage,
    name: String,
    writer: SnapshotWriter<MemDisk>,
    next_part: u32,
}

impl Files {
    pub fn new(bytes_per_second: u64) -> Files {
        Files {
            bytes_per_second,
            writers: BTreeMap::new(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            next: 0,
            gone: Vec::new(),
        }
    }

    pub fn gone(&self) -> &[(ShardId, ReplicaId)] {
        &self.gone
    }
}

impl Running {
    pub(super) fn snapshot(&mut self, work: SnapshotWork, out: &mut Outbox) {
        if self.is_disk_hung {
            return self.hung_snapshots.push(work);
        }
        match work {
            // A file that can't be written is given up, and its end reported as not written.
            SnapshotWork::Begin { name, header, .. } => {
                if let Ok(writer) = SnapshotWriter::begin(self.disk.clone(), &name, &header) {
                    self.files.writers.insert(name, writer);
                }
            }
            SnapshotWork::Chunk { shard, name, payload } => {
                if self.files.writers.get_mut(&name).is_some_and(|writer| writer.chunk(&payload).is_err()) {
                    self.abandon(&name);
                }
                self.give(shard, Input::ChunkWritten(shard), out);
            }
            SnapshotWork::Finish { shard, name } => {
                let written = self.files.writers.remove(&name).is_some_and(|writer| writer.finish().is_ok());
                out.events.push(if written { "snapshots taken" } else { "snapshots not written" });
                self.give(shard, Input::SnapshotWritten { shard, name, written }, out);
            }
            SnapshotWork::Abandon { name } => self.abandon(&name),
            SnapshotWork::Delete { name } => self.disk.delete(&name).expect("this disk deletes"),
            SnapshotWork::Send { name, message } => self.send_snapshot(&name, message, out),
        }
    }

    fn abandon(&mut self, name: &str) {
        // What is left of the file is deleted at the next start.
        let _ = self.files.writers.remove(name).map(SnapshotWriter::abandon);
    }

    fn send_snapshot(&mut self, name: &str, message: RaftMessage, out: &mut Outbox) {
        let (shard, from, replica) = (message.shard, message.from, message.to);
        let reader = SnapshotReader::open(self.disk.clone(), name);
        let (Ok(reader), Some(to)) = (reader, self.endpoint_of(message.to_node())) else {
            // The file is gone, or the node is not known here yet: Raft asks again.
            return self.give(shard, Input::SnapshotSent { shard, to: replica, arrived: false }, out);
        };
        self.files.next += 1;
        let id = CallId { life: self.life, number: self.files.next };
        let part = Part::Header(reader.header().encode());
        out.messages.push((to, Message::Snapshot { id, number: 0, message: Some(message), part }));
        self.files.sent.insert(id, Sent { shard, from, replica, to, reader, next_part: 1 });
        out.tasks.push((When::Soon, Task::SendSnapshot(id)));
    }

    /// Sends the next frame of a file, and plans the one after it for when the bandwidth allows.
    pub(super) fn send_part(&mut self, id: CallId, out: &mut Outbox) {
        let bytes_per_second = self.files.bytes_per_second;
        let Some(sent) = self.files.sent.get_mut(&id) else { return };
        match sent.reader.next_frame() {
            Ok(Some(frame)) => {
                let took = Duration::from_nanos(frame.len() as u64 * 1_000_000_000 / bytes_per_second);
                let (to, number) = (sent.to, sent.next_part);
                sent.next_part += 1;
                out.messages.push((to, Message::Snapshot { id, number, message: None, part: Part::Frame(frame) }));
                out.tasks.push((When::After(took), Task::SendSnapshot(id)));
            }
            Ok(None) => out.tasks.push((When::After(ANSWER_TIMEOUT), Task::SnapshotTimedOut(id))),
            // A damaged file can't be sent, but it still exists.
            Err(SnapshotError::Corrupt(_) | SnapshotError::Malformed(_)) => self.snapshot_sent(id, false, out),
            Err(_) => {
                out.events.push("snapshots gone while they were sent");
                let gone = (sent.shard, sent.from);
                self.files.gone.push(gone);
                self.snapshot_sent(id, false, out);
            }
        }
    }

    pub(super) fn snapshot_sent(&mut self, id: CallId, arrived: bool, out: &mut Outbox) {
        if let Some(Sent { shard, replica, .. }) = self.files.sent.remove(&id) {
            self.give(shard, Input::SnapshotSent { shard, to: replica, arrived }, out);
        }
    }

    /// Takes a part of a snapshot, and answers when there is no more to come.
    pub(super) fn receive_part(
        &mut self,
        from: Endpoint,
        id: CallId,
        number: u32,
        message: Option<RaftMessage>,
        part: Part,
        out: &mut Outbox,
    ) {
        let goes_on = match (message, part) {
            (Some(message), Part::Header(header)) => self.begin_receiving(id, message, &header),
            (_, Part::Frame(frame)) => self.receive_frame(id, number, &frame, out),
            (None, Part::Header(_)) => Some(false),
        };
        if let Some(arrived) = goes_on {
            out.messages.push((from, Message::SnapshotReceived { id, arrived }));
        }
    }

    /// `None` if further frames are to come; false if the snapshot is unusable.
    fn begin_receiving(&mut self, id: CallId, message: RaftMessage, header: &Bytes) -> Option<bool> {
        self.received += 1;
        let (shard, index) = (message.shard, message.message.get_snapshot().get_metadata().index);
        let name = format!("snap-{shard}-{index}-{:x}-{}.snap", self.random.next_u64(), self.received);
        let header = SnapshotHeader::decode(header).expect("headers are not damaged here");
        let Ok(writer) = SnapshotWriter::begin(self.disk.clone(), &name, &header) else { return Some(false) };
        self.files.received.insert(id, Arriving { began: self.received, message, name, writer, next_part: 1 });
        if self.files.received.len() > MAX_RECEIVED {
            // Ids do not tell which began first: they differ between senders, and between the lives of one.
            let oldest = self.files.received.iter().min_by_key(|(_, arriving)| arriving.began).map(|(id, _)| *id);
            let oldest = oldest.and_then(|id| self.files.received.remove(&id));
            let _ = oldest.map(|oldest| oldest.writer.abandon());
        }
        None
    }

    fn receive_frame(&mut self, id: CallId, number: u32, frame: &Bytes, out: &mut Outbox) -> Option<bool> {
        let Some(mut arriving) = self.files.received.remove(&id) else { return Some(false) };
        let received = (arriving.next_part == number).then(|| arriving.writer.frame(frame));
        match received {
            Some(Ok(Received::End)) => Some(self.install(arriving, out).is_some()),
            Some(Ok(Received::Chunk)) => {
                arriving.next_part += 1;
                self.files.received.insert(id, arriving);
                None
            }
            Some(Err(_)) | None => {
                let _ = arriving.writer.abandon();
                Some(false)
            }
        }
    }

    /// Builds the state, and gives it to the worker.
    fn install(&mut self, Arriving { message, name, writer, .. }: Arriving, out: &mut Outbox) -> Option<()> {
        writer.finish().ok()?;
        let restored: Restored = restore::load(&self.disk, &name).ok()?.1;
        out.events.push("snapshots received");
        self.give(message.shard, Input::Snapshot(Box::new((message, name, restored))), out);
        Some(())
    }
}
