//! The node's gRPC servers: one for clients and operators, one for the other nodes.

mod call;
mod cluster;
mod connections;
pub mod gossip;
mod kv;
mod marked;
pub mod membership;
mod operate;
mod original;
mod peer;
pub mod refusing;
pub mod status;
mod timeout;

use crate::service::{CallError, ErrorKind, Service};
use crate::shell::Shell;
use refusing::Refusing;
use ringfort_core::boot::Owner;
use ringfort_core::limits::{LARGEST_ENTRY_BYTES, MAX_PEER_MESSAGE_BYTES};
use ringfort_proto::original::kv_server::KvServer as OriginalServer;
use ringfort_proto::v1::cluster_server::ClusterServer;
use ringfort_proto::v1::kv_server::KvServer;
use ringfort_proto::v1::membership_server::MembershipServer;
use ringfort_proto::v1::peer_server::PeerServer;
use ringfort_proto::{FILE_DESCRIPTOR_SET, outcome};
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

/// The largest request of a client: above the largest key and value.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// Requests in flight on one connection; HTTP/2 makes the client wait with more.
const MAX_REQUESTS_IN_FLIGHT: u32 = 1024;

/// What a client may have under way before the node must say that it has read some.
const CLIENT_WINDOW_BYTES: u32 = 1 << 20;
const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// As many for a peer: a batch is not to wait for the answer to the one before.
const PEER_WINDOW_BYTES: u32 = 8 << 20;

/// A connection on which nothing was heard for this long is asked for a sign of life.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The names of the services whose health is reported in addition to the node's.
const KEYS: &str = KvServer::<kv::KvService>::NAME;
const ORIGINAL_KEYS: &str = OriginalServer::<original::OriginalService>::NAME;

const _: () = assert!(LARGEST_ENTRY_BYTES < MAX_REQUEST_BYTES);

/// Serves clients until `stop` is done and what they asked is answered.
pub async fn serve_clients(
    shell: Arc<Shell>,
    (listener, most): (TcpListener, usize),
    health: HealthServer<impl Health>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let connections = connections::accepted(listener, most, shell.metrics.client_connections.clone());
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
    let service = Service::new(shell.clone());
    let original = original::OriginalService { service: service.clone(), shell: shell.clone() };
    let original = OriginalServer::new(original).max_decoding_message_size(MAX_REQUEST_BYTES);
    let kv = KvServer::new(kv::KvService { service }).max_decoding_message_size(MAX_REQUEST_BYTES);
    let topology = shell.routing.topology();
    let own = topology.nodes.get(&shell.node).cloned().unwrap_or_default();
    let owner = Owner { identity: own.identity, name: own.name };
    let membership = membership::MembershipService::member(shell.cluster, topology.timing, &owner);
    Server::builder()
        .max_concurrent_streams(MAX_REQUESTS_IN_FLIGHT)
        .initial_stream_window_size(CLIENT_WINDOW_BYTES)
        .initial_connection_window_size(CLIENT_CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .add_service(marked::Marked(kv))
        .add_service(marked::Marked(original))
        .add_service(ClusterServer::new(cluster::ClusterService { shell }))
        .add_service(MembershipServer::new(membership))
        .add_service(health)
        .add_service(descriptors().build_v1().expect(broken))
        .add_service(descriptors().build_v1alpha().expect(broken))
        .serve_with_incoming_shutdown(connections, stop)
        .await
}

/// Tells load balancers whether clients should come here: for the node as a whole, and for the services for keys.
pub async fn set_health(health: &HealthReporter, is_serving: bool) {
    let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", KEYS, ORIGINAL_KEYS] {
        health.set_service_status(service, status).await;
    }
}

/// Ends the streams of health watchers, after they have got the last status: an open one would keep the server from
/// ending.
pub async fn end_watches(health: &mut HealthReporter) {
    for service in ["", KEYS, ORIGINAL_KEYS] {
        health.clear_service_status(service).await;
    }
}

/// Serves the other nodes for as long as the process runs.
pub async fn serve_peers(
    shell: Arc<Shell>,
    (listener, most): (TcpListener, usize),
) -> Result<(), tonic::transport::Error> {
    let connections = connections::accepted(listener, most, shell.metrics.peer_connections.clone());
    let members = shell.routing.members();
    let clients = members.get(&shell.node).map_or("--port", |own| &own.grpc_address);
    let wrong_port = outcome::refused(format!("this is not a node's port for clients, which is {clients}"));
    let peer = PeerServer::new(peer::PeerService::new(shell)).max_decoding_message_size(MAX_PEER_MESSAGE_BYTES);
    Server::builder()
        .initial_stream_window_size(PEER_WINDOW_BYTES)
        .initial_connection_window_size(PEER_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .add_service(peer)
        .add_service(Refusing::<KvServer<()>>::new(wrong_port.clone()))
        .add_service(Refusing::<OriginalServer<()>>::new(wrong_port.clone()))
        .add_service(Refusing::<ClusterServer<()>>::new(wrong_port.clone()))
        .add_service(Refusing::<MembershipServer<()>>::new(wrong_port))
        .serve_with_incoming(connections)
        .await
}

/// An error as a client sees it.
fn status_of(error: &CallError) -> Status {
    let said = error.to_string();
    match error.kind() {
        ErrorKind::Unavailable => outcome::unavailable(said, error.leader()),
        ErrorKind::Overloaded => outcome::overloaded(said),
        ErrorKind::Invalid => outcome::invalid(said),
        ErrorKind::Unknown => outcome::unknown(said),
    }
}
