//! The gRPC metadata sent beside the messages.
//!
//! | key | from | value |
//! |---|---|---|
//! | [`LEADER`] | node | the gRPC address to ask next time for the shard of this key |
//! | [`OUTCOME`] | node | on errors: whether the request was applied, see [`crate::outcome`] |
//! | [`CLUSTER`] | client | the cluster that the request is meant for, 16 hexadecimal digits |
//! | [`CALLER`] | node, to another | where clients reach the node that opens a stream |
//!
//! All are optional: a client that knows none of them (grpcurl) loses speed and precision, not correctness.

use crate::outcome;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// On responses and errors: the gRPC address (host:port) of the leader of the key's shard, if the answering node knows
/// it and is not the leader itself.
pub const LEADER: &str = "ringfort-leader";

/// On errors: `not-applied` or `unknown`.
pub const OUTCOME: &str = "ringfort-outcome";

/// On requests: the id of the cluster they are meant for. Another cluster may have taken over the address since the
/// client learned it.
pub const CLUSTER: &str = "ringfort-cluster";

/// On the streams between nodes: the gRPC address (host:port) of the calling node. If that belongs to another cluster,
/// the receiver asks it at this address for its topology.
pub const CALLER: &str = "ringfort-caller";

/// Sets the address of the calling node. An address that is not valid in a header is left out.
pub fn set_caller(metadata: &mut MetadataMap, grpc_address: &str) {
    if let Ok(value) = MetadataValue::try_from(grpc_address) {
        metadata.insert(CALLER, value);
    }
}

/// The gRPC address of the calling node, if it gave one.
pub fn caller(metadata: &MetadataMap) -> Option<&str> {
    metadata.get(CALLER)?.to_str().ok()
}

/// Names the leader for the client's next request. An address that no header can carry is left out.
pub fn set_leader(metadata: &mut MetadataMap, grpc_address: &str) {
    if let Ok(value) = MetadataValue::try_from(grpc_address) {
        metadata.insert(LEADER, value);
    }
}

/// The gRPC address of the leader, if the answer names one.
pub fn leader(metadata: &MetadataMap) -> Option<&str> {
    metadata.get(LEADER)?.to_str().ok().filter(|address| !address.is_empty())
}

/// The value of [`CLUSTER`] for a cluster.
pub fn cluster_value(cluster_id: u64) -> MetadataValue<Ascii> {
    MetadataValue::try_from(format!("{cluster_id:016x}")).expect("hexadecimal digits are ASCII")
}

/// Refuses a request that names another cluster than `cluster_id`; one that names none passes.
///
/// # Errors
/// [`outcome::other_cluster`].
pub fn check_cluster(metadata: &MetadataMap, cluster_id: u64) -> Result<(), Status> {
    match metadata.get(CLUSTER) {
        Some(value) if !is_cluster(value.as_bytes(), cluster_id) => Err(outcome::other_cluster(cluster_id)),
        _ => Ok(()),
    }
}

/// Whether `value` is [`cluster_value`] of `cluster_id`, without building that value for each request.
fn is_cluster(value: &[u8], cluster_id: u64) -> bool {
    let digit = |place: usize| b"0123456789abcdef"[(cluster_id >> (60 - 4 * place)) as usize & 15];
    value.len() == 16 && value.iter().enumerate().all(|(place, &byte)| byte == digit(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_another_cluster_are_refused() {
        let mut metadata = MetadataMap::new();
        assert!(check_cluster(&metadata, 7).is_ok(), "a request that names no cluster passes");
        metadata.insert(CLUSTER, cluster_value(7));
        assert!(check_cluster(&metadata, 7).is_ok());
        let refused = check_cluster(&metadata, 8).unwrap_err();
        assert_eq!(outcome::of(&refused), outcome::Outcome::NotApplied);
    }

    #[test]
    fn a_cluster_is_known_by_its_digits() {
        for cluster in [0, 7, 0x0123_4567_89ab_cdef, u64::MAX] {
            let value = cluster_value(cluster);
            assert!(is_cluster(value.as_bytes(), cluster));
            assert!(!is_cluster(value.as_bytes(), cluster ^ 1 << 63));
            assert!(!is_cluster(value.as_bytes(), cluster ^ 1));
            assert!(!is_cluster(&value.as_bytes()[1..], cluster));
        }
    }

    #[test]
    fn leader_travels_and_what_no_header_can_carry_is_left_out() {
        let mut metadata = MetadataMap::new();
        set_leader(&mut metadata, "two\nlines");
        assert_eq!(leader(&metadata), None);
        set_leader(&mut metadata, "node2:50051");
        assert_eq!(leader(&metadata), Some("node2:50051"));
    }
}
