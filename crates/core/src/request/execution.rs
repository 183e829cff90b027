//! The attempts to execute one request, on the node that received it from a client.
//!
//! The node answers a read from its own memory if it can. Otherwise it sends the request to the shard's leader: a
//! worker of its own, or another node, which executes it or names the leader (it does not forward again). If that
//! fails, [`ringfort_retry`] decides whether and when the request is sent again, until its deadline. So a client that
//! knows only one node survives an election.
//!
//! An [`Execution`] decides where each attempt goes and what to do when it fails. The shell or the simulator repeats
//! these steps for each request until it has an answer:
//!
//! 1. read here, if the replica on this node holds the lease;
//! 2. [`begin_attempt`](Execution::begin_attempt), and send the request to the node that it returns. While the answer
//!    of another node is awaited and the request [may be overtaken](Execution::may_be_overtaken), ask
//!    [`is_overtaken`](Execution::is_overtaken) every [`LEADER_CHECK`]; if so, the attempt ends as
//!    [`Failure::Unknown`]. It also ends this way at the deadline;
//! 3. [`failed`](Execution::failed) if the attempt has failed.

use super::{Failure, Request, Route};
use crate::mutation::Mutation;
use crate::types::NodeId;
use ringfort_retry::{Next, Pace, Retry};
use std::time::Duration;

const PACE: Pace =
    Pace { first_pause: Duration::from_millis(2), longest_pause: Duration::from_millis(50), redirections: 1 };

/// How often to ask whether a forwarded request is overtaken.
pub const LEADER_CHECK: Duration = Duration::from_millis(50);

/// One request, on the node that received it from a client.
#[derive(Clone, Debug)]
pub struct Execution {
    retry: Retry,
    is_read: bool,
    /// Whether it may be sent again when its outcome is unknown.
    repeats: bool,
    /// The leader that the last attempt's answer named, which is tried next.
    hint: Option<NodeId>,
    attempt: Attempt,
}

/// The attempt in progress.
#[derive(Clone, Copy, Default, Debug)]
struct Attempt {
    /// The node that was asked because it leads the shard, as far as this node knew.
    leader: Option<NodeId>,
    asked: Option<NodeId>,
    /// Whether the last attempt's answer named it.
    was_hint: bool,
    /// The leader that this node knew when the attempt began.
    known: Option<NodeId>,
}

impl Execution {
    pub fn new(request: &Request, mutation: Mutation) -> Execution {
        let repeats = request.repeats() || mutation.is(Mutation::RepeatUnknown);
        let is_read = request.as_query().is_some();
        Execution { retry: Retry::new(PACE, repeats), is_read, repeats, hint: None, attempt: Attempt::default() }
    }

    /// The node to send the next attempt to. If there is none, the attempt fails as `NotLeader(None)`.
    pub fn begin_attempt(&mut self, route: Route) -> Option<NodeId> {
        let hint = self.hint.take();
        let leader = hint.or(route.leader);
        let asked = leader.or(route.silent.filter(|_| self.repeats));
        self.attempt = Attempt { leader, asked, was_hint: hint.is_some(), known: route.leader };
        asked
    }

    /// The leader that the attempt was sent to, unless it is silent.
    pub fn asked_leader(&self) -> Option<NodeId> {
        self.attempt.leader
    }

    /// The node that is known to lead the shard now that the attempt has succeeded, if this node did not know it.
    pub fn found_leader(&self) -> Option<NodeId> {
        self.attempt.asked.filter(|_| self.attempt.was_hint)
    }

    /// Whether the request may be sent again while it waits for the answer of another node.
    pub fn may_be_overtaken(&self) -> bool {
        self.repeats
    }

    /// Whether the shard has a newly known leader while the attempt waits for the answer of another node, and the
    /// request may be sent again.
    pub fn is_overtaken(&mut self, route: Route) -> bool {
        // The leader that was known before only guards against a route that is older than a hint. Once the route has
        // changed it is not that old, and the same node may lead again.
        if route.leader != self.attempt.known {
            self.attempt.known = None;
        }
        let Attempt { asked, known, .. } = self.attempt;
        self.repeats && route.leader.is_some() && route.leader != known && route.leader != asked
    }

    /// The attempt has failed, and `left` is the time until the deadline. Returns what to do next.
    pub fn failed(&mut self, failure: Failure, left: Duration) -> Next {
        let next = self.retry.ended(failure.attempt(self.attempt.asked), left);
        self.hint = failure.leader().filter(|_| next == Next::AskLeader);
        next
    }

    /// Whether the request is a write that may have been applied. A refusal of a later attempt does not undo an earlier
    /// one.
    pub fn may_be_applied(&self) -> bool {
        self.retry.is_unknown() && !self.is_read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Append, Delete, Get, Increment, Put};
    use bytes::Bytes;
    use ringfort_ring::ShardCount;

    const LONG: Duration = Duration::from_secs(60);
    const KNOWN: Route = Route { leader: Some(NodeId(1)), silent: None };
    const SILENT: Route = Route { leader: None, silent: Some(NodeId(1)) };
    const SUCCESSOR: Route = Route { leader: Some(NodeId(2)), silent: Some(NodeId(1)) };

    fn key() -> Bytes {
        Bytes::from("k")
    }

    fn write() -> Execution {
        Execution::new(&Request::command(ShardCount::MAX, Delete { key: key() }).unwrap(), Mutation::None)
    }

    fn read() -> Execution {
        Execution::new(&Request::query(ShardCount::MAX, Get { key: key() }).unwrap(), Mutation::None)
    }

    #[test]
    fn a_write_waits_for_a_silent_leader_and_a_read_does_not() {
        assert_eq!((write().begin_attempt(SILENT), read().begin_attempt(SILENT)), (None, Some(NodeId(1))));
        assert_eq!(
            (write().begin_attempt(SUCCESSOR), read().begin_attempt(SUCCESSOR)),
            (Some(NodeId(2)), Some(NodeId(2)))
        );
        let mut read = read();
        read.begin_attempt(SILENT);
        assert_eq!(read.asked_leader(), None);
    }

    #[test]
    fn the_leader_that_an_answer_names_is_asked_next_and_once() {
        let mut write = write();
        assert_eq!(write.begin_attempt(KNOWN), Some(NodeId(1)));
        assert_eq!(write.found_leader(), None);
        assert_eq!(write.failed(Failure::NotLeader(Some(NodeId(3))), LONG), Next::AskLeader);
        assert_eq!(write.begin_attempt(KNOWN), Some(NodeId(3)));
        assert_eq!(write.found_leader(), Some(NodeId(3)));
        assert!(matches!(write.failed(Failure::NotLeader(Some(NodeId(4))), LONG), Next::SendAfter(_)));
        assert_eq!(write.begin_attempt(KNOWN), Some(NodeId(1)), "two nodes may name each other for long");
    }

    #[test]
    fn a_write_whose_outcome_is_unknown_is_not_sent_again_and_stays_unknown() {
        let mut delete = write();
        delete.begin_attempt(KNOWN);
        assert_eq!(delete.failed(Failure::Unknown, LONG), Next::GiveUp);
        assert!(delete.may_be_applied());
        let increment = Request::command(ShardCount::MAX, Increment { key: key(), by: 1 }).unwrap();
        let mut increment = Execution::new(&increment, Mutation::None);
        increment.begin_attempt(KNOWN);
        assert_eq!(increment.failed(Failure::Unknown, LONG), Next::GiveUp);
        assert!(increment.may_be_applied());
        let append = Request::command(ShardCount::MAX, Append { key: key(), bytes: key() }).unwrap();
        let mut append = Execution::new(&append, Mutation::None);
        append.begin_attempt(KNOWN);
        assert_eq!(append.failed(Failure::Unknown, LONG), Next::GiveUp);
        assert!(append.may_be_applied());
        let mut get = read();
        get.begin_attempt(KNOWN);
        assert!(matches!(get.failed(Failure::Unknown, LONG), Next::SendAfter(_)));
        assert!(!get.may_be_applied(), "a read applies nothing");
        let put = Request::command(ShardCount::MAX, Put { key: key(), value: key() }).unwrap();
        let mut full = Execution::new(&put, Mutation::None);
        full.begin_attempt(KNOWN);
        assert_eq!(full.failed(Failure::MemoryFull, LONG), Next::GiveUp);
        assert!(!full.may_be_applied());
    }

    #[test]
    fn a_forwarded_read_is_overtaken_by_a_successor_and_not_by_silence() {
        let mut get = read();
        get.begin_attempt(KNOWN);
        assert!(!get.is_overtaken(KNOWN) && !get.is_overtaken(SILENT), "it may still answer");
        assert!(get.is_overtaken(SUCCESSOR));
        let mut get = read();
        get.begin_attempt(SILENT);
        assert!(!get.is_overtaken(SILENT) && !get.is_overtaken(KNOWN), "it is heard again");
        assert!(get.is_overtaken(SUCCESSOR));
        let mut delete = write();
        delete.begin_attempt(KNOWN);
        assert!(!delete.is_overtaken(SUCCESSOR), "it must not be sent again");
    }

    #[test]
    fn a_read_that_followed_a_hint_is_overtaken_when_the_leader_before_leads_again() {
        let mut get = read();
        get.begin_attempt(KNOWN);
        assert_eq!(get.failed(Failure::NotLeader(Some(NodeId(2))), LONG), Next::AskLeader);
        assert_eq!(get.begin_attempt(KNOWN), Some(NodeId(2)));
        assert!(!get.is_overtaken(KNOWN), "the route is older than the hint");
        let hinted = |leader, silent| Route { leader, silent };
        assert!(!get.is_overtaken(hinted(Some(NodeId(2)), None)));
        assert!(!get.is_overtaken(hinted(None, Some(NodeId(2)))), "it may still answer");
        assert!(get.is_overtaken(KNOWN));
    }
}
