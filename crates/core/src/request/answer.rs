//! The answer to a request: a reply, or a failure.
//!
//! | first byte of an answer | what follows |
//! |---|---|
//! | `01` | a [`CommandReply`] |
//! | `02` | a [`QueryReply`] |
//! | `03` | a [`SystemReply`] |
//! | `04` | a byte for the [`Failure`]; after `01`, the node that leads, or 0 |

use super::{COMMAND, QUERY, SYSTEM};
use crate::codec::CodecError;
use crate::codec::fields::{Encoded, Fields, Sink, Source};
use crate::kv::op::Listed;
use crate::kv::{CommandReply, QueryReply};
use crate::system::{self, SystemReply};
use crate::types::NodeId;
use bytes::Bytes;
use ringfort_retry::Attempt;

/// A reply has the first byte of its request; this one is distinct from those.
const FAILURE: u8 = 4;

const NOT_LEADER: u8 = 1;
const OVERLOADED: u8 = 2;
const MEMORY_FULL: u8 = 3;
const DISK_FULL: u8 = 4;
const DISK_HUNG: u8 = 5;
const NOT_APPLIED: u8 = 6;
const UNKNOWN: u8 = 7;
const NOT_UNDERSTOOD: u8 = 8;

/// The answer to a request that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Command(CommandReply),
    Query(QueryReply),
    /// Confirms a query whose reply takes long to collect, which the worker does not do. From now on
    /// [`ShardView::read_confirmed`](crate::view::ShardView::read_confirmed) answers the query linearizably, on the
    /// view that was taken before the request. This reply never leaves the node.
    Confirmed,
    System(SystemReply),
}

impl Reply {
    /// The reply to an operation of this type; `None` if it is the reply to another type.
    pub fn to<O: Listed<Replies: Replies>>(self) -> Option<O::Reply> {
        O::reply(Replies::of(self)?)
    }
}

/// The enum of all replies to commands, or of all replies to queries.
pub trait Replies: Sized {
    fn of(reply: Reply) -> Option<Self>;
}

impl Replies for CommandReply {
    fn of(reply: Reply) -> Option<CommandReply> {
        match reply {
            Reply::Command(reply) => Some(reply),
            Reply::Query(_) | Reply::Confirmed | Reply::System(_) => None,
        }
    }
}

impl Replies for QueryReply {
    fn of(reply: Reply) -> Option<QueryReply> {
        match reply {
            Reply::Query(reply) => Some(reply),
            Reply::Command(_) | Reply::Confirmed | Reply::System(_) => None,
        }
    }
}

/// Why a request has no answer. [`Failure::attempt`] says whether something may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Another node leads this shard, or no node does, as far as this node knows.
    #[error("not the leader of this shard")]
    NotLeader(Option<NodeId>),
    /// Too many requests wait here: refused before the proposal.
    #[error("too many requests are waiting for this shard; retry later")]
    Overloaded,
    /// The memory of the leader's node is full: refused before the proposal. Deletes are accepted.
    #[error("the memory of the node that leads this shard is full; delete some keys, or raise its --max-memory")]
    MemoryFull,
    /// The disk of the leader's node is full: refused before the proposal.
    #[error("the disk of the node that leads this shard is full; free some space there")]
    DiskFull,
    /// The disk of the leader's node does not answer, and the node is handing its leaderships over: refused before the
    /// proposal. Safe to retry until another node leads.
    #[error(
        "the disk of the node that leads this shard does not answer, and no other node can lead it; check that disk, \
         or stop the node"
    )]
    DiskHung,
    /// The proposal was overwritten by another leader's entry and will never be applied.
    #[error("the leader changed before the write was committed; it was not applied")]
    NotApplied,
    /// The write may or may not be applied.
    #[error("it is not known whether the write was applied")]
    Unknown,
    /// The receiving node can't decode the request: refused before the proposal.
    #[error("the node that leads this shard does not know this request; upgrade that node")]
    NotUnderstood,
}

impl Failure {
    /// The outcome of an attempt that was sent to `asked` and failed in this way.
    pub fn attempt(self, asked: Option<NodeId>) -> Attempt {
        match self {
            Failure::NotLeader(Some(leader)) if Some(leader) != asked => Attempt::Redirected,
            // Another node takes over from one whose disk hangs, if it can.
            Failure::NotLeader(_) | Failure::NotApplied | Failure::DiskHung => Attempt::NotApplied,
            Failure::Overloaded | Failure::MemoryFull | Failure::DiskFull | Failure::NotUnderstood => Attempt::Refused,
            Failure::Unknown => Attempt::Unknown,
        }
    }

    /// The leader that it names.
    pub fn leader(self) -> Option<NodeId> {
        match self {
            Failure::NotLeader(leader) => leader,
            _ => None,
        }
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.byte(match self {
            Failure::NotLeader(_) => NOT_LEADER,
            Failure::Overloaded => OVERLOADED,
            Failure::MemoryFull => MEMORY_FULL,
            Failure::DiskFull => DISK_FULL,
            Failure::DiskHung => DISK_HUNG,
            Failure::NotApplied => NOT_APPLIED,
            Failure::Unknown => UNKNOWN,
            Failure::NotUnderstood => NOT_UNDERSTOOD,
        });
        if let Failure::NotLeader(leader) = self {
            out.number(leader.map_or(0, |node| node.0));
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Failure, CodecError> {
        Ok(match fields.byte()? {
            NOT_LEADER => Failure::NotLeader(Some(NodeId(fields.number()?)).filter(|node| node.0 != 0)),
            OVERLOADED => Failure::Overloaded,
            MEMORY_FULL => Failure::MemoryFull,
            DISK_FULL => Failure::DiskFull,
            DISK_HUNG => Failure::DiskHung,
            NOT_APPLIED => Failure::NotApplied,
            UNKNOWN => Failure::Unknown,
            NOT_UNDERSTOOD => Failure::NotUnderstood,
            unknown => return Err(CodecError::UnknownCode(unknown)),
        })
    }
}

/// Encodes an answer for the node that forwarded the request.
pub fn encode_answer(answer: &Result<Reply, Failure>) -> Bytes {
    let mut out = Vec::new();
    match answer {
        Ok(Reply::Command(reply)) => {
            out.byte(COMMAND);
            reply.encode(&mut out);
        }
        Ok(Reply::Query(reply)) => {
            out.reserve_exact(1 + reply.encoded_len());
            out.byte(QUERY);
            reply.encode(&mut out);
        }
        Ok(Reply::System(reply)) => {
            out.byte(SYSTEM);
            out.extend_from_slice(&reply.encode());
        }
        // Another node can't use a confirmation and must retry.
        Ok(Reply::Confirmed) => return encode_answer(&Err(Failure::NotLeader(None))),
        Err(failure) => {
            out.byte(FAILURE);
            failure.encode(&mut out);
        }
    }
    out.into()
}

/// Decodes the answer of the node that a request was forwarded to. If it can't be read, the outcome is unknown.
pub fn decode_answer(bytes: &Bytes) -> Result<Result<Reply, Failure>, AnswerError> {
    let mut fields = Fields::new(bytes);
    let answer = match fields.code(&[COMMAND, QUERY, SYSTEM, FAILURE])? {
        COMMAND => Ok(Reply::Command(CommandReply::decode(&mut fields)?)),
        QUERY => Ok(Reply::Query(QueryReply::decode(&mut fields)?)),
        SYSTEM => return Ok(Ok(Reply::System(SystemReply::decode(&fields.rest())?))),
        _ => Err(Failure::decode(&mut fields)?),
    };
    fields.expect_end()?;
    Ok(answer)
}

/// Why bytes are not a valid answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Malformed(#[from] CodecError),
    #[error(transparent)]
    System(#[from] system::DecodeError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{AppendReply, Delete, DeleteReply, Get, IncrementReply, Put, PutReply, Record, Refusal, ScanPage};
    use crate::types::Epoch;

    fn record() -> Record {
        Record { value: "v".into(), version: 2, create_revision: 3, modify_revision: 4 }
    }

    #[test]
    fn answers_survive_forwarding_with_every_field() {
        let page = ScanPage { entries: vec![("k".into(), record())], more: true };
        let answers = [
            Ok(Reply::Command(CommandReply::Put(PutReply { version: 2, revision: 300 }))),
            Ok(Reply::Command(CommandReply::Delete(DeleteReply { existed: true, revision: 5 }))),
            Ok(Reply::Command(CommandReply::Increment(IncrementReply { number: -7, version: 2, revision: 5 }))),
            Ok(Reply::Command(CommandReply::Append(AppendReply { length_bytes: 300, version: 2, revision: 5 }))),
            Ok(Reply::Command(CommandReply::Refused(Refusal::NotANumber))),
            Ok(Reply::Command(CommandReply::Refused(Refusal::Overflow))),
            Ok(Reply::Command(CommandReply::Refused(Refusal::LargeValue))),
            Ok(Reply::Query(QueryReply::Get(Some(record())))),
            Ok(Reply::Query(QueryReply::Get(None))),
            Ok(Reply::Query(QueryReply::Scan(page))),
            Ok(Reply::System(SystemReply::Joined { node: NodeId(3), epoch: Epoch(9) })),
            Err(Failure::NotLeader(Some(NodeId(300)))),
            Err(Failure::NotLeader(None)),
            Err(Failure::Overloaded),
            Err(Failure::MemoryFull),
            Err(Failure::DiskFull),
            Err(Failure::DiskHung),
            Err(Failure::NotApplied),
            Err(Failure::Unknown),
            Err(Failure::NotUnderstood),
        ];
        for answer in answers {
            let bytes = encode_answer(&answer);
            assert_eq!(decode_answer(&bytes).unwrap(), answer);
            for length in 0..bytes.len() {
                assert!(decode_answer(&bytes.slice(..length)).is_err(), "cut off at {length}");
            }
        }
        assert_eq!(decode_answer(&encode_answer(&Ok(Reply::Confirmed))).unwrap(), Err(Failure::NotLeader(None)));
    }

    #[test]
    fn encodings_are_pinned() {
        let reply = |reply| encode_answer(&Ok(reply));
        let put = PutReply { version: 2, revision: 300 };
        assert_eq!(&reply(Reply::Command(CommandReply::Put(put)))[..], b"\x01\x01\x02\xac\x02");
        let increment = IncrementReply { number: 300, version: 2, revision: 5 };
        assert_eq!(&reply(Reply::Command(CommandReply::Increment(increment)))[..], b"\x01\x03\xac\x02\x02\x05");
        let append = AppendReply { length_bytes: 300, version: 2, revision: 5 };
        assert_eq!(&reply(Reply::Command(CommandReply::Append(append)))[..], b"\x01\x04\xac\x02\x02\x05");
        assert_eq!(&reply(Reply::Command(CommandReply::Refused(Refusal::NotANumber)))[..], b"\x01\x00\x01");
        assert_eq!(&reply(Reply::Command(CommandReply::Refused(Refusal::Overflow)))[..], b"\x01\x00\x02");
        assert_eq!(&reply(Reply::Command(CommandReply::Refused(Refusal::LargeValue)))[..], b"\x01\x00\x03");
        assert_eq!(&reply(Reply::Query(QueryReply::Get(Some(record()))))[..], b"\x02\x01\x01\x02\x03\x04\x01v");
        let page = ScanPage { entries: vec![("k".into(), record())], more: true };
        assert_eq!(&reply(Reply::Query(QueryReply::Scan(page)))[..], b"\x02\x02\x01\x01\x01k\x02\x03\x04\x01v");
        assert_eq!(&encode_answer(&Err(Failure::NotLeader(Some(NodeId(3)))))[..], b"\x04\x01\x03");
        assert_eq!(&encode_answer(&Err(Failure::Unknown))[..], b"\x04\x07");
        assert_eq!(&encode_answer(&Err(Failure::NotUnderstood))[..], b"\x04\x08");
    }

    #[test]
    fn a_reply_gets_its_type_back_or_is_another_operations() {
        let put = PutReply { version: 1, revision: 1 };
        let reply = Reply::Command(CommandReply::Put(put));
        assert_eq!(reply.clone().to::<Put>(), Some(put));
        assert_eq!(reply.clone().to::<Delete>(), None);
        assert_eq!(reply.to::<Get>(), None);
    }
}
