//! Cluster status: each node reports what it knows, and the node that is asked merges the reports.

use super::gossip;
use crate::clock;
use crate::control_thread::KNOWLEDGE_TIMEOUT;
use crate::events::ControlKnowledge;
use crate::observer::Observer;
use crate::shared_call::SharedCall;
use ringfort_core::divergence as core_divergence;
use ringfort_core::replica::ReplicaStatus as CoreStatus;
use ringfort_core::system::{self, Group, Topology};
use ringfort_core::types::{NodeId, ReplicaId, ShardId};
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_proto::v1::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Endpoint;

/// A node that takes longer is reported as silent.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);

const _: () = assert!(KNOWLEDGE_TIMEOUT.as_millis() < NODE_TIMEOUT.as_millis(), "the node that asked hears the reason");

/// Larger than the status of ten thousand replicas.
const MAX_STATUS_BYTES: usize = 16 << 20;

type Shown = Result<Arc<StatusResponse>, Status>;

/// Reports the status. Concurrent callers share one answer.
pub struct StatusReporter {
    pub(super) observer: Arc<Observer>,
    own: SharedCall<Shown>,
    gathered: SharedCall<Shown>,
}

impl StatusReporter {
    pub fn new(observer: Arc<Observer>) -> StatusReporter {
        StatusReporter { observer, own: SharedCall::default(), gathered: SharedCall::default() }
    }

    /// The status of this node alone.
    pub async fn own(&self) -> Shown {
        self.own.get(async { look(&self.observer).await.map(Arc::new) }).await
    }

    /// The status of all nodes that can be reached in time.
    pub async fn gather(&self) -> Shown {
        self.gathered.get(async { ask_all(self).await.map(Arc::new) }).await
    }
}

async fn look(observer: &Observer) -> Result<StatusResponse, Status> {
    let topology = observer.topology();
    let ControlKnowledge { lost, progress, replace_after } = observer.controller().await?;
    let mut replicas = observer.replicas().await?;
    replicas.sort_by_key(|replica| replica.shard);
    let (keys, bytes) = observer.total_size(&replicas);
    let members = observer.members();
    let member = members.get(&observer.node());
    let text = |field: fn(&ringfort_core::system::Member) -> &String| member.map(field).cloned().unwrap_or_default();
    let node = NodeStatus {
        id: observer.node().0,
        name: text(|member| &member.name),
        grpc_address: text(|member| &member.grpc_address),
        raft_address: text(|member| &member.raft_address),
        alive: true,
        silent_ms: 0,
        build_version: env!("CARGO_PKG_VERSION").to_owned(),
        shards_led: replicas.iter().filter(|replica| replica.is_leader).count() as u32,
        replicas: replicas.len() as u32,
        log_bytes: observer.log_bytes(),
        log_entries: replicas.iter().map(|replica| replica.last.saturating_sub(replica.base)).sum(),
        keys: keys as u64,
        key_value_bytes: bytes as u64,
        liveness: None,
        zone: text(|member| &member.zone),
        member_state: member_state_of(&topology, observer.node()).into(),
        memory_full: observer.is_memory_full(),
        health: Some(gossip::own_health(observer)),
    };
    let size = |shard| observer.size(shard).1 as u64;
    let here =
        |replica: &CoreStatus| ShardStatus { key_value_bytes: size(replica.shard), ..shard_here(&topology, replica) };
    let mut shards: Vec<ShardStatus> = replicas.iter().map(here).collect();
    for (shard, replica, why) in lost {
        let quarantine = match why {
            core_divergence::QuarantineReason::Log => QuarantineReason::Log,
            core_divergence::QuarantineReason::Memory => QuarantineReason::Memory,
            core_divergence::QuarantineReason::Minority => QuarantineReason::Minority,
        };
        let member =
            ReplicaStatus { offline: true, quarantine: quarantine.into(), ..member_of(replica, ReplicaRole::Voter) };
        shards.push(ShardStatus { members: vec![member], ..place_of(&topology, shard) });
    }
    let moves = progress.map(|progress| MoveStatus {
        left: progress.left as u32,
        estimate_ms: progress.estimate.map_or(0, |estimate| estimate.as_millis() as u64),
        waiting: progress.waiting as u32,
        replace_after_ms: replace_after.as_millis() as u64,
    });
    Ok(StatusResponse {
        cluster_id: topology.cluster.0,
        epoch: topology.epoch.0,
        election_timeout_ms: topology.timing.election_timeout_ms(),
        nodes: vec![node],
        shards,
        paused: topology.paused,
        moves,
        divergences: Vec::new(),
    })
}

async fn ask_all(reporter: &StatusReporter) -> Result<StatusResponse, Status> {
    let observer = &*reporter.observer;
    let (topology, members) = (observer.topology(), observer.members());
    let told = observer.gossip().await?;
    let gossip = told.status;
    let mut asked = JoinSet::new();
    for (&node, member) in members.iter().filter(|(node, _)| **node != observer.node()) {
        let address = member.grpc_address.clone();
        asked.spawn(async move { (node, timeout(NODE_TIMEOUT, ask(address)).await.ok().flatten()) });
    }
    let mut parts = BTreeMap::from([(observer.node(), Arc::unwrap_or_clone(reporter.own().await?))]);
    for (node, part) in asked.join_all().await {
        // Another node, of this cluster or of another one, may have taken over the address.
        let is_meant = |part: &StatusResponse| {
            part.cluster_id == topology.cluster.0 && part.nodes.first().is_some_and(|told| told.id == node.0)
        };
        parts.extend(part.filter(is_meant).map(|part| (node, part)));
    }
    let nodes = members.iter().map(|(&id, member)| {
        let told = parts.get(&id).and_then(|part| part.nodes.first().cloned());
        let liveness = gossip.members.iter().find(|known| known.node == id).and_then(|known| known.liveness);
        let silence = || liveness.and_then(|liveness| liveness.silence(clock::moment()));
        let status = told.unwrap_or_else(|| NodeStatus {
            id: id.0,
            name: member.name.clone(),
            grpc_address: member.grpc_address.clone(),
            raft_address: member.raft_address.clone(),
            silent_ms: silence().map_or(0, |silence| silence.as_millis() as u64),
            zone: member.zone.clone(),
            member_state: member_state_of(&topology, id).into(),
            health: gossip.members.iter().find(|known| known.node == id).and_then(gossip::told_health),
            ..NodeStatus::default()
        });
        NodeStatus { liveness: liveness.map(gossip::liveness), ..status }
    });
    let shards = topology.groups.keys().map(|&shard| merge(&topology, shard, &parts));
    Ok(StatusResponse {
        cluster_id: topology.cluster.0,
        epoch: topology.epoch.0,
        election_timeout_ms: topology.timing.election_timeout_ms(),
        nodes: nodes.collect(),
        shards: shards.collect(),
        paused: topology.paused,
        // A deposed leader may not know it yet: take the report with the highest epoch.
        moves: parts.values().max_by_key(|part| (part.moves.is_some(), part.epoch)).and_then(|part| part.moves),
        divergences: told.divergences.iter().map(divergence).collect(),
    })
}

fn divergence(divergence: &core_divergence::Divergence) -> Divergence {
    let node = |replica: &ReplicaId| replica.node().0;
    Divergence {
        shard: divergence.shard.0,
        index: divergence.index.0,
        nodes: divergence.hashes.keys().map(node).collect(),
        minority: divergence.minority.iter().map(node).collect(),
    }
}

fn member_state_of(topology: &Topology, node: NodeId) -> MemberState {
    match topology.member_states.get(&node) {
        None => MemberState::Active,
        Some(system::MemberState::Drained) => MemberState::Drained,
        Some(system::MemberState::Leaving) => MemberState::Leaving,
        Some(system::MemberState::Dead) => MemberState::Dead,
        Some(system::MemberState::Replaced) => MemberState::Replaced,
    }
}

async fn ask(address: String) -> Option<StatusResponse> {
    let channel = Endpoint::from_shared(format!("http://{address}")).ok()?.connect().await.ok()?;
    let mut client = ClusterClient::new(channel).max_decoding_message_size(MAX_STATUS_BYTES);
    Some(client.node_status(NodeStatusRequest {}).await.ok()?.into_inner())
}

/// A shard as its replica on this node sees it: a leader reports all members, another replica only itself.
fn shard_here(topology: &Topology, replica: &CoreStatus) -> ShardStatus {
    let members = match &replica.report {
        None => {
            let role = if replica.is_learner { ReplicaRole::Learner } else { ReplicaRole::Voter };
            vec![member_of(replica.replica, role)]
        }
        Some(report) => {
            let mut roles: BTreeMap<ReplicaId, ReplicaRole> = BTreeMap::new();
            let group = topology.groups.get(&replica.shard);
            let target = group.map(Group::target_replicas).unwrap_or_default();
            let placed = group.iter().flat_map(|group| &group.replicas);
            roles.extend(
                placed.map(|&id| (id, if target.contains(&id) { ReplicaRole::Joining } else { ReplicaRole::Leaving })),
            );
            roles.extend(report.learners.iter().map(|&id| (id, ReplicaRole::Learner)));
            roles.extend(report.voters.iter().chain(&report.outgoing).map(|&id| (id, ReplicaRole::Voter)));
            let member =
                |(id, role)| ReplicaStatus { caught_up: report.caught_up.contains(&id), ..member_of(id, role) };
            roles.into_iter().map(member).collect()
        }
    };
    ShardStatus {
        leader: replica.leader.map_or(0, |node| node.0),
        term: replica.term,
        applied_index: replica.applied,
        members,
        ..place_of(topology, replica.shard)
    }
}

/// A shard's status, merged from all nodes' reports.
fn merge(topology: &Topology, shard: ShardId, parts: &BTreeMap<NodeId, StatusResponse>) -> ShardStatus {
    let views: BTreeMap<NodeId, &ShardStatus> = parts
        .iter()
        .filter_map(|(&node, part)| Some((node, part.shards.iter().find(|status| status.shard == shard.0)?)))
        .collect();
    let is_leaders = |(node, status): &(&NodeId, &&ShardStatus)| status.leader == node.0;
    let from_leader = views.iter().filter(is_leaders).max_by_key(|(_, status)| status.term);
    let mut merged = match from_leader {
        Some((_, status)) => ShardStatus::clone(status),
        None => {
            let group = topology.groups.get(&shard);
            let known = group.iter().flat_map(|group| &group.replicas);
            ShardStatus {
                term: views.values().map(|status| status.term).max().unwrap_or(0),
                applied_index: views.values().map(|status| status.applied_index).max().unwrap_or(0),
                members: known.map(|&replica| member_of(replica, ReplicaRole::Voter)).collect(),
                ..place_of(topology, shard)
            }
        }
    };
    for member in &mut merged.members {
        let view = views.get(&NodeId(member.node));
        // A node may have both a replica that can't be run and its replacement.
        let part = parts.get(&NodeId(member.node));
        let here = part.into_iter().flat_map(|part| &part.shards).filter(|status| status.shard == shard.0);
        let own = here.flat_map(|status| &status.members).find(|own| own.replica == member.replica);
        member.quarantine = own.map_or(0, |own| own.quarantine);
        member.offline = !parts.contains_key(&NodeId(member.node)) || own.is_some_and(|own| own.offline);
        let applied = view.filter(|_| own.is_some()).map_or(0, |view| view.applied_index);
        member.lag = merged.applied_index.saturating_sub(applied);
        member.caught_up &= !member.offline;
    }
    merged
}

fn place_of(topology: &Topology, shard: ShardId) -> ShardStatus {
    let mut status = ShardStatus { shard: shard.0, ..ShardStatus::default() };
    if shard != ShardId::SYSTEM {
        let slots = topology.shards.slots_of(shard);
        (status.first_slot, status.last_slot) = (slots.start.into(), u32::from(slots.end) - 1);
    }
    status
}

fn member_of(replica: ReplicaId, role: ReplicaRole) -> ReplicaStatus {
    ReplicaStatus { node: replica.node().0, replica: replica.0, role: role.into(), ..ReplicaStatus::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_core::message::ShardReport;
    use ringfort_core::system::Member;
    use ringfort_core::timing::Timing;
    use ringfort_core::types::{ClusterId, Identity, Term};
    use ringfort_ring::ShardCount;

    fn topology() -> Topology {
        let member = Member { identity: Identity(1), ..Member::default() };
        Topology::bootstrap(ClusterId(1), ShardCount::new(1).unwrap(), Timing::DEFAULT, member)
    }

    fn part(leader: u64, term: u64, applied_index: u64, members: &[ReplicaId]) -> StatusResponse {
        let members = members.iter().map(|&id| ReplicaStatus { caught_up: true, ..member_of(id, ReplicaRole::Voter) });
        let shard = ShardStatus { leader, term, applied_index, members: members.collect(), ..Default::default() };
        StatusResponse { shards: vec![shard], ..Default::default() }
    }

    #[test]
    fn the_leader_of_the_highest_term_is_believed_and_lag_is_what_replicas_lack() {
        let ids = [1, 2, 3].map(|node| ReplicaId::new(NodeId(node), node as u32));
        let parts = BTreeMap::from([(NodeId(1), part(1, 4, 90, &ids)), (NodeId(2), part(2, 5, 100, &ids))]);
        let merged = merge(&topology(), ShardId(0), &parts);
        assert_eq!((merged.leader, merged.term, merged.applied_index), (2, 5, 100));
        let seen: Vec<_> = merged.members.iter().map(|member| (member.lag, member.offline, member.caught_up)).collect();
        assert_eq!(seen, [(10, false, true), (0, false, true), (100, true, false)]);
    }

    #[test]
    fn a_replica_that_is_placed_and_no_member_joins_if_it_is_in_the_target_and_leaves_otherwise() {
        let ids = [1, 2, 3, 4, 5].map(|node| ReplicaId::new(NodeId(node), node as u32));
        let renewed = ReplicaId::new(NodeId(3), 9);
        let mut topology = topology();
        let group = topology.groups.get_mut(&ShardId(0)).unwrap();
        group.target = [2, 3, 4].map(NodeId).to_vec();
        group.replicas = [&ids[..], &[renewed]].concat();
        let report = ShardReport {
            shard: ShardId(0),
            leader: ids[1],
            term: Term(1),
            configuration: 1,
            voters: vec![ids[1], ids[4]],
            outgoing: Vec::new(),
            learners: vec![ids[3]],
            caught_up: vec![ids[1]],
            confirmed: Vec::new(),
            copied_bytes: 0,
        };
        let leader = CoreStatus {
            shard: ShardId(0),
            replica: ids[1],
            leader: Some(NodeId(2)),
            is_leader: true,
            is_learner: false,
            term: 1,
            committed: 9,
            applied: 9,
            last: 9,
            base: 4,
            report: Some(report),
        };
        let members = shard_here(&topology, &leader).members;
        let role = |id: ReplicaId| members.iter().find(|member| member.replica == id.0).unwrap().role();
        assert_eq!([ids[0], ids[2]].map(role), [ReplicaRole::Leaving; 2]);
        assert_eq!([ids[1], ids[4]].map(role), [ReplicaRole::Voter; 2]);
        assert_eq!([renewed, ids[3]].map(role), [ReplicaRole::Joining, ReplicaRole::Learner]);
    }

    #[test]
    fn without_a_leader_members_come_from_the_topology() {
        let parts = BTreeMap::from([(NodeId(2), part(1, 4, 90, &[]))]);
        let merged = merge(&topology(), ShardId(0), &parts);
        assert_eq!((merged.leader, merged.term, merged.applied_index, merged.members.len()), (0, 4, 90, 1));
        assert!(merged.members[0].offline);
    }
}
