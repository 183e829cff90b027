//! One call, from the first attempt to the answer: when to try again, where, and when never to.
//!
//! An attempt ends in an answer or a [`Status`]; [`judge`] alone decides what a status means. Tried again is only what
//! was certainly not applied, and any read. Between attempts the client learns: a leader named by the error is asked at
//! once, otherwise the topology is read again after a pause that doubles. The call's deadline bounds all of it.

use crate::routes::{Address, Target};
use crate::{Client, Error};
use ringfort_proto::metadata;
use ringfort_proto::outcome::{self, Outcome};
use ringfort_proto::v1::TopologyRequest;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_ring::ShardId;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// The pause before the first repetition that no leader hint leads to. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Below an election timeout, so that a new leader is found soon after it has won.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Leader hints that one call follows without a pause: two nodes may name each other for as long as an election takes.
const HINTS_IN_A_ROW: u32 = 2;

/// A topology younger than this is not read again: of the many calls that a failing leader ends, one asks for all.
const TOPOLOGY_AGE: Duration = Duration::from_millis(20);

/// One node has this long to answer with its topology before the next one is asked.
const TOPOLOGY_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a repetition can be seen by others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Read,
    Write,
}

/// What to do about a failed attempt.
#[derive(Debug)]
enum Verdict {
    TryAgain(Status),
    GiveUp(Error),
}

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
        let mut pause = FIRST_PAUSE;
        let mut hints = 0;
        let mut last: Option<Error> = None;
        loop {
            let now = Instant::now();
            let remaining = deadline.saturating_duration_since(now);
            if remaining.is_zero() {
                return Err(last.unwrap_or_else(nobody_asked));
            }
            // A node may hang with its connection open. A read leaves time to ask another one.
            let limit = if effect == Effect::Read { remaining / 2 } else { remaining };
            let (address, cluster) = {
                let routes = self.read_routes();
                (routes.pick(target, now), routes.cluster_header())
            };
            let result = self.attempt(&address, cluster, limit, message.clone(), &send).await;
            let headers = result.as_ref().map_or_else(Status::metadata, Response::metadata);
            let hint = metadata::leader(headers).filter(|leader| *leader != &*address);
            let is_redirected = match (target, hint) {
                (Target::Leader(shard), Some(leader)) => {
                    self.write_routes().learn_leader(shard, leader);
                    true
                }
                _ => false,
            };
            let status = match result {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => match judge(status, effect) {
                    Verdict::TryAgain(status) => status,
                    Verdict::GiveUp(error) => {
                        // Or every write after this one would wait for the same node that hangs.
                        if let Error::UnknownOutcome(status) = &error {
                            self.note_failure(target, &address, status);
                        }
                        return Err(error);
                    }
                },
            };
            self.note_failure(target, &address, &status);
            // What a node said last tells more than that the last attempt had no time left.
            if is_said_by_a_node(&status)
                || !matches!(&last, Some(Error::Unavailable { source, .. }) if is_said_by_a_node(source))
            {
                last = Some(Error::Unavailable { asked: address.to_string(), source: status });
            }
            if is_redirected && hints < HINTS_IN_A_ROW {
                hints += 1;
                continue;
            }
            hints = 0;
            if Instant::now() + pause >= deadline {
                return Err(last.unwrap_or_else(nobody_asked));
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // Without a newer topology the next attempt goes elsewhere all the same; it is the one that reports.
            if let Err(error @ Error::OtherCluster { .. }) = self.refresh(deadline).await {
                return Err(error);
            }
        }
    }

    /// The shard of a key, reading the topology first where none is known.
    pub(crate) async fn shard_of(&self, key: &[u8], deadline: Instant) -> Result<ShardId, Error> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(shard) = self.read_routes().shard_of(key) {
                return Ok(shard);
            }
            if let Err(error) = self.refresh(deadline).await {
                if !error.is_retry_safe() || Instant::now() + pause >= deadline {
                    return Err(error);
                }
                sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    async fn attempt<M, R>(
        &self,
        address: &Address,
        cluster: Option<MetadataValue<Ascii>>,
        limit: Duration,
        message: M,
        send: &impl AsyncFn(Channel, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<Response<R>, Status> {
        let mut request = Request::new(message);
        request.set_timeout(in_whole_milliseconds(limit));
        if let Some(cluster) = cluster {
            request.metadata_mut().insert(metadata::CLUSTER, cluster);
        }
        let channel = match self.shared.channels.get(address) {
            Ok(channel) => channel,
            Err(error) => return Err(outcome::unavailable(error.to_string(), None)),
        };
        match timeout(limit, send(channel, request)).await {
            Ok(result) => result,
            Err(_) => {
                Err(Status::deadline_exceeded(format!("{address} gave no answer within {} ms", limit.as_millis())))
            }
        }
    }

    /// Reads the topology from the first node that gives one.
    async fn refresh(&self, deadline: Instant) -> Result<(), Error> {
        let Ok(mut refreshed_at) = timeout_at(deadline.into(), self.shared.refreshed_at.lock()).await else {
            return Err(nobody_asked());
        };
        if refreshed_at.is_some_and(|at| at.elapsed() < TOPOLOGY_AGE) {
            return Ok(());
        }
        let mut last = nobody_asked();
        let (addresses, cluster) = {
            let routes = self.read_routes();
            (routes.all(Instant::now()), routes.cluster_header())
        };
        for address in addresses {
            let limit = deadline.saturating_duration_since(Instant::now()).min(TOPOLOGY_TIMEOUT);
            let send = async |channel, request| ClusterClient::new(channel).topology(request).await;
            match self.attempt(&address, cluster.clone(), limit, TopologyRequest {}, &send).await {
                Ok(answer) => match self.write_routes().adopt(&address, answer.get_ref()) {
                    Ok(()) => {
                        *refreshed_at = Some(Instant::now());
                        return Ok(());
                    }
                    Err(error) => last = error,
                },
                Err(status) => {
                    last = match judge(status, Effect::Read) {
                        Verdict::TryAgain(source) => Error::Unavailable { asked: address.to_string(), source },
                        Verdict::GiveUp(error) => error,
                    }
                }
            }
            self.write_routes().avoid(&address, Instant::now());
        }
        Err(last)
    }

    fn note_failure(&self, target: Target, address: &Address, status: &Status) {
        let mut routes = self.write_routes();
        if let Target::Leader(shard) = target {
            routes.forget_leader(shard, address);
        }
        if outcome::of(status) == Outcome::Unknown || outcome::was_never_sent(status) {
            routes.avoid(address, Instant::now());
        }
    }
}

/// Decides about a failed attempt. The rule that matters: a write whose outcome is unknown is never sent again.
fn judge(status: Status, effect: Effect) -> Verdict {
    match (outcome::of(&status), effect) {
        (Outcome::Unknown, Effect::Write) => Verdict::GiveUp(Error::UnknownOutcome(status)),
        (Outcome::Unknown, Effect::Read) => match status.code() {
            Code::Unimplemented | Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated => {
                Verdict::GiveUp(Error::Rejected(status))
            }
            _ => Verdict::TryAgain(status),
        },
        (Outcome::NotApplied, _) if outcome::was_never_sent(&status) => Verdict::TryAgain(status),
        (Outcome::NotApplied, _) => match status.code() {
            Code::Unavailable => Verdict::TryAgain(status),
            Code::ResourceExhausted => Verdict::GiveUp(Error::Overloaded(status)),
            _ => Verdict::GiveUp(Error::Rejected(status)),
        },
    }
}

/// Whether a node has said why there is no answer. Time that ran out here says less.
fn is_said_by_a_node(status: &Status) -> bool {
    status.metadata().contains_key(metadata::OUTCOME)
}

/// The time limit was over before the first attempt.
fn nobody_asked() -> Error {
    Error::Unavailable {
        asked: "none".to_owned(),
        source: Status::deadline_exceeded("the time limit left none to ask"),
    }
}

/// Rounded up. Calls with one time limit then say the same, and HTTP/2 sends one byte for a header that it has seen on
/// the connection; microseconds would be a new header each time, coded, decoded and remembered by both sides.
fn in_whole_milliseconds(limit: Duration) -> Duration {
    Duration::from_millis(limit.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX))
}

/// Half to the whole of a pause, at random, so that the clients of a failed leader do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as u32;
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_outcome_ends_a_write_and_repeats_a_read() {
        for status in [outcome::unknown("no quorum"), Status::unavailable("keep-alive timed out")] {
            assert!(matches!(judge(status.clone(), Effect::Write), Verdict::GiveUp(Error::UnknownOutcome(_))));
            assert!(matches!(judge(status, Effect::Read), Verdict::TryAgain(_)));
        }
    }

    #[test]
    fn only_an_unavailable_node_is_worth_another_attempt() {
        for effect in [Effect::Read, Effect::Write] {
            let judged = |status| judge(status, effect);
            assert!(matches!(judged(outcome::unavailable("not the leader", None)), Verdict::TryAgain(_)));
            assert!(matches!(judged(outcome::overloaded("full")), Verdict::GiveUp(Error::Overloaded(_))));
            assert!(matches!(judged(outcome::invalid("empty key")), Verdict::GiveUp(Error::Rejected(_))));
            assert!(matches!(judged(outcome::other_cluster(7)), Verdict::GiveUp(Error::Rejected(_))));
        }
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
            let pause = jittered(LONGEST_PAUSE);
            assert!(pause >= LONGEST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{pause:?}");
        }
    }
}
