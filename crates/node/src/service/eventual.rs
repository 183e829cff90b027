//! Calls for the eventual keyspace. This node answers them by itself, even if it reaches no other node.
//!
//! Replies have timestamps in place of revisions, and 0 for the numbers that only a shard's log can count: versions and
//! create revisions.

use super::{CallError, Operation, Service};
use crate::events::GossipEvent;
use bytes::Bytes;
use ringfort_core::eventual::Written;
use ringfort_core::eventual::keyspace::Found;
use ringfort_core::kv::{Command, CommandReply, DeleteReply, PutReply, Query, QueryReply, Record, Scan, ScanPage};
use ringfort_core::request::Reply;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

pub async fn carry_out(service: &Service, operation: Operation, deadline: Instant) -> Result<Reply, CallError> {
    match operation {
        Operation::Command(command) => {
            command.check()?;
            change(service, command, deadline).await
        }
        Operation::Query(query) => {
            query.check()?;
            read(service, query).await
        }
    }
}

async fn change(service: &Service, command: Command, deadline: Instant) -> Result<Reply, CallError> {
    let reply = match command {
        Command::Put(put) => {
            let Written { timestamp, .. } = write(service, put.key, Some(put.value), deadline).await?;
            CommandReply::Put(PutReply { version: 0, revision: timestamp.0 })
        }
        Command::Delete(delete) => {
            let Written { timestamp, existed } = write(service, delete.key, None, deadline).await?;
            CommandReply::Delete(DeleteReply { existed, revision: timestamp.0 })
        }
        #[allow(unreachable_patterns, reason = "an operation that depends on the old value has no place here")]
        command => return Err(CallError::NotEventual(command.kind().name())),
    };
    Ok(Reply::Command(reply))
}

async fn read(service: &Service, query: Query) -> Result<Reply, CallError> {
    let reply = match query {
        Query::Get(get) => {
            let found = ask(service, |answer| GossipEvent::Get { key: get.key, answer }).await?;
            QueryReply::Get(found.map(record))
        }
        Query::Scan(query) => QueryReply::Scan(scan(service, query).await?),
        #[allow(unreachable_patterns, reason = "other queries are about what only shards have")]
        query => return Err(CallError::NotEventual(query.kind().name())),
    };
    Ok(Reply::Query(reply))
}

async fn scan(service: &Service, scan: Scan) -> Result<ScanPage, CallError> {
    let Scan { prefix, start_after, up_to, limit } = scan;
    let page = ask(service, |answer| GossipEvent::Scan { prefix, start_after, limit, answer }).await?;
    let is_in_range = |key: &Bytes| up_to.as_ref().is_none_or(|last| key <= last);
    let more = page.more && page.entries.last().is_none_or(|(key, _)| is_in_range(key));
    let entries = page.entries.into_iter().filter(|(key, _)| is_in_range(key));
    Ok(ScanPage { entries: entries.map(|(key, found)| (key, record(found))).collect(), more })
}

fn record(found: Found) -> Record {
    Record { value: found.value, version: 0, create_revision: 0, modify_revision: found.timestamp.0 }
}

async fn write(service: &Service, key: Bytes, value: Option<Bytes>, deadline: Instant) -> Result<Written, CallError> {
    if service.admission.is_disk_full() {
        return Err(CallError::DiskFull);
    }
    if service.admission.is_disk_hung() {
        return Err(CallError::DiskHung);
    }
    let (answer, written) = oneshot::channel();
    if !service.gossip.send(GossipEvent::Write { key, value, answer }) {
        return Err(CallError::Stopping);
    }
    let written = timeout_at(deadline, written).await.map_err(|_| CallError::DiskLate)?;
    // An update that was handed to the log may become durable after the gossip thread has stopped.
    Ok(written.map_err(|_| CallError::StoppedMeanwhile)??)
}

async fn ask<A>(service: &Service, event: impl FnOnce(oneshot::Sender<A>) -> GossipEvent) -> Result<A, CallError> {
    service.gossip.ask(event).await.map_err(|_| CallError::Stopping)
}
