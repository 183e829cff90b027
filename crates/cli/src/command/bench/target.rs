//! Where requests are sent: by the client to the leader of each key, or to given nodes in turn.

use super::workload::Action;
use crate::failure::Failure;
use bytes::Bytes;
use ringfort_client::v1::kv_client::KvClient;
use ringfort_client::v1::{AppendRequest, GetRequest, IncrementRequest, PutRequest};
use ringfort_client::{Client, Error, Outcome};
use ringfort_proto::outcome;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// Large enough for one value.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// One connection per node, shared by a part of the requests in flight.
pub enum Target {
    /// Each request goes to the leader of its key, and is retried if that is safe.
    Leaders(Client),
    /// Each request goes to the next of these nodes, once.
    Nodes { nodes: Vec<KvClient<Channel>>, turn: AtomicUsize, timeout: Duration },
}

/// A connection to one node, made when it is first needed.
pub fn node(endpoint: &str, timeout: Duration) -> Result<KvClient<Channel>, tonic::transport::Error> {
    let address = endpoint.trim().trim_start_matches("http://");
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(timeout).connect_lazy();
    Ok(KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// How a request ended.
pub enum Answer {
    Done,
    /// A get found no such key.
    NotFound,
    Failed {
        outcome: Outcome,
        message: String,
    },
}

impl Target {
    pub fn leaders(endpoints: &[String], timeout: Duration) -> Result<Target, Failure> {
        Ok(Target::Leaders(Client::connect(endpoints)?.with_timeout(timeout)))
    }

    pub fn nodes(endpoints: &[String], timeout: Duration) -> Result<Target, Failure> {
        let nodes = endpoints.iter().map(|endpoint| node(endpoint, timeout)).collect::<Result<_, _>>()?;
        Ok(Target::Nodes { nodes, turn: AtomicUsize::new(0), timeout })
    }

    /// Sends a request. Every put sets `value`, every append adds it, and every increment adds 1.
    pub async fn send(&self, action: Action, key: Bytes, value: &Bytes) -> Answer {
        match self {
            Target::Leaders(client) => {
                let result = match action {
                    Action::Put => client.put(key, value.clone()).await.map(|_| true),
                    Action::Get => client.get(key).await.map(|found| found.is_some()),
                    Action::Increment => client.increment(key, 1).await.map(|_| true),
                    Action::Append => client.append(key, value.clone()).await.map(|_| true),
                };
                Answer::new(result.map_err(|error| (error.outcome(), error.to_string())))
            }
            Target::Nodes { nodes, turn, timeout } => {
                let mut node = nodes[turn.fetch_add(1, Ordering::Relaxed) % nodes.len()].clone();
                let result = match action {
                    Action::Put => {
                        let put = PutRequest { key, value: value.clone(), ..Default::default() };
                        node.put(limited(put, *timeout)).await.map(|_| true)
                    }
                    Action::Get => {
                        let get = GetRequest { key, ..Default::default() };
                        node.get(limited(get, *timeout)).await.map(|answer| answer.get_ref().found)
                    }
                    Action::Increment => {
                        let increment = IncrementRequest { key, by: 1, ..Default::default() };
                        node.increment(limited(increment, *timeout)).await.map(|_| true)
                    }
                    Action::Append => {
                        let append = AppendRequest { key, bytes: value.clone(), ..Default::default() };
                        node.append(limited(append, *timeout)).await.map(|_| true)
                    }
                };
                Answer::new(result.map_err(|status| {
                    let outcome = outcome::of(&status);
                    let error = match outcome {
                        Outcome::NotApplied => Error::Rejected(status),
                        Outcome::Unknown => Error::UnknownOutcome(status),
                    };
                    (outcome, error.to_string())
                }))
            }
        }
    }
}

fn limited<M>(message: M, timeout: Duration) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

impl Answer {
    fn new(result: Result<bool, (Outcome, String)>) -> Answer {
        match result {
            Ok(true) => Answer::Done,
            Ok(false) => Answer::NotFound,
            Err((outcome, message)) => Answer::Failed { outcome, message },
        }
    }
}
