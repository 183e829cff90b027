//! The Membership service: whether this node belongs to a cluster. Served by members, and by nodes that wait for their
//! cluster.

use super::connections;
use super::refusing::Refusing;
use crate::metrics::Connections;
use bytes::Bytes;
use ringfort_core::boot::Owner;
use ringfort_proto::outcome;
use ringfort_proto::v1::cluster_server::ClusterServer;
use ringfort_proto::v1::kv_server::KvServer;
use ringfort_proto::v1::membership_server::{Membership, MembershipServer};
use ringfort_proto::v1::{MembershipRequest, MembershipResponse};
use std::io;
use std::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Always gives the same answer: a node that joins a cluster replaces this service.
pub struct MembershipService(MembershipResponse);

impl MembershipService {
    pub fn new(cluster_id: u64, owner: &Owner, may_begin: bool) -> MembershipService {
        let identity = Bytes::copy_from_slice(&owner.identity.0.to_le_bytes());
        MembershipService(MembershipResponse { cluster_id, node_id: owner.name.clone(), identity, may_begin })
    }
}

#[tonic::async_trait]
impl Membership for MembershipService {
    async fn ask(&self, _: Request<MembershipRequest>) -> Result<Response<MembershipResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }
}

/// Serves the port for clients while the node waits for its cluster: answers Membership, and refuses all other calls.
/// Ends when dropped.
pub struct Waiting {
    _stop: oneshot::Sender<()>,
}

impl Waiting {
    /// Serves on the socket of `listener`, with at most `most` connections. The socket can be used again afterwards.
    pub fn serve(
        runtime: &Runtime,
        (listener, most): (&TcpListener, usize),
        counters: Connections,
        owner: &Owner,
        may_begin: bool,
    ) -> io::Result<Waiting> {
        let _context = runtime.enter();
        let connections =
            connections::accepted(tokio::net::TcpListener::from_std(listener.try_clone()?)?, most, counters);
        let (stop, stopped) = oneshot::channel::<()>();
        let waits = "this node is part of no cluster yet: its log names the nodes that it waits for";
        let waits = outcome::unavailable(waits, None);
        let service = MembershipService::new(0, owner, may_begin);
        let (_, health) = tonic_health::server::health_reporter();
        runtime.spawn(async move {
            let served = Server::builder()
                .add_service(MembershipServer::new(service))
                .add_service(Refusing::<KvServer<()>>::new(waits.clone()))
                .add_service(Refusing::<ClusterServer<()>>::new(waits))
                .add_service(health)
                // The sender is only ever dropped, so the error means: stop.
                .serve_with_incoming_shutdown(connections, async move { drop(stopped.await) })
                .await;
            if let Err(error) = served {
                tracing::warn!("could not answer calls while waiting for a cluster: {error}");
            }
        });
        Ok(Waiting { _stop: stop })
    }
}
