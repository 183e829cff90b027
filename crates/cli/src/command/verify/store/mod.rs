//! The stores that can be verified: Ringfort, and peers for comparison.
//!
//! Each store gets the same requests, and reports for each failure whether the request may have been applied. That is
//! the delicate part. A wrong "not applied" accuses the store wrongly; a wrong "unknown" only makes the checker accept
//! more. So in doubt the outcome is unknown.

mod etcd;
mod redis;
mod resp;
mod ringfort;

use crate::asked::Request;
use crate::violation::Values;
use bytes::Bytes;
use clap::ValueEnum;
use ringfort_check::Kind;
use ringfort_client::Outcome;
use ringfort_ring::ShardCount;
use std::time::Duration;

/// Whom to verify instead of Ringfort.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// etcd, by version 3 of its gRPC interface.
    Etcd,
    /// Redis, a single server or a cluster.
    Redis,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Failed {
    /// The outcome of a write.
    pub outcome: Outcome,
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0:?} is not an endpoint: give host:port")]
    InvalidEndpoint(String),
    #[error("no {name} answers at {endpoints}: {message}; name its nodes with --endpoints")]
    NoAnswer { name: &'static str, endpoints: String, message: String },
    #[error("could not delete all keys that begin with {prefix}: {message}")]
    NotCleared { prefix: String, message: String },
}

/// A store, connected lazily. Clones share connections where the protocol can.
#[derive(Clone)]
pub enum Store {
    Ringfort(ringfort::Store),
    Etcd(etcd::Store),
    Redis(redis::Store),
}

/// One client of a store, with one request under way at a time.
pub enum Session {
    Ringfort(ringfort::Session),
    Etcd(etcd::Session),
    Redis(redis::Session),
}

impl Store {
    /// A peer at `endpoints`.
    pub fn peer(peer: Peer, endpoints: &[String], timeout: Duration, values: Values) -> Result<Store, StoreError> {
        Ok(match peer {
            Peer::Etcd => Store::Etcd(etcd::Store::new(endpoints, timeout, values)?),
            Peer::Redis => Store::Redis(redis::Store::new(endpoints, timeout, values)?),
        })
    }

    /// Ringfort at `endpoints`; learns its nodes and shards from the first that answers.
    pub async fn ringfort(
        endpoints: &[String],
        timeout: Duration,
        values: Values,
    ) -> Result<Store, ringfort_client::Error> {
        Ok(Store::Ringfort(ringfort::Store::new(endpoints, timeout, values).await?))
    }

    pub fn name(&self) -> &'static str {
        match self {
            Store::Ringfort(_) => "ringfort",
            Store::Etcd(_) => "etcd",
            Store::Redis(_) => "redis",
        }
    }

    pub fn session(&self) -> Session {
        match self {
            Store::Ringfort(store) => Session::Ringfort(store.session()),
            Store::Etcd(store) => Session::Etcd(store.session()),
            Store::Redis(store) => Session::Redis(store.session()),
        }
    }

    /// Whether it can increment and append.
    pub fn has_counters_and_appends(&self) -> bool {
        match self {
            Store::Ringfort(_) | Store::Redis(_) => true,
            // etcd can increment only with a read and a conditional put, which may have to be repeated.
            Store::Etcd(_) => false,
        }
    }

    /// How many shards the store has, if it has numbered shards.
    pub fn shards(&self) -> Option<ShardCount> {
        match self {
            Store::Ringfort(store) => Some(store.shards()),
            Store::Etcd(_) | Store::Redis(_) => None,
        }
    }

    /// The shard of a key, if the store has numbered shards.
    pub fn shard_of(&self, key: &[u8]) -> Option<u32> {
        self.shards().map(|shards| shards.shard_of_key(key).0)
    }

    /// Deletes all keys with a prefix.
    pub async fn clear(&self, prefix: &str) -> Result<(), StoreError> {
        let cleared = match self {
            Store::Ringfort(store) => store.clear(prefix).await,
            Store::Etcd(store) => store.clear(prefix).await,
            Store::Redis(store) => store.clear(prefix).await,
        };
        cleared.map_err(|message| StoreError::NotCleared { prefix: prefix.to_owned(), message })
    }
}

impl Session {
    /// Asks for one thing. The answer is of the request's kind, with what the store told.
    pub async fn call(&mut self, key: &Bytes, request: Request) -> Result<Kind, Failed> {
        match self {
            Session::Ringfort(session) => session.call(key, request).await,
            Session::Etcd(session) => session.call(key, request).await,
            Session::Redis(session) => session.call(key, request).await,
        }
    }
}

/// The host and port of an endpoint.
fn address(endpoint: &str) -> Result<String, StoreError> {
    let address = endpoint.trim().trim_start_matches("http://");
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address.to_owned()),
        _ => Err(StoreError::InvalidEndpoint(endpoint.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_without_words_gets_some() {
        let told = |status: tonic::Status| Failed::from(status).message;
        assert_eq!(told(tonic::Status::unimplemented("")), "the server there does not know this request");
        assert!(!told(tonic::Status::internal("")).is_empty());
        assert_eq!(told(tonic::Status::internal("why")), "why");
    }

    #[test]
    fn endpoints_have_a_host_and_a_port() {
        assert_eq!(address(" http://localhost:6379").unwrap(), "localhost:6379");
        for bad in ["", "localhost", ":1", "host:x", "host:70000"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
