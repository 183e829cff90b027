//! The clients. Each runs one operation at a time, and a history records all invocations and answers.
//!
//! A client sends to the node that answered it last, follows hints, and otherwise tries any node. It retries only
//! operations that were reported as not applied. If an answer does not come in time, the client gives up on the
//! operation: a write may still take effect, a get is forgotten.

use super::invariants::{AcknowledgedWrites, SessionMonotonicity, Told};
use super::node::{Answer, Message, Node};
use super::{Wake, Without};
use crate::agenda::Agenda;
use crate::history::{ClientId, History, Key, OperationId};
use crate::invariant::{Invariant, Violation};
use crate::linearizability;
use crate::network::{Endpoint, Network};
use crate::options::Options;
use crate::random::Random;
use bytes::Bytes;
use ringfort_check::{Content, Found, Kind, Operation, Value};
use ringfort_core::kv::{
    Append, AppendReply, CommandReply, Delete, DeleteReply, Get, Increment, IncrementReply, Kind as Asked, Put,
    PutReply, QueryReply,
};
use ringfort_core::request::{Reply, Request};
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use ringfort_retry::{Attempt, Next, Pace, Retry};
use ringfort_ring::ShardCount;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The pause before a retry, of random length.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(40);
const PACE: Pace = Pace { first_pause: *PAUSE.start(), longest_pause: *PAUSE.start(), redirections: 0 };

/// The largest value; small ones are more frequent.
const MAX_VALUE_BYTES: u64 = 2_000;

pub(super) struct Clients {
    random: Random,
    /// A separate random source that only decides which writes are deletes, so that deletes do not change keys, puts
    /// and times.
    deletes: Random,
    clients: usize,
    shards: ShardCount,
    keys: u32,
    put_permille: u32,
    delete_permille: u32,
    counters: bool,
    appends: bool,
    /// Keys with an append of unknown outcome. Nothing more is appended to them: each such append doubles what the checker
    /// has to search through.
    unsure_appends: BTreeSet<Key>,
    think_time: RangeInclusive<Duration>,
    timeout: Duration,
    working: bool,
    waiting: BTreeMap<ClientId, Waiting>,
    node: BTreeMap<ClientId, NodeId>,
    history: History,
    acknowledged: AcknowledgedWrites,
    sessions: SessionMonotonicity,
    violation: Result<(), Violation>,
    completed: u64,
    /// Operations begun while the faults happen, including those that were left out.
    begun: u64,
    /// Keys in the order in which their puts were acknowledged, the latest last.
    written: Vec<Key>,
    /// Keys that must still be read once the cluster has recovered.
    to_read: Vec<Key>,
}

struct Waiting {
    id: OperationId,
    deadline: Moment,
    retry: Retry,
    /// A write is under way that no node has reported as not applied.
    may_be_applied: bool,
}

impl Clients {
    pub fn new(options: &Options, random: Random) -> Clients {
        Clients {
            deletes: random.fork("deletes"),
            random,
            clients: options.clients,
            shards: ShardCount::new(options.shards as u32).expect("a power of two"),
            keys: options.keys as u32,
            put_permille: options.put_permille,
            delete_permille: options.delete_permille,
            counters: options.counters,
            appends: options.appends,
            unsure_appends: BTreeSet::new(),
            think_time: options.think_time.clone(),
            timeout: options.request_timeout,
            working: false,
            waiting: BTreeMap::new(),
            node: BTreeMap::new(),
            history: History::default(),
            acknowledged: AcknowledgedWrites::default(),
            sessions: SessionMonotonicity::default(),
            violation: Ok(()),
            completed: 0,
            begun: 0,
            written: Vec::new(),
            to_read: Vec::new(),
        }
    }

    pub fn begin(&mut self, now: Moment, agenda: &mut Agenda<Wake>) {
        self.working = true;
        for client in 0..self.clients {
            agenda.put(now, Wake::Client(ClientId(client as u32)));
        }
    }

    /// From now on each operation is a read, until every key has been read.
    pub fn read_everything(&mut self, now: Moment, agenda: &mut Agenda<Wake>) {
        self.to_read = (0..self.keys).map(Key).collect();
        for client in 0..self.clients {
            agenda.put(now, Wake::Client(ClientId(client as u32)));
        }
    }

    pub fn are_done(&self) -> bool {
        self.to_read.is_empty() && self.waiting.is_empty()
    }

    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Operations that began while the faults happened, including those that were left out.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    pub fn operation(&self, id: OperationId) -> (Key, &Operation) {
        (self.history.key(id), self.history.operation(id))
    }

    pub fn acknowledged(&self) -> &AcknowledgedWrites {
        &self.acknowledged
    }

    pub fn check(&self) -> Result<(), Violation> {
        linearizability::check(&self.history)
            .map_err(|violation| Invariant::Linearizability.broken(violation.to_string()))
    }

    /// Begins the client's next operation, unless there is none or it is left out.
    pub fn invoke(
        &mut self,
        client: ClientId,
        now: Moment,
        without: &Without,
        agenda: &mut Agenda<Wake>,
        network: &mut Network<Message>,
        nodes: &BTreeMap<NodeId, Node>,
    ) -> Option<OperationId> {
        if self.waiting.contains_key(&client) {
            return None;
        }
        let (key, kind) = match self.to_read.last() {
            Some(&key) => (key, Kind::Get { found: None }),
            None if !self.working => return None,
            None => {
                let key = Key(self.random.below(u64::from(self.keys)) as u32);
                let asked = self.draw(key);
                let value = Value { writer: client.0, number: self.history.count() as u32 };
                self.begun += 1;
                let number = self.begun - 1;
                if without.operations_from.is_some_and(|from| number >= from) {
                    return None;
                }
                if without.operations.contains(&number) {
                    self.go_on(client, now, agenda);
                    return None;
                }
                (key, operation_of(asked, key, value))
            }
        };
        let id = self.history.invoke(client, key, kind, now);
        let deadline = now + self.timeout;
        let retry = Retry::new(PACE, self.request(id).repeats());
        self.waiting.insert(client, Waiting { id, deadline, retry, may_be_applied: false });
        agenda.put(deadline, Wake::RequestTimedOut(client, id));
        self.send(client, now, network, nodes);
        Some(id)
    }

    /// Draws the next operation on a key, with the probabilities given by [`share`].
    fn draw(&mut self, key: Key) -> Asked {
        let is_write = self.random.chance(self.put_permille);
        let is_counter = self.counters && key.0.is_multiple_of(2);
        // Deletes take the lowest numbers of their own random source, so that their share does not affect the other
        // draws.
        let drawn = |sum: u32| sum - 1 - self.deletes.below(u64::from(sum)) as u32;
        let asked = Asked::drawn(|kind| share(kind, is_write, is_counter, self.appends, self.delete_permille), drawn);
        if asked == Asked::Append && (self.unsure_appends.contains(&key) || self.is_appending(key)) {
            return Asked::Put;
        }
        asked
    }

    /// Whether an append to the key waits for its answer.
    fn is_appending(&self, key: Key) -> bool {
        let appends = |id| matches!(self.history.operation(id).kind, Kind::Append { .. });
        self.waiting.values().any(|waiting| self.history.key(waiting.id) == key && appends(waiting.id))
    }

    /// Retries the operation, which was reported as not applied.
    pub fn retry(
        &mut self,
        client: ClientId,
        id: OperationId,
        now: Moment,
        network: &mut Network<Message>,
        nodes: &BTreeMap<NodeId, Node>,
    ) {
        if self.waiting.get(&client).is_some_and(|waiting| waiting.id == id) {
            self.send(client, now, network, nodes);
        }
    }

    fn send(&mut self, client: ClientId, now: Moment, network: &mut Network<Message>, nodes: &BTreeMap<NodeId, Node>) {
        let Some(&Waiting { id, deadline, .. }) = self.waiting.get(&client) else { return };
        let any = NodeId(1 + self.random.below(nodes.len() as u64));
        let node = *self.node.entry(client).or_insert(any);
        let (request, patience) = (self.request(id), deadline.saturating_since(now));
        if request.as_query().is_none() {
            self.waiting.entry(client).and_modify(|waiting| waiting.may_be_applied = true);
        }
        if matches!(self.history.operation(id).kind, Kind::Delete { .. }) {
            self.acknowledged.may_be_deleted(self.history.key(id), id);
        }
        network.send(now, Endpoint::Client(client), Endpoint::Node(node), Message::Request { id, request, patience });
    }

    /// What the client sends for an operation.
    fn request(&self, id: OperationId) -> Request {
        let key = key_bytes(self.history.key(id));
        let request = match self.history.operation(id).kind {
            Kind::Put { value, .. } => Request::command(self.shards, Put { key, value: encode(value) }),
            Kind::Get { .. } => Request::query(self.shards, Get { key }),
            Kind::Delete { .. } => Request::command(self.shards, Delete { key }),
            Kind::Increment { by, .. } => Request::command(self.shards, Increment { key, by }),
            Kind::Append { value, .. } => Request::command(self.shards, Append { key, bytes: encode(value) }),
        };
        request.expect("keys and values are within the limits")
    }

    /// Takes the violation that the last answer showed, if any.
    pub fn take_violation(&mut self) -> Result<(), Violation> {
        std::mem::replace(&mut self.violation, Ok(()))
    }

    /// Handles an answer. Returns whether it ends an operation.
    pub fn answered(
        &mut self,
        client: ClientId,
        id: OperationId,
        answer: Answer,
        now: Moment,
        agenda: &mut Agenda<Wake>,
    ) -> bool {
        let Some(waiting) = self.waiting.get_mut(&client).filter(|waiting| waiting.id == id) else { return false };
        let (key, asked) = (self.history.key(id), self.history.operation(id).kind.clone());
        match (answer, &asked) {
            (Ok(Reply::Command(CommandReply::Put(PutReply { revision, .. }))), &Kind::Put { value, .. }) => {
                self.history.answered(id, asked, now);
                self.written.retain(|written| *written != key);
                self.written.push(key);
                let acknowledged = self.acknowledged.acknowledge(key, Told::Holds(value.into()), revision, now);
                self.violation = acknowledged.and(self.sessions.saw(client, key, revision));
            }
            (
                Ok(Reply::Command(CommandReply::Increment(IncrementReply { number, revision, .. }))),
                &Kind::Increment { by, .. },
            ) => {
                self.history.answered(id, Kind::Increment { by, number: Some(number) }, now);
                self.written.retain(|written| *written != key);
                self.written.push(key);
                let acknowledged = self.acknowledged.acknowledge(key, Told::Holds(number.into()), revision, now);
                self.violation = acknowledged.and(self.sessions.saw(client, key, revision));
            }
            (
                Ok(Reply::Command(CommandReply::Append(AppendReply { revision, .. }))),
                &Kind::Append { value, bytes, .. },
            ) => {
                // The length is left out, so the checker need not tell puts of unknown outcome apart by their lengths.
                self.history.answered(id, Kind::Append { value, bytes, length: None }, now);
                self.written.retain(|written| *written != key);
                self.written.push(key);
                let acknowledged = self.acknowledged.acknowledge(key, Told::EndsWith(value), revision, now);
                self.violation = acknowledged.and(self.sessions.saw(client, key, revision));
            }
            (Ok(Reply::Query(QueryReply::Get(record))), Kind::Get { .. }) => {
                self.violation = match &record {
                    Some(record) => self.sessions.saw(client, key, record.modify_revision),
                    None => self.sessions.saw_nothing(client, key, &self.acknowledged),
                };
                self.history.answered(id, got(record.map(|record| decode(&record.value))), now);
                self.to_read.retain(|unread| *unread != key);
            }
            (Ok(Reply::Command(CommandReply::Delete(DeleteReply { existed, revision }))), Kind::Delete { .. }) => {
                self.history.answered(id, Kind::Delete { found: Some(existed) }, now);
                self.acknowledged.is_settled(key, id);
                if existed {
                    let acknowledged = self.acknowledged.acknowledge(key, Told::IsAbsent, revision, now);
                    self.violation = acknowledged.and(self.sessions.saw(client, key, revision));
                }
            }
            (Ok(other), _) => {
                let what = format!("client {client} asked for {asked:?} of key {key} and was answered {other:?}");
                self.violation = Err(Invariant::Linearizability.broken(what));
                return false;
            }
            (Err(failure), _) => {
                let attempt = match failure.attempt(None) {
                    // A user may retry although a node is full.
                    Attempt::Refused => Attempt::NotApplied,
                    attempt => attempt,
                };
                let next = waiting.retry.ended(attempt, waiting.deadline.saturating_since(now));
                // The outcome is unknown, as if there were no answer.
                if attempt == Attempt::Unknown {
                    return false;
                }
                waiting.may_be_applied = false;
                match failure.leader() {
                    Some(leader) => self.node.insert(client, leader),
                    None => self.node.remove(&client),
                };
                let again = now + self.random.duration(&PAUSE);
                if next != Next::GiveUp {
                    agenda.put(again, Wake::RequestRetried(client, id));
                }
                return false;
            }
        }
        self.completed += 1;
        self.go_on(client, now, agenda);
        true
    }

    /// The keys of acknowledged puts, the latest one first.
    pub fn latest_written(&self) -> impl Iterator<Item = Key> {
        self.written.iter().rev().copied()
    }

    /// Records a complete read by a reader.
    pub fn has_read(&mut self, reader: ClientId, key: Key, found: Option<Content>, now: Moment) {
        let id = self.history.invoke(reader, key, Kind::Get { found: None }, now);
        self.history.answered(id, got(found), now);
    }

    pub fn timed_out(&mut self, client: ClientId, id: OperationId, now: Moment, agenda: &mut Agenda<Wake>) {
        let Some(waiting) = self.waiting.get(&client).filter(|waiting| waiting.id == id) else { return };
        if matches!(self.history.operation(id).kind, Kind::Append { .. }) {
            self.unsure_appends.insert(self.history.key(id));
        }
        if !waiting.may_be_applied {
            self.history.failed(id);
            self.acknowledged.is_settled(self.history.key(id), id);
        }
        self.node.remove(&client);
        self.go_on(client, now, agenda);
    }

    fn go_on(&mut self, client: ClientId, now: Moment, agenda: &mut Agenda<Wake>) {
        self.waiting.remove(&client);
        agenda.put(now + self.random.duration(&self.think_time), Wake::Client(client));
    }

    /// From now on, clients only read the keys that must still be read.
    pub fn rest(&mut self) {
        self.working = false;
    }
}

/// A get that found this. The version is left out, so the checker need not count versions.
fn got(found: Option<Content>) -> Kind {
    Kind::Get { found: found.map(|content| Found { content, version: None }) }
}

/// How often an operation is drawn out of a thousand writes, or out of a thousand reads. A counter is incremented, and
/// neither put nor appended to, so that no increment is refused. Puts keep values short, so that no append is refused.
fn share(asked: Asked, is_write: bool, is_counter: bool, appends: bool, delete_permille: u32) -> u32 {
    let append_permille = if appends { (1000 - delete_permille) / 2 } else { 0 };
    match (asked, is_write) {
        (Asked::Put | Asked::Append, true) if is_counter => 0,
        (Asked::Increment, true) if !is_counter => 0,
        (Asked::Put, true) => 1000 - delete_permille - append_permille,
        (Asked::Append, true) => append_permille,
        (Asked::Increment, true) => 1000 - delete_permille,
        (Asked::Delete, true) => delete_permille,
        (Asked::Get, false) => 1000,
        (Asked::Put | Asked::Delete | Asked::Increment | Asked::Append, false) | (Asked::Get, true) => 0,
        // A scan reads many keys, and the checker judges each key separately.
        (Asked::Scan, _) => 0,
    }
}

/// The operation that a client performs. Only for operations that have a share.
fn operation_of(asked: Asked, key: Key, value: Value) -> Kind {
    match asked {
        Asked::Put => Kind::Put { value, bytes: encode(value).len() as u32, version: None },
        Asked::Append => Kind::Append { value, bytes: encode(value).len() as u32, length: None },
        Asked::Get => Kind::Get { found: None },
        Asked::Delete => Kind::Delete { found: None },
        // All clients add the same number to a key, so that increments of unknown outcome are interchangeable, which
        // keeps the checker's search short.
        Asked::Increment => Kind::Increment { by: 1 + i64::from(key.0), number: None },
        Asked::Scan => panic!("scans have no share"),
    }
}

pub(super) fn key_bytes(key: Key) -> Bytes {
    Bytes::from(format!("key {}", key.0))
}

/// A value's writer and number, followed by filler whose length depends on the number, so that entries have many sizes.
fn encode(value: Value) -> Bytes {
    let spread = u64::from(value.number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let filler = spread % MAX_VALUE_BYTES * (spread >> 12) % MAX_VALUE_BYTES;
    let mut bytes = [value.number.to_le_bytes(), value.writer.to_le_bytes()].concat();
    bytes.resize(bytes.len() + filler as usize, value.number as u8);
    bytes.into()
}

/// What a key holds: values, each appended to the one before, the number that increments led to, or [`Value::FOREIGN`]
/// if no client can have written these bytes.
pub(super) fn decode(bytes: &[u8]) -> Content {
    let text = || {
        let (first, mut rest) = split_first(bytes)?;
        let mut content = Content::from(first);
        while !rest.is_empty() {
            let (next, after) = split_first(rest)?;
            content.appended.push(next);
            rest = after;
        }
        Some(content)
    };
    let counted = || str::from_utf8(bytes).ok()?.parse().ok().map(|number: i64| Content::from(number));
    text().or_else(counted).unwrap_or(Value::FOREIGN.into())
}

/// The value that the bytes begin with, which says itself how long it is, and what follows it.
fn split_first(bytes: &[u8]) -> Option<(Value, &[u8])> {
    let number_at = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let value = Value { number: number_at(0)?, writer: number_at(4)? };
    Some((value, bytes.strip_prefix(&encode(value)[..])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations that the simulator leaves out.
    const LEFT_OUT: [Asked; 1] = [Asked::Scan];

    fn clients(seed: u64) -> Clients {
        Clients::new(&Options::sample(seed), Random::new(seed))
    }

    #[test]
    fn every_operation_that_is_not_left_out_is_drawn() {
        let mut clients = clients(1);
        (clients.put_permille, clients.delete_permille, clients.counters, clients.appends) = (500, 500, true, true);
        let drawn: Vec<Asked> = (0..1000).map(|number| clients.draw(Key(number))).collect();
        for kind in Asked::ALL {
            assert_ne!(drawn.contains(kind), LEFT_OUT.contains(kind), "{kind:?}");
        }
    }

    #[test]
    fn appended_values_are_read_back_in_order() {
        let values = [7, 300, 0].map(|number| Value { writer: 2, number });
        let mut content = Content::from(values[0]);
        content.appended.extend(&values[1..]);
        let bytes = values.map(encode).concat();
        assert_eq!(decode(&bytes), content);
        for foreign in [&bytes[1..], &bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat(), b""] {
            assert_eq!(decode(foreign), Value::FOREIGN.into());
        }
    }

    #[test]
    fn draws_mean_what_recorded_seeds_rest_on() {
        let (mut clients, mut same) = (clients(7), self::clients(7));
        (clients.put_permille, clients.delete_permille, clients.counters, clients.appends) = (600, 300, false, false);
        for _ in 0..1000 {
            let expected = match (same.random.chance(600), same.deletes.chance(300)) {
                (false, _) => Asked::Get,
                (true, false) => Asked::Put,
                (true, true) => Asked::Delete,
            };
            assert_eq!(clients.draw(Key(0)), expected);
        }
    }
}
