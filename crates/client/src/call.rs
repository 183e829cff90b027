//! One call, from the first attempt to the answer: when and where to retry, and when not to.
//!
//! An attempt ends in an answer or a [`Status`]. Only [`judge`] decides what a status means, and [`ringfort_retry`]
//! decides whether and when there is another attempt. If the error names a leader, the next attempt asks it at once;
//! otherwise the client reads the topology again after a pause. The call's deadline bounds all of this.
//!
//! **Silence.** An attempt goes to an endpoint whose [circuit](crate::circuit) is closed, if there is one. Requests
//! that are safe to repeat do not wait for a silent endpoint: [hedging](crate::hedging) sends them to another one
//! meanwhile. A write is sent to a single endpoint, only after that has given a sign of life, and then waits for its
//! answer until its deadline.

use crate::endpoints::Endpoint;
use crate::error::Causes;
use crate::hedging::Hedging;
use crate::routes::{Address, Target};
use crate::{Client, Error};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ringfort_proto::metadata;
use ringfort_proto::outcome::{self, Outcome};
use ringfort_proto::v1::TopologyRequest;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_retry::{Attempt, Next, Pace, Retry};
use ringfort_ring::ShardId;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::SemaphorePermit;
use tokio::time::{sleep, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// The longest pause is below the usual election timeout, so that a new leader is found soon after it has won.
const PACE: Pace =
    Pace { first_pause: Duration::from_millis(10), longest_pause: Duration::from_millis(200), redirections: 2 };

/// A topology younger than this is not read again: when a failing leader ends many calls, one of them reads it for all.
const TOPOLOGY_AGE: Duration = Duration::from_millis(20);

/// How long a call that knows a topology waits for a newer one before it continues without. Doubled up to
/// [`LONGEST_TOPOLOGY_PATIENCE`] whenever no node answers in time, since all nodes may be far away.
const TOPOLOGY_PATIENCE: Duration = Duration::from_millis(500);
const LONGEST_TOPOLOGY_PATIENCE: Duration = Duration::from_secs(2);

/// A write is not repeated in the last part of its call, which is a fifth of the call but at most this long. Otherwise
/// the next attempt's answer could come after the deadline, and a write that was certainly not applied would end with
/// an unknown outcome.
const LONGEST_RESERVE: Duration = Duration::from_millis(500);
const RESERVE_PART: u32 = 5;

/// Whether repeating a request can be observed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Read,
    /// A read, or another request that may be repeated, which can take long even on a healthy node: it is moved only
    /// when its endpoint is silent.
    LongRead,
    Write,
}

/// How the topology is refreshed, shared by all calls.
#[derive(Debug)]
pub(crate) struct Refresh {
    /// When it was last read.
    read_at: Option<Instant>,
    /// See [`TOPOLOGY_PATIENCE`].
    patience: Duration,
}

impl Default for Refresh {
    fn default() -> Refresh {
        Refresh { read_at: None, patience: TOPOLOGY_PATIENCE }
    }
}

/// An endpoint, and how it answered.
type Ended<R> = (Address, Result<Response<R>, Status>);

impl Client {
    /// Sends a request until it is answered, it may not be sent again, or the deadline has passed. `send` makes the
    /// one gRPC call on the channel that it is given.
    pub(crate) async fn call<M, R>(
        &self,
        target: Target,
        effect: Effect,
        deadline: Instant,
        message: M,
        send: impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error>
    where
        M: Clone,
    {
        let reserve = reserve(effect, deadline.saturating_duration_since(Instant::now()));
        let mut retry = Retry::new(PACE, effect != Effect::Write).with_reserve(reserve);
        let mut causes = Causes::default();
        loop {
            if deadline <= Instant::now() {
                return Err(self.unavailable(causes));
            }
            let (address, result) = match effect {
                Effect::Write => self.ask_once(target, deadline, message.clone(), &send).await,
                Effect::Read | Effect::LongRead => {
                    let next = |asked: &[Address]| match asked {
                        [] => Some(self.pick(target)),
                        _ => self.pick_another(target, asked),
                    };
                    let hedging = Hedging::new(Instant::now(), effect == Effect::LongRead);
                    self.ask_hedged(next, hedging, deadline, &message, &send, &mut causes).await
                }
            };
            let is_redirected = self.learn_leader(target, &address, &result);
            let status = match result {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let attempt = judge(&status, effect, is_redirected);
            let left = deadline.saturating_duration_since(Instant::now());
            let pause = match (retry.ended(attempt, left), attempt) {
                (Next::GiveUp, Attempt::Unknown) if effect == Effect::Write => {
                    return Err(Error::UnknownOutcome(status));
                }
                (Next::GiveUp, Attempt::Refused) => return Err(refused(status)),
                (Next::GiveUp, _) => {
                    causes.note(&address, status);
                    return Err(self.unavailable(causes));
                }
                (Next::AskLeader, _) => Duration::ZERO,
                (Next::SendAfter(pause), _) => pause,
            };
            causes.note(&address, status);
            if pause > Duration::ZERO {
                sleep(jittered(pause)).await;
                // Even without a newer topology the next attempt goes to another node, and reports its own error.
                self.refresh(deadline, &mut causes).await?;
            }
        }
    }

    /// The shard of a key. Reads the topology first if none is known.
    pub(crate) async fn shard_of(&self, key: &[u8], deadline: Instant) -> Result<ShardId, Error> {
        let mut retry = Retry::new(PACE, true);
        let mut causes = Causes::default();
        loop {
            if let Some(shard) = self.read_routes().shard_of(key) {
                return Ok(shard);
            }
            if !self.refresh(deadline, &mut causes).await? {
                let left = deadline.saturating_duration_since(Instant::now());
                match retry.ended(Attempt::NotApplied, left) {
                    Next::SendAfter(pause) => sleep(jittered(pause)).await,
                    Next::AskLeader | Next::GiveUp => return Err(self.unavailable(causes)),
                }
            }
        }
    }

    /// Sends a request once, after its endpoint has given a sign of life.
    async fn ask_once<M, R>(
        &self,
        target: Target,
        deadline: Instant,
        message: M,
        send: &impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Ended<R> {
        let address = self.pick(target);
        let endpoint = match self.shared.endpoints.get(&address) {
            Ok(endpoint) => endpoint,
            Err(error) => return (address, Err(outcome::unavailable(error.to_string(), None))),
        };
        let limit = deadline.saturating_duration_since(Instant::now());
        if let Err(status) = endpoint.wait_for_life(limit).await {
            return (address, Err(status));
        }
        let result = self.attempt(&endpoint, deadline, message, send).await;
        (address, result)
    }

    /// Sends a request to the first endpoint that `next` returns, and to further ones while there is no answer. `next`
    /// gets the endpoints asked so far. Returns the first answer, or the last failure; earlier failures go to `causes`.
    async fn ask_hedged<M: Clone, R>(
        &self,
        next: impl Fn(&[Address]) -> Option<Address>,
        mut hedging: Hedging,
        deadline: Instant,
        message: &M,
        send: &impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
        causes: &mut Causes,
    ) -> Ended<R> {
        let ask = async |address: Address, _permit: Option<SemaphorePermit<'_>>| {
            let result = match self.shared.endpoints.get(&address) {
                Ok(endpoint) => self.attempt(&endpoint, deadline, message.clone(), send).await,
                Err(error) => Err(outcome::unavailable(error.to_string(), None)),
            };
            (address, result)
        };
        let mut changes = self.shared.endpoints.changes();
        let mut asked: Vec<Address> = next(&[]).into_iter().collect();
        let mut attempts: FuturesUnordered<_> = asked.iter().map(|first| ask(first.clone(), None)).collect();
        let mut under_way = asked.clone();
        let mut has_more = true;
        loop {
            let all_silent = under_way.iter().all(|address| self.shared.endpoints.is_open(address));
            let due = hedging.due(all_silent).filter(|_| has_more);
            tokio::select! {
                Some((address, result)) = attempts.next() => {
                    under_way.retain(|other| *other != address);
                    let others_live = under_way.iter().any(|other| !self.shared.endpoints.is_open(other));
                    match result {
                        Err(status) if others_live => causes.note(&address, status),
                        Err(status) => {
                            let silent = || Status::deadline_exceeded("no answer");
                            under_way.iter().for_each(|other| causes.note(other, silent()));
                            return (address, Err(status));
                        }
                        result => return (address, result),
                    }
                }
                () = sleep_until(due.unwrap_or(deadline).into()), if due.is_some() => {
                    hedging.asked(all_silent, Instant::now());
                    let permit = if all_silent { None } else { self.shared.hedges.try_acquire().ok() };
                    match next(&asked).filter(|_| all_silent || permit.is_some()) {
                        Some(address) => {
                            asked.push(address.clone());
                            under_way.push(address.clone());
                            attempts.push(ask(address, permit));
                        }
                        None => has_more = false,
                    }
                }
                Ok(()) = changes.changed() => has_more = true,
            }
        }
    }

    /// One request to one endpoint.
    async fn attempt<M, R>(
        &self,
        endpoint: &Arc<Endpoint>,
        deadline: Instant,
        message: M,
        send: &impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<Response<R>, Status> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let mut request = Request::new(message);
        request.set_timeout(in_whole_milliseconds(limit));
        if let Some(cluster) = self.read_routes().cluster_header() {
            request.metadata_mut().insert(metadata::CLUSTER, cluster);
        }
        endpoint.ask(send(endpoint.channel(), request), limit).await
    }

    /// Reads the topology from the first node that returns one. Returns whether a node did; `causes` collects the
    /// failures. A client that knows no topology cannot go on without one, and waits until the deadline.
    ///
    /// # Errors
    /// [`Error::OtherCluster`] if no node did and one belongs to another cluster. [`Error::Rejected`] if no topology is
    /// known yet and all endpoints refuse to give one: these are not the ports for clients.
    async fn refresh(&self, deadline: Instant, causes: &mut Causes) -> Result<bool, Error> {
        let Ok(mut refresh) = timeout_at(deadline.into(), self.shared.refresh.lock()).await else {
            return Ok(false);
        };
        if refresh.read_at.is_some_and(|at| at.elapsed() < TOPOLOGY_AGE) {
            return Ok(true);
        }
        let deadline = match refresh.read_at {
            None => deadline,
            Some(_) => deadline.min(Instant::now() + refresh.patience),
        };
        let is_open = |address: &Address| self.shared.endpoints.is_open(address);
        let mut left = self.read_routes().all(is_open);
        let mut other_cluster = Ok(false);
        let (mut refusal, mut all_refuse) = (None, self.read_routes().cluster_header().is_none());
        while !left.is_empty() && Instant::now() < deadline {
            let next = |asked: &[Address]| left.iter().find(|address| !asked.contains(address)).cloned();
            let send = async |channel, request| ClusterClient::new(channel).topology(request).await;
            let hedging = Hedging::new(Instant::now(), false);
            let request = TopologyRequest {};
            let (address, result) = self.ask_hedged(next, hedging, deadline, &request, &send, causes).await;
            match result {
                Ok(answer) => match self.write_routes().adopt(&address, answer.get_ref()) {
                    Ok(()) => {
                        refresh.read_at = Some(Instant::now());
                        return Ok(true);
                    }
                    Err(error @ Error::OtherCluster { .. }) => other_cluster = Err(error),
                    Err(error) => causes.note(&address, outcome::unavailable(error.to_string(), None)),
                },
                Err(status) => {
                    all_refuse &= status.code() == Code::FailedPrecondition;
                    refusal = Some(status.clone());
                    causes.note(&address, status);
                }
            }
            left.retain(|other| *other != address);
        }
        refresh.patience = (refresh.patience * 2).min(LONGEST_TOPOLOGY_PATIENCE);
        match refusal {
            Some(status) if all_refuse && left.is_empty() => Err(Error::Rejected(status)),
            _ => other_cluster,
        }
    }

    fn unavailable(&self, causes: Causes) -> Error {
        causes.into_error(self.read_routes().nodes())
    }

    /// The endpoint to ask first. If none answers in time, one that answers late.
    fn pick(&self, target: Target) -> Address {
        let late = || self.read_routes().pick(target, |address| self.shared.endpoints.takes_writes(address));
        self.pick_another(target, &[]).or_else(late).unwrap_or_else(|| self.read_routes().any())
    }

    /// An endpoint that is not silent and not among `asked`.
    fn pick_another(&self, target: Target, asked: &[Address]) -> Option<Address> {
        self.read_routes().pick(target, |address| !asked.contains(address) && !self.shared.endpoints.is_open(address))
    }

    /// Learns a shard's leader from an answer of `address`. Returns whether the answer names another node.
    fn learn_leader<R>(&self, target: Target, address: &Address, result: &Result<Response<R>, Status>) -> bool {
        let Target::Leader(shard) = target else { return false };
        let headers = result.as_ref().map_or_else(Status::metadata, Response::metadata);
        match (metadata::leader(headers).filter(|leader| *leader != &**address), result) {
            (Some(leader), _) => {
                self.write_routes().learn_leader(shard, leader);
                true
            }
            // The node executed the request itself.
            (None, Ok(_)) => {
                if !self.read_routes().is_leader(shard, address) {
                    self.write_routes().learn_leader(shard, address);
                }
                false
            }
            // These refusals say nothing about the shard's leader.
            (None, Err(status)) => {
                use Code::{FailedPrecondition, InvalidArgument, ResourceExhausted};
                if !matches!(status.code(), FailedPrecondition | InvalidArgument | ResourceExhausted) {
                    self.write_routes().forget_leader(shard, address);
                }
                false
            }
        }
    }
}

/// What a failed attempt's status means.
fn judge(status: &Status, effect: Effect, is_redirected: bool) -> Attempt {
    const REFUSALS: [Code; 4] =
        [Code::Unimplemented, Code::InvalidArgument, Code::PermissionDenied, Code::Unauthenticated];
    match outcome::of(status) {
        // A read changes nothing, even if a proxy refused it.
        Outcome::Unknown if effect != Effect::Write && REFUSALS.contains(&status.code()) => Attempt::Refused,
        Outcome::Unknown => Attempt::Unknown,
        // A refusal, too, names the leader if that is another node, but it is the leader's answer.
        Outcome::NotApplied if is_redirected && status.code() == Code::Unavailable => Attempt::Redirected,
        Outcome::NotApplied if outcome::reached_no_handler(status) || status.code() == Code::Unavailable => {
            Attempt::NotApplied
        }
        Outcome::NotApplied => Attempt::Refused,
    }
}

/// The error for a call that was refused.
fn refused(status: Status) -> Error {
    match (outcome::of(&status), status.code()) {
        (Outcome::NotApplied, Code::ResourceExhausted) => Error::Overloaded(status),
        _ => Error::Rejected(status),
    }
}

/// How long before its deadline a call that may take `limit` begins its last attempt.
fn reserve(effect: Effect, limit: Duration) -> Duration {
    match effect {
        Effect::Write => (limit / RESERVE_PART).min(LONGEST_RESERVE),
        Effect::Read | Effect::LongRead => Duration::ZERO,
    }
}

/// Rounds up to milliseconds. Calls with the same time limit then send the same header, which HTTP/2 encodes in one
/// byte if it has seen it on the connection; with microseconds each call would have a new header, to be encoded,
/// decoded and stored by both sides.
fn in_whole_milliseconds(limit: Duration) -> Duration {
    Duration::from_millis(limit.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX))
}

/// A random duration between half and all of the pause, so that the clients of a failed leader do not all return at
/// once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as u32;
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_of_a_connection_that_breaks_is_unknown() {
        for status in [outcome::unknown("no quorum"), Status::unavailable("keep-alive timed out")] {
            for effect in [Effect::Read, Effect::Write] {
                assert_eq!(judge(&status, effect, false), Attempt::Unknown);
            }
        }
    }

    #[test]
    fn only_an_unavailable_node_is_worth_another_attempt() {
        for effect in [Effect::Read, Effect::Write] {
            let judged = |status: &Status| judge(status, effect, false);
            assert_eq!(judged(&outcome::unavailable("not the leader", None)), Attempt::NotApplied);
            for status in [outcome::overloaded("full"), outcome::invalid("empty key"), outcome::other_cluster(7)] {
                assert_eq!(judged(&status), Attempt::Refused, "{status}");
            }
        }
        assert!(matches!(refused(outcome::overloaded("full")), Error::Overloaded(_)));
        assert!(matches!(refused(outcome::invalid("empty key")), Error::Rejected(_)));
    }

    #[test]
    fn calls_that_begin_with_the_same_time_limit_name_the_same() {
        let limit = Duration::from_secs(5);
        for late in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(900)] {
            assert_eq!(in_whole_milliseconds(limit - late), limit, "{late:?}");
        }
        assert_eq!(in_whole_milliseconds(Duration::from_nanos(1)), Duration::from_millis(1), "never no time at all");
    }

    #[test]
    fn pauses_stay_between_half_and_whole() {
        for _ in 0..100 {
            let pause = jittered(PACE.longest_pause);
            assert!(pause >= PACE.longest_pause / 2 && pause <= PACE.longest_pause, "{pause:?}");
        }
    }
}
