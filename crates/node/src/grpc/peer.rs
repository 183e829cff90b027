//! The Peer service: receives what other nodes send.

use crate::answers::{Answers, Outgoing};
use crate::convert;
use crate::events::{ControlEvent, GossipEvent, Mailbox};
use crate::execute::Executor;
use crate::inbox::Incoming;
use crate::peers::Peers;
use crate::responder::Responder;
use crate::routing::Routing;
use crate::seldom::Seldom;
use crate::snapshot_transfer::Transfers;
use crate::strangers::Strangers;
use crate::workers::Workers;
use ringfort_core::request::{Failure, Request as CoreRequest};
use ringfort_core::types::{NodeId, ShardId};
use ringfort_proto::metadata;
use ringfort_proto::v1::peer_server::Peer;
use ringfort_proto::v1::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

static UNREADABLE: Seldom = Seldom::new();

type SnapshotAnswers = ReceiverStream<Result<SnapshotAck, Status>>;

pub struct PeerService {
    receiver: Arc<Receiver>,
}

/// State shared by all streams.
struct Receiver {
    routing: Arc<Routing>,
    workers: Arc<Workers>,
    peers: Arc<Peers>,
    executor: Arc<Executor>,
    transfers: Arc<Transfers>,
    control: Mailbox<ControlEvent>,
    gossip: Mailbox<GossipEvent>,
    strangers: Strangers,
}

#[tonic::async_trait]
impl Peer for PeerService {
    type RaftStream = Outgoing;
    type SnapshotStream = SnapshotAnswers;

    async fn raft(&self, request: Request<Streaming<PeerBatch>>) -> Result<Response<Outgoing>, Status> {
        let answers = Arc::new(Answers::default());
        let caller = metadata::caller(request.metadata()).map(str::to_owned);
        let (receiver, batches, outgoing) = (self.receiver.clone(), request.into_inner(), answers.clone().outgoing());
        // A separate task: a node that is slow to read its answers must not block the receipt of heartbeats.
        tokio::spawn(async move {
            let mut last_forward = 0;
            let received = receiver.receive(batches, &answers, caller.as_deref(), &mut last_forward);
            let ended = tokio::select! {
                ended = received => Some(ended),
                () = receiver.peers.stopped() => None,
            };
            receiver.peers.forget(&answers);
            match ended {
                Some(ended) => answers.end(ended.err()),
                None => answers.finish(last_forward),
            }
        });
        Ok(Response::new(outgoing))
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotAnswers>, Status> {
        let (answers_tx, answers_rx) = mpsc::channel(1);
        let (transfers, parts) = (self.receiver.transfers.clone(), request.into_inner());
        tokio::spawn(async move {
            let received = transfers.receive(parts, &answers_tx).await;
            // The sender may have stopped waiting.
            let _ = answers_tx.send(received).await;
        });
        Ok(Response::new(ReceiverStream::new(answers_rx)))
    }
}

impl PeerService {
    pub fn new(
        routing: Arc<Routing>,
        workers: Arc<Workers>,
        peers: Arc<Peers>,
        executor: Arc<Executor>,
        transfers: Arc<Transfers>,
        control: Mailbox<ControlEvent>,
        gossip: Mailbox<GossipEvent>,
    ) -> PeerService {
        let strangers = Strangers::new(routing.cluster(), control.clone());
        let receiver = Receiver { routing, workers, peers, executor, transfers, control, gossip, strangers };
        PeerService { receiver: Arc::new(receiver) }
    }

    /// Returns once this node takes nothing from the other nodes' streams any more.
    pub fn stopped(&self) -> impl Future<Output = ()> + use<> {
        self.receiver.peers.stopped()
    }

    /// Where clients reach this node, if it is known.
    pub fn client_address(&self) -> Option<String> {
        let routing = &self.receiver.routing;
        Some(routing.members().get(&routing.node())?.grpc_address.clone())
    }
}

impl Receiver {
    /// Handles the batches of a stream until the stream ends or a batch is not meant for this node. `last_forward` is
    /// the greatest id of a request that was taken.
    async fn receive(
        &self,
        mut batches: Streaming<PeerBatch>,
        answers: &Arc<Answers>,
        caller: Option<&str>,
        last_forward: &mut u64,
    ) -> Result<(), Status> {
        let mut known = None;
        while let Some(batch) = batches.message().await? {
            let from = self.check(&batch, caller)?;
            if known.replace(from) != Some(from) {
                answers.confirm();
                self.peers.seen(from);
            }
            // The node may be removed while its stream is open.
            if !batch.control.is_empty() && self.routing.topology().has_removed(from) {
                self.peers.set_removed(from, answers);
            }
            *last_forward = batch.forwards.iter().map(|forward| forward.id).fold(*last_forward, u64::max);
            self.take(from, batch, answers);
        }
        Ok(())
    }

    /// The sender, if the batch is meant for this node.
    fn check(&self, batch: &PeerBatch, caller: Option<&str>) -> Result<NodeId, Status> {
        if batch.cluster_id != self.routing.cluster().0 {
            self.strangers.called(batch, caller);
            return Err(Status::failed_precondition(format!(
                "this node belongs to cluster {}",
                self.routing.cluster()
            )));
        }
        if batch.to_node != self.routing.node().0 {
            return Err(Status::failed_precondition(format!("this is node {}", self.routing.node())));
        }
        Ok(NodeId(batch.from_node))
    }

    fn take(&self, from: NodeId, batch: PeerBatch, answers: &Arc<Answers>) {
        // Drop messages whose replicas are not on the sender and on this node.
        let is_meant = |message: &ringfort_core::message::RaftMessage| {
            (message.from.node(), message.to.node()) == (from, self.routing.node())
        };
        self.workers.push_messages(batch.raft.into_iter().filter_map(convert::from_wire).filter(is_meant));
        self.control.deliver(from, batch.control);
        for bytes in batch.gossip {
            self.gossip.deliver(from, bytes);
        }
        let forwarded = batch.forwards.into_iter().filter_map(|forward| self.forwarded(from, forward, answers));
        self.workers.push_requests(forwarded.collect());
    }

    /// The request for a worker, or `None` if it is answered without one.
    fn forwarded(&self, from: NodeId, forward: Forward, answers: &Arc<Answers>) -> Option<Incoming> {
        let Forward { id, shard, deadline_ms, request } = forward;
        let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
        let responder = Responder::Peer { answers: answers.clone(), id, deadline };
        let request = match CoreRequest::decode(self.routing.shards(), ShardId(shard), &request) {
            Ok(request) => request,
            Err(error) => {
                if let Some(others) = UNREADABLE.due() {
                    tracing::warn!(%from, others, "a forwarded request can't be read: {error}; if that node runs a newer \
                         version of Ringfort, upgrade this node");
                }
                responder.answer(Err(Failure::NotUnderstood));
                return None;
            }
        };
        if let Some(reply) = self.executor.read_here(&request) {
            responder.answer(Ok(reply));
        } else if request.as_query().is_some_and(|query| query.is_large()) {
            // The worker confirms the query; the answer is collected here.
            let executor = self.executor.clone();
            tokio::spawn(async move {
                let answer = timeout_at(deadline.into(), executor.ask_worker(request)).await;
                responder.answer(answer.unwrap_or(Err(Failure::Unknown)));
            });
        } else if let Some(failure) = self.executor.refusal(&request) {
            responder.answer(Err(failure));
        } else {
            return Some(Incoming { request, responder });
        }
        None
    }
}
