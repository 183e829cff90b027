//! Ringfort, through its client and by requests to random nodes.
//!
//! Most requests go through the client, to the leader of the key's shard. Every fourth is sent once to a random node,
//! which forwards it: both ways must return consistent answers for a key. Nodes that do not answer the client are left
//! out of this: requests to them would only wait for their timeouts.

use super::{Failed, Request, Values};
use crate::command::bench::cleanup::delete_all;
use crate::command::bench::progress::Progress;
use crate::command::bench::target::node;
use crate::random::Random;
use bytes::Bytes;
use ringfort_check::{Found, Kind};
use ringfort_client::v1::kv_client::KvClient;
use ringfort_client::v1::{AppendRequest, DeleteRequest, GetRequest, IncrementRequest, PutRequest};
use ringfort_client::{Client, Error};
use ringfort_proto::outcome;
use ringfort_ring::ShardCount;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// One in this many requests goes to a random node.
const BLIND_ONE_OF: u64 = 4;

#[derive(Clone)]
pub struct Store {
    client: Client,
    /// All nodes in the topology at the beginning.
    nodes: Arc<[(String, KvClient<Channel>)]>,
    shards: ShardCount,
    timeout: Duration,
    values: Values,
}

pub struct Session {
    store: Store,
    random: Random,
}

impl Store {
    pub async fn new(endpoints: &[String], timeout: Duration, values: Values) -> Result<Store, Error> {
        let client = Client::connect(endpoints)?.with_timeout(timeout);
        client.check_endpoints().await?;
        let topology = client.topology().await?;
        let shards = ShardCount::new(topology.shard_count)
            .map_err(|_| Error::BadAnswer("its topology has an invalid number of shards"))?;
        let nodes = topology
            .nodes
            .iter()
            .map(|member| Ok((member.grpc_address.clone(), node(&member.grpc_address, timeout)?)))
            .collect::<Result<_, _>>()
            .map_err(|_: tonic::transport::Error| Error::BadAnswer("its topology has an invalid address"))?;
        Ok(Store { client, nodes, shards, timeout, values })
    }

    pub fn session(&self) -> Session {
        Session { store: self.clone(), random: Random::new() }
    }

    pub fn shards(&self) -> ShardCount {
        self.shards
    }

    pub async fn clear(&self, prefix: &str) -> Result<(), String> {
        delete_all(&self.client, prefix, &Progress::hidden()).await.map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl Session {
    pub async fn call(&mut self, key: &Bytes, request: Request) -> Result<Kind, Failed> {
        let is_blind = self.random.next().is_multiple_of(BLIND_ONE_OF) && request != Request::Scan;
        match self.any_node().filter(|_| is_blind) {
            Some(node) => Ok(self.blind(node, key.clone(), request).await?),
            None => Ok(request.ask(&self.store.client, self.store.values, key.clone()).await?),
        }
    }

    /// A random node among those that answer.
    fn any_node(&mut self) -> Option<KvClient<Channel>> {
        let answer: Vec<_> =
            self.store.nodes.iter().filter(|(address, _)| self.store.client.answers(address)).collect();
        let number = self.random.next().checked_rem(answer.len() as u64)?;
        Some(answer[number as usize].1.clone())
    }

    /// Sends a request other than a scan once, to this node.
    async fn blind(&self, mut node: KvClient<Channel>, key: Bytes, request: Request) -> Result<Kind, Status> {
        let (timeout, values) = (self.store.timeout, self.store.values);
        Ok(match request {
            Request::Put(value) => {
                let message = PutRequest { key, value: values.bytes(value), ..Default::default() };
                let answer = node.put(limited(message, timeout)).await?.into_inner();
                Kind::Put { value, bytes: Values::len_bytes(value), version: Some(answer.version) }
            }
            Request::Get | Request::Scan => {
                let message = GetRequest { key, ..Default::default() };
                let answer = node.get(limited(message, timeout)).await?.into_inner();
                Kind::Get { found: answer.found.then(|| self.found(&answer.value, answer.version)) }
            }
            Request::Delete => {
                let message = DeleteRequest { key, ..Default::default() };
                Kind::Delete { found: Some(node.delete(limited(message, timeout)).await?.get_ref().found) }
            }
            Request::Increment(by) => {
                let message = IncrementRequest { key, by, ..Default::default() };
                let answer = node.increment(limited(message, timeout)).await?;
                Kind::Increment { by, number: Some(answer.get_ref().number) }
            }
            Request::Append(value) => {
                let message = AppendRequest { key, bytes: values.bytes(value), ..Default::default() };
                let answer = node.append(limited(message, timeout)).await?;
                let length = Some(answer.get_ref().length_bytes);
                Kind::Append { value, bytes: Values::len_bytes(value), length }
            }
        })
    }

    fn found(&self, value: &[u8], version: u64) -> Found {
        Found { content: self.store.values.parse(value), version: Some(version) }
    }
}

fn limited<M>(message: M, timeout: Duration) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { outcome: error.outcome(), message: error.to_string() }
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Failed {
        let message = match (status.message(), status.code()) {
            // Another kind of server, whose own words are none.
            ("", Code::Unimplemented) => "the server there does not know this request".to_owned(),
            ("", code) => code.description().to_owned(),
            (message, _) => message.to_owned(),
        };
        Failed { outcome: outcome::of(&status), message }
    }
}
