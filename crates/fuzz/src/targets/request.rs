//! Requests and answers between nodes ([`ringfort_core::request`]), for all operations.

use super::{entry, system};
use crate::allocation::Bound;
use crate::codec::{Codec, check, encoding};
use crate::source::Source;
use bytes::Bytes;
use ringfort_core::codec::fields::Encoded;
use ringfort_core::kv::{CommandReply, Query, QueryReply, Record};
use ringfort_core::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use ringfort_core::request::{Action, Failure, Reply, Request, decode_answer, encode_answer};
use ringfort_core::types::{NodeId, ShardId};
use ringfort_ring::ShardCount;

struct Requests;
struct Answers;

const SHARDS: ShardCount = ShardCount::MAX;

impl Codec for Requests {
    /// The shard travels beside the request.
    type Value = (ShardId, Request);
    const CANONICAL: bool = true;
    const BOUND: Bound = <system::Commands as Codec>::BOUND;

    fn draw(source: &mut Source) -> Self::Value {
        let request = match source.below(3) {
            0 => Request::command(SHARDS, entry::command(source)).ok(),
            1 => match Query::decode(source).expect("whatever is drawn is a value") {
                query if query.key().is_some() => Request::query(SHARDS, query).ok(),
                query => Request::part(ShardId(source.below(SHARDS.get() as usize) as u32), query).ok(),
            },
            _ => None,
        };
        // The drawn operation may exceed the limits.
        let request = request.unwrap_or_else(|| Request::system(system::system_command(source)));
        (request.shard(), request)
    }

    fn encode((shard, request): &Self::Value) -> Bytes {
        [&shard.0.to_le_bytes()[..], &request.encode()].concat().into()
    }

    fn decode(bytes: Bytes) -> Option<Self::Value> {
        let shard = ShardId(u32::from_le_bytes(*bytes.first_chunk()?));
        let request = Request::decode(SHARDS, shard, &bytes.slice(4..)).ok()?;
        assert_eq!(request.shard(), shard);
        check_limits(&request);
        Some((shard, request))
    }
}

/// Checks that the decoder refuses everything beyond the limits or for another shard.
fn check_limits(request: &Request) {
    let key = match request.action() {
        Action::Command(command) => {
            assert!(command.encoded_len() <= MAX_KEY_BYTES + MAX_VALUE_BYTES + 20);
            Some(command.key())
        }
        Action::Query(query) => query.key(),
        Action::System(_) => return assert_eq!(request.shard(), ShardId::SYSTEM),
    };
    assert!(request.shard().0 < SHARDS.get());
    if let Some(key) = key {
        assert!((1..=MAX_KEY_BYTES).contains(&key.len()));
        assert_eq!(SHARDS.shard_of_key(key), request.shard());
    }
}

impl Codec for Answers {
    type Value = Result<Reply, Failure>;
    const CANONICAL: bool = true;
    /// An entry of a page takes five bytes: the lengths of its key and value, and three numbers.
    const BOUND: Bound = Bound::of_elements::<(Bytes, Record)>(5);

    fn draw(source: &mut Source) -> Self::Value {
        const DRAWN: &str = "whatever is drawn is a value";
        match source.below(4) {
            0 => Ok(Reply::Command(CommandReply::decode(source).expect(DRAWN))),
            1 => Ok(Reply::Query(QueryReply::decode(source).expect(DRAWN))),
            2 => Ok(Reply::System(system::reply(source))),
            _ => {
                let leader = source.option(|source| NodeId(source.number().max(1)));
                let failures = [
                    Failure::NotLeader(leader),
                    Failure::Overloaded,
                    Failure::MemoryFull,
                    Failure::DiskFull,
                    Failure::DiskHung,
                    Failure::NotApplied,
                    Failure::Unknown,
                    Failure::NotUnderstood,
                ];
                Err(failures[source.below(failures.len())])
            }
        }
    }

    fn encode(answer: &Self::Value) -> Bytes {
        encode_answer(answer)
    }

    fn decode(bytes: Bytes) -> Option<Self::Value> {
        decode_answer(&bytes).ok()
    }
}

pub fn body(data: &[u8]) {
    let Some((&format, data)) = data.split_first() else { return };
    match format % 2 {
        0 => check::<Requests>(data),
        _ => check::<Answers>(data),
    }
}

pub fn seed(data: &[u8]) -> Bytes {
    let format = data.first().copied().unwrap_or_default() % 2;
    let encoded = match format {
        0 => encoding::<Requests>(data),
        _ => encoding::<Answers>(data),
    };
    [&[format], &encoded[..]].concat().into()
}
