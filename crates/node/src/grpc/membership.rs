//! The Membership service: whether this node belongs to a cluster. Served by members, and by nodes that wait for their
//! cluster or begin it.

use super::connections;
use super::refusing::Refusing;
use crate::metrics::Connections;
use bytes::Bytes;
use ringfort_core::boot::Owner;
use ringfort_core::timing::Timing;
use ringfort_core::types::ClusterId;
use ringfort_proto::original::kv_server::KvServer as OriginalServer;
use ringfort_proto::outcome;
use ringfort_proto::v1::cluster_server::ClusterServer;
use ringfort_proto::v1::kv_server::KvServer;
use ringfort_proto::v1::membership_server::{Membership, MembershipServer};
use ringfort_proto::v1::{MembershipRequest, MembershipResponse};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

pub struct MembershipService {
    /// 0 while the node is part of no cluster.
    cluster: Arc<AtomicU64>,
    /// None while it is part of none.
    timing: Option<Timing>,
    node_id: String,
    identity: Bytes,
    may_begin: bool,
}

impl MembershipService {
    /// Of a node that waits for its cluster.
    fn waiting(owner: &Owner, may_begin: bool) -> MembershipService {
        let identity = Bytes::copy_from_slice(&owner.identity.0.to_le_bytes());
        MembershipService { cluster: Arc::default(), timing: None, node_id: owner.name.clone(), identity, may_begin }
    }

    /// Of a member of a cluster.
    pub fn member(cluster: ClusterId, timing: Timing, owner: &Owner) -> MembershipService {
        let service = MembershipService::waiting(owner, false);
        service.cluster.store(cluster.0, Ordering::SeqCst);
        MembershipService { timing: Some(timing), ..service }
    }
}

#[tonic::async_trait]
impl Membership for MembershipService {
    async fn ask(&self, _: Request<MembershipRequest>) -> Result<Response<MembershipResponse>, Status> {
        let (node_id, identity, may_begin) = (self.node_id.clone(), self.identity.clone(), self.may_begin);
        let cluster_id = self.cluster.load(Ordering::SeqCst);
        let election_timeout_ms = self.timing.map_or(0, Timing::election_timeout_ms);
        Ok(Response::new(MembershipResponse { cluster_id, node_id, identity, may_begin, election_timeout_ms }))
    }
}

/// Serves the port for clients while the node waits for its cluster: answers Membership, and refuses all other calls.
/// Ends when dropped.
pub struct Waiting {
    cluster: Arc<AtomicU64>,
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
        let service = MembershipService::waiting(owner, may_begin);
        let cluster = service.cluster.clone();
        let (_, health) = tonic_health::server::health_reporter();
        runtime.spawn(async move {
            let served = Server::builder()
                .add_service(MembershipServer::new(service))
                .add_service(Refusing::<KvServer<()>>::new(waits.clone()))
                .add_service(Refusing::<OriginalServer<()>>::new(waits.clone()))
                .add_service(Refusing::<ClusterServer<()>>::new(waits))
                .add_service(health)
                // The sender is only ever dropped, so the error means: stop.
                .serve_with_incoming_shutdown(connections, async move { drop(stopped.await) })
                .await;
            if let Err(error) = served {
                tracing::warn!("could not answer calls while waiting for a cluster: {error}");
            }
        });
        Ok(Waiting { cluster, _stop: stop })
    }

    /// From now on the node says that it is part of this cluster, although it does not serve yet: to begin a cluster takes
    /// some syncs, and another node must not begin one meanwhile.
    pub fn begins(&self, cluster: ClusterId) {
        self.cluster.store(cluster.0, Ordering::SeqCst);
    }
}
