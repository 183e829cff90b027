//! Snapshot transfers between nodes. Each has its own connection, so that it delays nothing else.
//!
//! The sender streams a file's frames unchanged. The receiver checks each frame, writes the file, builds the state from
//! it, and only then tells the worker, even if the sender has stopped waiting. All transfers of a node share
//! `--move-bandwidth`: each waits for its turn before every frame.

use crate::clock;
use crate::convert;
use crate::inbox::Event;
use crate::metrics::Metrics;
use crate::peers::link;
use crate::routing::Routing;
use crate::sends::Sends;
use crate::throttle::Throttle;
use crate::workers::Workers;
use bytes::Bytes;
use parking_lot::Mutex;
use raft::eraftpb::MessageType;
use ringfort_core::disk::Disk;
use ringfort_core::health::{DiskState, HealthMonitor};
use ringfort_core::limits::MAX_SNAPSHOTS_RECEIVED;
use ringfort_core::message::RaftMessage;
use ringfort_core::replica::Restored;
use ringfort_core::replica::receiving::{self, Progress, Receiving};
use ringfort_core::replica::restore::LoadError;
use ringfort_core::snapshot::{SnapshotError, SnapshotHeader, SnapshotReader};
use ringfort_proto::v1::peer_client::PeerClient;
use ringfort_proto::v1::{self, SnapshotAck, SnapshotChunk, snapshot_chunk::Part};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

/// Chunks that are read ahead of the network, or received ahead of the disk.
const CHUNKS_AHEAD: usize = 4;

/// A transfer without progress for this long is given up, for example because the receiver's disk hangs: it must not
/// hold its file and its transfer slot for ever. After the last chunk, the receiver reports progress.
const STALLED_AFTER: Duration = Duration::from_secs(120);

/// How often the receiver of a complete snapshot reports that it still works on it, unless its disk hangs.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

const _: () = assert!(PROGRESS_INTERVAL.as_secs() < STALLED_AFTER.as_secs());

/// Pauses for the bandwidth are split into steps of at most this length, each of which counts as progress.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error("the receiver is no member of the cluster")]
    UnknownNode,
    #[error(transparent)]
    Connect(#[from] tonic::transport::Error),
    #[error(transparent)]
    Call(#[from] Status),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the stream ended before the snapshot did")]
    CutShort,
    #[error("the receiver accepted nothing for {} s", STALLED_AFTER.as_secs())]
    Stalled,
    #[error("the receiver did not acknowledge it")]
    NoAnswer,
}

/// Sends and receives snapshots, within the node's bounds on transfers.
pub struct Transfers {
    disk: Arc<dyn Disk>,
    routing: Arc<Routing>,
    workers: Arc<Workers>,
    health: Arc<Mutex<HealthMonitor>>,
    metrics: Arc<Metrics>,
    sends: Sends,
    receives: Arc<Semaphore>,
    /// The bandwidth that all sent snapshots share.
    bandwidth: Throttle,
    /// Makes the names of received snapshots unique; it starts at a random number.
    next_received: AtomicU64,
}

impl Transfers {
    /// `bandwidth` is the limit in bytes per second, and `first_received` a random number.
    pub fn new(
        disk: Arc<dyn Disk>,
        routing: Arc<Routing>,
        workers: Arc<Workers>,
        health: Arc<Mutex<HealthMonitor>>,
        metrics: Arc<Metrics>,
        bandwidth: Option<u64>,
        first_received: u64,
    ) -> Transfers {
        Transfers {
            disk,
            routing,
            workers,
            health,
            metrics,
            sends: Sends::default(),
            receives: Arc::new(Semaphore::new(MAX_SNAPSHOTS_RECEIVED)),
            bandwidth: Throttle::new(bandwidth),
            next_received: AtomicU64::new(first_received),
        }
    }

    /// Sends the snapshot `name` with `message`, and tells the worker how it ended.
    pub async fn send(self: Arc<Transfers>, name: String, message: RaftMessage) {
        let (shard, to) = (message.shard, message.to);
        let Some(turn) = self.sends.turn(to.node()).await else {
            // Raft asks again, after a pause that grows.
            self.workers.of(shard).push_event(Event::SnapshotSent { shard, to, arrived: false });
            return;
        };
        let arrived = match self.stream(name, message).await {
            Ok(ack) => {
                if !ack.installed {
                    tracing::debug!(%shard, %to, "a snapshot was refused: {}", ack.reason);
                }
                ack.installed
            }
            Err(error) => {
                tracing::debug!(%shard, %to, "a snapshot could not be sent: {error}");
                false
            }
        };
        drop(turn);
        self.metrics.snapshots_sent.count(arrived);
        self.workers.of(shard).push_event(Event::SnapshotSent { shard, to, arrived });
    }

    async fn stream(self: &Arc<Transfers>, name: String, message: RaftMessage) -> Result<SnapshotAck, TransferError> {
        let to_node = message.to.node();
        let members = self.routing.members();
        let address = &members.get(&to_node).ok_or(TransferError::UnknownNode)?.raft_address;
        let channel = link::connect(address).await?;
        let (parts_tx, parts_rx) = mpsc::channel(CHUNKS_AHEAD);
        let header = v1::SnapshotHeader {
            cluster_id: self.routing.cluster().0,
            from_node: self.routing.node().0,
            to_node: to_node.0,
            message: Some(convert::to_wire(message)),
            header: Bytes::new(),
        };
        let (disk, sender) = (self.disk.clone(), self.clone());
        let moves = Arc::new(AtomicBool::new(true));
        let progress = moves.clone();
        let pace = move |bytes| {
            let mut left = sender.bandwidth.pause(Instant::now(), bytes);
            while !left.is_zero() {
                let pause = left.min(LONGEST_PAUSE);
                std::thread::sleep(pause);
                left -= pause;
                progress.store(true, Ordering::Relaxed);
            }
            progress.store(true, Ordering::Relaxed);
        };
        let (accepted_tx, accepted) = oneshot::channel();
        let reading = tokio::task::spawn_blocking(move || read(disk, &name, header, &parts_tx, accepted, pace));
        let mut client = PeerClient::new(channel);
        let moves = &*moves;
        let sending = async move {
            let mut accepted = Some(accepted_tx);
            let mut answers = client.snapshot(ReceiverStream::new(parts_rx)).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                if !answer.builds {
                    return Ok(answer);
                }
                if let Some(accepted) = accepted.take() {
                    let _ = accepted.send(());
                }
                moves.store(true, Ordering::Relaxed);
            }
            Err(TransferError::NoAnswer)
        };
        let answer = unless_stalled(sending, moves, STALLED_AFTER).await?;
        match reading.await {
            Ok(Err(error)) => Err(error),
            _ => answer,
        }
    }

    /// Receives a snapshot that another node streams. Sends progress reports to `answers`, and returns the last answer once
    /// the snapshot is durable and its worker has it.
    pub async fn receive(
        &self,
        parts: Streaming<SnapshotChunk>,
        answers: &mpsc::Sender<Result<SnapshotAck, Status>>,
    ) -> Result<SnapshotAck, Status> {
        let received = self.receive_one(parts, answers).await;
        self.metrics.snapshots_received.count(received.as_ref().is_ok_and(|ack| ack.installed));
        received
    }

    async fn receive_one(
        &self,
        mut parts: Streaming<SnapshotChunk>,
        answers: &mpsc::Sender<Result<SnapshotAck, Status>>,
    ) -> Result<SnapshotAck, Status> {
        let Some(Part::Header(header)) = parts.message().await?.and_then(|chunk| chunk.part) else {
            return Err(Status::invalid_argument("a snapshot begins with its header"));
        };
        let message = self.check(&header)?;
        let Ok(permit) = self.receives.clone().try_acquire_owned() else {
            return Ok(refused("too many snapshots are arriving"));
        };
        let (shard, metadata) = (message.shard, message.message.get_snapshot().get_metadata());
        let file_header = match SnapshotHeader::decode(&header.header) {
            Ok(file_header) => file_header,
            Err(error) => return Ok(refused(&error.to_string())),
        };
        if !receiving::fits(&file_header, &message) {
            return Err(Status::invalid_argument("the snapshot's file and its message are of different positions"));
        }
        // Accepted: now the sender sends the frames.
        let _ = answers.send(Ok(SnapshotAck { builds: true, ..SnapshotAck::default() })).await;
        // A name that differs from those of this node's own snapshots and of all received ones, including those from before
        // a restart.
        let unique = self.next_received.fetch_add(1, Ordering::Relaxed);
        let name = format!("snap-{shard}-{}-from-{}-{unique:x}.snap", metadata.index, message.from);
        let (disk, receiver, file_name) = (self.disk.clone(), self.workers.clone(), name.clone());
        let deliver = move |restored| {
            let restored = Box::new(restored);
            receiver.of(shard).push_event(Event::Snapshot { message, name: file_name, restored });
            drop(permit);
        };
        let tell_progress = || {
            if self.health.lock().report(clock::moment()).health.disk != DiskState::Hung {
                // If the channel is full, the sender has an unread report that says the same.
                let _ = answers.try_send(Ok(SnapshotAck { builds: true, ..SnapshotAck::default() }));
            }
        };
        take(disk, name, file_header, parts, deliver, tell_progress).await
    }

    /// Whether the snapshot is meant for this node.
    fn check(&self, header: &v1::SnapshotHeader) -> Result<RaftMessage, Status> {
        if (header.cluster_id, header.to_node) != (self.routing.cluster().0, self.routing.node().0) {
            return Err(Status::failed_precondition("this is another node, or one of another cluster"));
        }
        let message = header.message.clone().and_then(convert::from_wire);
        message
            .filter(|message| {
                let nodes = (message.from.node().0, message.to.node().0);
                nodes == (header.from_node, header.to_node)
                    && message.message.get_msg_type() == MessageType::MsgSnapshot
            })
            .ok_or_else(|| Status::invalid_argument("the snapshot's message is not a snapshot"))
    }
}

/// Awaits `sending`, and gives up when `moves` has not been set for `patience`.
async fn unless_stalled<R>(
    sending: impl Future<Output = R>,
    moves: &AtomicBool,
    patience: Duration,
) -> Result<R, TransferError> {
    tokio::pin!(sending);
    loop {
        match tokio::time::timeout(patience, &mut sending).await {
            Ok(result) => return Ok(result),
            Err(_) if moves.swap(false, Ordering::Relaxed) => {}
            Err(_) => return Err(TransferError::Stalled),
        }
    }
}

/// Feeds a stream from a file once the receiver has accepted the header, so that a refused snapshot costs no bandwidth.
/// Ends early if the receiver goes away, which is not an error of the file.
fn read(
    disk: Arc<dyn Disk>,
    name: &str,
    mut header: v1::SnapshotHeader,
    parts: &mpsc::Sender<SnapshotChunk>,
    accepted: oneshot::Receiver<()>,
    pace: impl Fn(usize),
) -> Result<(), TransferError> {
    let send = |part| parts.blocking_send(SnapshotChunk { part: Some(part) }).is_ok();
    let mut reader = SnapshotReader::open(disk, name)?;
    header.header = reader.header().encode();
    let mut goes_on = send(Part::Header(header)) && accepted.blocking_recv().is_ok();
    let mut sequence = 0;
    while goes_on && let Some(payload) = reader.next_frame()? {
        pace(payload.len());
        goes_on = send(Part::Payload(v1::SnapshotPayload { sequence, payload }));
        sequence += 1;
    }
    Ok(())
}

/// Receives the parts of a file after its header. The resulting snapshot is delivered or deleted even if this future is
/// dropped.
async fn take(
    disk: Arc<dyn Disk>,
    name: String,
    header: SnapshotHeader,
    mut parts: impl Stream<Item = Result<SnapshotChunk, Status>> + Unpin,
    deliver: impl FnOnce(Restored) + Send + 'static,
    tell_progress: impl Fn(),
) -> Result<SnapshotAck, Status> {
    let (frames_tx, frames_rx) = mpsc::channel(CHUNKS_AHEAD);
    let mut writing = tokio::task::spawn_blocking(move || write(&disk, name, &header, frames_rx).map(deliver));
    let mut expected = 0;
    while let Some(chunk) = parts.next().await {
        let Some(Part::Payload(payload)) = chunk?.part else {
            return Err(Status::invalid_argument("a snapshot has one header"));
        };
        if payload.sequence != expected {
            return Err(Status::invalid_argument("a part of the snapshot is missing"));
        }
        expected += 1;
        if frames_tx.send(payload.payload).await.is_err() {
            break; // The file is complete or has failed: `writing` has the result.
        }
    }
    drop(frames_tx);
    let written = loop {
        match tokio::time::timeout(PROGRESS_INTERVAL, &mut writing).await {
            Ok(written) => break written,
            Err(_) => tell_progress(),
        }
    };
    match written {
        Ok(Ok(())) => Ok(installed()),
        Ok(Err(error)) => Ok(refused(&error.to_string())),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

/// Writes the frames of a file as they arrive. Returns the state, built from the file on the disk.
fn write(
    disk: &Arc<dyn Disk>,
    name: String,
    header: &SnapshotHeader,
    mut frames: mpsc::Receiver<Bytes>,
) -> Result<Restored, TransferError> {
    let mut receiving = Receiving::begin(disk.clone(), name, header)?;
    loop {
        let Some(frame) = frames.blocking_recv() else {
            receiving.abandon();
            return Err(TransferError::CutShort);
        };
        match receiving.frame(&frame)? {
            Progress::More(more) => receiving = more,
            Progress::Complete(restored) => return Ok(restored),
        }
    }
}

fn installed() -> SnapshotAck {
    SnapshotAck { installed: true, ..SnapshotAck::default() }
}

fn refused(reason: &str) -> SnapshotAck {
    SnapshotAck { reason: reason.to_owned(), ..SnapshotAck::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{self, FileDisk};
    use ringfort_core::kv::state::{CutMeta, Machine};
    use ringfort_core::snapshot::SnapshotWriter;
    use ringfort_core::types::{LogIndex, ShardId, Term};

    fn header(meta: CutMeta) -> SnapshotHeader {
        SnapshotHeader {
            shard: ShardId(1),
            index: LogIndex(9),
            term: Term(2),
            conf_state: Default::default(),
            meta: meta.encode(),
        }
    }

    fn frames(disk: &Arc<dyn Disk>, name: &str) -> Vec<Bytes> {
        let mut reader = SnapshotReader::open(disk.clone(), name).unwrap();
        std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_snapshot_that_has_arrived_is_delivered_also_where_its_stream_breaks() {
        let directory = tempfile::tempdir().unwrap();
        let (path, faults) = (directory.path().join("node"), directory.path().join("faults"));
        std::fs::create_dir(&path).unwrap();
        let (disk, _) = disk::open(&path, Some(&faults)).unwrap();
        let header = header(Machine::new().begin_cut());
        SnapshotWriter::begin(disk.clone(), "sent", &header).unwrap().finish().unwrap();
        let frames = frames(&disk, "sent");

        std::fs::write(&faults, "hang").unwrap();
        let (parts_tx, parts_rx) = mpsc::channel(1);
        let (delivered_tx, delivered) = oneshot::channel();
        let deliver = move |_| delivered_tx.send(()).unwrap();
        let parts = ReceiverStream::new(parts_rx);
        let taking = tokio::spawn(take(disk.clone(), "received".to_owned(), header, parts, deliver, || {}));
        for (sequence, payload) in (0..).zip(frames) {
            let part = Part::Payload(v1::SnapshotPayload { sequence, payload });
            parts_tx.send(Ok(SnapshotChunk { part: Some(part) })).await.unwrap();
        }
        // The writer has taken the last part, and waits for the end of the stream.
        drop(parts_tx.reserve().await.unwrap());
        taking.abort();
        assert!(taking.await.unwrap_err().is_cancelled());

        std::fs::write(&faults, "").unwrap();
        tokio::time::timeout(Duration::from_secs(10), delivered).await.unwrap().expect("delivered");
        assert!(disk.list().unwrap().contains(&"received".to_owned()));
    }

    #[tokio::test]
    async fn a_transfer_that_does_not_move_ends() {
        let moves = AtomicBool::new(true);
        let patience = Duration::from_millis(10);
        let begun = Instant::now();
        let stalled = unless_stalled(std::future::pending::<()>(), &moves, patience).await;
        assert!(matches!(stalled, Err(TransferError::Stalled)));
        assert!(begun.elapsed() >= 2 * patience, "progress earns another period of patience");
    }

    #[test]
    fn a_snapshot_that_is_refused_at_its_header_costs_no_bandwidth() {
        let directory = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(directory.path()).unwrap());
        SnapshotWriter::begin(disk.clone(), "sent", &header(Machine::new().begin_cut())).unwrap().finish().unwrap();
        for is_accepted in [false, true] {
            let (parts_tx, mut parts) = mpsc::channel(8);
            let (accepted_tx, accepted) = oneshot::channel();
            match is_accepted {
                true => accepted_tx.send(()).unwrap(),
                false => drop(accepted_tx),
            }
            let paced = std::cell::Cell::new(0);
            let pace = |bytes| paced.set(paced.get() + bytes);
            read(disk.clone(), "sent", v1::SnapshotHeader::default(), &parts_tx, accepted, pace).unwrap();
            assert!(matches!(parts.try_recv().unwrap().part, Some(Part::Header(_))));
            assert_eq!((parts.try_recv().is_ok(), paced.get() > 0), (is_accepted, is_accepted));
        }
    }
}
