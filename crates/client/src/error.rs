//! The errors of a call, and what they mean for a write.

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
    #[error("no node could answer in time ({}); check that the nodes run and are reachable", list(.causes))]
    Unavailable {
        /// Why each endpoint that was asked did not answer.
        causes: Vec<Cause>,
    },

    /// Refused before the proposal because a bound was reached. Nothing was applied; safe to retry after a pause.
    #[error("nothing was done: {}", describe(.0))]
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
    #[error("a node's answer makes no sense: {0}; do the program versions of client and nodes match?")]
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

impl From<Causes> for Error {
    fn from(causes: Causes) -> Error {
        Error::Unavailable { causes: causes.0 }
    }
}

fn list(causes: &[Cause]) -> String {
    if causes.is_empty() {
        return "the time limit was over before any was asked".to_owned();
    }
    let each: Vec<String> =
        causes.iter().map(|cause| format!("{}: {}", cause.endpoint, describe(&cause.status))).collect();
    each.join("; ")
}

/// A status in words, including its root cause: "transport error" alone does not help.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text.replace(['\n', '\r'], " ")
}
