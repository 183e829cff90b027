//! etcd, through the needed part of its gRPC interface (package `etcdserverpb`, service `KV`).
//!
//! Requests go to the endpoints at random; reads are linearizable, as etcd's are by default. etcd has no sign for "not
//! applied", so every write without an answer is of unknown outcome, but one that was never sent.

use super::{Failed, Request, StoreError, Values, address};
use crate::random::Random;
use bytes::Bytes;
use prost::Message;
use ringfort_check::{Found, Kind};
use ringfort_proto::codec::SmallBuffers;
use std::sync::Arc;
use std::time::Duration;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, client::Grpc};

#[derive(Clone)]
pub struct Store {
    nodes: Arc<[Channel]>,
    timeout: Duration,
    values: Values,
}

pub struct Session {
    store: Store,
    random: Random,
}

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    /// All keys from `key` to below this one; empty for that key alone.
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
    #[prost(int64, tag = "3")]
    limit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    /// How often the key was written since it was created.
    #[prost(int64, tag = "4")]
    version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, Message)]
struct DeleteRangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct DeleteRangeResponse {
    #[prost(int64, tag = "2")]
    deleted: i64,
}

impl Store {
    pub fn new(endpoints: &[String], timeout: Duration, values: Values) -> Result<Store, StoreError> {
        let connect = |endpoint: &String| {
            let uri = format!("http://{}", address(endpoint)?);
            let endpoint = Endpoint::from_shared(uri).map_err(|_| StoreError::InvalidEndpoint(endpoint.to_owned()))?;
            Ok(endpoint.connect_timeout(timeout).tcp_nodelay(true).connect_lazy())
        };
        let nodes = endpoints.iter().map(connect).collect::<Result<_, _>>()?;
        Ok(Store { nodes, timeout, values })
    }

    pub fn session(&self) -> Session {
        Session { store: self.clone(), random: Random::new() }
    }

    pub async fn clear(&self, prefix: &str) -> Result<(), String> {
        let key = Bytes::copy_from_slice(prefix.as_bytes());
        let message = DeleteRangeRequest { range_end: end_of_prefix(&key), key };
        let sent = self.session().send::<_, DeleteRangeResponse>("/etcdserverpb.KV/DeleteRange", message).await;
        sent.map(drop).map_err(|status| status.message().to_owned())
    }
}

impl Session {
    pub async fn call(&mut self, key: &Bytes, request: Request) -> Result<Kind, Failed> {
        let values = self.store.values;
        let key = key.clone();
        Ok(match request {
            Request::Put(value) => {
                let message = PutRequest { key, value: values.bytes(value) };
                self.send::<_, PutResponse>("/etcdserverpb.KV/Put", message).await?;
                Kind::put(value)
            }
            Request::Get | Request::Scan => {
                let range_end = if request == Request::Scan { end_of_prefix(&key) } else { Bytes::new() };
                let message = RangeRequest { key: key.clone(), range_end, limit: 1 };
                let answer: RangeResponse = self.send("/etcdserverpb.KV/Range", message).await?;
                let found = answer.kvs.iter().find(|found| found.key == key);
                Kind::Get {
                    found: found.map(|found| Found {
                        content: values.parse(&found.value),
                        version: Some(found.version.unsigned_abs()),
                    }),
                }
            }
            Request::Delete => {
                let message = DeleteRangeRequest { key, range_end: Bytes::new() };
                let answer: DeleteRangeResponse = self.send("/etcdserverpb.KV/DeleteRange", message).await?;
                Kind::Delete { found: Some(answer.deleted > 0) }
            }
            Request::Increment(_) | Request::Append(_) => unreachable!("etcd has neither counters nor appends"),
        })
    }

    async fn send<M, R>(&mut self, path: &'static str, message: M) -> Result<R, Status>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let number = self.random.next() % self.store.nodes.len() as u64;
        let mut grpc = Grpc::new(self.store.nodes[number as usize].clone());
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.store.timeout);
        let codec = SmallBuffers::<M, R>::default();
        Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }
}

/// The first key above all that begin with `prefix`, which must not be empty or end with 0xff.
fn end_of_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    let last = end.last_mut().expect("prefixes are not empty");
    *last = last.checked_add(1).expect("prefixes are text");
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_etcd_s() {
        let range = RangeRequest { key: "k".into(), range_end: end_of_prefix(b"k"), limit: 1 };
        assert_eq!(range.encode_to_vec(), b"\x0a\x01k\x12\x01l\x18\x01");
        let put = PutRequest { key: "k".into(), value: "v".into() };
        assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");
        // As etcd encodes it: a header, a key with all its fields, and a count.
        let answer = b"\x0a\x02\x08\x07\x12\x0f\x0a\x01k\x10\x02\x18\x04\x20\x03\x2a\x02vv\x30\x00\x20\x01";
        let answer = RangeResponse::decode(&answer[..]).unwrap();
        assert_eq!(answer.kvs, [KeyValue { key: "k".into(), version: 3, value: "vv".into() }]);
        assert_eq!(DeleteRangeResponse::decode(&b"\x0a\x00\x10\x01"[..]).unwrap().deleted, 1);
    }
}
