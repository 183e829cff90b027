//! The path of a request on a simulated node: answered from a view, by a worker of this node, or by the node that leads
//! the shard.
//!
//! As in the shell, reads are answered from views even while the workers are stalled, and [`Execution`] decides where a
//! request is sent and whether it is retried, until its deadline or an answer. Each attempt has its own number. An
//! answer to an attempt that is over is ignored.

use super::message::CallId;
use super::running::{Input, Outbox, Running, When};
use super::{Answer, Message, Responder, Task};
use crate::history::OperationId;
use crate::network::Endpoint;
use ringfort_core::mutation::Mutation;
use ringfort_core::request::{Execution, Failure, LEADER_CHECK, Reply, Request, Route};
use ringfort_core::system::{Member, SystemCommand, SystemReply};
use ringfort_core::time::{Moment, Now};
use ringfort_core::types::{Epoch, NodeId, ShardId};
use ringfort_retry::Next;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a joining node waits for the answer, as in the shell. Meanwhile it asks other nodes.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// The requests that this node executes for others or itself, by the number of the attempt under way.
#[derive(Default)]
pub struct PendingRequests {
    last: u64,
    requests: BTreeMap<u64, Pending>,
}

struct Pending {
    request: Request,
    asker: Asker,
    execution: Execution,
    deadline: Moment,
}

/// The caller that waits for the outcome of a request.
#[derive(Clone, Copy)]
pub enum Asker {
    Client {
        from: Endpoint,
        id: OperationId,
    },
    /// A node that wants to join.
    Joiner {
        from: Endpoint,
        life: u64,
    },
    /// The controller, which sees the outcome in the topology.
    Nobody,
}

/// A node that has joined, and waits for a topology of this epoch or a later one.
pub struct Joiner {
    endpoint: Endpoint,
    life: u64,
    epoch: Epoch,
}

impl PendingRequests {
    /// Whether no client waits for an answer.
    pub fn has_answered_clients(&self) -> bool {
        !self.requests.values().any(|pending| matches!(pending.asker, Asker::Client { .. }))
    }

    fn add(&mut self, pending: Pending) -> u64 {
        self.last += 1;
        self.requests.insert(self.last, pending);
        self.last
    }
}

impl Running {
    /// Handles a client's request.
    pub(super) fn handle_request(
        &mut self,
        from: Endpoint,
        id: OperationId,
        request: Request,
        patience: Duration,
        out: &mut Outbox,
    ) {
        // The node has closed its port for clients: the client learns that at once.
        if !self.is_serving {
            return self.answer_client(from, id, Err(Failure::NotLeader(None)), out);
        }
        self.execute_anywhere(request, Asker::Client { from, id }, patience, out);
    }

    /// Handles a node's request to join. As in the shell, the node that receives it has the system shard decide, and
    /// answers.
    pub(super) fn handle_join(&mut self, from: Endpoint, life: u64, member: Member, replace: bool, out: &mut Outbox) {
        if !self.is_serving {
            return;
        }
        let replaced = if replace { self.replaced(&member) } else { Ok(None) };
        let Ok(replaces) = replaced else { return };
        let request = Request::system(SystemCommand::Join { member, replaces, known_as: None });
        self.execute_anywhere(request, Asker::Joiner { from, life }, JOIN_PATIENCE, out);
    }

    /// Executes a request, whichever node leads its shard.
    pub(super) fn execute_anywhere(&mut self, request: Request, asker: Asker, patience: Duration, out: &mut Outbox) {
        let deadline = self.now.moment + patience;
        let execution = Execution::new(&request, self.mutation());
        self.attempt(Pending { request, asker, execution, deadline }, out);
    }

    /// Sends a request once.
    fn attempt(&mut self, mut pending: Pending, out: &mut Outbox) {
        if let Some(reply) = self.read_here(&pending.request, self.now) {
            return self.answer(pending.asker, Ok(reply), out);
        }
        let target = pending.execution.begin_attempt(self.route(pending.request.shard()));
        let (request, deadline) = (pending.request.clone(), pending.deadline);
        let may_be_overtaken = pending.execution.may_be_overtaken();
        let number = self.pending.add(pending);
        out.tasks.push((When::Local(deadline), Task::AttemptTimedOut(number)));
        match target.filter(|&node| node != self.node).map(|node| self.endpoint_of(node)) {
            Some(Some(to)) => {
                out.events.push("requests forwarded");
                if may_be_overtaken {
                    out.tasks.push((When::After(LEADER_CHECK), Task::LookForLeader(number)));
                }
                out.messages.push((to, Message::Forward { id: CallId { life: self.life, number }, request }));
            }
            None if target.is_some() => self.execute(request, Responder::Own(number), out),
            Some(None) | None => self.attempt_ended(number, Err(Failure::NotLeader(None)), out),
        }
    }

    /// Handles the answer to an attempt.
    fn attempt_ended(&mut self, number: u64, answer: Answer, out: &mut Outbox) {
        let Some(mut pending) = self.pending.requests.remove(&number) else { return };
        let failure = match answer {
            Ok(reply) => {
                if let Some(leader) = pending.execution.found_leader() {
                    self.set_leader(pending.request.shard(), leader);
                }
                return self.answer(pending.asker, Ok(reply), out);
            }
            Err(failure) => failure,
        };
        match pending.execution.failed(failure, pending.deadline.saturating_since(self.now.moment)) {
            Next::AskLeader => {
                out.events.push("redirections followed");
                self.attempt(pending, out);
            }
            Next::SendAfter(pause) => {
                out.events.push("requests sent again");
                let number = self.pending.add(pending);
                out.tasks.push((When::After(pause), Task::SendAgain(number)));
            }
            Next::GiveUp => {
                let failure = if pending.execution.may_be_applied() { Failure::Unknown } else { failure };
                self.answer(pending.asker, Err(failure), out);
            }
        }
    }

    pub(super) fn send_again(&mut self, number: u64, out: &mut Outbox) {
        if let Some(pending) = self.pending.requests.remove(&number) {
            self.attempt(pending, out);
        }
    }

    /// The deadline of a request is over.
    pub(super) fn attempt_timed_out(&mut self, number: u64, out: &mut Outbox) {
        self.attempt_ended(number, Err(Failure::Unknown), out);
    }

    /// Sends a forwarded request elsewhere if another node leads the shard by now.
    pub(super) fn look_for_leader(&mut self, number: u64, out: &mut Outbox) {
        let Some(pending) = self.pending.requests.get(&number) else { return };
        let route = self.route(pending.request.shard());
        let Some(pending) = self.pending.requests.get_mut(&number) else { return };
        if pending.execution.is_overtaken(route) {
            out.events.push("forwarded reads overtaken");
            self.attempt_ended(number, Err(Failure::Unknown), out);
        } else {
            out.tasks.push((When::After(LEADER_CHECK), Task::LookForLeader(number)));
        }
    }

    /// Sends the topology that this node acts on to the nodes that have joined and wait for its epoch or an earlier
    /// one.
    pub(super) fn welcome(&mut self, out: &mut Outbox) {
        let is_hasty = self.mutation().is(Mutation::WelcomeWithOldTopology);
        for joiner in self.joiners.extract_if(.., |joiner| is_hasty || joiner.epoch <= self.routed.epoch) {
            let message = Message::Welcome { life: joiner.life, topology: self.routed.clone() };
            out.messages.push((joiner.endpoint, message));
        }
    }

    /// Handles a request that another node forwards.
    pub(super) fn handle_forward(&mut self, from: Endpoint, id: CallId, request: Request, now: Now, out: &mut Outbox) {
        match self.read_here(&request, now) {
            Some(reply) => out.messages.push((from, Message::ForwardReply { id, answer: Ok(reply) })),
            None => self.execute(request, Responder::Peer { from, id }, out),
        }
    }

    pub(super) fn handle_forward_reply(&mut self, id: CallId, answer: Answer, out: &mut Outbox) {
        // An answer to this node's former process must not answer a request of this one.
        if id.life == self.life {
            self.attempt_ended(id.number, answer, out);
        }
    }

    /// The answer to a read if a replica here holds the lease, without asking a worker.
    fn read_here(&self, request: &Request, now: Now) -> Option<Reply> {
        let query = request.as_query()?;
        self.views.get(&request.shard())?.read_leased(|| now.moment, query).map(Reply::Query)
    }

    fn route(&self, shard: ShardId) -> Route {
        Route::new(self.node, self.views.get(&shard).map(|view| &**view), self.told_leaders.get(&shard).copied())
    }

    /// The node has announced that it leads the shard.
    pub(super) fn set_leader(&mut self, shard: ShardId, node: NodeId) {
        self.told_leaders.insert(shard, node);
        if let Some(view) = self.views.get(&shard) {
            view.forget_silence();
        }
    }

    /// Has a worker of this node execute the request, unless admission refuses it.
    fn execute(&mut self, request: Request, responder: Responder, out: &mut Outbox) {
        match self.admission().refusal(&request) {
            Some(failure) => {
                out.events.push(match failure {
                    Failure::MemoryFull => "writes refused for full memory",
                    Failure::DiskFull => "writes refused for a full disk",
                    Failure::DiskHung => "writes refused for a hung disk",
                    _ => "writes refused as overload",
                });
                self.reply(responder, Err(failure), out);
            }
            None => self.give(request.shard(), Input::Request { request, responder }, out),
        }
    }

    pub(super) fn reply(&mut self, responder: Responder, answer: Answer, out: &mut Outbox) {
        match responder {
            Responder::Own(number) => self.attempt_ended(number, answer, out),
            Responder::Peer { from, id } => out.messages.push((from, Message::ForwardReply { id, answer })),
            Responder::Nobody => {}
        }
    }

    fn answer(&mut self, asker: Asker, answer: Answer, out: &mut Outbox) {
        match (asker, answer) {
            (Asker::Client { from, id }, answer) => self.answer_client(from, id, answer, out),
            (Asker::Joiner { from, life }, Ok(Reply::System(SystemReply::Joined { epoch, .. }))) => {
                self.joiners.push(Joiner { endpoint: from, life, epoch });
                self.welcome(out);
            }
            (Asker::Joiner { .. } | Asker::Nobody, _) => {}
        }
    }

    /// Clients know nodes by their endpoints.
    fn answer_client(&self, to: Endpoint, id: OperationId, answer: Answer, out: &mut Outbox) {
        let answer = answer.map_err(|failure| match failure {
            Failure::NotLeader(Some(node)) => Failure::NotLeader(match self.endpoint_of(node) {
                Some(Endpoint::Node(at)) => Some(at),
                Some(Endpoint::Client(_)) | None => None,
            }),
            other => other,
        });
        out.messages.push((to, Message::Answer { id, answer }));
    }
}
