//! A cluster of in-process servers with one map: what a client sees of Ringfort, with faults on demand.

mod proxy;

use proxy::Proxy;
use ringfort_client::v1::cluster_server::{Cluster, ClusterServer};
use ringfort_client::v1::kv_server::{Kv, KvServer};
use ringfort_client::v1::membership_server::{Membership, MembershipServer};
use ringfort_client::v1::*;
use ringfort_client::{Client, v1};
use ringfort_proto::{metadata, outcome};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

pub const SHARDS: u32 = 4;

/// What a server does with the next write, instead of serving it.
pub enum Fault {
    Answer(Status),
    /// Answers as the leader does, to which a node that does not lead has forwarded the write.
    Refuse,
    /// Applies the write, then breaks the connection's stream without an answer in time.
    ApplyAndHang,
}

#[derive(Default)]
pub struct State {
    pub cluster_id: u64,
    pub addresses: Vec<String>,
    /// Index of the node that leads all shards; `None` while there is no leader.
    pub leader: Option<usize>,
    pub map: BTreeMap<Vec<u8>, Vec<u8>>,
    pub faults: VecDeque<Fault>,
    /// Writes that arrived, by node.
    pub writes: Vec<u32>,
    /// Reads that arrived, by node.
    pub reads: Vec<u32>,
    /// Whether a node that does not lead executes requests anyway, as if it forwarded them.
    pub forwards: bool,
}

pub struct Servers {
    pub state: Arc<Mutex<State>>,
    /// One per server, so that stopping it also closes its connections, as when a process dies.
    runtimes: Vec<Option<Runtime>>,
    /// The proxies in front of the servers.
    pub proxies: Vec<Proxy>,
}

impl Servers {
    /// `count` servers on ports from the operating system; the first one leads.
    pub fn start(count: usize) -> Servers {
        let state = State {
            cluster_id: 7,
            leader: Some(0),
            writes: vec![0; count],
            reads: vec![0; count],
            ..Default::default()
        };
        let mut servers = Servers { state: Arc::new(Mutex::new(state)), runtimes: Vec::new(), proxies: Vec::new() };
        for node in 0..count {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let (proxy, address, carry) = Proxy::to(listener.local_addr().unwrap());
            servers.with(|state| state.addresses.push(address.to_string()));
            servers.proxies.push(proxy);
            let server = Server { node, state: servers.state.clone() };
            let router = tonic::transport::Server::builder()
                .add_service(KvServer::new(server.clone()))
                .add_service(ClusterServer::new(server.clone()))
                .add_service(MembershipServer::new(server));
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.spawn(carry);
            runtime.spawn(async move {
                let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
                router.serve_with_incoming(incoming).await.unwrap();
            });
            servers.runtimes.push(Some(runtime));
        }
        servers
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.state.lock().unwrap().addresses).unwrap().with_timeout(Duration::from_secs(3))
    }

    pub fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap())
    }

    /// Ends a server with all its connections.
    pub async fn stop(&mut self, node: usize) {
        let runtime = self.runtimes[node].take().expect("the server runs");
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.runtimes.iter_mut().filter_map(Option::take).for_each(Runtime::shutdown_background);
    }
}

#[derive(Clone)]
struct Server {
    node: usize,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Executes a request if this node may, with the header that names the leader.
    fn serve<M, R>(
        &self,
        request: Request<M>,
        execute: impl FnOnce(&mut State, M) -> R,
    ) -> Result<Response<R>, Status> {
        let state = &mut *self.state.lock().unwrap();
        metadata::check_cluster(request.metadata(), state.cluster_id)?;
        let Some(leader) = state.leader else { return Err(outcome::unavailable("no leader", None)) };
        if leader != self.node && !state.forwards {
            return Err(outcome::unavailable("not the leader", Some(&state.addresses[leader])));
        }
        let mut response = Response::new(execute(state, request.into_inner()));
        if leader != self.node {
            metadata::set_leader(response.metadata_mut(), &state.addresses[leader]);
        }
        Ok(response)
    }

    fn refusal(&self) -> Status {
        let state = self.state.lock().unwrap();
        let mut refusal = outcome::refused("the value is not a number");
        if let Some(leader) = state.leader.filter(|leader| *leader != self.node) {
            metadata::set_leader(refusal.metadata_mut(), &state.addresses[leader]);
        }
        refusal
    }

    fn fault(&self) -> Option<Fault> {
        let state = &mut *self.state.lock().unwrap();
        state.writes[self.node] += 1;
        state.faults.pop_front()
    }
}

#[tonic::async_trait]
impl Kv for Server {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let fault = self.fault();
        if let Some(Fault::Answer(status)) = fault {
            return Err(status);
        }
        let response = self.serve(request, |state, put| {
            state.map.insert(put.key.to_vec(), put.value.to_vec());
            PutResponse { version: 1, revision: 1 }
        });
        if let Some(Fault::ApplyAndHang) = fault {
            std::future::pending::<()>().await;
        }
        response
    }

    async fn increment(&self, request: Request<IncrementRequest>) -> Result<Response<IncrementResponse>, Status> {
        match self.fault() {
            Some(Fault::Answer(status)) => return Err(status),
            Some(Fault::Refuse) => return Err(self.refusal()),
            Some(Fault::ApplyAndHang) | None => {}
        }
        self.serve(request, |_, increment| IncrementResponse { number: increment.by, version: 1, revision: 1 })
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        if let Some(Fault::Answer(status)) = self.fault() {
            return Err(status);
        }
        self.serve(request, |state, append| {
            let value = state.map.entry(append.key.to_vec()).or_default();
            value.extend_from_slice(&append.bytes);
            AppendResponse { length_bytes: value.len() as u64, version: 1, revision: 1 }
        })
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.with_read();
        self.serve(request, |state, get| {
            let value = state.map.get(get.key.as_ref());
            GetResponse {
                found: value.is_some(),
                value: value.cloned().unwrap_or_default().into(),
                ..Default::default()
            }
        })
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        self.serve(request, |state, delete| DeleteResponse {
            found: state.map.remove(delete.key.as_ref()).is_some(),
            revision: 1,
        })
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        const PAGE: usize = 3;
        let scan = request.into_inner();
        let state = self.state.lock().unwrap();
        let mut entries: Vec<v1::Entry> = state
            .map
            .iter()
            .filter(|(key, _)| key.starts_with(&scan.prefix) && key[..] > scan.start_after[..])
            .map(|(key, value)| Entry { key: key.clone().into(), value: value.clone().into(), ..Default::default() })
            .collect();
        let more = entries.len() > PAGE;
        entries.truncate(PAGE);
        Ok(Response::new(ScanResponse { entries, more }))
    }
}

impl Server {
    fn with_read(&self) {
        self.state.lock().unwrap().reads[self.node] += 1;
    }
}

#[tonic::async_trait]
impl Membership for Server {
    async fn ask(&self, _: Request<MembershipRequest>) -> Result<Response<MembershipResponse>, Status> {
        let cluster_id = self.state.lock().unwrap().cluster_id;
        Ok(Response::new(MembershipResponse { cluster_id, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl Cluster for Server {
    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("not needed by clients"))
    }

    async fn topology(&self, _: Request<TopologyRequest>) -> Result<Response<TopologyResponse>, Status> {
        let state = self.state.lock().unwrap();
        let id = |index: usize| index as u64 + 1;
        let nodes = state.addresses.iter().enumerate().map(|(index, address)| Node {
            id: id(index),
            grpc_address: address.clone(),
            ..Default::default()
        });
        let shards = (0..SHARDS).map(|shard| ShardPlace {
            shard,
            members: (0..state.addresses.len()).map(id).collect(),
            leader: state.leader.map_or(0, id),
        });
        Ok(Response::new(TopologyResponse {
            cluster_id: state.cluster_id,
            epoch: 1,
            shard_count: SHARDS,
            nodes: nodes.collect(),
            shards: shards.collect(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse { cluster_id: self.state.lock().unwrap().cluster_id, ..Default::default() }))
    }

    async fn node_status(&self, request: Request<NodeStatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.status(request.map(|_| StatusRequest {})).await
    }

    async fn gossip(&self, _: Request<GossipRequest>) -> Result<Response<GossipResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn plan(&self, _: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<OperationResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<OperationResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn pause(&self, _: Request<PauseRequest>) -> Result<Response<OperationResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn balance_leaders(&self, _: Request<BalanceLeadersRequest>) -> Result<Response<OperationResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}
