//! The path of a request on a simulated node: answered from a view, by a worker of this node, or by the node that leads
//! the shard.
//!
//! As in the shell, reads are answered from views even while the workers are stalled, and a request is forwarded once:
//! the node that gets it executes it, or says who leads. The shell repeats a failed attempt until the request's
//! deadline; here the clients do.

use super::message::CallId;
use super::running::{Input, Outbox, Running};
use super::{Answer, Message, Ticket};
use crate::history::OperationId;
use crate::network::Endpoint;
use ringfort_core::replica::{Failure, Query, Reply, Write};
use ringfort_core::system::SystemReply;
use ringfort_core::time::Now;
use ringfort_core::types::{NodeId, ShardId};
use ringfort_core::worker::Request;
use std::collections::BTreeMap;

/// How many forwarded requests may wait for answers. Beyond that, the oldest is dropped: its client has given up.
const MAX_FORWARDED: usize = 1_000;

/// The requests that this node has forwarded and that are not answered.
#[derive(Default)]
pub struct Forwarded {
    last: u64,
    waiting: BTreeMap<u64, (Endpoint, OperationId)>,
}

impl Forwarded {
    fn add(&mut self, from: Endpoint, id: OperationId) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, (from, id));
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
        let shard = self.shard_of(&request);
        if let Some(reply) = self.read_here(shard, &request, now) {
            return self.answer_client(from, id, Ok(reply), out);
        }
        match self.leader_of(shard).filter(|&leader| leader != self.node) {
            Some(leader) => match self.endpoint_of(leader) {
                Some(to) => {
                    let id = CallId { life: self.life, number: self.forwarded.add(from, id) };
                    out.messages.push((to, Message::Forward { id, request }));
                    out.events.push("requests forwarded");
                }
                None => self.answer_client(from, id, Err(Failure::NotLeader(None)), out),
            },
            None => self.execute(shard, request, Ticket::Client { from, id }, out),
        }
    }

    /// Another node asks for a client of its own.
    pub(super) fn handle_forward(&mut self, from: Endpoint, id: CallId, request: Request, now: Now, out: &mut Outbox) {
        let shard = self.shard_of(&request);
        match self.read_here(shard, &request, now) {
            Some(reply) => out.messages.push((from, Message::ForwardReply { id, answer: Ok(reply) })),
            None => self.execute(shard, request, Ticket::Peer { from, id }, out),
        }
    }

    pub(super) fn handle_forward_reply(&mut self, id: CallId, answer: Answer, out: &mut Outbox) {
        // An answer to this node's former process must not answer a request of this one.
        if id.life == self.life
            && let Some((from, id)) = self.forwarded.waiting.remove(&id.number)
        {
            self.answer_client(from, id, answer, out);
        }
    }

    fn shard_of(&self, request: &Request) -> ShardId {
        let key = match request {
            Request::Write(Write::Kv(command)) => command.key(),
            Request::Read(Query::Get { key }) => key,
            other => panic!("clients of this simulation do not ask {other:?}"),
        };
        self.topology().shards.shard_of_key(key)
    }

    /// The answer to a read, where a replica here holds the lease: no worker is asked.
    fn read_here(&self, shard: ShardId, request: &Request, now: Now) -> Option<Reply> {
        match request {
            Request::Read(query) => self.views.get(&shard)?.read_leased(|| now.moment, query).map(Reply::Query),
            Request::Write(_) => None,
        }
    }

    /// The shard's leader: as the replica here knows, else as beacons told.
    fn leader_of(&self, shard: ShardId) -> Option<NodeId> {
        self.views.get(&shard).and_then(|view| view.leader()).or_else(|| self.control.leader(shard))
    }

    /// Has a worker of this node execute the request, unless there is no room for what it writes.
    fn execute(&mut self, shard: ShardId, request: Request, ticket: Ticket, out: &mut Outbox) {
        match self.admission().refusal(&request) {
            Some(failure) => self.reply(ticket, Err(failure), out),
            None => self.give(shard, Input::Request { shard, request, ticket }, out),
        }
    }

    pub(super) fn reply(&mut self, ticket: Ticket, answer: Answer, out: &mut Outbox) {
        match (ticket, answer) {
            (Ticket::Client { from, id }, answer) => self.answer_client(from, id, answer, out),
            (Ticket::Peer { from, id }, answer) => out.messages.push((from, Message::ForwardReply { id, answer })),
            (Ticket::Join { reply_to }, Ok(Reply::System(SystemReply::Joined(_)))) => {
                out.messages.push((Endpoint::Node(reply_to), Message::Welcome(self.topology().clone())));
            }
            (Ticket::Join { .. } | Ticket::Nobody, _) => {}
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
