//! How an error tells whether a write was applied. Nodes build their errors here and clients read them here.
//!
//! | status | `ringfort-outcome` | meaning | a client |
//! |---|---|---|---|
//! | `UNAVAILABLE` | `not-applied` | no leader, another leader, shutting down | asks `ringfort-leader` or another node at once |
//! | `RESOURCE_EXHAUSTED` | `not-applied` | a queue or the memory is full | retries later |
//! | `INVALID_ARGUMENT` | `not-applied` | the request is wrong | does not retry |
//! | `FAILED_PRECONDITION` | `not-applied` | this is another cluster, or the request can't be executed in the current state | does not retry |
//! | `DEADLINE_EXCEEDED` | `unknown` | no quorum answered in time | never retries a write |
//! | `UNIMPLEMENTED` | none | the node runs an earlier version, which does not have the method | does not retry |
//! | any other | none | something broke on the way | never retries a write |
//!
//! **The metadata decides, not the code.** gRPC libraries and proxies generate `UNAVAILABLE` and `RESOURCE_EXHAUSTED`
//! themselves, for requests that did reach a node: when a connection misses its keep-alive, everything in flight on it
//! ends with `UNAVAILABLE`. Retrying such a write would apply it twice, with other writes in between. So an error
//! without `ringfort-outcome` means unknown, with two exceptions: a request that certainly [reached no
//! handler](reached_no_handler), and one whose [method is unknown](is_unknown_method) to the node.
//!
//! A read has no outcome: any read may be retried.

use crate::metadata;
use std::error::Error;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const NOT_APPLIED: &str = "not-applied";
const UNKNOWN: &str = "unknown";

/// What an error says about its write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was not applied and never will be.
    NotApplied,
    /// It was applied, may still be, or never will be.
    Unknown,
}

/// `UNAVAILABLE`: this node cannot execute the request; `leader` is the gRPC address of a node that can.
pub fn unavailable(message: impl Into<String>, leader: Option<&str>) -> Status {
    let mut status = marked(Code::Unavailable, message, NOT_APPLIED);
    if let Some(leader) = leader {
        metadata::set_leader(status.metadata_mut(), leader);
    }
    status
}

/// `RESOURCE_EXHAUSTED`: refused before the proposal, because a bound was reached.
pub fn overloaded(message: impl Into<String>) -> Status {
    marked(Code::ResourceExhausted, message, NOT_APPLIED)
}

/// `INVALID_ARGUMENT`: refused, and every retry would be refused too.
pub fn invalid(message: impl Into<String>) -> Status {
    marked(Code::InvalidArgument, message, NOT_APPLIED)
}

/// `FAILED_PRECONDITION`: the request is for another cluster than this node's.
pub fn other_cluster(cluster_id: u64) -> Status {
    marked(Code::FailedPrecondition, format!("this node belongs to cluster {cluster_id:016x}"), NOT_APPLIED)
}

/// `FAILED_PRECONDITION`: something else must be done first, which the message says.
pub fn refused(message: impl Into<String>) -> Status {
    marked(Code::FailedPrecondition, message, NOT_APPLIED)
}

/// `DEADLINE_EXCEEDED`: proposed, and no answer in time.
pub fn unknown(message: impl Into<String>) -> Status {
    marked(Code::DeadlineExceeded, message, UNKNOWN)
}

fn marked(code: Code, message: impl Into<String>, outcome: &'static str) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert(metadata::OUTCOME, MetadataValue::from_static(outcome));
    status
}

/// The outcome of a write that was answered with `status`.
pub fn of(status: &Status) -> Outcome {
    match status.metadata().get(metadata::OUTCOME).map(|value| value.as_bytes()) {
        Some(value) if value == NOT_APPLIED.as_bytes() => Outcome::NotApplied,
        Some(_) => Outcome::Unknown,
        None if reached_no_handler(status) || is_unknown_method(status) => Outcome::NotApplied,
        None => Outcome::Unknown,
    }
}

/// Whether no handler of a server saw the request, and none ever will:
///
/// - The connection could not be made, or it was found closed before it took the request. (hyper calls the latter
///   canceled, and in HTTP/2 nothing else: it hands the request back.)
/// - The server announced by a GOAWAY that it stops, and that this request's stream is not among those which it
///   processes (RFC 9113, section 6.8). The library ends such streams with the server's GOAWAY, refuses requests that
///   come after it, and may cancel a request whose headers are sent and whose message is not: a handler is called only
///   with the message. Streams that the server does process keep waiting for their answers.
pub fn reached_no_handler(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>()
            || error.downcast_ref().is_some_and(hyper::Error::is_canceled)
            || error.downcast_ref().is_some_and(is_of_a_server_that_stops)
        {
            return true;
        }
        source = error.source();
    }
    false
}

fn is_of_a_server_that_stops(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

/// Whether the server does not have the method: a node of an earlier version. The gRPC server of a node answers this
/// before any handler sees the request, and without a message. With a message, the same code comes from elsewhere and
/// proves nothing: a client's library reports a response that it can't decompress like this, and a proxy's HTTP status
/// 404. A proxy that forwards a write again after a failure could make this answer wrong, and any other one too.
fn is_unknown_method(status: &Status) -> bool {
    status.code() == Code::Unimplemented && status.message().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_marks_is_read_back() {
        let leader = unavailable("not the leader", Some("node2:50051"));
        assert_eq!(metadata::leader(leader.metadata()), Some("node2:50051"));
        for status in [leader, overloaded("full"), invalid("empty key"), refused("first"), other_cluster(7)] {
            assert_eq!(of(&status), Outcome::NotApplied, "{status}");
        }
        assert_eq!(of(&unknown("no quorum")), Outcome::Unknown);
    }

    #[test]
    fn unmarked_errors_of_libraries_and_proxies_are_unknown() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown]
        {
            assert_eq!(of(&Status::new(code, "from a proxy")), Outcome::Unknown, "{code:?}");
        }
    }

    #[test]
    fn a_method_that_a_node_does_not_have_applied_nothing() {
        assert_eq!(of(&Status::unimplemented("")), Outcome::NotApplied);
        assert_eq!(of(&Status::unimplemented("Content is compressed with `gzip`")), Outcome::Unknown);
    }

    #[test]
    fn a_mark_of_a_later_version_is_unknown() {
        let mut status = overloaded("full");
        status.metadata_mut().insert(metadata::OUTCOME, MetadataValue::from_static("half-applied"));
        assert_eq!(of(&status), Outcome::Unknown);
    }

    #[test]
    fn a_connection_that_was_never_made_applied_nothing() {
        let refused = tonic::ConnectError("connection refused".into());
        assert_eq!(of(&Status::from_error(Box::new(refused))), Outcome::NotApplied);
    }
}
