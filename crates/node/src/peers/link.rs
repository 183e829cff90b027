//! Keeps one lane connected: connects, streams until the stream ends, reports the failure, pauses, and connects again.

use super::lane::Lane;
use crate::events::{ControlEvent, Mailbox};
use crate::inbox::Event;
use crate::routing::Routing;
use crate::workers::Workers;
use ringfort_core::limits::MAX_PEER_MESSAGE_BYTES;
use ringfort_core::types::NodeId;
use ringfort_proto::metadata;
use ringfort_proto::v1::peer_client::PeerClient;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// The pause after a failure. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// About the usual election timeout, so that a node that is back soon takes part in its groups again.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// After a connection that lasted at least this long, the next pause is short again.
const GOOD_CONNECTION: Duration = Duration::from_secs(2);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that has been idle for this long is sent a keep-alive ping ...
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// ... and closed if no answer comes within this time: a machine that vanished does not close its connections.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// HTTP/2's flow-control window: bytes in flight to a peer before it must acknowledge some of them.
const WINDOW_BYTES: u32 = 8 << 20;

/// A lane, and the task that keeps it connected until the link is dropped.
pub struct Link {
    pub lane: Arc<Lane>,
    address: watch::Sender<String>,
    hurry: Arc<Notify>,
    task: tokio::task::AbortHandle,
}

/// Starts links, and has what they use of their own node.
#[derive(Clone)]
pub struct Links {
    routing: Arc<Routing>,
    workers: Arc<Workers>,
    control: Mailbox<ControlEvent>,
    runtime: Handle,
}

impl Links {
    pub fn new(routing: Arc<Routing>, workers: Arc<Workers>, control: Mailbox<ControlEvent>, runtime: Handle) -> Links {
        Links { routing, workers, control, runtime }
    }

    /// The node that the links start from.
    pub fn node(&self) -> NodeId {
        self.routing.node()
    }

    /// Starts connecting to `node`. Of its links, only the one with `tells` logs why there is no connection.
    pub fn start(&self, node: NodeId, address: &str, tells: bool) -> Link {
        let lane = Arc::new(Lane::new(self.routing.cluster(), self.routing.node(), node));
        let (address_tx, address_rx) = watch::channel(address.to_owned());
        let hurry = Arc::new(Notify::new());
        let task = self.clone().keep_connected(lane.clone(), (node, tells), address_rx, hurry.clone());
        let task = self.runtime.spawn(task).abort_handle();
        Link { lane, address: address_tx, hurry, task }
    }

    /// Where clients reach this node.
    fn own_address(&self) -> Option<String> {
        Some(self.routing.members().get(&self.node())?.grpc_address.clone())
    }

    async fn keep_connected(
        self,
        lane: Arc<Lane>,
        (node, tells): (NodeId, bool),
        mut address: watch::Receiver<String>,
        hurry: Arc<Notify>,
    ) {
        let mut pause = FIRST_PAUSE;
        // An attempt that fails for the same reason as the one before is not logged again.
        let mut said = String::new();
        loop {
            let target = address.borrow_and_update().clone();
            let started = Instant::now();
            let error: Status = match connect(&target).await {
                Ok(channel) => {
                    tracing::debug!(%node, target, "connected");
                    let caller = self.own_address();
                    tokio::select! {
                        ended = self.stream(&lane, node, channel, caller) => ended,
                        _ = address.changed() => Status::unavailable("the node has another address now"),
                    }
                }
                Err(error) => Status::from_error(Box::new(error)),
            };
            let why = root_cause(&error);
            lane.fail(&target, &why);
            if tells && said != why {
                let members = self.routing.members();
                let name = members.get(&node).map_or("a node that is no member any more", |member| &member.name);
                tracing::info!(%node, "no connection to {name} ({target}): {why}");
                said = why;
            }
            self.workers.push_event_to_all(|| Event::Unreachable(node));
            pause = if started.elapsed() > GOOD_CONNECTION { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::select! {
                _ = tokio::time::sleep(pause) => {}
                _ = hurry.notified() => said.clear(),
                changed = address.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Sends the lane's messages to `node` and receives the answers until the stream ends. Returns why it ended. `caller`
    /// is this node's gRPC address, at which a node of another cluster can ask back.
    async fn stream(&self, lane: &Arc<Lane>, node: NodeId, channel: Channel, caller: Option<String>) -> Status {
        let mut client = PeerClient::new(channel)
            .max_encoding_message_size(MAX_PEER_MESSAGE_BYTES)
            .max_decoding_message_size(MAX_PEER_MESSAGE_BYTES);
        let mut request = Request::new(lane.open());
        if let Some(caller) = caller {
            metadata::set_caller(request.metadata_mut(), &caller);
        }
        let mut answers = match client.raft(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        loop {
            match answers.message().await {
                Ok(Some(mut batch)) => {
                    lane.confirmed();
                    let control = std::mem::take(&mut batch.control);
                    let last_forward = batch.last_forward;
                    self.control.deliver(node, control);
                    lane.answered(batch);
                    last_forward.into_iter().for_each(|last| lane.stops_after(last));
                }
                Ok(None) => return Status::unavailable("the node ended the stream"),
                Err(status) => return status,
            }
        }
    }
}

impl Link {
    pub fn set_address(&self, address: &str) {
        self.address.send_if_modified(|known| {
            let is_new = known != address;
            if is_new {
                *known = address.to_owned();
            }
            is_new
        });
    }

    /// Ends a pause before the next attempt to connect.
    pub fn hurry(&self) {
        self.hurry.notify_waiters();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.lane.close();
    }
}

/// The innermost cause of a failure. The outer ones only say that there is no connection.
fn root_cause(status: &Status) -> String {
    let Some(mut cause) = std::error::Error::source(status) else { return status.message().to_owned() };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// A connection to a node's Raft port.
pub async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect()
        .await
}
