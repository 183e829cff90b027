//! Client requests, independent of the protocol.
//!
//! An adapter decodes its protocol's message into a [`Call`], hands it to the [`Service`], alone or in a batch, and
//! encodes the reply or the [`CallError`] for its protocol. Everything else happens here, in the same way for every
//! protocol:
//!
//! - **limits**: how much may be in flight in the node ([`in_flight`]), and how large keys and values may be;
//! - **keyspaces and consistency**: the shards, whichever node leads them, or the [`eventual`] keyspace of this node;
//! - **deadlines** ([`deadline()`]): until then a call is retried if that is safe ([`crate::execute`]);
//! - **counting**: each call once, by its operation and its outcome.
//!
//! Nothing here depends on a protocol: for both keyspaces, replies are those of [`ringfort_core::kv`].

mod deadline;
mod error;
mod eventual;
mod scan;

pub use deadline::deadline;
pub use error::CallError;

use crate::admission::AdmissionState;
use crate::error_kind::ErrorKind;
use crate::events::{GossipEvent, Mailbox};
use crate::execute::{Executed, Executor};
use crate::in_flight::{self, InFlight};
use crate::metrics::Metrics;
use crate::routing::Routing;
use futures_util::{StreamExt, stream};
use ringfort_core::codec::fields::Encoded;
use ringfort_core::kv::{Command, CommandReply, Kind, Query, QueryReply};
use ringfort_core::request::{Reply, Request};
use ringfort_core::system::Members;
use ringfort_core::types::{ClusterId, NodeId};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Batches whose calls are executed at the same time. The others wait, and are refused as overload at their deadline.
const BATCHES_AT_ONCE: usize = 4;

/// How many calls of one batch are in flight at the same time. The others wait.
const BATCH_AT_ONCE: usize = 512;

/// Batches leave most places in flight to other requests.
const _: () = assert!(BATCHES_AT_ONCE * BATCH_AT_ONCE <= in_flight::MAX_REQUESTS / 4);

/// The consistency that a call asks for, and its keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    Linearizable,
    /// A replica on this node may answer, within a bound of staleness. Only for reads of one key.
    Stale,
    /// For the eventual keyspace.
    Eventual,
}

#[derive(Clone, Debug)]
enum Operation {
    Command(Command),
    Query(Query),
}

/// A client's request.
#[derive(Clone, Debug)]
pub struct Call {
    operation: Operation,
    consistency: Consistency,
}

impl Call {
    pub fn command(command: impl Into<Command>, consistency: Consistency) -> Call {
        Call { operation: Operation::Command(command.into()), consistency }
    }

    pub fn query(query: impl Into<Query>, consistency: Consistency) -> Call {
        Call { operation: Operation::Query(query.into()), consistency }
    }

    fn kind(&self) -> Kind {
        match &self.operation {
            Operation::Command(command) => command.kind(),
            Operation::Query(query) => query.kind(),
        }
    }

    fn size_bytes(&self) -> usize {
        match &self.operation {
            Operation::Command(command) => command.encoded_len(),
            Operation::Query(query) => query.encoded_len(),
        }
    }
}

/// Answers clients' calls.
#[derive(Clone)]
pub struct Service {
    routing: Arc<Routing>,
    executor: Arc<Executor>,
    gossip: Mailbox<GossipEvent>,
    admission: Arc<AdmissionState>,
    in_flight: Arc<InFlight>,
    /// One permit for each scan that may collect a page at the same time.
    scans: Arc<Semaphore>,
    /// One permit for each batch whose calls may be executed at the same time.
    batches: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Service {
    pub fn new(
        routing: Arc<Routing>,
        executor: Arc<Executor>,
        gossip: Mailbox<GossipEvent>,
        admission: Arc<AdmissionState>,
        in_flight: Arc<InFlight>,
        metrics: Arc<Metrics>,
    ) -> Service {
        let scans = Arc::new(Semaphore::new(scan::SCANS_AT_ONCE));
        let batches = Arc::new(Semaphore::new(BATCHES_AT_ONCE));
        Service { routing, executor, gossip, admission, in_flight, scans, batches, metrics }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.routing.node()
    }

    /// The cluster that this node belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.routing.cluster()
    }

    /// All nodes with their last known addresses.
    pub fn members(&self) -> Arc<Members> {
        self.routing.members()
    }

    /// Calls `use_address` with the address at which clients reach a node, if it is known.
    pub fn with_address<R>(&self, node: NodeId, use_address: impl FnOnce(&str) -> R) -> Option<R> {
        self.routing.members().get(&node).map(|member| use_address(&member.grpc_address))
    }

    /// Executes one call.
    pub async fn answer(&self, call: Call, deadline: Instant) -> Result<Executed, CallError> {
        let taken = self.in_flight.take(1, call.size_bytes());
        self.counted(call, taken.is_some(), deadline).await
    }

    /// Executes the calls of a batch concurrently, at most [`BATCH_AT_ONCE`] at a time. The calls are independent: they
    /// may take effect in any order, and each has its own answer; answers are in the order of the calls. While the
    /// batch waits for its turn, it counts as one request. If the node has no room for the batch, it is refused as a
    /// whole.
    pub async fn answer_all(&self, calls: Vec<Call>, deadline: Instant) -> Vec<Result<Executed, CallError>> {
        // Many small calls take most of their memory for the `Call`s themselves.
        let bytes = calls.iter().map(|call| size_of::<Call>() + call.size_bytes()).sum();
        let waiting = self.in_flight.take(1, bytes);
        let turn = async { timeout_at(deadline, self.batches.acquire()).await.ok() };
        let turn = if waiting.is_some() { turn.await } else { None };
        let others = calls.len().min(BATCH_AT_ONCE).saturating_sub(1);
        let running = turn.as_ref().and_then(|_| self.in_flight.take(others, 0));
        let is_taken = running.is_some();
        let answers = calls.into_iter().map(|call| self.counted(call, is_taken, deadline));
        stream::iter(answers).buffered(BATCH_AT_ONCE).collect().await
    }

    /// Counts a request that its adapter refused.
    pub fn count_refused(&self, operation: Kind) {
        self.metrics.begin(operation).end(Some(ErrorKind::Invalid));
    }

    /// Executes a call if there was room for it, and counts its outcome.
    async fn counted(&self, call: Call, is_taken: bool, deadline: Instant) -> Result<Executed, CallError> {
        let counting = self.metrics.begin(call.kind());
        let answer = if is_taken { self.carry_out(call, deadline).await } else { Err(CallError::TooMany) };
        counting.end(answer.as_ref().err().map(CallError::kind));
        answer
    }

    async fn carry_out(&self, call: Call, deadline: Instant) -> Result<Executed, CallError> {
        let Call { operation, consistency } = call;
        if consistency == Consistency::Eventual {
            let reply = eventual::carry_out(self, operation, deadline).await?;
            return Ok(Executed { reply, elsewhere: None });
        }
        let shards = self.routing.shards();
        let request = match operation {
            Operation::Command(command) => Request::command(shards, command)?,
            Operation::Query(Query::Scan(_)) if consistency == Consistency::Stale => return Err(CallError::NeverStale),
            Operation::Query(Query::Scan(scan)) => {
                let page = scan::scan(self, scan, deadline).await?;
                return Ok(Executed { reply: Reply::Query(QueryReply::Scan(page)), elsewhere: None });
            }
            Operation::Query(query) => Request::query(shards, query)?,
        };
        if consistency == Consistency::Stale {
            if request.as_query().is_none() {
                return Err(CallError::NeverStale);
            }
            // If no replica here is fresh enough, the leader answers, which promises more.
            if let Some(reply) = self.executor.read_stale(&request) {
                return Ok(Executed { reply, elsewhere: None });
            }
        }
        let executed = self.executor.execute(request, deadline).await?;
        if executed.elsewhere.is_some() {
            self.metrics.forwarded.inc();
        }
        match executed.reply {
            Reply::Command(CommandReply::Refused(refusal)) => {
                let leader = executed.elsewhere.and_then(|node| self.with_address(node, str::to_owned));
                Err(CallError::Refused { refusal, leader })
            }
            _ => Ok(executed),
        }
    }
}
