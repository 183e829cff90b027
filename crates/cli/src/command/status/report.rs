//! `ringfort status -o json`. Field names are an interface: existing ones are stable, and new ones may be added.

use super::shard_name;
use super::trouble::disk_name;
use super::verdict::{SYSTEM_SHARD, Verdict};
use ringfort_client::v1::{
    self, LivenessState, MemberState, NodeStatus, QuarantineReason, ReplicaRole, ReplicaStatus, ShardStatus,
    StatusResponse,
};
use serde::Serialize;

#[derive(Serialize)]
pub struct Report<'a> {
    summary: &'a str,
    healthy: bool,
    node_failures_tolerated: u32,
    /// 16 hexadecimal digits: JSON numbers end at 2^53.
    cluster_id: String,
    epoch: u64,
    /// Chosen when the cluster was created.
    election_timeout_ms: u32,
    /// The cluster begins no moves.
    paused: bool,
    /// Null if the leader of the system shard does not answer.
    moves: Option<Moves>,
    nodes: Vec<Node<'a>>,
    shards: Vec<Shard>,
    /// Shards whose replicas were found to differ.
    divergences: Vec<Divergence<'a>>,
}

#[derive(Serialize)]
struct Divergence<'a> {
    /// A number, or "system".
    shard: String,
    index: u64,
    /// The ids of the nodes whose replicas were compared.
    nodes: &'a [u64],
    /// Those that differ from the majority; empty if there is no majority.
    minority: &'a [u64],
}

#[derive(Serialize)]
struct Moves {
    /// Replicas that have not arrived at their target nodes yet.
    left: u32,
    /// Of these, those whose node is silent. They wait until it returns or other nodes take its place.
    waiting: u32,
    /// Estimated time until only the waiting ones are left, at the pace so far; null while it is unknown.
    estimate_ms: Option<u64>,
}

#[derive(Serialize)]
struct Node<'a> {
    id: u64,
    name: &'a str,
    grpc_address: &'a str,
    raft_address: &'a str,
    alive: bool,
    silent_ms: u64,
    /// Its liveness by its heartbeats, as the answering node sees it: alive, suspect or dead; null for the answering
    /// node.
    liveness: Option<&'static str>,
    liveness_ms: Option<u64>,
    liveness_reason: Option<&'a str>,
    build_version: &'a str,
    shards_led: u32,
    replicas: u32,
    log_bytes: u64,
    log_entries: u64,
    keys: u64,
    key_value_bytes: u64,
    zone: &'a str,
    /// active, drained, leaving, dead or replaced.
    state: &'static str,
    /// It refuses all writes but deletes.
    memory_full: bool,
    /// healthy, slow, recovering, full or hung, as the node last reported; null if it has not reported.
    disk: Option<&'static str>,
}

#[derive(Serialize)]
struct Shard {
    /// A number, or "system".
    shard: String,
    /// First and last slot; the system shard owns none.
    slots: Option<[u32; 2]>,
    /// The leader's node id, if there is a leader.
    leader: Option<u64>,
    term: u64,
    applied_index: u64,
    key_value_bytes: u64,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    node: u64,
    replica: u64,
    role: &'static str,
    lag: u64,
    caught_up: bool,
    offline: bool,
    /// Why it can't be trusted: log, memory or minority; null if it can.
    quarantine: Option<&'static str>,
}

impl<'a> Report<'a> {
    pub fn new(status: &'a StatusResponse, verdict: &'a Verdict) -> Report<'a> {
        Report {
            summary: &verdict.sentence,
            healthy: verdict.healthy,
            node_failures_tolerated: verdict.node_failures_tolerated,
            cluster_id: format!("{:016x}", status.cluster_id),
            epoch: status.epoch,
            election_timeout_ms: status.election_timeout_ms,
            paused: status.paused,
            moves: status.moves.map(|moves| Moves {
                left: moves.left,
                waiting: moves.waiting,
                estimate_ms: (moves.estimate_ms != 0).then_some(moves.estimate_ms),
            }),
            nodes: status.nodes.iter().map(node).collect(),
            shards: status.shards.iter().map(shard).collect(),
            divergences: status.divergences.iter().map(divergence).collect(),
        }
    }
}

fn divergence(divergence: &v1::Divergence) -> Divergence<'_> {
    Divergence {
        shard: shard_name(divergence.shard),
        index: divergence.index,
        nodes: &divergence.nodes,
        minority: &divergence.minority,
    }
}

fn node(node: &NodeStatus) -> Node<'_> {
    Node {
        id: node.id,
        name: &node.name,
        grpc_address: &node.grpc_address,
        raft_address: &node.raft_address,
        alive: node.alive,
        silent_ms: node.silent_ms,
        liveness: node.liveness.as_ref().map(|liveness| liveness_name(liveness.state())),
        liveness_ms: node.liveness.as_ref().map(|liveness| liveness.since_ms),
        liveness_reason: node.liveness.as_ref().map(|liveness| &liveness.reason[..]),
        build_version: &node.build_version,
        shards_led: node.shards_led,
        replicas: node.replicas,
        log_bytes: node.log_bytes,
        log_entries: node.log_entries,
        keys: node.keys,
        key_value_bytes: node.key_value_bytes,
        zone: &node.zone,
        state: member_state_name(node.member_state()),
        memory_full: node.memory_full,
        disk: node.health.map(|health| disk_name(health.disk())),
    }
}

fn shard(shard: &ShardStatus) -> Shard {
    Shard {
        shard: shard_name(shard.shard),
        slots: (shard.shard != SYSTEM_SHARD).then_some([shard.first_slot, shard.last_slot]),
        leader: (shard.leader != 0).then_some(shard.leader),
        term: shard.term,
        applied_index: shard.applied_index,
        key_value_bytes: shard.key_value_bytes,
        members: shard.members.iter().map(member).collect(),
    }
}

fn member(member: &ReplicaStatus) -> Member {
    Member {
        node: member.node,
        replica: member.replica,
        role: role_name(member.role()),
        lag: member.lag,
        caught_up: member.caught_up,
        offline: member.offline,
        quarantine: match member.quarantine() {
            QuarantineReason::None => None,
            QuarantineReason::Log => Some("log"),
            QuarantineReason::Memory => Some("memory"),
            QuarantineReason::Minority => Some("minority"),
        },
    }
}

pub fn liveness_name(state: LivenessState) -> &'static str {
    match state {
        LivenessState::Alive => "alive",
        LivenessState::Suspect => "suspect",
        LivenessState::Dead => "dead",
    }
}

pub fn role_name(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Voter => "voter",
        ReplicaRole::Learner => "learner",
        ReplicaRole::Joining => "joining",
        ReplicaRole::Leaving => "leaving",
    }
}

pub fn member_state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Active => "active",
        MemberState::Drained => "drained",
        MemberState::Leaving => "leaving",
        MemberState::Dead => "dead",
        MemberState::Replaced => "replaced",
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::judge;
    use super::*;
    use ringfort_client::v1::MoveStatus;

    #[test]
    fn field_names_stay() {
        let status = StatusResponse {
            cluster_id: 0xab,
            epoch: 3,
            nodes: vec![NodeStatus { id: 1, name: "node1".to_owned(), alive: true, ..Default::default() }],
            shards: vec![ShardStatus {
                shard: SYSTEM_SHARD,
                members: vec![ReplicaStatus { node: 1, replica: 2, caught_up: true, ..Default::default() }],
                ..Default::default()
            }],
            paused: true,
            moves: Some(MoveStatus { left: 3, waiting: 1, ..Default::default() }),
            divergences: vec![v1::Divergence { shard: 4, index: 64, nodes: vec![1, 2, 3], minority: vec![2] }],
            election_timeout_ms: 400,
        };
        let verdict = judge(&status);
        let json = serde_json::to_value(Report::new(&status, &verdict)).unwrap();
        let expected = serde_json::json!({
            "summary": verdict.sentence,
            "healthy": false,
            "node_failures_tolerated": 0,
            "cluster_id": "00000000000000ab",
            "epoch": 3,
            "election_timeout_ms": 400,
            "paused": true,
            "moves": {"left": 3, "waiting": 1, "estimate_ms": null},
            "nodes": [{
                "id": 1, "name": "node1", "grpc_address": "", "raft_address": "", "alive": true, "silent_ms": 0,
                "liveness": null, "liveness_ms": null, "liveness_reason": null, "build_version": "", "shards_led": 0, "replicas": 0, "log_bytes": 0, "log_entries": 0, "keys": 0,
                "key_value_bytes": 0, "zone": "", "state": "active", "memory_full": false, "disk": null,
            }],
            "shards": [{
                "shard": "system", "slots": null, "leader": null, "term": 0, "applied_index": 0,
                "key_value_bytes": 0,
                "members": [{
                    "node": 1, "replica": 2, "role": "voter", "lag": 0, "caught_up": true, "offline": false,
                    "quarantine": null,
                }],
            }],
            "divergences": [{"shard": "4", "index": 64, "nodes": [1, 2, 3], "minority": [2]}],
        });
        assert_eq!(json, expected);
    }
}
