//! The Rust client of Ringfort.
//!
//! A [`Client`] connects lazily, learns the topology from any endpoint, and sends each request to the leader of its
//! key's shard. Its view of the cluster may be outdated: a node that does not lead the shard forwards the request, and
//! its answer names the leader for the next request.
//!
//! **What is retried.** Until its deadline a call is retried as long as no attempt can have been applied: no
//! connection, no leader, another leader. Reads are repeated after any failure of a node. A write whose outcome is
//! unknown is never repeated: if it were applied twice, readers could see 1, 2, 1. It ends in
//! [`Error::UnknownOutcome`].
//!
//! **One cluster.** The first topology binds the client to its cluster; every later request names it, and a node of
//! another cluster refuses the request.
//!
//! **Silence.** A node that does not answer for a quarter of a second, not even a health check, is not used until it
//! answers again; nor is a node whose answers are all that late. Reads that wait for it move to another node at once. A
//! write that was sent to it waits for its answer until its own deadline, and ends as unknown. A read that is slow for
//! another reason is also sent to a second node after a quarter of a second.
//!
//! One HTTP/2 connection a node carries all requests of a client and its clones.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/node.rs"));
//! # fn main() {
//! # with_node(async |endpoint| {
//! use ringfort_client::Client;
//!
//! # let endpoints = [endpoint];
//! let client = Client::connect(endpoints)?; // such as ["node1:50051", "node2:50051"]
//! let written = client.put("greeting", "hello").await?;
//! assert_eq!(written.version, 1);
//! assert_eq!(client.get("greeting").await?.unwrap().value, "hello");
//! assert!(client.delete("greeting").await?.found);
//! assert_eq!(client.get("greeting").await?, None);
//! # Ok(())
//! # })
//! # }
//! ```

mod call;
mod circuit;
mod endpoints;
mod error;
mod eventual;
mod hedging;
mod one_cluster;
mod routes;

pub use error::{Cause, Error};
pub use eventual::{Eventual, EventualValue};
pub use ringfort_proto::outcome::Outcome;
pub use ringfort_proto::v1;

use bytes::Bytes;
use call::{Effect, Refresh};
use endpoints::Endpoints;
use ringfort_proto::outcome;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_proto::v1::kv_client::KvClient;
use routes::{Address, Routes, Target};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How long a call may take, all its attempts together, unless [`Client::with_timeout`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes that a write's key and value may have together: a node accepts requests of 4 MiB, and this leaves
/// room for the envelope. Larger writes are refused here, because the node's transport would refuse them without a
/// known outcome. This is far above the limits of key and value, which the node enforces.
const MAX_WRITE_BYTES: usize = (4 << 20) - 64;

/// The largest answer that is accepted: larger than a node's largest scan page.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// How many reads may ask a second endpoint at a time because the first is slow. If all nodes are slow, unbounded
/// hedging would double their load.
const MAX_HEDGES_UNDER_WAY: usize = 64;

/// A client of one cluster. Clones share connections and the view of the cluster.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    timeout: Duration,
}

struct Shared {
    routes: RwLock<Routes>,
    endpoints: Endpoints,
    /// Locked while the topology is read, so that one call reads it for all.
    refresh: tokio::sync::Mutex<Refresh>,
    /// A permit for each hedged request to an endpoint while the earlier endpoints are alive.
    hedges: Semaphore,
}

/// What a read promises.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Consistency {
    /// The read sees every write that was acknowledged before it began.
    #[default]
    Linearizable,
    /// Any replica answers from its own state, within the cluster's staleness bound.
    Stale,
}

/// A key's value and its history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    pub value: Bytes,
    /// How often the key was written since it was created; 1 for a new key.
    pub version: u64,
    /// The shard's revision at which the key was created.
    pub create_revision: u64,
    /// The shard's revision at which the key was last written.
    pub modify_revision: u64,
}

/// A part of a scan.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// In ascending order of their keys.
    pub entries: Vec<v1::Entry>,
    /// Whether more keys follow; pass the last entry's key as `start_after` to get them.
    pub more: bool,
}

impl Client {
    /// A client of the cluster that these endpoints (`host:port`) belong to. No connection is made yet.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`] for an endpoint that is not an address, or if there is none.
    ///
    /// # Panics
    /// Connections run on the tokio runtime on which calls are made; calls outside of a runtime panic.
    pub fn connect<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Client, Error> {
        let mut seeds = Vec::new();
        for endpoint in endpoints {
            let address = Address::from(endpoint.as_ref().trim().trim_start_matches("http://"));
            endpoints::dial(&address)?;
            seeds.push(address);
        }
        if seeds.is_empty() {
            return Err(Error::InvalidEndpoint("no endpoint was given: give host:port".to_owned()));
        }
        let routes = RwLock::new(Routes::new(seeds));
        let (endpoints, hedges) = (Endpoints::new(), Semaphore::new(MAX_HEDGES_UNDER_WAY));
        let shared = Shared { routes, endpoints, refresh: tokio::sync::Mutex::default(), hedges };
        Ok(Client { shared: Arc::new(shared), timeout: DEFAULT_TIMEOUT })
    }

    /// The same client with another time limit for each call.
    pub fn with_timeout(self, timeout: Duration) -> Client {
        Client { timeout, ..self }
    }

    /// Sets a key. Durable on a quorum when this returns.
    ///
    /// # Errors
    /// After [`Error::UnknownOutcome`] the write may or may not be applied; after any other it is not.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<v1::PutResponse, Error> {
        let (key, value, deadline) = (key.into(), value.into(), self.deadline());
        check_size(key.len() + value.len())?;
        let target = Target::Leader(self.shard_of(&key, deadline).await?);
        let message = v1::PutRequest { key, value, ..Default::default() };
        self.call(target, Effect::Write, deadline, message, async |channel, request| kv(channel).put(request).await)
            .await
    }

    /// Reads a key; `None` if it does not exist. Sees every write acknowledged before the call.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Value>, Error> {
        self.get_with(key, Consistency::Linearizable).await
    }

    /// Reads a key with the given consistency. Stale reads are spread over the shard's replicas, each of which answers
    /// from its own state.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/node.rs"));
    /// # fn main() {
    /// # with_node(async |endpoint| {
    /// use ringfort_client::{Client, Consistency};
    ///
    /// let client = Client::connect([endpoint])?;
    /// client.put("page", "1").await?;
    /// // What a replica held at a moment of the last seconds: the page, or nothing yet.
    /// if let Some(found) = client.get_with("page", Consistency::Stale).await? {
    ///     assert_eq!(found.value, "1");
    /// }
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub async fn get_with(&self, key: impl Into<Bytes>, consistency: Consistency) -> Result<Option<Value>, Error> {
        let (key, deadline) = (key.into(), self.deadline());
        let shard = self.shard_of(&key, deadline).await?;
        let (target, consistency) = match consistency {
            Consistency::Linearizable => (Target::Leader(shard), v1::Consistency::Linearizable),
            Consistency::Stale => (Target::Replica(shard), v1::Consistency::Stale),
        };
        let message = v1::GetRequest { key, consistency: consistency.into() };
        let send = async |channel, request| kv(channel).get(request).await;
        let found = self.call(target, Effect::Read, deadline, message, send).await?;
        Ok(found.found.then_some(Value {
            value: found.value,
            version: found.version,
            create_revision: found.create_revision,
            modify_revision: found.modify_revision,
        }))
    }

    /// Removes a key; the answer says whether there was one.
    ///
    /// # Errors
    /// As for [`Client::put`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<v1::DeleteResponse, Error> {
        let (key, deadline) = (key.into(), self.deadline());
        check_size(key.len())?;
        let target = Target::Leader(self.shard_of(&key, deadline).await?);
        let message = v1::DeleteRequest { key, ..Default::default() };
        let send = async |channel, request| kv(channel).delete(request).await;
        self.call(target, Effect::Write, deadline, message, send).await
    }

    /// Adds to the number that a key holds as decimal text, and returns the sum. A missing key counts as 0.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/node.rs"));
    /// # fn main() {
    /// # with_node(async |endpoint| {
    /// use ringfort_client::{Client, Error, Outcome};
    ///
    /// let client = Client::connect([endpoint])?;
    /// assert_eq!(client.increment("visits", 5).await?.number, 5);
    /// assert_eq!(client.increment("visits", -2).await?.number, 3);
    /// assert_eq!(client.get("visits").await?.unwrap().value, "3");
    /// client.put("greeting", "hello").await?;
    /// let error = client.increment("greeting", 1).await.unwrap_err();
    /// assert!(matches!(error, Error::Rejected(_)) && error.outcome() == Outcome::NotApplied);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Rejected`] if the key's value is not a decimal 64-bit integer, or if the sum exceeds 64 bits; nothing
    /// has changed then. Otherwise as for [`Client::put`]. After [`Error::UnknownOutcome`] do not repeat the call: the
    /// increment could be applied twice.
    pub async fn increment(&self, key: impl Into<Bytes>, by: i64) -> Result<v1::IncrementResponse, Error> {
        let (key, deadline) = (key.into(), self.deadline());
        check_size(key.len())?;
        let target = Target::Leader(self.shard_of(&key, deadline).await?);
        let message = v1::IncrementRequest { key, by, ..Default::default() };
        let send = async |channel, request| kv(channel).increment(request).await;
        self.call(target, Effect::Write, deadline, message, send).await
    }

    /// Appends to the value of a key, and answers the new length. A missing key counts as empty.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/node.rs"));
    /// # fn main() {
    /// # with_node(async |endpoint| {
    /// use ringfort_client::Client;
    ///
    /// let client = Client::connect([endpoint])?;
    /// assert_eq!(client.append("events", "login;").await?.length_bytes, 6);
    /// assert_eq!(client.append("events", "logout;").await?.length_bytes, 13);
    /// assert_eq!(client.get("events").await?.unwrap().value, "login;logout;");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Rejected`] if the result would be larger than a value may be; nothing has changed then. Otherwise as
    /// for [`Client::put`]. After [`Error::UnknownOutcome`] do not repeat it: the bytes could be appended twice.
    pub async fn append(&self, key: impl Into<Bytes>, bytes: impl Into<Bytes>) -> Result<v1::AppendResponse, Error> {
        let (key, bytes, deadline) = (key.into(), bytes.into(), self.deadline());
        check_size(key.len() + bytes.len())?;
        let target = Target::Leader(self.shard_of(&key, deadline).await?);
        let message = v1::AppendRequest { key, bytes, ..Default::default() };
        let send = async |channel, request| kv(channel).append(request).await;
        self.call(target, Effect::Write, deadline, message, send).await
    }

    /// All keys with a prefix, in ascending order, with their values. The whole result is held in memory. Pages are
    /// read one after the other, each within the time limit; see [`Client::scan_page`] for the guarantees.
    pub async fn scan(&self, prefix: impl Into<Bytes>) -> Result<Vec<v1::Entry>, Error> {
        let (prefix, mut entries) = (prefix.into(), Vec::<v1::Entry>::new());
        loop {
            let start_after = entries.last().map_or_else(Bytes::new, |entry| entry.key.clone());
            let page = self.scan_page(prefix.clone(), start_after, 0).await?;
            entries.extend(page.entries);
            if !page.more {
                return Ok(entries);
            }
        }
    }

    /// The keys with a prefix above `start_after` (empty: from the first), at most `limit` (0: as many as a node gives
    /// in one answer). Each shard's part is linearizable by itself; the page is not one point in time over all shards.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/node.rs"));
    /// # fn main() {
    /// # with_node(async |endpoint| {
    /// use ringfort_client::Client;
    ///
    /// let client = Client::connect([endpoint])?;
    /// for user in ["anna", "ben", "carla"] {
    ///     client.put(format!("user/{user}"), "").await?;
    /// }
    /// let mut keys = Vec::new();
    /// loop {
    ///     let last = keys.last().cloned().unwrap_or_default();
    ///     let page = client.scan_page("user/", last, 2).await?;
    ///     keys.extend(page.entries.into_iter().map(|entry| entry.key));
    ///     if !page.more {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(keys, ["user/anna", "user/ben", "user/carla"]);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub async fn scan_page(
        &self,
        prefix: impl Into<Bytes>,
        start_after: impl Into<Bytes>,
        limit: u32,
    ) -> Result<Page, Error> {
        let (prefix, start_after) = (prefix.into(), start_after.into());
        let message = v1::ScanRequest { prefix, start_after: start_after.clone(), limit, ..Default::default() };
        let send = async |channel, request| kv(channel).scan(request).await;
        let page = self.call(Target::Node, Effect::LongRead, self.deadline(), message, send).await?;
        check_advance(page, &start_after)
    }

    /// The eventual keyspace.
    pub fn eventual(&self) -> Eventual<'_> {
        Eventual { client: self }
    }

    /// Whether an endpoint (`host:port`) answers, as far as this client's requests and probes have shown; true for an
    /// endpoint that it has never asked. Requests avoid endpoints that do not answer, if there are others.
    pub fn answers(&self, endpoint: &str) -> bool {
        !self.shared.endpoints.is_open(&Address::from(endpoint))
    }

    /// What one node knows through gossip: which nodes are alive, and the state of the eventual keyspace.
    pub async fn gossip(&self) -> Result<v1::GossipResponse, Error> {
        let send = async |channel, request| {
            ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES).gossip(request).await
        };
        self.call(Target::Node, Effect::LongRead, self.deadline(), v1::GossipRequest {}, send).await
    }

    /// Where the shards are, as far as one node knows.
    pub async fn topology(&self) -> Result<v1::TopologyResponse, Error> {
        let send = async |channel, request| ClusterClient::new(channel).topology(request).await;
        self.call(Target::Node, Effect::Read, self.deadline(), v1::TopologyRequest {}, send).await
    }

    /// The status of nodes and shards, gathered by one node from all nodes that it reaches.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        let send = async |channel, request| {
            ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES).status(request).await
        };
        self.call(Target::Node, Effect::LongRead, self.deadline(), v1::StatusRequest {}, send).await
    }

    /// What the cluster's controller would move, and why, if the nodes with these names left.
    pub async fn plan(&self, leave: Vec<String>) -> Result<v1::PlanResponse, Error> {
        let send = async |channel, request| {
            ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES).plan(request).await
        };
        self.call(Target::Node, Effect::LongRead, self.deadline(), v1::PlanRequest { leave }, send).await
    }

    /// Moves all replicas and leadership away from a node, which stays a member; with `undo`, lets it hold replicas
    /// again. Returns before the moves are done.
    pub async fn drain(&self, node: String, undo: bool) -> Result<v1::OperationResponse, Error> {
        let send = async |channel, request| ClusterClient::new(channel).drain(request).await;
        self.operate(v1::DrainRequest { node, undo }, send).await
    }

    /// Moves all replicas and leadership away from a node, then removes it. Returns before the moves are done.
    pub async fn leave(&self, request: v1::LeaveRequest) -> Result<v1::OperationResponse, Error> {
        self.operate(request, async |channel, request| ClusterClient::new(channel).leave(request).await).await
    }

    /// Keeps the controller from beginning moves, or allows it again.
    pub async fn pause(&self, paused: bool) -> Result<v1::OperationResponse, Error> {
        let send = async |channel, request| ClusterClient::new(channel).pause(request).await;
        self.operate(v1::PauseRequest { paused }, send).await
    }

    /// Makes all nodes lead equally many shards. Returns before the leaderships have changed.
    pub async fn balance_leaders(&self) -> Result<v1::OperationResponse, Error> {
        let send = async |channel, request| ClusterClient::new(channel).balance_leaders(request).await;
        self.operate(v1::BalanceLeadersRequest {}, send).await
    }

    /// An operator call. Operator calls are idempotent, so they are retried like reads.
    async fn operate<M: Clone>(
        &self,
        message: M,
        send: impl AsyncFn(
            tonic::transport::Channel,
            tonic::Request<M>,
        ) -> Result<tonic::Response<v1::OperationResponse>, tonic::Status>,
    ) -> Result<v1::OperationResponse, Error> {
        self.call(Target::Node, Effect::LongRead, self.deadline(), message, send).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn read_routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.shared.routes.read().expect("no code panics while it holds the routes")
    }

    fn write_routes(&self) -> RwLockWriteGuard<'_, Routes> {
        self.shared.routes.write().expect("no code panics while it holds the routes")
    }
}

fn check_size(bytes: usize) -> Result<(), Error> {
    if bytes > MAX_WRITE_BYTES {
        let reason = format!("key and value have {bytes} bytes, the limit is {MAX_WRITE_BYTES}");
        return Err(Error::Rejected(outcome::invalid(reason)));
    }
    Ok(())
}

/// Checks that the page advances, so that a caller that reads page after page ends, whatever a node answers.
fn check_advance(page: v1::ScanResponse, start_after: &Bytes) -> Result<Page, Error> {
    let v1::ScanResponse { entries, more } = page;
    let advances = entries.is_sorted_by(|a, b| a.key < b.key)
        && entries.first().is_none_or(|first| start_after.is_empty() || first.key > *start_after)
        && !(more && entries.is_empty());
    if !advances {
        return Err(Error::BadAnswer("a page of its scan does not advance"));
    }
    Ok(Page { entries, more })
}

fn kv(channel: tonic::transport::Channel) -> KvClient<tonic::transport::Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}
