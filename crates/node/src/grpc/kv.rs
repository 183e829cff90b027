//! The services for keys and values.

use super::call::{answer, open};
use crate::service::{self, Call, Service};
use bytes::Bytes;
use ringfort_core::kv::{Append, AppendReply, Delete, Get, Increment, IncrementReply, Kind, Put, Record, Scan};
use ringfort_core::limits::MAX_SCAN_ENTRIES;
use ringfort_proto::v1::kv_server::Kv;
use ringfort_proto::v1::*;
use tonic::{Request, Response, Status};

pub struct KvService {
    pub service: Service,
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (deadline, put) = open(&self.service, Kind::Put, request)?;
        let consistency = promised(put.consistency());
        let call = Call::command(Put { key: put.key, value: put.value }, consistency);
        let reply = answer::<Put>(&self.service, call, deadline).await?;
        Ok(reply.map(|put| PutResponse { version: put.version, revision: put.revision }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (deadline, get) = open(&self.service, Kind::Get, request)?;
        let consistency = promised(get.consistency());
        let call = Call::query(Get { key: get.key }, consistency);
        Ok(answer::<Get>(&self.service, call, deadline).await?.map(get_response))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let (deadline, delete) = open(&self.service, Kind::Delete, request)?;
        let consistency = promised(delete.consistency());
        let call = Call::command(Delete { key: delete.key }, consistency);
        let reply = answer::<Delete>(&self.service, call, deadline).await?;
        Ok(reply.map(|delete| DeleteResponse { found: delete.existed, revision: delete.revision }))
    }

    async fn increment(&self, request: Request<IncrementRequest>) -> Result<Response<IncrementResponse>, Status> {
        let (deadline, increment) = open(&self.service, Kind::Increment, request)?;
        let consistency = promised(increment.consistency());
        let call = Call::command(Increment { key: increment.key, by: increment.by }, consistency);
        let reply = answer::<Increment>(&self.service, call, deadline).await?;
        Ok(reply.map(|IncrementReply { number, version, revision }| IncrementResponse { number, version, revision }))
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let (deadline, append) = open(&self.service, Kind::Append, request)?;
        let consistency = promised(append.consistency());
        let call = Call::command(Append { key: append.key, bytes: append.bytes }, consistency);
        let reply = answer::<Append>(&self.service, call, deadline).await?;
        Ok(reply.map(|AppendReply { length_bytes, version, revision }| AppendResponse {
            length_bytes,
            version,
            revision,
        }))
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        let (deadline, scan) = open(&self.service, Kind::Scan, request)?;
        let consistency = promised(scan.consistency());
        let call = Call::query(scan_of(scan), consistency);
        let page = answer::<Scan>(&self.service, call, deadline).await?;
        Ok(page.map(|page| {
            let entries = page.entries.into_iter().map(|(key, record)| {
                let Record { value, version, create_revision, modify_revision } = record;
                Entry { key, value, version, create_revision, modify_revision }
            });
            ScanResponse { entries: entries.collect(), more: page.more }
        }))
    }
}

fn promised(consistency: Consistency) -> service::Consistency {
    match consistency {
        Consistency::Linearizable => service::Consistency::Linearizable,
        Consistency::Stale => service::Consistency::Stale,
        Consistency::Eventual => service::Consistency::Eventual,
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
