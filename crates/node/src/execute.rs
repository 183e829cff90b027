//! The path of a request: answered here, by a worker of this node, or by the node that leads the shard.
//!
//! [`ringfort_core::request`] decides which, and what to do after a failure. Writes are not sent to a silent leader:
//! they wait here until it is heard again or has a successor.
//!
//! If this node hears the leader through gossip but can't connect to it, requests wait no longer than an election
//! usually takes. Then the client is told the leader's name and address, since the client may be able to reach it
//! directly.

use crate::admission::AdmissionState;
use crate::clock;
use crate::inbox::Incoming;
use crate::peers::{Forwarded, Peers};
use crate::responder::Responder;
use crate::routing::Routing;
use crate::waits::Waits;
use crate::workers::Workers;
use ringfort_core::kv::Invalid;
use ringfort_core::limits::STALENESS_BOUND;
use ringfort_core::mutation::Mutation;
use ringfort_core::request::{Execution, Failure, LEADER_CHECK, Reply, Request};
use ringfort_core::types::{NodeId, ShardId};
use ringfort_retry::Next;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// No request waits for a node to which there has been no connection for this many election timeouts: if it had
/// crashed, its shards would have other leaders by then. Few requests wait for a shard that has had no leader for this
/// long ([`waits`](crate::waits)).
const OUTAGE_ELECTIONS: u32 = 4;

/// Why a request has no answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// Nothing was applied: the request itself is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nothing was applied.
    #[error("shard {shard} has no leader that could be reached in time")]
    NoLeader { shard: ShardId },
    /// Nothing was applied: the shard has had no leader for long, and there is no place to wait for one.
    #[error(
        "shard {shard} has had no leader for long, and too many requests wait for such shards: start the nodes that \
         `ringfort status` calls silent; retry later"
    )]
    TooManyWaits { shard: ShardId },
    /// Nothing was applied: the request never left this node. `leader` is where clients reach the leader.
    #[error(
        "this node can't reach {node}, which leads shard {shard}, at {address} ({why}): if {node} runs, open \
         this address to all nodes, or correct --advertise on {node}; otherwise start it again"
    )]
    Unreachable { shard: ShardId, node: String, address: String, why: String, leader: Option<String> },
    /// Nothing was applied.
    #[error("too many requests are waiting for shard {shard}; retry later")]
    Overloaded { shard: ShardId },
    /// Nothing was read.
    #[error("too many scans are waiting on this node; retry later")]
    TooManyScans,
    /// Nothing was applied: the leader's node has reached its memory limit.
    #[error("the memory of {node} is full: delete some keys, or raise its --max-memory")]
    MemoryFull { node: String },
    /// Nothing was applied: the leader's node can't log.
    #[error("the disk of {node} is full: free some space there")]
    DiskFull { node: String },
    /// Nothing was applied: the leader's node runs a build that does not know the request.
    #[error("{node}, which leads shard {shard}, does not know this request: upgrade {node}")]
    NotUnderstood { shard: ShardId, node: String },
    /// Nothing was applied: the leader's disk does not answer, and no other node took over in time.
    #[error("{}", Failure::DiskHung)]
    DiskHung,
    /// A read; it has no outcome.
    #[error("shard {shard} did not answer in time: its leader has no quorum, or is slow")]
    Unanswered { shard: ShardId },
    /// A write that may have been applied.
    #[error(
        "shard {shard} did not answer in time: its leader has no quorum, or is slow; a write may or may not be applied"
    )]
    Unknown { shard: ShardId },
}

/// An answer, and the node that gave it if that was another node.
#[derive(Debug)]
pub struct Executed {
    pub reply: Reply,
    pub elsewhere: Option<NodeId>,
}

/// Executes requests.
pub struct Executor {
    routing: Arc<Routing>,
    workers: Arc<Workers>,
    peers: Arc<Peers>,
    admission: Arc<AdmissionState>,
    waits: Waits,
}

impl Executor {
    pub fn new(
        routing: Arc<Routing>,
        workers: Arc<Workers>,
        peers: Arc<Peers>,
        admission: Arc<AdmissionState>,
    ) -> Executor {
        Executor { routing, workers, peers, admission, waits: Waits::default() }
    }

    /// Executes a request, whichever node leads its shard.
    pub async fn execute(&self, request: Request, deadline: Instant) -> Result<Executed, ExecuteError> {
        let shard = request.shard();
        let mut execution = Execution::new(&request, Mutation::None);
        let executed = self.attempts(request, deadline, &mut execution).await;
        executed.map_err(|error| if execution.may_be_applied() { ExecuteError::Unknown { shard } } else { error })
    }

    /// Sends the request until there is an answer or `execution` gives up.
    async fn attempts(
        &self,
        request: Request,
        deadline: Instant,
        execution: &mut Execution,
    ) -> Result<Executed, ExecuteError> {
        let shard = request.shard();
        let mut has_waited = false;
        loop {
            if let Some(reply) = self.read_here(&request) {
                if has_waited {
                    self.waits.answered(shard);
                }
                return Ok(Executed { reply, elsewhere: None });
            }
            let target = execution.begin_attempt(self.routing.route(shard));
            let attempt = self.attempt(request.clone(), target, execution, deadline);
            let failure = match timeout_at(deadline, attempt).await.unwrap_or(Err(Failure::Unknown)) {
                Ok(reply) => {
                    if has_waited {
                        self.waits.answered(shard);
                    }
                    let is_elsewhere = |node: &NodeId| *node != self.routing.node();
                    if let Some(leader) = execution.found_leader().filter(is_elsewhere) {
                        self.routing.set_leader(shard, leader);
                    }
                    return Ok(Executed { reply, elsewhere: target.filter(is_elsewhere) });
                }
                Err(failure) => failure,
            };
            let now = Instant::now();
            // Only reads are sent to a silent leader. It may have crashed, so its being unreachable is not reported.
            let heard = execution.asked_leader();
            let unreachable = |however_short| heard.and_then(|node| self.unreachable(shard, node, however_short));
            let next = execution.failed(failure, deadline.saturating_duration_since(now));
            // Without a place to wait, it fails at once.
            let wait = match next {
                Next::SendAfter(_) => self.waits.begin(shard, now.into_std(), self.patience()),
                Next::AskLeader | Next::GiveUp => None,
            };
            let pause = match next {
                Next::AskLeader => continue,
                Next::SendAfter(pause) if wait.is_some() => pause,
                Next::SendAfter(_) | Next::GiveUp => {
                    return Err(match failure {
                        Failure::MemoryFull => ExecuteError::MemoryFull { node: self.name_of(target) },
                        Failure::DiskFull => ExecuteError::DiskFull { node: self.name_of(target) },
                        Failure::Overloaded => ExecuteError::Overloaded { shard },
                        Failure::NotUnderstood => ExecuteError::NotUnderstood { shard, node: self.name_of(target) },
                        Failure::Unknown => ExecuteError::Unanswered { shard },
                        Failure::DiskHung => unreachable(true).unwrap_or(ExecuteError::DiskHung),
                        Failure::NotLeader(_) | Failure::NotApplied => {
                            let no_leader = match next {
                                Next::SendAfter(_) => ExecuteError::TooManyWaits { shard },
                                Next::AskLeader | Next::GiveUp => ExecuteError::NoLeader { shard },
                            };
                            unreachable(true).unwrap_or(no_leader)
                        }
                    });
                }
            };
            if let Some(unreachable) = unreachable(false) {
                return Err(unreachable);
            }
            sleep_until(now + pause).await;
            has_waited = true;
        }
    }

    /// How long a node may be out of reach, or a shard without a leader, before that counts as an outage.
    fn patience(&self) -> Duration {
        OUTAGE_ELECTIONS * self.routing.topology().timing.election_timeout()
    }

    /// The error for a request whose leader, `node`, this node has been unable to connect to for long. With
    /// `however_short`, an outage of any length is an error.
    fn unreachable(&self, shard: ShardId, node: NodeId, however_short: bool) -> Option<ExecuteError> {
        let outage = self.peers.outage(node)?;
        if !however_short && outage.since.elapsed() < self.patience() {
            return None;
        }
        let leader = self.routing.members().get(&node).map(|member| member.grpc_address.clone());
        let (node, address, why) = (self.name_of(Some(node)), outage.address, outage.why);
        Some(ExecuteError::Unreachable { shard, node, address, why, leader })
    }

    /// The node's name, for error messages.
    fn name_of(&self, node: Option<NodeId>) -> String {
        let members = self.routing.members();
        let member = node.and_then(|node| members.get(&node));
        member.map_or_else(|| "the node that leads its shard".to_owned(), |member| member.name.clone())
    }

    /// Why this node must not propose the request now, if it must not.
    pub fn refusal(&self, request: &Request) -> Option<Failure> {
        self.admission.refusal(request)
    }

    /// Answers a linearizable read from this node's memory, if its replica holds the lease.
    pub fn read_here(&self, request: &Request) -> Option<Reply> {
        let query = request.as_query()?;
        self.routing.view(request.shard())?.read_leased(clock::moment, query).map(Reply::Query)
    }

    /// Answers a read from a replica on this node that has heard of its leader lately.
    pub fn read_stale(&self, request: &Request) -> Option<Reply> {
        let (query, view) = (request.as_query()?, self.routing.view(request.shard())?);
        view.read_stale(clock::moment, STALENESS_BOUND, query).map(Reply::Query)
    }

    /// Has the shard's worker execute a request. A large answer is collected here, not by the worker.
    pub async fn ask_worker(&self, request: Request) -> Result<Reply, Failure> {
        let large = request.as_query().filter(|query| query.is_large());
        let collected = large.and_then(|query| Some((self.routing.view(request.shard())?, query.clone())));
        let worker = self.workers.of(request.shard());
        let (answered, answer) = oneshot::channel();
        worker.push_requests([Incoming { request, responder: Responder::Task(answered) }]);
        // Dropped unanswered: the worker has stopped.
        match answer.await.unwrap_or(Err(Failure::Unknown)) {
            Ok(Reply::Confirmed) => {
                let read = collected.and_then(|(view, query)| view.read_confirmed(&query));
                read.map(Reply::Query).ok_or(Failure::NotLeader(None))
            }
            answer => answer,
        }
    }

    async fn attempt(
        &self,
        request: Request,
        target: Option<NodeId>,
        execution: &mut Execution,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        match target {
            None => Err(Failure::NotLeader(None)),
            Some(node) if node == self.routing.node() => {
                if let Some(failure) = self.refusal(&request) {
                    return Err(failure);
                }
                self.ask_worker(request).await
            }
            Some(node) => {
                let remaining = deadline.saturating_duration_since(Instant::now());
                let forwarded = self.peers.forward(node, &request, remaining);
                let may_be_overtaken = execution.may_be_overtaken();
                let forwarded = tokio::select! {
                    forwarded = forwarded => forwarded,
                    () = self.is_overtaken(execution, request.shard()), if may_be_overtaken => Forwarded::Lost,
                };
                match forwarded {
                    Forwarded::Answer(answer) => answer,
                    Forwarded::NotSent => Err(Failure::NotLeader(None)),
                    Forwarded::Lost => Err(Failure::Unknown),
                }
            }
        }
    }

    /// Waits until another node is known to lead the shard.
    async fn is_overtaken(&self, execution: &mut Execution, shard: ShardId) {
        while !execution.is_overtaken(self.routing.route(shard)) {
            sleep(LEADER_CHECK).await;
        }
    }
}
