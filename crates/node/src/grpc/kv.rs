//! The keys and values.

use super::{eventual, refusal, status_of, timeout};
use crate::execute::Executed;
use crate::scan;
use crate::shell::Shell;
use bytes::Bytes;
use ringfort_core::kv::op::Listed;
use ringfort_core::kv::{Command, Delete, Get, Kind, Put, Record, Scan};
use ringfort_core::limits::MAX_SCAN_ENTRIES;
use ringfort_core::request::{Replies, Request as CoreRequest};
use ringfort_core::types::NodeId;
use ringfort_proto::v1::kv_server::Kv;
use ringfort_proto::v1::*;
use ringfort_proto::{metadata, outcome};
use std::future::Future;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

pub struct KvService {
    pub shell: Arc<Shell>,
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.counted(Kind::Put, async {
            let (deadline, put) = self.open(request)?;
            let _taken = self.shell.in_flight.take(put.key.len() + put.value.len()).ok_or_else(too_many)?;
            if is_eventual(put.consistency())? {
                return eventual::put(&self.shell, put, deadline).await;
            }
            let reply = self.command(Put { key: put.key, value: put.value }, deadline).await?;
            Ok(reply.map(|put| PutResponse { version: put.version, revision: put.revision }))
        })
        .await
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.counted(Kind::Get, async {
            let (deadline, get) = self.open(request)?;
            let _taken = self.shell.in_flight.take(get.key.len()).ok_or_else(too_many)?;
            let consistency = get.consistency();
            if consistency == Consistency::Eventual {
                return eventual::get(&self.shell, get).await;
            }
            let request = CoreRequest::query(self.shell.routing.shards(), Get { key: get.key });
            let request = request.map_err(refusal)?;
            let stale = (consistency == Consistency::Stale).then(|| self.shell.read_stale(&request)).flatten();
            // Without a replica here that is fresh enough, the leader's answer is: it promises more.
            let reply = match stale.and_then(|reply| reply.to::<Get>()) {
                Some(record) => Response::new(record),
                None => self.execute::<Get>(request, deadline).await?,
            };
            Ok(reply.map(get_response))
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        self.counted(Kind::Delete, async {
            let (deadline, delete) = self.open(request)?;
            let _taken = self.shell.in_flight.take(delete.key.len()).ok_or_else(too_many)?;
            if is_eventual(delete.consistency())? {
                return eventual::delete(&self.shell, delete, deadline).await;
            }
            let reply = self.command(Delete { key: delete.key }, deadline).await?;
            Ok(reply.map(|delete| DeleteResponse { found: delete.existed, revision: delete.revision }))
        })
        .await
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        self.counted(Kind::Scan, async {
            let (deadline, scan) = self.open(request)?;
            let given = scan.prefix.len() + scan.start_after.len() + scan.up_to.len();
            let _taken = self.shell.in_flight.take(given).ok_or_else(too_many)?;
            if is_eventual(scan.consistency())? {
                return eventual::scan(&self.shell, scan_of(scan)).await;
            }
            let page = scan::scan(&self.shell, scan_of(scan), deadline).await.map_err(|error| status_of(&error))?;
            let entries = page.entries.into_iter().map(|(key, record)| {
                let Record { value, version, create_revision, modify_revision } = record;
                Entry { key, value, version, create_revision, modify_revision }
            });
            Ok(Response::new(ScanResponse { entries: entries.collect(), more: page.more }))
        })
        .await
    }
}

impl KvService {
    /// Answers a call, and counts how that went.
    async fn counted<R>(
        &self,
        operation: Kind,
        answer: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<Response<R>, Status> {
        let counting = self.shell.metrics.begin(operation);
        let result = answer.await;
        counting.end(result.as_ref().err().map(Status::code));
        result
    }

    /// The call's deadline and message, if it is meant for this cluster.
    fn open<M>(&self, request: Request<M>) -> Result<(Instant, M), Status> {
        metadata::check_cluster(request.metadata(), self.shell.cluster.0)?;
        Ok((timeout::deadline(request.metadata()), request.into_inner()))
    }

    /// Carries a command out.
    async fn command<C>(&self, command: C, deadline: Instant) -> Result<Response<C::Reply>, Status>
    where
        C: Listed<Replies: Replies> + Into<Command>,
    {
        let request = CoreRequest::command(self.shell.routing.shards(), command).map_err(refusal)?;
        self.execute::<C>(request, deadline).await
    }

    /// Carries out a request for an operation `O`, and names the leader to the client if it is elsewhere.
    async fn execute<O>(&self, request: CoreRequest, deadline: Instant) -> Result<Response<O::Reply>, Status>
    where
        O: Listed<Replies: Replies>,
    {
        let executed = self.shell.execute(request, deadline).await;
        let Executed { reply, elsewhere } = executed.map_err(|error| status_of(&error))?;
        let reply = reply.to::<O>().ok_or_else(|| outcome::unknown("the leader's answer is of another kind"))?;
        let mut response = Response::new(reply);
        if let Some(node) = elsewhere {
            self.shell.metrics.forwarded.inc();
            self.name_leader(response.metadata_mut(), node);
        }
        Ok(response)
    }

    fn name_leader(&self, metadata: &mut MetadataMap, node: NodeId) {
        if let Some(member) = self.shell.routing.members().get(&node) {
            metadata::set_leader(metadata, &member.grpc_address);
        }
    }
}

fn scan_of(scan: ScanRequest) -> Scan {
    let given = |key: Bytes| (!key.is_empty()).then_some(key);
    let limit = if scan.limit == 0 { MAX_SCAN_ENTRIES } else { MAX_SCAN_ENTRIES.min(scan.limit as usize) };
    Scan { prefix: scan.prefix, start_after: given(scan.start_after), up_to: given(scan.up_to), limit }
}

fn get_response(record: Option<Record>) -> GetResponse {
    record.map_or_else(GetResponse::default, |record| GetResponse {
        value: record.value,
        found: true,
        version: record.version,
        create_revision: record.create_revision,
        modify_revision: record.modify_revision,
    })
}

/// Of requests that can't be stale.
fn is_eventual(consistency: Consistency) -> Result<bool, Status> {
    match consistency {
        Consistency::Linearizable => Ok(false),
        Consistency::Eventual => Ok(true),
        Consistency::Stale => Err(outcome::invalid("only a get may be stale")),
    }
}

fn too_many() -> Status {
    outcome::overloaded("too many requests are under way in this node; retry later")
}
