//! Snapshots of a simulated node: files that it writes, and transfers to and from other nodes.
//!
//! As in the shell, the sender streams a file's frames unchanged and reads each when it is due, at the run's bandwidth:
//! if the file is deleted meanwhile, the transfer ends. The receiver writes the frames as they arrive; a missing frame
//! also ends the transfer. The worker is told only when the state has been built from the whole file. The core makes
//! these decisions ([`CutFiles`], [`SendSlots`], [`Receiving`]); this module moves the frames.

use super::message::CallId;
use super::running::{Input, Outbox, Running, When};
use super::{Message, Task};
use crate::network::Endpoint;
use bytes::Bytes;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::effects::SnapshotWork;
use ringfort_core::limits::MAX_SNAPSHOTS_RECEIVED;
use ringfort_core::message::RaftMessage;
use ringfort_core::replica::Restored;
use ringfort_core::replica::cut_files::{CutFiles, Performed};
use ringfort_core::replica::receiving::{self, Progress, Receiving};
use ringfort_core::replica::send_slots::{SendSlots, Slot};
use ringfort_core::snapshot::{SnapshotError, SnapshotHeader, SnapshotReader};
use ringfort_core::time::Moment;
use ringfort_core::types::{ReplicaId, ShardId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A sender gives up if there is no answer this long after it has sent the last frame.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The receiver of a snapshot considers its sender gone when no frame has arrived for this long; the shell would see a
/// broken connection instead. Frames take less, even at the lowest bandwidth.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// One message of a transfer.
#[derive(Clone, Hash)]
pub enum Part {
    Header(Bytes),
    Frame(Bytes),
}

/// The snapshot files that are open on this node.
pub struct Files {
    bytes_per_second: u64,
    cuts: CutFiles<MemDisk>,
    slots: SendSlots,
    /// Snapshots that wait for a slot.
    waiting: VecDeque<(String, RaftMessage)>,
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
    message: RaftMessage,
    name: String,
    receiving: Receiving<MemDisk>,
    /// When the last frame arrived.
    heard: Moment,
}

impl Files {
    pub fn new(bytes_per_second: u64, disk: Arc<MemDisk>) -> Files {
        Files {
            bytes_per_second,
            cuts: CutFiles::new(disk),
            slots: SendSlots::default(),
            waiting: VecDeque::new(),
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
        match self.files.cuts.perform(work, &mut |_, _| out.events.push("snapshot files that failed")) {
            Performed::Done => {}
            Performed::Chunk(shard) => self.give(shard, Input::ChunkWritten(shard), out),
            Performed::File { shard, name, written } => {
                out.events.push(if written { "snapshots taken" } else { "snapshots not written" });
                self.give(shard, Input::SnapshotWritten { shard, name, written }, out);
            }
            Performed::Send { name, message } => self.ask_to_send(name, *message, out),
        }
    }

    fn ask_to_send(&mut self, name: String, message: RaftMessage, out: &mut Outbox) {
        match self.files.slots.ask(message.to_node()) {
            Slot::Begins => self.send_snapshot(&name, message, out),
            Slot::Waits => self.files.waiting.push_back((name, message)),
            Slot::Refused => {
                out.events.push("snapshots whose receiver was busy");
                self.give(
                    message.shard,
                    Input::SnapshotSent { shard: message.shard, to: message.to, arrived: false },
                    out,
                );
            }
        }
    }

    fn send_snapshot(&mut self, name: &str, message: RaftMessage, out: &mut Outbox) {
        let (shard, from, replica) = (message.shard, message.from, message.to);
        let reader = SnapshotReader::open(self.disk.clone(), name);
        let (Ok(reader), Some(to)) = (reader, self.endpoint_of(message.to_node())) else {
            // The file is gone, or this node does not know the receiver yet: Raft asks again.
            return self.transfer_ended(shard, replica, false, out);
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
            self.transfer_ended(shard, replica, arrived, out);
        }
    }

    /// A transfer that had a slot has ended.
    fn transfer_ended(&mut self, shard: ShardId, to: ReplicaId, arrived: bool, out: &mut Outbox) {
        self.files.slots.end(to.node());
        self.give(shard, Input::SnapshotSent { shard, to, arrived }, out);
        for (name, message) in std::mem::take(&mut self.files.waiting) {
            self.ask_to_send(name, message, out);
        }
    }

    /// Handles a part of a snapshot, and answers after the last one.
    pub(super) fn receive_part(
        &mut self,
        from: Endpoint,
        id: CallId,
        message: Option<RaftMessage>,
        part: Part,
        out: &mut Outbox,
    ) {
        let arrived = match (message, part) {
            (Some(message), Part::Header(header)) => (!self.begin_receiving(id, message, &header)).then_some(false),
            (_, Part::Frame(frame)) => self.receive_frame(id, &frame, out),
            (None, Part::Header(_)) => Some(false),
        };
        if let Some(arrived) = arrived {
            out.messages.push((from, Message::SnapshotReceived { id, arrived }));
        }
    }

    /// False if the snapshot is refused.
    fn begin_receiving(&mut self, id: CallId, message: RaftMessage, header: &Bytes) -> bool {
        let heard = self.now.moment;
        for (_, given_up) in self.files.received.extract_if(.., |_, arriving| arriving.heard + STALLED_AFTER < heard) {
            given_up.receiving.abandon();
        }
        let header = SnapshotHeader::decode(header).expect("headers are not damaged here");
        if self.files.received.len() >= MAX_SNAPSHOTS_RECEIVED || !receiving::fits(&header, &message) {
            return false;
        }
        self.received += 1;
        let (shard, index) = (message.shard, header.index);
        let name = format!("snap-{shard}-{index}-{:x}-{}.snap", self.random.next_u64(), self.received);
        let Ok(receiving) = Receiving::begin(self.disk.clone(), name.clone(), &header) else { return false };
        self.files.received.insert(id, Arriving { message, name, receiving, heard });
        true
    }

    /// Whether the snapshot has arrived, once that is known.
    fn receive_frame(&mut self, id: CallId, frame: &Bytes, out: &mut Outbox) -> Option<bool> {
        let Some(Arriving { message, name, receiving, .. }) = self.files.received.remove(&id) else {
            return Some(false);
        };
        match receiving.frame(frame) {
            Ok(Progress::More(receiving)) => {
                self.files.received.insert(id, Arriving { message, name, receiving, heard: self.now.moment });
                None
            }
            Ok(Progress::Complete(restored)) => {
                self.install(message, name, restored, out);
                Some(true)
            }
            Err(_) => Some(false),
        }
    }

    /// Hands a restored state to its worker.
    fn install(&mut self, message: RaftMessage, name: String, restored: Restored, out: &mut Outbox) {
        out.events.push("snapshots received");
        self.give(message.shard, Input::Snapshot(Box::new((message, name, restored))), out);
    }
}
