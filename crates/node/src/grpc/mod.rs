//! The node's gRPC servers: one for clients and operators, one for the other nodes.

mod arriving;
mod bounded;
mod call;
pub mod cluster;
mod connections;
mod gossip;
mod kv;
pub mod membership;
mod operate;
mod original;
pub mod peer;
pub mod refusing;
mod status;
mod timeout;

use crate::error_kind::ErrorKind;
use crate::events::NoAnswer;
use crate::metrics::{Connections, IncompleteRequests};
use crate::service::{CallError, Service};
use arriving::Arriving;
use bounded::Bounded;
use cluster::ClusterService;
use peer::PeerService;
use refusing::Refusing;
use ringfort_core::limits::{LARGEST_ENTRY_BYTES, MAX_PEER_MESSAGE_BYTES};
use ringfort_proto::original::kv_server::KvServer as OriginalServer;
use ringfort_proto::v1::cluster_server::ClusterServer;
use ringfort_proto::v1::kv_server::KvServer;
use ringfort_proto::v1::membership_server::MembershipServer;
use ringfort_proto::v1::peer_server::PeerServer;
use ringfort_proto::{FILE_DESCRIPTOR_SET, metadata, outcome};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

/// The largest request from a client: larger than the largest key and value together.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// The largest message of a call that has several requests, which count nowhere: one about reflection.
const MAX_STREAMED_REQUEST_BYTES: usize = 4 << 10;

/// The headers of a call; a client must not send more.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Requests in flight on one connection; HTTP/2 makes the client wait before sending more.
const MAX_REQUESTS_IN_FLIGHT: u32 = 1024;

/// HTTP/2's flow-control window for clients: bytes in flight before the node must acknowledge some of them.
const CLIENT_WINDOW_BYTES: u32 = 1 << 20;
const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// The same for peers, large enough that a batch does not wait until the one before it is acknowledged.
const PEER_WINDOW_BYTES: u32 = 8 << 20;

/// A connection that has been idle for this long is sent a keep-alive ping.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The names of the services whose health is reported in addition to the node's.
const KEYS: &str = KvServer::<kv::KvService>::NAME;
const ORIGINAL_KEYS: &str = OriginalServer::<original::OriginalService>::NAME;

const _: () = assert!(LARGEST_ENTRY_BYTES < MAX_REQUEST_BYTES);

/// Serves clients until `stop` completes and all requests under way are answered.
pub async fn serve_clients(
    (service, cluster): (Service, ClusterService),
    (listener, most): (TcpListener, usize),
    (counters, incomplete): (Connections, IncompleteRequests),
    health: HealthServer<impl Health>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let connections = connections::accepted(listener, most, counters);
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .with_service_name("ringfort.v1.Kv")
            .with_service_name("ringfort.v1.Cluster")
            .with_service_name("ringfort.v1.Membership")
            .with_service_name("proto.KV")
            .with_service_name("grpc.health.v1.Health")
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = "the descriptors come from the compiler";
    let reflection_v1 = descriptors().build_v1().expect(broken);
    let reflection_v1alpha = descriptors().build_v1alpha().expect(broken);
    let arriving = Arc::new(Arriving::new(incomplete));
    let original = original::OriginalService { service: service.clone() };
    let original = OriginalServer::new(original).max_decoding_message_size(MAX_REQUEST_BYTES);
    let kv = KvServer::new(kv::KvService { service }).max_decoding_message_size(MAX_REQUEST_BYTES);
    let membership = cluster.membership();
    Server::builder()
        .max_concurrent_streams(MAX_REQUESTS_IN_FLIGHT)
        .initial_stream_window_size(CLIENT_WINDOW_BYTES)
        .initial_connection_window_size(CLIENT_CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .add_service(Bounded::new(kv, &arriving))
        .add_service(Bounded::new(original, &arriving))
        .add_service(Bounded::new(ClusterServer::new(cluster), &arriving))
        .add_service(Bounded::new(MembershipServer::new(membership), &arriving))
        .add_service(Bounded::new(health, &arriving))
        .add_service(reflection_v1.max_decoding_message_size(MAX_STREAMED_REQUEST_BYTES))
        .add_service(reflection_v1alpha.max_decoding_message_size(MAX_STREAMED_REQUEST_BYTES))
        .serve_with_incoming_shutdown(connections, stop)
        .await
}

/// Sets the health that load balancers see, for the node as a whole and for the key-value services.
pub async fn set_health(health: &HealthReporter, is_serving: bool) {
    let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", KEYS, ORIGINAL_KEYS] {
        health.set_service_status(service, status).await;
    }
}

/// Ends the streams of health watchers after they have received the last status: an open stream would keep the server
/// from shutting down.
pub async fn end_watches(health: &mut HealthReporter) {
    for service in ["", KEYS, ORIGINAL_KEYS] {
        health.clear_service_status(service).await;
    }
}

/// Serves the other nodes until the workers have ended and the other nodes have been told so.
pub async fn serve_peers(
    peers: PeerService,
    (listener, most): (TcpListener, usize),
    counters: Connections,
) -> Result<(), tonic::transport::Error> {
    let connections = connections::accepted(listener, most, counters);
    let clients = peers.client_address().unwrap_or_else(|| "--port".to_owned());
    let wrong_port = outcome::refused(format!("this is not a node's port for clients, which is {clients}"));
    let stopped = peers.stopped();
    let peers = PeerServer::new(peers).max_decoding_message_size(MAX_PEER_MESSAGE_BYTES);
    Server::builder()
        .initial_stream_window_size(PEER_WINDOW_BYTES)
        .initial_connection_window_size(PEER_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .add_service(peers)
        .add_service(Refusing::<KvServer<()>>::new(wrong_port.clone()))
        .add_service(Refusing::<OriginalServer<()>>::new(wrong_port.clone()))
        .add_service(Refusing::<ClusterServer<()>>::new(wrong_port.clone()))
        .add_service(Refusing::<MembershipServer<()>>::new(wrong_port))
        .serve_with_incoming_shutdown(connections, stopped)
        .await
}

/// The gRPC status for an error.
fn status_of(error: &CallError) -> Status {
    let said = error.to_string();
    let mut status = match error.kind() {
        ErrorKind::Unavailable => outcome::unavailable(said, None),
        ErrorKind::Overloaded => outcome::overloaded(said),
        ErrorKind::Invalid => outcome::invalid(said),
        ErrorKind::Refused => outcome::refused(said),
        ErrorKind::Unknown => outcome::unknown(said),
    };
    if let Some(address) = error.leader() {
        metadata::set_leader(status.metadata_mut(), address);
    }
    status
}

impl From<NoAnswer> for Status {
    fn from(reason: NoAnswer) -> Status {
        outcome::unavailable(reason.to_string(), None)
    }
}
