//! Operator commands, executed as commands of the system shard. Any node can be asked.
//!
//! After each command, the controller does the rest by itself. This module checks whether a command is safe now, given
//! which nodes answer; the system shard decides whether it is allowed at all.

use super::status::StatusReporter;
use super::status_of;
use crate::execute::Executor;
use ringfort_core::control::removal::{self, Present};
use ringfort_core::control::{plan, preview};
use ringfort_core::request::{Reply, Request};
use ringfort_core::system::{MemberState, SystemCommand, SystemReply, Topology};
use ringfort_core::types::{NodeId, ShardId};
use ringfort_proto::outcome;
use ringfort_proto::v1::*;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep};
use tonic::Status;

/// The pause before retrying a command that was based on an older topology.
const STALE_PAUSE: Duration = Duration::from_millis(50);

/// The moves that the controller would make, and why.
pub async fn plan(status: &StatusReporter, request: PlanRequest) -> Result<PlanResponse, Status> {
    let topology = status.observer.topology();
    let leaving: Vec<NodeId> = request.leave.iter().map(|name| member(&topology, name)).collect::<Result<_, _>>()?;
    if topology.active().all(|(node, _)| leaving.contains(&node)) {
        return Err(outcome::refused("no node would be left to hold the data"));
    }
    let status = status.gather().await?;
    let (mut held, mut bytes) = (BTreeMap::new(), BTreeMap::new());
    for shard in &status.shards {
        let leader = (shard.leader != 0).then_some(NodeId(shard.leader));
        held.insert(ShardId(shard.shard), (voters(shard).collect(), leader));
        bytes.insert(shard.shard, shard.key_value_bytes);
    }
    let name = |id: NodeId| topology.nodes.get(&id).map_or_else(|| format!("node {id}"), |member| member.name.clone());
    let moves = preview::moves(&topology, &leaving, &held).into_iter().map(|planned| PlannedMove {
        shard: planned.shard.0,
        bytes: bytes.get(&planned.shard.0).copied().unwrap_or_default() * planned.gains.len() as u64,
        gains: planned.gains.into_iter().map(name).collect(),
        loses: planned.loses.into_iter().map(name).collect(),
        leader: planned.leader.map(name).unwrap_or_default(),
        reason: planned.reason,
    });
    let refused = preview::refusal(&topology, &leaving, &present(&status)).unwrap_or_default();
    Ok(PlanResponse { epoch: topology.epoch.0, paused: topology.paused, moves: moves.collect(), refused })
}

/// Executes one command until a deadline.
pub struct Operator<'a> {
    pub executor: &'a Executor,
    pub status: &'a StatusReporter,
    pub deadline: Instant,
    pub _turn: SemaphorePermit<'a>,
}

impl Operator<'_> {
    pub async fn drain(&self, request: DrainRequest) -> Result<OperationResponse, Status> {
        let topology = self.status.observer.topology();
        let node = member(&topology, &request.node)?;
        if !request.undo {
            self.check(&topology, node).await?;
        }
        let state = (!request.undo).then_some(MemberState::Drained);
        self.execute(SystemCommand::SetMemberState { node, state, successor: None, fewer_replicas: false }).await
    }

    pub async fn leave(&self, request: LeaveRequest) -> Result<OperationResponse, Status> {
        let LeaveRequest { node: name, successor, fewer_replicas } = request;
        let topology = self.status.observer.topology();
        let has_left = |departed: &ringfort_core::system::Departed| departed.name == name;
        if topology.node_named(&name).is_none() && topology.departed.values().any(has_left) {
            return Ok(OperationResponse { epoch: topology.epoch.0 });
        }
        let node = member(&topology, &name)?;
        let successor = match &*successor {
            "" => None,
            name => Some(member(&topology, name)?),
        };
        self.check(&topology, node).await?;
        let state = Some(MemberState::Leaving);
        self.execute(SystemCommand::SetMemberState { node, state, successor, fewer_replicas }).await
    }

    pub async fn pause(&self, request: PauseRequest) -> Result<OperationResponse, Status> {
        self.execute(SystemCommand::Pause(request.paused)).await
    }

    pub async fn balance_leaders(&self) -> Result<OperationResponse, Status> {
        loop {
            let topology = self.status.observer.topology();
            if topology.paused {
                return Err(outcome::refused(
                    "moves are paused, and leaders with them: `ringfort cluster resume` ends the pause",
                ));
            }
            let groups = plan::with_even_leaders(&topology);
            if groups.is_empty() {
                return Ok(OperationResponse { epoch: topology.epoch.0 });
            }
            let even = SystemCommand::Place { based_on: topology.epoch, groups };
            match self.execute(even).await {
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {}
                answered => return answered,
            }
            if Instant::now() + STALE_PAUSE >= self.deadline {
                return Err(outcome::unavailable("the topology keeps changing: ask again", None));
            }
            sleep(STALE_PAUSE).await;
        }
    }

    /// Checks that a node may be emptied, given which other nodes answer.
    async fn check(&self, topology: &Topology, node: NodeId) -> Result<(), Status> {
        let status = self.status.gather().await?;
        removal::obstacle(topology, node, &present(&status)).map_or(Ok(()), |why| Err(outcome::refused(why)))
    }

    async fn execute(&self, command: SystemCommand) -> Result<OperationResponse, Status> {
        let request = Request::system(command);
        let executed = self.executor.execute(request, self.deadline).await;
        match executed.map_err(|error| status_of(&error.into()))?.reply {
            Reply::System(SystemReply::Done(epoch)) => Ok(OperationResponse { epoch: epoch.0 }),
            Reply::System(SystemReply::Refused(why)) => Err(outcome::refused(why)),
            _ => Err(outcome::unknown("the leader's answer does not fit the request")),
        }
    }
}

/// The nodes that answer, and the voters of each shard, according to a status.
fn present(status: &StatusResponse) -> Present {
    let live = status.nodes.iter().filter(|node| node.alive).map(|node| NodeId(node.id)).collect();
    let voters = status.shards.iter().map(|shard| (ShardId(shard.shard), voters(shard).collect())).collect();
    Present { live, voters }
}

/// The nodes with a voter of a shard.
fn voters(shard: &ShardStatus) -> impl Iterator<Item = NodeId> {
    shard.members.iter().filter(|member| member.role() == ReplicaRole::Voter).map(|member| NodeId(member.node))
}

fn member(topology: &Topology, name: &str) -> Result<NodeId, Status> {
    topology.node_named(name).map(|(node, _)| node).ok_or_else(|| {
        let names: Vec<&str> = topology.nodes.values().map(|member| &*member.name).collect();
        outcome::invalid(format!("there is no node {name:?}; there are {}", names.join(", ")))
    })
}
