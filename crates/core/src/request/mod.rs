//! Requests to a shard, and their answers.
//!
//! **A [`Request`] knows its shard.** A command goes to the shard of its key, a command for the cluster itself to the
//! system shard. Shard and action are built and checked together, so a request for the wrong shard, or with a key
//! beyond the limits, cannot be built. A replica refuses an action for the other kind of shard all the same, and the
//! entries of the two kinds begin with different bytes: a single mistake can't apply an entry to the wrong kind of
//! shard.
//!
//! **A [`Reply`] has the kind that was asked for**, and [`Reply::to`] restores its type. A [`Failure`] says whether
//! anything may have changed ([`Failure::attempt`]). If so, the request may be sent again only if its action
//! [repeats](Request::repeats).
//!
//! **Attempts.** A request may need several attempts. A [`Route`] is what a node knows of the shard's leader, and an
//! [`Execution`] decides where each attempt goes.
//!
//! **Forwarding.** Nodes exchange requests and answers in this module's encoding ([`Request::encode`],
//! [`encode_answer`]): every field is preserved, and links do not know the operations. The shard is sent next to the
//! request, and the receiver checks that they match.
//!
//! | first byte of a request | what follows |
//! |---|---|
//! | `01` | a [`Command`] |
//! | `02` | a [`Query`] |
//! | `03` | a [`SystemCommand`], as in an entry, with the timestamp 0; the leader gives it one |

mod answer;
mod execution;
mod route;

pub use answer::{AnswerError, Failure, Replies, Reply, decode_answer, encode_answer};
pub use execution::{Execution, LEADER_CHECK};
pub use route::Route;

use crate::codec::CodecError;
use crate::codec::fields::{Encoded, Fields, Source};
use crate::kv::{Command, Invalid, Query};
use crate::system::{self, SystemCommand};
use crate::time::HlcTimestamp;
use crate::types::ShardId;
use bytes::Bytes;
use ringfort_ring::ShardCount;

// The first byte of a request, and of the reply to it.
const COMMAND: u8 = 1;
const QUERY: u8 = 2;
const SYSTEM: u8 = 3;

/// The timestamp of a system command that is not in an entry yet.
const NO_TIMESTAMP: HlcTimestamp = HlcTimestamp(0);

/// A request to one shard.
///
/// Invariants: the action is of the shard's kind; its key, if it has one, belongs to the shard; its fields keep the
/// limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    shard: ShardId,
    action: Action,
}

// Requests are moved at every step of a call, so they must be small.
const _: () = assert!(size_of::<Request>() <= 128);

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Command(Command),
    Query(Query),
    /// Boxed, because it is large and rare, and every request is moved many times.
    System(Box<SystemCommand>),
}

/// Why a forwarded request is refused. Nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the action does not belong to the shard that it was sent to")]
    OtherShard,
    #[error("the command has a timestamp already, which only the leader may set")]
    HasTimestamp,
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Malformed(#[from] CodecError),
    #[error(transparent)]
    System(#[from] system::DecodeError),
}

impl Request {
    /// A command, for the shard of its key.
    pub fn command(shards: ShardCount, command: impl Into<Command>) -> Result<Request, Invalid> {
        let command = command.into();
        command.check()?;
        Ok(Request { shard: shards.shard_of_key(command.key()), action: Action::Command(command) })
    }

    /// A query that names a key, for the shard of that key.
    ///
    /// # Panics
    /// If the query names no key: send each shard its [part](Request::part).
    pub fn query(shards: ShardCount, query: impl Into<Query>) -> Result<Request, Invalid> {
        let query = query.into();
        query.check()?;
        let key = query.key().expect("a query without a key is asked of each shard by itself");
        Ok(Request { shard: shards.shard_of_key(key), action: Action::Query(query) })
    }

    /// One shard's part of a query that goes to each shard separately.
    ///
    /// # Panics
    /// If the query names a key, or the shard has none.
    pub fn part(shard: ShardId, query: impl Into<Query>) -> Result<Request, Invalid> {
        let query = query.into();
        query.check()?;
        assert!(query.key().is_none() && has_keys(shard), "{query:?} is not asked of shard {shard}");
        Ok(Request { shard, action: Action::Query(query) })
    }

    /// A command for the cluster itself.
    pub fn system(command: SystemCommand) -> Request {
        Request { shard: ShardId::SYSTEM, action: Action::System(Box::new(command)) }
    }

    pub fn shard(&self) -> ShardId {
        self.shard
    }

    pub fn action(&self) -> &Action {
        &self.action
    }

    pub fn into_action(self) -> Action {
        self.action
    }

    /// The query, if the request is one. Any replica that may serve the read can answer it.
    pub fn as_query(&self) -> Option<&Query> {
        match &self.action {
            Action::Query(query) => Some(query),
            Action::Command(_) | Action::System(_) => None,
        }
    }

    /// Whether it is safe to retry when its outcome is unknown.
    pub fn repeats(&self) -> bool {
        match &self.action {
            Action::Command(command) => command.repeats(),
            Action::Query(query) => query.repeats(),
            Action::System(_) => false,
        }
    }

    /// Its size, for the bounds of queues.
    pub fn size_bytes(&self) -> usize {
        match &self.action {
            Action::Command(command) => command.encoded_len(),
            Action::Query(query) => query.encoded_len(),
            // They are few, and made by nodes.
            Action::System(_) => 0,
        }
    }

    /// Encodes the request for another node, without its shard.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(1 + self.size_bytes());
        match &self.action {
            Action::Command(command) => {
                out.push(COMMAND);
                command.encode(&mut out);
            }
            Action::Query(query) => {
                out.push(QUERY);
                query.encode(&mut out);
            }
            Action::System(command) => {
                out.push(SYSTEM);
                out.extend_from_slice(&command.encode(NO_TIMESTAMP));
            }
        }
        out.into()
    }

    /// Reads what [`Request::encode`] wrote, sent to `shard` of a cluster with `shards` shards. Keys and values share
    /// the memory of `bytes`.
    pub fn decode(shards: ShardCount, shard: ShardId, bytes: &Bytes) -> Result<Request, RequestError> {
        let mut fields = Fields::new(bytes);
        let request = match fields.code(&[COMMAND, QUERY, SYSTEM])? {
            COMMAND => Request::command(shards, Command::decode(&mut fields)?)?,
            QUERY => match Query::decode(&mut fields)? {
                query if query.key().is_some() => Request::query(shards, query)?,
                query if shard.0 < shards.get() => Request::part(shard, query)?,
                _ => return Err(RequestError::OtherShard),
            },
            _ => {
                let (timestamp, command) = SystemCommand::decode(&fields.rest())?;
                return match shard {
                    _ if timestamp != NO_TIMESTAMP => Err(RequestError::HasTimestamp),
                    ShardId::SYSTEM => Ok(Request::system(command)),
                    _ => Err(RequestError::OtherShard),
                };
            }
        };
        fields.expect_end()?;
        if request.shard != shard {
            return Err(RequestError::OtherShard);
        }
        Ok(request)
    }

    /// A request that breaks the invariants, for tests that it is refused.
    #[cfg(test)]
    pub(crate) fn forged(shard: ShardId, action: Action) -> Request {
        Request { shard, action }
    }
}

fn has_keys(shard: ShardId) -> bool {
    shard.0 < ShardCount::MAX.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Append, Delete, Get, Increment, Put, Scan};
    use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
    use crate::types::NodeId;

    const SHARDS: ShardCount = ShardCount::MAX;

    fn requests() -> Vec<Request> {
        let key = Bytes::from("k");
        let scan = Scan { prefix: key.clone(), start_after: Some(key.clone()), up_to: Some("k2".into()), limit: 300 };
        vec![
            Request::command(SHARDS, Put { key: key.clone(), value: "value".into() }).unwrap(),
            Request::command(SHARDS, Delete { key: key.clone() }).unwrap(),
            Request::command(SHARDS, Increment { key: key.clone(), by: 300 }).unwrap(),
            Request::command(SHARDS, Increment { key: key.clone(), by: -1 }).unwrap(),
            Request::command(SHARDS, Append { key: key.clone(), bytes: "value".into() }).unwrap(),
            Request::query(SHARDS, Get { key }).unwrap(),
            Request::part(ShardId(3), scan).unwrap(),
            Request::system(SystemCommand::Remove { node: NodeId(7) }),
        ]
    }

    #[test]
    fn encodings_are_pinned() {
        let encoded: Vec<Bytes> = requests().iter().map(Request::encode).collect();
        assert_eq!(
            encoded.iter().map(|bytes| &bytes[..]).collect::<Vec<_>>(),
            [
                &b"\x01\x01\x01k\x05value"[..],
                b"\x01\x02\x01k",
                b"\x01\x03\x01k\xac\x02",
                b"\x01\x03\x01k\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                b"\x01\x04\x01k\x05value",
                b"\x02\x01\x01k",
                b"\x02\x02\x01k\x01\x01k\x01\x02k2\xac\x02",
                b"\x03\x01\x00\x06\x07",
            ]
        );
    }

    #[test]
    fn requests_survive_forwarding_and_are_refused_by_other_shards() {
        for request in requests() {
            let bytes = request.encode();
            assert_eq!(Request::decode(SHARDS, request.shard(), &bytes).unwrap(), request);
            let others = [ShardId::SYSTEM, ShardId::EVENTUAL, ShardId(request.shard().0 ^ 1)];
            let is_part = request.as_query().is_some_and(|query| query.key().is_none());
            for other in others.into_iter().filter(|other| *other != request.shard()) {
                // Any shard that has keys may be asked for its part.
                let is_refused = Request::decode(SHARDS, other, &bytes).is_err();
                assert_eq!(is_refused, !(is_part && has_keys(other)), "{request:?} at shard {other}");
            }
            for length in 0..bytes.len() {
                assert!(Request::decode(SHARDS, request.shard(), &bytes.slice(..length)).is_err());
            }
            let longer = Bytes::from([&bytes[..], &[0]].concat());
            assert!(Request::decode(SHARDS, request.shard(), &longer).is_err());
        }
    }

    #[test]
    fn a_stamp_comes_from_the_leader_alone() {
        let stamped = Bytes::from_static(b"\x03\x01\x01\x06\x07");
        assert!(matches!(Request::decode(SHARDS, ShardId::SYSTEM, &stamped), Err(RequestError::HasTimestamp)));
    }

    #[test]
    fn what_is_read_shares_the_received_memory() {
        let bytes = Request::command(SHARDS, Put { key: "k".into(), value: "value".into() }).unwrap().encode();
        let read = Request::decode(SHARDS, SHARDS.shard_of_key(b"k"), &bytes).unwrap();
        let Action::Command(Command::Put(put)) = read.into_action() else { panic!("a put was encoded") };
        assert!([&put.key, &put.value].iter().all(|slice| bytes.as_ptr_range().contains(&slice.as_ptr())));
    }

    #[test]
    fn requests_beyond_the_limits_cannot_be_built() {
        let long = Bytes::from(vec![0; MAX_KEY_BYTES + 1]);
        let large = Bytes::from(vec![0; MAX_VALUE_BYTES + 1]);
        let put = |key: &Bytes, value: &Bytes| Request::command(SHARDS, Put { key: key.clone(), value: value.clone() });
        let key = Bytes::from("k");
        assert_eq!(put(&Bytes::new(), &key), Err(Invalid::EmptyKey));
        assert_eq!(put(&long, &key), Err(Invalid::LongKey(MAX_KEY_BYTES + 1)));
        assert_eq!(put(&key, &large), Err(Invalid::LargeValue(MAX_VALUE_BYTES + 1)));
        assert_eq!(Request::command(SHARDS, Delete { key: long.clone() }), Err(Invalid::LongKey(MAX_KEY_BYTES + 1)));
        assert_eq!(Request::query(SHARDS, Get { key: Bytes::new() }), Err(Invalid::EmptyKey));
        let scan = Scan { prefix: Bytes::new(), start_after: None, up_to: Some(long), limit: 1 };
        assert_eq!(Request::part(ShardId(0), scan), Err(Invalid::LongKey(MAX_KEY_BYTES + 1)));
    }

    #[test]
    fn reads_repeat_and_writes_do_not() {
        let repeats: Vec<bool> = requests().iter().map(Request::repeats).collect();
        assert_eq!(repeats, [false, false, false, false, false, true, true, false]);
    }
}
