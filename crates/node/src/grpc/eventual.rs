//! Requests for the eventual keyspace: this node answers them by itself, whatever else it reaches.

use crate::gossip_thread::GossipEvent;
use crate::shell::Shell;
use bytes::Bytes;
use ringfort_core::gossip::{WriteError, Written};
use ringfort_core::kv::Scan;
use ringfort_core::kv::op::{Operation, check_key};
use ringfort_proto::outcome;
use ringfort_proto::v1::*;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tonic::{Response, Status};

pub async fn put(shell: &Shell, put: PutRequest, deadline: Instant) -> Result<Response<PutResponse>, Status> {
    check_key(&put.key).map_err(super::refusal)?;
    let written = write(shell, put.key, Some(put.value), deadline).await?;
    Ok(Response::new(PutResponse { version: 0, revision: written.stamp.0 }))
}

pub async fn delete(
    shell: &Shell,
    delete: DeleteRequest,
    deadline: Instant,
) -> Result<Response<DeleteResponse>, Status> {
    check_key(&delete.key).map_err(super::refusal)?;
    let written = write(shell, delete.key, None, deadline).await?;
    Ok(Response::new(DeleteResponse { found: written.existed, revision: written.stamp.0 }))
}

pub async fn get(shell: &Shell, get: GetRequest) -> Result<Response<GetResponse>, Status> {
    check_key(&get.key).map_err(super::refusal)?;
    let found = ask(shell, |answer| GossipEvent::Get { key: get.key, answer }).await?;
    Ok(Response::new(found.map_or_else(GetResponse::default, |found| GetResponse {
        value: found.value,
        found: true,
        modify_revision: found.stamp.0,
        ..GetResponse::default()
    })))
}

pub async fn scan(shell: &Shell, scan: Scan) -> Result<Response<ScanResponse>, Status> {
    scan.check().map_err(super::refusal)?;
    let Scan { prefix, start_after, up_to, limit } = scan;
    let page = ask(shell, |answer| GossipEvent::Scan { prefix, start_after, limit, answer }).await?;
    let is_wanted = |key: &Bytes| up_to.as_ref().is_none_or(|last| key <= last);
    let more = page.more && page.entries.last().is_none_or(|(key, _)| is_wanted(key));
    let wanted = page.entries.into_iter().filter(|(key, _)| is_wanted(key));
    let entries = wanted.map(|(key, found)| Entry {
        key,
        value: found.value,
        modify_revision: found.stamp.0,
        ..Entry::default()
    });
    Ok(Response::new(ScanResponse { entries: entries.collect(), more }))
}

async fn write(shell: &Shell, key: Bytes, value: Option<Bytes>, deadline: Instant) -> Result<Written, Status> {
    if shell.pressure.is_disk_full() {
        return Err(outcome::overloaded("this node has no disk space for its log; free some, or ask another node"));
    }
    if shell.pressure.is_disk_hung() {
        return Err(outcome::unavailable("the disk of this node does not answer; ask another node", None));
    }
    let (answer, written) = oneshot::channel();
    let _ = shell.gossip.send(GossipEvent::Write { key, value, answer });
    let late = |_| outcome::unknown("the disk of this node did not answer in time");
    let written = timeout_at(deadline, written).await.map_err(late)?.map_err(|_| super::status::stopping())?;
    written.map_err(|error| match error {
        WriteError::TooLarge(_) => outcome::invalid(error.to_string()),
        WriteError::Full | WriteError::Overloaded => outcome::overloaded(error.to_string()),
    })
}

async fn ask<A>(shell: &Shell, event: impl FnOnce(oneshot::Sender<A>) -> GossipEvent) -> Result<A, Status> {
    let (answer, answered) = oneshot::channel();
    let _ = shell.gossip.send(event(answer));
    answered.await.map_err(|_| super::status::stopping())
}
