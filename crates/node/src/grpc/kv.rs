//! The keys and values.

use super::{eventual, refusal, status_of, timeout};
use crate::execute::Executed;
use crate::metrics::Operation;
use crate::requests;
use crate::scan;
use crate::shell::Shell;
use ringfort_core::replica::{Query, QueryReply, Reply};
use ringfort_core::types::{NodeId, ShardId};
use ringfort_core::worker::Request as CoreRequest;
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
        self.counted(Operation::Put, async {
            let (deadline, put) = self.open(request)?;
            let _taken = self.shell.in_flight.take(put.key.len() + put.value.len()).ok_or_else(too_many)?;
            if is_eventual(put.consistency())? {
                return eventual::put(&self.shell, put, deadline).await;
            }
            let shard = self.shell.routing.shard_of(&put.key);
            let request = requests::put(put).map_err(refusal)?;
            self.execute(shard, request, deadline, |reply| requests::put_response(&reply)).await
        })
        .await
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.counted(Operation::Get, async {
            let (deadline, get) = self.open(request)?;
            let _taken = self.shell.in_flight.take(get.key.len()).ok_or_else(too_many)?;
            if get.consistency() == Consistency::Eventual {
                return eventual::get(&self.shell, get).await;
            }
            let shard = self.shell.routing.shard_of(&get.key);
            let consistency = get.consistency();
            let query = requests::get(get).map_err(refusal)?;
            let stale = (consistency == Consistency::Stale).then(|| self.shell.read_stale(shard, &query)).flatten();
            // Without a replica here that is fresh enough, the leader's answer is: it promises more.
            match stale.and_then(get_response) {
                Some(response) => Ok(Response::new(response)),
                None => self.execute(shard, CoreRequest::Read(query), deadline, get_response).await,
            }
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        self.counted(Operation::Delete, async {
            let (deadline, delete) = self.open(request)?;
            let _taken = self.shell.in_flight.take(delete.key.len()).ok_or_else(too_many)?;
            if is_eventual(delete.consistency())? {
                return eventual::delete(&self.shell, delete, deadline).await;
            }
            let shard = self.shell.routing.shard_of(&delete.key);
            let request = requests::delete(delete).map_err(refusal)?;
            self.execute(shard, request, deadline, |reply| requests::delete_response(&reply)).await
        })
        .await
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        self.counted(Operation::Scan, async {
            let (deadline, scan) = self.open(request)?;
            let given = scan.prefix.len() + scan.start_after.len() + scan.up_to.len();
            let _taken = self.shell.in_flight.take(given).ok_or_else(too_many)?;
            if is_eventual(scan.consistency())? {
                return eventual::scan(&self.shell, scan).await;
            }
            let query: Query = requests::scan(scan).map_err(refusal)?;
            let page = scan::scan(&self.shell, query, deadline).await.map_err(|error| status_of(&error))?;
            Ok(Response::new(requests::scan_response(page)))
        })
        .await
    }
}

impl KvService {
    /// Answers a call, and counts how that went.
    async fn counted<R>(
        &self,
        operation: Operation,
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

    async fn execute<R>(
        &self,
        shard: ShardId,
        request: CoreRequest,
        deadline: Instant,
        read: impl FnOnce(Reply) -> Option<R>,
    ) -> Result<Response<R>, Status> {
        let executed = self.shell.execute(shard, request, deadline).await;
        let Executed { reply, elsewhere } = executed.map_err(|error| status_of(&error))?;
        let message = read(reply).ok_or_else(|| outcome::unknown("the leader's answer is of another kind"))?;
        let mut response = Response::new(message);
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

fn get_response(reply: Reply) -> Option<GetResponse> {
    match reply {
        Reply::Query(QueryReply::Get(record)) => Some(requests::get_response(record)),
        _ => None,
    }
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
