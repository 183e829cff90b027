//! Requests and answers, between the core's types and the wire's: for clients, and for nodes that forward.
//!
//! A request that comes from outside is held to the limits here, before anything else happens to it.

use bytes::Bytes;
use ringfort_core::command::Command;
use ringfort_core::kv::state::{Applied, Record, ScanPage};
use ringfort_core::limits::{MAX_KEY_BYTES, MAX_SCAN_ENTRIES, MAX_VALUE_BYTES};
use ringfort_core::replica::{Failure, Query, QueryReply, Reply, Write};
use ringfort_core::system::{SystemCommand, SystemReply};
use ringfort_core::time::Stamp;
use ringfort_core::types::NodeId;
use ringfort_core::worker::Request;
use ringfort_proto::v1::{self, forward::Op, forward_reply::Result as WireResult};

/// Why a request is wrong: a retry would be, too.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the key is empty")]
    EmptyKey,
    #[error("the key has {0} bytes, the limit is {MAX_KEY_BYTES}")]
    LongKey(usize),
    #[error("the value has {0} bytes, the limit is {MAX_VALUE_BYTES}")]
    LargeValue(usize),
    #[error("the request is of a kind that this node does not know")]
    Unknown,
}

/// A key within the limits.
pub fn check_key(key: Bytes) -> Result<Bytes, Invalid> {
    match key.len() {
        0 => Err(Invalid::EmptyKey),
        length if length > MAX_KEY_BYTES => Err(Invalid::LongKey(length)),
        _ => Ok(key),
    }
}

pub fn put(put: v1::PutRequest) -> Result<Request, Invalid> {
    let key = check_key(put.key)?;
    match put.value.len() {
        length if length > MAX_VALUE_BYTES => Err(Invalid::LargeValue(length)),
        _ => Ok(Request::Write(Write::Kv(Command::Put { key, value: put.value }))),
    }
}

pub fn delete(delete: v1::DeleteRequest) -> Result<Request, Invalid> {
    Ok(Request::Write(Write::Kv(Command::Delete { key: check_key(delete.key)? })))
}

pub fn get(get: v1::GetRequest) -> Result<Query, Invalid> {
    Ok(Query::Get { key: check_key(get.key)? })
}

pub fn scan(scan: v1::ScanRequest) -> Result<Query, Invalid> {
    let longest = scan.prefix.len().max(scan.start_after.len()).max(scan.up_to.len());
    if longest > MAX_KEY_BYTES {
        return Err(Invalid::LongKey(longest));
    }
    let limit = if scan.limit == 0 { MAX_SCAN_ENTRIES } else { scan.limit as usize };
    let given = |key: Bytes| (!key.is_empty()).then_some(key);
    let (start_after, up_to) = (given(scan.start_after), given(scan.up_to));
    Ok(Query::Scan { prefix: scan.prefix, start_after, up_to, limit: limit.min(MAX_SCAN_ENTRIES) })
}

/// The bytes that a request brings, for the bounds of queues.
pub fn size_bytes(request: &Request) -> usize {
    match request {
        Request::Write(Write::Kv(command)) => command.encoded_len(),
        Request::Read(Query::Get { key }) => key.len(),
        Request::Read(Query::Scan { prefix, start_after, up_to, .. }) => {
            let bounds = start_after.iter().chain(up_to);
            prefix.len() + bounds.map(Bytes::len).sum::<usize>()
        }
        Request::Write(Write::System(_)) => 0,
    }
}

/// A request as it is forwarded.
pub fn to_wire(request: Request) -> Op {
    match request {
        Request::Write(Write::Kv(Command::Put { key, value })) => {
            Op::Put(v1::PutRequest { key, value, ..Default::default() })
        }
        Request::Write(Write::Kv(Command::Delete { key })) => {
            Op::Delete(v1::DeleteRequest { key, ..Default::default() })
        }
        // The leader gives the entry its stamp.
        Request::Write(Write::System(command)) => Op::System(command.encode(Stamp::default())),
        Request::Read(Query::Get { key }) => Op::Get(v1::GetRequest { key, consistency: 0 }),
        Request::Read(Query::Scan { prefix, start_after, up_to, limit }) => Op::Scan(v1::ScanRequest {
            prefix,
            start_after: start_after.unwrap_or_default(),
            up_to: up_to.unwrap_or_default(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            consistency: 0,
        }),
    }
}

/// A request that another node forwards.
pub fn from_wire(op: Op) -> Result<Request, Invalid> {
    match op {
        Op::Put(message) => put(message),
        Op::Delete(message) => delete(message),
        Op::Get(message) => get(message).map(Request::Read),
        Op::Scan(message) => scan(message).map(Request::Read),
        Op::System(bytes) => match SystemCommand::decode(&bytes) {
            Ok((_, command)) => Ok(Request::Write(Write::System(command))),
            Err(_) => Err(Invalid::Unknown),
        },
    }
}

/// An answer for the node that forwarded the request.
pub fn answer_to_wire(answer: Result<Reply, Failure>) -> WireResult {
    let failure = |kind: v1::FailureKind, leader: Option<NodeId>| {
        let leader = leader.map_or(0, |node| node.0);
        WireResult::Failure(v1::Failure { kind: kind.into(), leader, ..Default::default() })
    };
    match answer {
        Ok(Reply::Applied(Applied::Put { version, revision, .. })) => {
            WireResult::Put(v1::PutResponse { version, revision })
        }
        Ok(Reply::Applied(Applied::Deleted { existed, revision })) => {
            WireResult::Delete(v1::DeleteResponse { found: existed, revision })
        }
        Ok(Reply::Query(QueryReply::Get(record))) => WireResult::Get(get_response(record)),
        Ok(Reply::Query(QueryReply::Scan(page))) => WireResult::Scan(scan_response(page)),
        Ok(Reply::System(reply)) => WireResult::System(reply.encode()),
        // Another node can't use a confirmation, and has to ask again.
        Ok(Reply::Confirmed) => failure(v1::FailureKind::NotLeader, None),
        Err(Failure::NotLeader(leader)) => failure(v1::FailureKind::NotLeader, leader),
        Err(Failure::Overloaded) => failure(v1::FailureKind::Overloaded, None),
        Err(Failure::MemoryFull) => failure(v1::FailureKind::MemoryFull, None),
        Err(Failure::DiskFull) => failure(v1::FailureKind::DiskFull, None),
        Err(Failure::DiskHung) => failure(v1::FailureKind::DiskHung, None),
        Err(Failure::NotApplied) => failure(v1::FailureKind::NotApplied, None),
        Err(Failure::Unknown) => failure(v1::FailureKind::Timeout, None),
    }
}

/// An answer of the node that a request was forwarded to. What can't be understood says nothing about the outcome.
pub fn answer_from_wire(result: WireResult) -> Result<Reply, Failure> {
    match result {
        WireResult::Put(v1::PutResponse { version, revision }) => {
            Ok(Reply::Applied(Applied::Put { version, revision, existed: version > 1 }))
        }
        WireResult::Delete(v1::DeleteResponse { found, revision }) => {
            Ok(Reply::Applied(Applied::Deleted { existed: found, revision }))
        }
        WireResult::Get(get) => Ok(Reply::Query(QueryReply::Get(get.found.then_some(Record {
            value: get.value,
            version: get.version,
            create_revision: get.create_revision,
            modify_revision: get.modify_revision,
        })))),
        WireResult::Scan(v1::ScanResponse { entries, more }) => {
            let entries = entries.into_iter().map(|entry| {
                let v1::Entry { key, value, version, create_revision, modify_revision } = entry;
                (key, Record { value, version, create_revision, modify_revision })
            });
            Ok(Reply::Query(QueryReply::Scan(ScanPage { entries: entries.collect(), more })))
        }
        WireResult::System(bytes) => SystemReply::decode(&bytes).map(Reply::System).map_err(|_| Failure::Unknown),
        WireResult::Failure(failure) => Err(match failure.kind() {
            v1::FailureKind::NotLeader => Failure::NotLeader((failure.leader != 0).then_some(NodeId(failure.leader))),
            v1::FailureKind::Overloaded => Failure::Overloaded,
            v1::FailureKind::MemoryFull => Failure::MemoryFull,
            v1::FailureKind::DiskFull => Failure::DiskFull,
            v1::FailureKind::DiskHung => Failure::DiskHung,
            v1::FailureKind::NotApplied => Failure::NotApplied,
            v1::FailureKind::Timeout => Failure::Unknown,
            // Nothing was applied, and another node may do better.
            v1::FailureKind::Invalid | v1::FailureKind::Unservable => Failure::NotLeader(None),
        }),
    }
}

/// The answer to a put; none where it is an answer to something else.
pub fn put_response(reply: &Reply) -> Option<v1::PutResponse> {
    match *reply {
        Reply::Applied(Applied::Put { version, revision, .. }) => Some(v1::PutResponse { version, revision }),
        _ => None,
    }
}

/// The answer to a delete; none where it is an answer to something else.
pub fn delete_response(reply: &Reply) -> Option<v1::DeleteResponse> {
    match *reply {
        Reply::Applied(Applied::Deleted { existed, revision }) => Some(v1::DeleteResponse { found: existed, revision }),
        _ => None,
    }
}

pub fn get_response(record: Option<Record>) -> v1::GetResponse {
    record.map_or_else(v1::GetResponse::default, |record| v1::GetResponse {
        value: record.value,
        found: true,
        version: record.version,
        create_revision: record.create_revision,
        modify_revision: record.modify_revision,
    })
}

pub fn scan_response(page: ScanPage) -> v1::ScanResponse {
    let entries = page.entries.into_iter().map(|(key, record)| {
        let Record { value, version, create_revision, modify_revision } = record;
        v1::Entry { key, value, version, create_revision, modify_revision }
    });
    v1::ScanResponse { entries: entries.collect(), more: page.more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_forwarding() {
        let key = Bytes::from("k");
        let requests = [
            Request::Write(Write::Kv(Command::Put { key: key.clone(), value: "v".into() })),
            Request::Write(Write::Kv(Command::Delete { key: key.clone() })),
            Request::Read(Query::Get { key: key.clone() }),
            Request::Read(Query::Scan {
                prefix: key.clone(),
                start_after: Some(key.clone()),
                up_to: Some(key),
                limit: 7,
            }),
        ];
        for request in requests {
            assert_eq!(from_wire(to_wire(request.clone())), Ok(request));
        }
    }

    #[test]
    fn answers_survive_forwarding() {
        let record = Record { value: "v".into(), version: 2, create_revision: 3, modify_revision: 4 };
        let page = ScanPage { entries: vec![("k".into(), record.clone())], more: true };
        let answers = [
            Ok(Reply::Applied(Applied::Put { version: 2, revision: 5, existed: true })),
            Ok(Reply::Applied(Applied::Deleted { existed: true, revision: 5 })),
            Ok(Reply::Query(QueryReply::Get(Some(record)))),
            Ok(Reply::Query(QueryReply::Get(None))),
            Ok(Reply::Query(QueryReply::Scan(page))),
            Ok(Reply::System(SystemReply::Joined { node: NodeId(3), epoch: ringfort_core::types::Epoch(9) })),
            Err(Failure::NotLeader(Some(NodeId(2)))),
            Err(Failure::NotLeader(None)),
            Err(Failure::Overloaded),
            Err(Failure::MemoryFull),
            Err(Failure::DiskFull),
            Err(Failure::DiskHung),
            Err(Failure::NotApplied),
            Err(Failure::Unknown),
        ];
        for answer in answers {
            assert_eq!(answer_from_wire(answer_to_wire(answer.clone())), answer);
        }
    }

    #[test]
    fn requests_beyond_the_limits_are_refused() {
        let long = Bytes::from(vec![0; MAX_KEY_BYTES + 1]);
        let large = Bytes::from(vec![0; MAX_VALUE_BYTES + 1]);
        assert_eq!(put(v1::PutRequest::default()), Err(Invalid::EmptyKey));
        assert_eq!(get(v1::GetRequest { key: long.clone(), consistency: 0 }), Err(Invalid::LongKey(long.len())));
        let size = large.len();
        assert_eq!(
            put(v1::PutRequest { key: "k".into(), value: large, consistency: 0 }),
            Err(Invalid::LargeValue(size))
        );
    }
}
