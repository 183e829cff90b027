//! The Cluster service, for operators, clients, and nodes that want to join.

use super::membership::MembershipService;
use super::status::StatusReporter;
use super::{gossip, operate, status_of, timeout};
use crate::dial_back::DialBacks;
use crate::events::{ControlEvent, Mailbox};
use crate::execute::Executor;
use crate::observer::Observer;
use crate::operator_calls::OperatorCalls;
use crate::routing::Routing;
use ringfort_core::boot::Owner;
use ringfort_core::control::takeover;
use ringfort_core::request::{Reply, Request as CoreRequest};
use ringfort_core::system::topology::{MAX_NAME_BYTES, NODE_NAME_RULE, is_node_name};
use ringfort_core::system::{Member, SystemCommand, SystemReply};
use ringfort_core::types::{Identity, NodeId, ShardId};
use ringfort_proto::v1::cluster_server::Cluster;
use ringfort_proto::v1::*;
use ringfort_proto::{metadata, outcome};
use std::sync::Arc;
use tokio::time::timeout_at;
use tonic::{Request, Response, Status};

pub struct ClusterService {
    routing: Arc<Routing>,
    executor: Arc<Executor>,
    control: Mailbox<ControlEvent>,
    status: StatusReporter,
    calls: OperatorCalls,
    dial_backs: DialBacks,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        metadata::check_cluster(request.metadata(), self.routing.cluster().0)?;
        let deadline = timeout::deadline(request.metadata());
        let request = request.into_inner();
        let (replace, known_as) = (request.replace, Some(NodeId(request.known_as)).filter(|node| node.0 != 0));
        let member = member(request)?;
        let replaces = if replace { self.replaced(&member).await? } else { None };
        // A member's new addresses are not checked: the cluster may need this member for a quorum.
        if known_as.is_none() {
            self.dial_backs.check(&member).await?;
        }
        // Without a quorum the cluster can't commit the node's addresses, yet may need the node to form a quorum. So
        // they are passed on before the command is committed.
        self.control.introduce(member.clone());
        let command = CoreRequest::system(SystemCommand::Join { member, replaces, known_as });
        let executed = self.executor.execute(command, deadline).await;
        let (node, epoch) = match executed.map_err(|error| status_of(&error.into()))?.reply {
            Reply::System(SystemReply::Joined { node, epoch }) => (node, epoch),
            Reply::System(SystemReply::Refused(reason)) => return Err(Status::already_exists(reason)),
            _ => return Err(outcome::unknown("the leader's answer does not fit the request")),
        };
        // If another node leads the system shard, the topology arrives here a little later. An older topology may
        // contain the new node too, but still assign it a replica that it held and lost: the new node would create that
        // replica again, empty.
        let topology = timeout_at(deadline, self.routing.wait_for(epoch)).await.map_err(|_| {
            outcome::unavailable(
                "the node has joined, but this node does not have the new topology yet: ask again",
                None,
            )
        })?;
        Ok(Response::new(JoinResponse {
            node: node.0,
            cluster_id: self.routing.cluster().0,
            topology: topology.encode(),
        }))
    }

    async fn topology(&self, _: Request<TopologyRequest>) -> Result<Response<TopologyResponse>, Status> {
        let topology = self.routing.topology();
        let members = self.routing.members();
        let nodes = members.iter().map(|(id, member)| Node {
            id: id.0,
            name: member.name.clone(),
            grpc_address: member.grpc_address.clone(),
            raft_address: member.raft_address.clone(),
        });
        let groups = topology.groups.iter().filter(|(shard, _)| **shard != ShardId::SYSTEM);
        let shards = groups.map(|(&shard, group)| ShardPlace {
            shard: shard.0,
            members: group.target.iter().map(|node| node.0).collect(),
            leader: self.routing.leader(shard).map_or(0, |NodeId(node)| node),
        });
        Ok(Response::new(TopologyResponse {
            cluster_id: topology.cluster.0,
            epoch: topology.epoch.0,
            shard_count: topology.shards.get(),
            nodes: nodes.collect(),
            shards: shards.collect(),
        }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let _turn = self.calls.looks.take(timeout::deadline(request.metadata())).await?;
        Ok(Response::new(Arc::unwrap_or_clone(self.status.gather().await?)))
    }

    async fn node_status(&self, request: Request<NodeStatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let _turn = self.calls.looks_of_nodes.take(timeout::deadline(request.metadata())).await?;
        Ok(Response::new(Arc::unwrap_or_clone(self.status.own().await?)))
    }

    async fn gossip(&self, _: Request<GossipRequest>) -> Result<Response<GossipResponse>, Status> {
        Ok(Response::new(gossip::own(&self.status.observer).await?))
    }

    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        let _turn = self.calls.looks.take(timeout::deadline(request.metadata())).await?;
        operate::plan(&self.status, request.into_inner()).await.map(Response::new)
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<OperationResponse>, Status> {
        let operator = self.operator(&request).await?;
        operator.drain(request.into_inner()).await.map(Response::new)
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<OperationResponse>, Status> {
        let operator = self.operator(&request).await?;
        operator.leave(request.into_inner()).await.map(Response::new)
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<OperationResponse>, Status> {
        let operator = self.operator(&request).await?;
        operator.pause(request.into_inner()).await.map(Response::new)
    }

    async fn balance_leaders(
        &self,
        request: Request<BalanceLeadersRequest>,
    ) -> Result<Response<OperationResponse>, Status> {
        self.operator(&request).await?.balance_leaders().await.map(Response::new)
    }
}

impl ClusterService {
    pub fn new(
        routing: Arc<Routing>,
        executor: Arc<Executor>,
        control: Mailbox<ControlEvent>,
        observer: Arc<Observer>,
    ) -> ClusterService {
        let status = StatusReporter::new(observer);
        let (calls, dial_backs) = (OperatorCalls::default(), DialBacks::default());
        ClusterService { routing, executor, control, status, calls, dial_backs }
    }

    /// What this node, as a member, tells nodes that look for a cluster.
    pub fn membership(&self) -> MembershipService {
        let topology = self.routing.topology();
        let own = topology.nodes.get(&self.routing.node()).cloned().unwrap_or_default();
        let owner = Owner { identity: own.identity, name: own.name };
        MembershipService::member(self.routing.cluster(), topology.timing, &owner)
    }

    /// The silent node that the joining node, which has the same name, replaces.
    async fn replaced(&self, member: &Member) -> Result<Option<NodeId>, Status> {
        let topology = self.routing.topology();
        let gossip = self.status.observer.gossip().await?.status;
        let liveness = |node| gossip.members.iter().find(|known| known.node == node).and_then(|known| known.liveness);
        takeover::replaced(&topology, member, liveness).map_err(|known| {
            let (name, at) = (&known.name, &known.raft_address);
            let text = format!("{name:?} seems to run at {at}, so it can't be replaced: stop it first");
            outcome::unavailable(text, None)
        })
    }

    /// Waits for this call's turn and returns its executor, if the request is for this cluster.
    async fn operator<R>(&self, request: &Request<R>) -> Result<operate::Operator<'_>, Status> {
        metadata::check_cluster(request.metadata(), self.routing.cluster().0)?;
        let deadline = timeout::deadline(request.metadata());
        let turn = self.calls.changes.take(deadline).await?;
        Ok(operate::Operator { executor: &self.executor, status: &self.status, deadline, _turn: turn })
    }
}

fn member(request: JoinRequest) -> Result<Member, Status> {
    let identity: [u8; 16] =
        request.identity[..].try_into().map_err(|_| outcome::invalid("an identity has 16 bytes"))?;
    if !is_node_name(&request.node_id) {
        return Err(outcome::invalid(format!("{:?} is not a valid node name: {NODE_NAME_RULE}", request.node_id)));
    }
    for (what, text) in [("Raft address", &request.raft_address), ("address", &request.grpc_address)] {
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
            return Err(outcome::invalid(format!("a node's {what} has 1 to {MAX_NAME_BYTES} bytes")));
        }
    }
    if request.zone.len() > MAX_NAME_BYTES {
        return Err(outcome::invalid(format!("a zone has at most {MAX_NAME_BYTES} bytes")));
    }
    Ok(Member {
        name: request.node_id,
        identity: Identity(u128::from_le_bytes(identity)),
        raft_address: request.raft_address,
        grpc_address: request.grpc_address,
        zone: request.zone,
    })
}
