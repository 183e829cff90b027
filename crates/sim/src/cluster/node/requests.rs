//! The path of a request on a simulated node: answered from a view, by a worker of this node, or by the node that leads
//! the shard.
//!
//! As in the shell, reads are answered from views even while the workers are stalled, and a request is forwarded once:
//! the node that gets it executes it, or says who leads. The shell repeats a failed attempt until the request's
//! deadline; here the clients do.

use super::message::CallId;
use super::running::{Input, Outbox, Running};
use super::{Answer, Message, Responder};
use crate::history::OperationId;
use crate::network::Endpoint;
use ringfort_core::mutation::Mutation;
use ringfort_core::request::{Failure, Reply, Request};
use ringfort_core::system::{Member, SystemCommand, SystemReply};
use ringfort_core::time::Now;
use ringfort_core::types::{Epoch, NodeId, ShardId};
use std::collections::BTreeMap;

/// How many forwarded requests may wait for answers. Beyond that, the oldest is dropped: its client has given up.
const MAX_FORWARDED: usize = 1_000;

/// The requests that this node has forwarded and that are not answered.
#[derive(Default)]
pub struct Forwarded {
    last: u64,
    waiting: BTreeMap<u64, Responder>,
}

/// A node that has joined, and waits for a topology of this epoch or a later one.
pub struct Joiner {
    endpoint: Endpoint,
    life: u64,
    epoch: Epoch,
}

impl Forwarded {
    fn add(&mut self, responder: Responder) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, responder);
        if self.waiting.len() > MAX_FORWARDED {
            self.waiting.pop_first();
        }
        self.last
    }
}

impl Running {
    /// A client asks.
    pub(super) fn handle_request(
        &mut self,
        from: Endpoint,
        id: OperationId,
        request: Request,
        now: Now,
        out: &mut Outbox,
    ) {
        if let Some(reply) = self.read_here(&request, now) {
            return self.answer_client(from, id, Ok(reply), out);
        }
        self.execute_anywhere(request, Responder::Client { from, id }, out);
    }

    /// A node asks to join. As in the shell, the node that gets the request has the system shard decide, and answers.
    pub(super) fn handle_join(&mut self, from: Endpoint, life: u64, member: Member, replace: bool, out: &mut Outbox) {
        if replace && self.is_named_node_heard(&member) {
            return;
        }
        let request = Request::system(SystemCommand::Join { member, replace, known_as: None });
        self.execute_anywhere(request, Responder::Join { from, life }, out);
    }

    /// Executes a request on the node that leads the shard, as far as this one knows.
    fn execute_anywhere(&mut self, request: Request, responder: Responder, out: &mut Outbox) {
        match self.leader_of(request.shard()).filter(|&leader| leader != self.node) {
            Some(leader) => match self.endpoint_of(leader) {
                Some(to) => {
                    let id = CallId { life: self.life, number: self.forwarded.add(responder) };
                    out.messages.push((to, Message::Forward { id, request }));
                    out.events.push("requests forwarded");
                }
                None => self.reply(responder, Err(Failure::NotLeader(None)), out),
            },
            None => self.execute(request, responder, out),
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

    /// Another node asks for a client of its own.
    pub(super) fn handle_forward(&mut self, from: Endpoint, id: CallId, request: Request, now: Now, out: &mut Outbox) {
        match self.read_here(&request, now) {
            Some(reply) => out.messages.push((from, Message::ForwardReply { id, answer: Ok(reply) })),
            None => self.execute(request, Responder::Peer { from, id }, out),
        }
    }

    pub(super) fn handle_forward_reply(&mut self, id: CallId, answer: Answer, out: &mut Outbox) {
        // An answer to this node's former process must not answer a request of this one.
        if id.life == self.life
            && let Some(responder) = self.forwarded.waiting.remove(&id.number)
        {
            self.reply(responder, answer, out);
        }
    }

    /// The answer to a read, where a replica here holds the lease: no worker is asked.
    fn read_here(&self, request: &Request, now: Now) -> Option<Reply> {
        let query = request.as_query()?;
        self.views.get(&request.shard())?.read_leased(|| now.moment, query).map(Reply::Query)
    }

    /// The shard's leader: as the replica here knows, else as announcements told.
    fn leader_of(&self, shard: ShardId) -> Option<NodeId> {
        self.views.get(&shard).and_then(|view| view.leader()).or_else(|| self.control.leader(shard))
    }

    /// Has a worker of this node execute the request, unless there is no room for what it writes.
    fn execute(&mut self, request: Request, responder: Responder, out: &mut Outbox) {
        match self.admission().refusal(&request) {
            Some(failure) => self.reply(responder, Err(failure), out),
            None => self.give(request.shard(), Input::Request { request, responder }, out),
        }
    }

    pub(super) fn reply(&mut self, responder: Responder, answer: Answer, out: &mut Outbox) {
        match (responder, answer) {
            (Responder::Client { from, id }, answer) => self.answer_client(from, id, answer, out),
            (Responder::Peer { from, id }, answer) => out.messages.push((from, Message::ForwardReply { id, answer })),
            (Responder::Join { from, life }, Ok(Reply::System(SystemReply::Joined { epoch, .. }))) => {
                self.joiners.push(Joiner { endpoint: from, life, epoch });
                self.welcome(out);
            }
            (Responder::Join { .. } | Responder::Nobody, _) => {}
        }
    }

    /// Clients know nodes by where they are.
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
