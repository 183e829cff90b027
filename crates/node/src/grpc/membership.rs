//! The Membership service: whether this node belongs to a cluster. Served by members, and by nodes that wait for their
//! cluster or begin it.

use super::arriving::Arriving;
use super::bounded::Bounded;
use super::connections;
use super::refusing::Refusing;
use super::{end_watches, set_health};
use crate::files::ACCEPT_PAUSE;
use crate::metrics::Metrics;
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
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

pub struct MembershipService {
    /// 0 while the node is part of no cluster.
    cluster: Arc<AtomicU64>,
    /// `None` while the node is part of no cluster.
    timing: Option<Timing>,
    node_id: String,
    identity: Bytes,
    may_begin: bool,
}

impl MembershipService {
    /// For a node that waits for its cluster.
    fn waiting(owner: &Owner, may_begin: bool) -> MembershipService {
        let identity = Bytes::copy_from_slice(&owner.identity.0.to_le_bytes());
        MembershipService { cluster: Arc::default(), timing: None, node_id: owner.name.clone(), identity, may_begin }
    }

    /// For a member of a cluster.
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

/// Each other node dials a waiting node at most five times a second, and the system queues 128 connections.
const CLOSED_AFTER: Duration = Duration::from_secs(2);

/// Serves the ports while the node waits for its cluster. On the port for clients, it answers Membership, reports
/// NOT_SERVING through gRPC's health service, and refuses all other calls. On the port for nodes, it accepts
/// connections and closes them: other nodes check whether they reach this node, and a queue of connections that are
/// never accepted would soon be full. Ends when dropped.
pub struct Waiting {
    cluster: Arc<AtomicU64>,
    _stop: oneshot::Sender<()>,
    /// Ends when dropped.
    _closing: JoinSet<()>,
}

impl Waiting {
    /// Serves clients on the socket of `listener`, with at most `most` connections, and nodes on that of `nodes`. The
    /// sockets can be used again afterwards.
    pub fn serve(
        runtime: &Runtime,
        (listener, most): (&TcpListener, usize),
        metrics: &Metrics,
        nodes: &TcpListener,
        owner: &Owner,
        may_begin: bool,
    ) -> io::Result<Waiting> {
        let _context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let connections = connections::accepted(listener, most, metrics.client_connections.clone());
        let arriving = Arc::new(Arriving::new(metrics.incomplete_requests.clone()));
        let mut closing = JoinSet::new();
        closing.spawn(close_all(tokio::net::TcpListener::from_std(nodes.try_clone()?)?));
        let (stop, stopped) = oneshot::channel::<()>();
        let waits = "this node is not part of a cluster yet: it logs the names of the nodes that it waits for";
        let waits = outcome::unavailable(waits, None);
        let service = MembershipService::waiting(owner, may_begin);
        let cluster = service.cluster.clone();
        let (mut reporter, health) = tonic_health::server::health_reporter();
        runtime.spawn(async move {
            set_health(&reporter, false).await;
            let stop = async move {
                // Nothing is ever sent: dropping the sender means stop.
                drop(stopped.await);
                // An open watch would keep its connection from closing, and report forever that the node does not
                // serve.
                end_watches(&mut reporter).await;
            };
            let served = Server::builder()
                .add_service(Bounded::new(MembershipServer::new(service), &arriving))
                .add_service(Refusing::<KvServer<()>>::new(waits.clone()))
                .add_service(Refusing::<OriginalServer<()>>::new(waits.clone()))
                .add_service(Refusing::<ClusterServer<()>>::new(waits))
                .add_service(Bounded::new(health, &arriving))
                .serve_with_incoming_shutdown(connections, stop)
                .await;
            if let Err(error) = served {
                tracing::warn!("could not answer calls while waiting for a cluster: {error}");
            }
        });
        Ok(Waiting { cluster, _stop: stop, _closing: closing })
    }

    /// From now on the node reports that it belongs to this cluster, although it does not serve yet: creating a cluster
    /// takes several syncs, and no other node may create one meanwhile.
    pub fn begins(&self, cluster: ClusterId) {
        self.cluster.store(cluster.0, Ordering::SeqCst);
    }
}

/// Accepts connections, and closes each at once. Starts only after the node has waited for a while: connections from
/// members that are still queued when the node joins are then served, whereas a closed connection is dialled again only
/// after a pause.
async fn close_all(listener: tokio::net::TcpListener) {
    sleep(CLOSED_AFTER).await;
    loop {
        if listener.accept().await.is_err() {
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_core::types::Identity;
    use std::net::TcpStream;
    use tokio::time::timeout;
    use tonic::transport::Endpoint;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    fn listener() -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    fn waiting(runtime: &Runtime, clients: &TcpListener, nodes: &TcpListener) -> Waiting {
        let owner = Owner { identity: Identity(1), name: "one".to_owned() };
        Waiting::serve(runtime, (clients, 10), &Metrics::new(), nodes, &owner, true).unwrap()
    }

    #[test]
    fn a_node_that_waits_is_reached_however_often_it_is_dialled() {
        // More than the system queues for a listener that accepts no connections.
        const DIALS: usize = 200;
        let runtime = Runtime::new().unwrap();
        let (clients, nodes) = (listener(), listener());
        let waiting = waiting(&runtime, &clients, &nodes);
        let dial = || TcpStream::connect_timeout(&nodes.local_addr().unwrap(), Duration::from_secs(10));
        for number in 0..DIALS {
            let dialled = dial();
            assert!(dialled.is_ok(), "{number}: {dialled:?}");
        }
        drop(waiting);
        assert!(dial().is_ok(), "the socket can still be used");
    }

    #[test]
    fn a_node_that_waits_says_that_it_does_not_serve() {
        let runtime = Runtime::new().unwrap();
        let (clients, nodes) = (listener(), listener());
        let _waiting = waiting(&runtime, &clients, &nodes);
        let endpoint = Endpoint::from_shared(format!("http://{}", clients.local_addr().unwrap())).unwrap();
        runtime.block_on(async {
            let mut client = HealthClient::new(endpoint.connect().await.unwrap());
            for service in ["", "ringfort.v1.Kv"] {
                let answer = client.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap();
                assert_eq!(answer.into_inner().status(), ServingStatus::NotServing, "{service:?}");
            }
        });
    }

    #[test]
    fn a_watch_of_a_node_that_waits_ends_with_the_wait() {
        let runtime = Runtime::new().unwrap();
        let (clients, nodes) = (listener(), listener());
        let waiting = waiting(&runtime, &clients, &nodes);
        let endpoint = Endpoint::from_shared(format!("http://{}", clients.local_addr().unwrap())).unwrap();
        runtime.block_on(async {
            let mut client = HealthClient::new(endpoint.connect().await.unwrap());
            let mut watches = Vec::new();
            for service in ["", "ringfort.v1.Kv"] {
                let request = HealthCheckRequest { service: service.to_owned() };
                let mut watch = client.watch(request).await.unwrap().into_inner();
                assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
                watches.push(watch);
            }
            drop(waiting);
            for mut watch in watches {
                let ended = timeout(Duration::from_secs(10), watch.message()).await;
                assert!(matches!(ended, Ok(Ok(None))), "{ended:?}");
            }
        });
    }
}
