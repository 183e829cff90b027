//! The errors of a call, and what they mean for a write.

use crate::endpoints::NO_SIGN_OF_LIFE;
use crate::routes::Address;
use ringfort_proto::metadata;
use ringfort_proto::outcome::Outcome;
use std::io;
use tonic::{Code, Status};

/// Why a call has no answer. [`Error::outcome`] says whether a write was applied, [`Error::is_retry_safe`] whether the
/// same call may be made again.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/node.rs"));
/// # fn main() {
/// # with_node(async |endpoint| {
/// use ringfort_client::{Client, Error, Outcome};
/// use std::time::Duration;
///
/// /// Adds one to a counter that nobody else writes. Returns whether that was done; if not, it may be tried again.
/// async fn count(client: &Client, key: &str) -> Result<bool, Error> {
///     let found = client.get(key.to_owned()).await?;
///     let next = found.map_or(0, |found| str::from_utf8(&found.value).unwrap().parse().unwrap()) + 1;
///     match client.put(key.to_owned(), next.to_string()).await {
///         Ok(_) => Ok(true),
///         // It may have been applied, and may be yet: to add one again could count twice.
///         Err(error) if error.outcome() == Outcome::Unknown => Err(error),
///         // It was not, and never will be.
///         Err(error) if error.is_retry_safe() => Ok(false),
///         Err(error) => Err(error),
///     }
/// }
///
/// let client = Client::connect([endpoint])?;
/// assert!(count(&client, "visits").await? && count(&client, "visits").await?);
/// assert_eq!(client.get("visits").await?.unwrap().value, "2");
///
/// let nobody = Client::connect(["127.0.0.1:1"])?.with_timeout(Duration::from_millis(100));
/// let error = nobody.put("visits", "3").await.unwrap_err();
/// assert!(matches!(error, Error::Unavailable { .. }) && error.is_retry_safe());
/// assert_eq!(error.outcome(), Outcome::NotApplied);
/// let error = client.put("", "an empty key").await.unwrap_err();
/// assert!(matches!(error, Error::Rejected(_)) && !error.is_retry_safe());
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address; the text says why. Nothing was sent; a retry is useless.
    #[error("{0}")]
    InvalidEndpoint(String),

    /// Until the deadline no node could execute the request: unreachable, or without a leader. Nothing was applied;
    /// safe to retry.
    #[error("{}", unavailable(.causes))]
    Unavailable {
        /// Why each endpoint that was asked did not answer.
        causes: Vec<Cause>,
    },

    /// Refused before the proposal because a bound was reached. Nothing was applied; safe to retry after a pause.
    #[error("the request was not executed: {}", describe(.0))]
    Overloaded(#[source] Status),

    /// The request itself was refused. Nothing was applied; a retry would be refused too.
    #[error("the request was refused: {}", describe(.0))]
    Rejected(#[source] Status),

    /// The write may have been applied, may still be, or may never be. Read the key before deciding; a blind retry can
    /// apply it twice with other clients' writes in between.
    #[error("the write's outcome is unknown ({}); read the key before you repeat it", describe(.0))]
    UnknownOutcome(#[source] Status),

    /// The endpoints belong to two clusters, or an address that used to be this cluster's now answers for another one.
    /// Nothing was applied; a retry is useless.
    #[error(
        "{address} belongs to cluster {found:016x}, and {other_address} to cluster {expected:016x}: give endpoints of \
         one cluster"
    )]
    OtherCluster { address: String, found: u64, other_address: String, expected: u64 },

    /// A node's answer contradicts the protocol: a bug, or a node of a much later version. Only reads return this
    /// error.
    #[error("a node sent an invalid answer: {0}; run the same version of Ringfort on clients and nodes")]
    BadAnswer(&'static str),
}

/// Why an endpoint did not answer.
#[derive(Debug)]
pub struct Cause {
    /// Its address, host:port.
    pub endpoint: String,
    pub status: Status,
}

impl Cause {
    /// Whether a node said it, which runs.
    fn is_of_a_node(&self) -> bool {
        self.status.metadata().contains_key(metadata::OUTCOME) && self.status.message() != NO_SIGN_OF_LIFE
    }

    /// Whether no process listens at the endpoint.
    pub fn is_connection_refused(&self) -> bool {
        let mut source = std::error::Error::source(&self.status);
        while let Some(error) = source {
            if error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return true;
            }
            source = error.source();
        }
        false
    }
}

impl Error {
    /// Whether the write that ended with this error was applied.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::UnknownOutcome(_) => Outcome::Unknown,
            Error::InvalidEndpoint(_)
            | Error::Unavailable { .. }
            | Error::Overloaded(_)
            | Error::Rejected(_)
            | Error::OtherCluster { .. }
            | Error::BadAnswer(_) => Outcome::NotApplied,
        }
    }

    /// Whether the same call may be made again with a chance of success, and without a write being applied twice.
    pub fn is_retry_safe(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::Overloaded(_))
    }
}

/// The failures of the endpoints that were asked, one for each.
#[derive(Debug, Default)]
pub(crate) struct Causes(Vec<Cause>);

impl Causes {
    /// Notes an endpoint's failure. It replaces an earlier one, unless it is only a timeout.
    pub(crate) fn note(&mut self, endpoint: &str, status: Status) {
        match self.0.iter_mut().find(|cause| cause.endpoint == endpoint) {
            Some(known) if status.code() != Code::DeadlineExceeded => known.status = status,
            Some(_) => {}
            None => self.0.push(Cause { endpoint: endpoint.to_owned(), status }),
        }
    }
}

impl Causes {
    /// The error for a cluster with nodes at these addresses, which may be none that is known. An endpoint by which the
    /// user names one of them is left out, because the node would be there twice.
    pub(crate) fn into_error(self, nodes: &[Address]) -> Error {
        let Causes(mut causes) = self;
        let is_node = |cause: &Cause| nodes.iter().any(|node| **node == *cause.endpoint);
        let all_are_there = nodes.iter().all(|node| causes.iter().any(|cause| *cause.endpoint == **node));
        let says_enough = causes.iter().filter(|cause| is_node(cause)).any(Cause::is_of_a_node)
            || !causes.iter().any(Cause::is_of_a_node);
        if !nodes.is_empty() && all_are_there && says_enough {
            causes.retain(is_node);
        }
        Error::Unavailable { causes }
    }
}

/// Why no node could answer, and what to do. Where some nodes answer that they can't, those that do not answer are what is
/// missing.
fn unavailable(causes: &[Cause]) -> String {
    let (answered, silent): (Vec<&Cause>, Vec<&Cause>) = causes.iter().partition(|cause| cause.is_of_a_node());
    match (&answered[..], &silent[..]) {
        ([], []) => {
            "no node could answer in time (the time limit passed before any was asked); check that the nodes run and \
             are reachable"
                .to_owned()
        }
        ([first, ..], [_, ..]) => format!(
            "{} ({}): start the nodes that do not answer ({})",
            describe(&first.status),
            first.endpoint,
            list(&silent)
        ),
        _ => format!(
            "no node could answer in time ({}); check that the nodes run and are reachable",
            list(&causes.iter().collect::<Vec<_>>())
        ),
    }
}

/// The causes, each with all endpoints that have it.
fn list(causes: &[&Cause]) -> String {
    let mut endpoints: Vec<(String, Vec<&str>)> = Vec::new();
    for cause in causes {
        let why = describe(&cause.status);
        match endpoints.iter_mut().find(|(other, _)| *other == why) {
            Some((_, same)) => same.push(&cause.endpoint),
            None => endpoints.push((why, vec![&cause.endpoint])),
        }
    }
    let each: Vec<String> = endpoints.iter().map(|(why, same)| format!("{}: {why}", same.join(", "))).collect();
    each.join("; ")
}

/// A status in words. Of an error of the connection only the root cause: what is above it says less.
fn describe(status: &Status) -> String {
    let mut text = match status.message() {
        "" if status.code() == Code::Unimplemented => {
            "what listens there does not know this request; upgrade the node, if it is one".to_owned()
        }
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_proto::outcome;

    fn causes(causes: &[(&str, &Status)]) -> Causes {
        let mut noted = Causes::default();
        causes.iter().for_each(|(endpoint, status)| noted.note(endpoint, (*status).clone()));
        noted
    }

    #[test]
    fn without_a_quorum_the_nodes_that_do_not_answer_are_named_once_and_are_to_be_started() {
        let leaderless = outcome::unavailable("shard 63 has no leader that could be reached in time", None);
        let refused = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
        let mute = outcome::unavailable(NO_SIGN_OF_LIFE, None);
        let nodes = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].map(Address::from);
        let noted = causes(&[
            ("127.0.0.1:1", &leaderless),
            ("127.0.0.1:2", &refused),
            ("127.0.0.1:3", &refused),
            ("localhost:2", &mute),
            ("localhost:1", &leaderless),
        ]);
        assert_eq!(
            noted.into_error(&nodes).to_string(),
            "shard 63 has no leader that could be reached in time (127.0.0.1:1): start the nodes that do not answer \
             (127.0.0.1:2, 127.0.0.1:3: connection refused)"
        );
        let noted = causes(&[("127.0.0.1:2", &refused), ("localhost:1", &leaderless)]);
        let Error::Unavailable { causes } = noted.into_error(&nodes[1..2]) else { panic!("nodes did not answer") };
        assert_eq!(causes.len(), 2, "a node answers only at the endpoint that the user gave");
    }

    #[test]
    fn nodes_that_do_not_answer_for_the_same_reason_are_told_together() {
        let mute = outcome::unavailable(NO_SIGN_OF_LIFE, None);
        assert_eq!(
            causes(&[("a:1", &mute), ("b:1", &mute)]).into_error(&[]).to_string(),
            "no node could answer in time (a:1, b:1: no sign of life); check that the nodes run and are reachable"
        );
    }
}
