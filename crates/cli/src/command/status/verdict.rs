//! The sentence at the top of `ringfort status`.
//!
//! It promises only what the reports support: "tolerates N node failures" means that every shard, including the system
//! shard, has N voters more than a quorum that are caught up and on nodes that answer. A shard that no node reported,
//! or a voter that lags, lowers N. Then follows what is wrong and what to do about it, the worst first.

use super::{shard_name, trouble};
use crate::text::{counted, duration, escaped};
use ringfort_client::v1::{
    MemberState, NodeStatus, QuarantineReason, ReplicaRole, ReplicaStatus, ShardStatus, StatusResponse,
};
use ringfort_node::Timing;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Slots of a cluster.
const SLOTS: u32 = 16_384;

/// The number of the system shard.
pub const SYSTEM_SHARD: u32 = u32::MAX;

/// How many replicas a shard has if there are enough nodes.
pub const REPLICATION_FACTOR: usize = 3;

/// What `status` says in words.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub sentence: String,
    /// How many nodes may fail at the same time, whichever they are, without any shard losing its quorum.
    pub node_failures_tolerated: u32,
    /// Every shard can serve, and nothing is silent, offline or catching up.
    pub healthy: bool,
}

/// Draws the conclusion from what the nodes reported.
pub fn judge(status: &StatusResponse) -> Verdict {
    let nodes: BTreeMap<u64, &NodeStatus> = status.nodes.iter().map(|node| (node.id, node)).collect();
    let shards = || status.shards.iter();
    let served_by = |node: u64| nodes.get(&node).is_some_and(|node| node.alive);
    let is_complete = is_complete(status);

    let spare = |shard| spare_voters(shard, |member| served_by(member.node) && !member.offline && member.caught_up);
    let tolerated = if is_complete { shards().map(spare).min().unwrap_or(0).max(0) } else { 0 };

    let can_serve = |shard: &ShardStatus| {
        served_by(shard.leader) && spare_voters(shard, |member| served_by(member.node) && !member.offline) >= 0
    };
    // A node that is alive but does not answer may lead shards and hold replicas that no node reported.
    let is_mute = |node: u64| nodes.get(&node).is_some_and(|node| trouble::is_mute(node));
    let may_serve = |shard: &ShardStatus| {
        let is_led = served_by(shard.leader) || shard.members.iter().any(|member| is_mute(member.node));
        let counts = |member: &ReplicaStatus| is_mute(member.node) || served_by(member.node) && !member.offline;
        is_led && spare_voters(shard, counts) >= 0
    };
    let lost = shards().filter(|shard| !can_serve(shard) && !may_serve(shard));
    let lost: Vec<String> = lost.map(|shard| shard_name(shard.shard)).collect();

    let silent: Vec<&NodeStatus> = status.nodes.iter().filter(|node| !node.alive).collect();
    let answering = |member: &&ReplicaStatus| served_by(member.node);
    let offline = shards().flat_map(|shard| &shard.members).filter(answering).filter(|member| member.offline);
    let offline = offline.filter(|member| !has_wrong_state(member) && member.role() != ReplicaRole::Leaving);
    let offline: BTreeSet<u64> = offline.map(|member| member.node).collect();
    let wrong = wrong_states(status, can_serve);
    // Only a leader knows which replicas have caught up; without one this is unknown.
    let served = || {
        let members = shards().filter(|shard| can_serve(shard)).flat_map(|shard| &shard.members);
        members.filter(answering).filter(|member| !member.offline)
    };
    let voting = |member: &&ReplicaStatus| member.role() == ReplicaRole::Voter;
    // A replica that its disk keeps from catching up will not catch up by waiting; the disk is reported separately.
    let gets_on =
        |member: &&ReplicaStatus| !nodes.get(&member.node).is_some_and(|node| trouble::is_disk_unusable(node));
    let lagging = served().filter(voting).filter(gets_on).filter(|member| !member.caught_up).count();
    let arrives = |member: &&ReplicaStatus| matches!(member.role(), ReplicaRole::Learner | ReplicaRole::Joining);
    let arriving = served().filter(gets_on).filter(arrives).count();
    // A replica leaves when every voter knows that it may.
    let is_known = |shard: &&ShardStatus| {
        shard.members.iter().all(|member| member.role() != ReplicaRole::Voter || served_by(member.node))
    };
    let departing: usize = shards().filter(|shard| can_serve(shard)).filter(is_known).map(leaving).sum();

    let mut clauses = Vec::new();
    if !lost.is_empty() {
        clauses.push(format!("{} without a leader or a quorum ({})", counted(lost.len(), "shard"), some_of(&lost)));
    }
    // Silent nodes come first.
    let trouble_of = |node| trouble::of(node, status.paused);
    clauses.extend(silent.iter().copied().flat_map(trouble_of));
    clauses.extend(status.nodes.iter().filter(|node| node.alive).flat_map(trouble_of));
    clauses.extend(trouble::shared(&status.nodes));
    let are_wrong = !wrong.is_empty();
    clauses.extend(wrong);
    if !offline.is_empty() {
        let names: Vec<String> = offline.iter().map(|node| name(nodes[node])).collect();
        clauses.push(format!("replicas are offline on {}: the reason is logged there", some_of(&names)));
    }
    if !is_complete {
        clauses.push("not every shard was reported: ask again, or start the nodes that are missing".to_owned());
    }
    if lagging > 0 {
        clauses.push(format!("{} catching up: wait", counted(lagging, "replica")));
    }
    if arriving > 0 {
        let estimate = status.moves.filter(|moves| moves.estimate_ms > 0).map(|moves| {
            let left = Duration::from_millis(moves.estimate_ms);
            format!(" ({} to move, about {} left)", moves.left.saturating_sub(moves.waiting), duration(left))
        });
        clauses.push(format!("{} being added{}: wait", counted(arriving, "replica"), estimate.unwrap_or_default()));
    }
    if departing > 0 {
        clauses.push(format!("{} being removed: wait", counted(departing, "replica")));
    }
    let unserved = shards().filter(|shard| !can_serve(shard));
    let unserved: BTreeSet<u32> = unserved.map(|shard| shard.shard).collect();
    clauses.extend(silent.iter().filter_map(|node| waiting_for(status, node, &unserved)));
    if !lost.is_empty() && silent.len() > 1 && silent.len() + 1 == status.nodes.len() {
        let step = "start it with --join-addr and the new client address of another node";
        clauses.push(format!("if all nodes have new addresses, this node can't find the others: {step}"));
    }
    if !lost.is_empty() && silent.is_empty() && offline.is_empty() && !are_wrong {
        clauses.push("an election should end this within seconds; if it does not, see the nodes' logs".to_owned());
    }
    let healthy = clauses.is_empty();
    if healthy {
        clauses.push("all replicas caught up".to_owned());
        if status.nodes.len() < REPLICATION_FACTOR {
            let missing = counted(REPLICATION_FACTOR - status.nodes.len(), "more node");
            clauses.push(format!("start {missing} with --join-addr to tolerate a failure"));
        } else if tolerated == 0 {
            clauses.push("the shards are not spread over the nodes yet: wait".to_owned());
        }
    }

    clauses.extend(trouble::notes(&status.nodes));
    clauses.extend(under_orders(status));

    let shard_count = shards().filter(|shard| shard.shard != SYSTEM_SHARD).count();
    let mut sentence = format!("{}, {}", counted(status.nodes.len(), "node"), counted(shard_count, "shard"));
    if let Ok(timing) = Timing::new(Duration::from_millis(status.election_timeout_ms.into()))
        && timing != Timing::DEFAULT
    {
        sentence.push_str(&format!(", election timeout {timing}"));
    }
    if lost.is_empty() {
        let failures =
            if tolerated == 0 { "no node failure".to_owned() } else { counted(tolerated as usize, "node failure") };
        sentence.push_str(&format!(", tolerates {failures}"));
    }
    for clause in &clauses {
        sentence.push_str("; ");
        sentence.push_str(clause);
    }
    Verdict { sentence, node_failures_tolerated: tolerated as u32, healthy }
}

/// Whether a replica was stopped because of its state and not because of its log.
fn has_wrong_state(member: &ReplicaStatus) -> bool {
    matches!(member.quarantine(), QuarantineReason::Memory | QuarantineReason::Minority)
}

/// Replicas with a wrong state, or that differ without it being known which is right.
fn wrong_states(status: &StatusResponse, can_serve: impl Fn(&ShardStatus) -> bool) -> Vec<String> {
    let node = |id: u64| status.nodes.iter().find(|node| node.id == id).map_or_else(|| format!("node {id}"), name);
    let mut clauses = Vec::new();
    for shard in &status.shards {
        for member in shard.members.iter().filter(|member| has_wrong_state(member)) {
            let node = node(member.node);
            let what = match member.quarantine() {
                QuarantineReason::Memory => {
                    format!("the memory of shard {} on {node} is damaged", shard_name(shard.shard))
                }
                _ => format!("shard {} on {node} differs from the majority", shard_name(shard.shard)),
            };
            let next = match can_serve(shard) {
                true => "so the cluster replaces that replica: wait, and have that machine's memory checked".to_owned(),
                false => {
                    format!("so that replica is offline: start {node} again, so that it reads the shard from its disk")
                }
            };
            clauses.push(format!("{what}, {next}"));
        }
    }
    for divergence in &status.divergences {
        let shard = status.shards.iter().find(|shard| shard.shard == divergence.shard);
        let is_told = shard.is_some_and(|shard| shard.members.iter().any(has_wrong_state));
        if is_told {
            continue;
        }
        let nodes = if divergence.minority.is_empty() { &divergence.nodes } else { &divergence.minority };
        let names: Vec<String> = nodes.iter().map(|&id| node(id)).collect();
        let shard = shard_name(divergence.shard);
        clauses.push(match divergence.minority.is_empty() {
            true => format!(
                "the replicas of shard {shard} on {} differ, and there is no majority to tell which is wrong: see \
                 \"Replicas that differ\" in docs/operating.md",
                some_of(&names)
            ),
            false => format!("shard {shard} on {} differs from the majority: wait", some_of(&names)),
        });
    }
    clauses
}

/// How many moves wait for a silent node, and what ends the wait; `None` if no move waits. Shards in `unserved` have no
/// leader that could report their moves, and are left out.
fn waiting_for(status: &StatusResponse, node: &NodeStatus, unserved: &BTreeSet<u32>) -> Option<String> {
    if node.member_state() != MemberState::Active || trouble::is_mute(node) {
        return None;
    }
    let served = status.shards.iter().filter(|shard| !unserved.contains(&shard.shard));
    let waiting_in = |shard: &ShardStatus| {
        let here = || shard.members.iter().filter(|member| member.node == node.id);
        let arriving = here().filter(|member| matches!(member.role(), ReplicaRole::Learner | ReplicaRole::Joining));
        // What leaves waits until every voter knows that it may.
        let votes = here().any(|member| member.role() == ReplicaRole::Voter);
        arriving.count() + if votes { leaving(shard) } else { 0 }
    };
    let waiting: usize = served.map(waiting_in).sum();
    if waiting == 0 {
        return None;
    }
    let active = status.nodes.iter().filter(|node| node.alive && node.member_state() == MemberState::Active).count();
    let replace_after_ms = status.moves.map_or(0, |moves| moves.replace_after_ms);
    let next = match active >= REPLICATION_FACTOR && replace_after_ms > 0 && !status.paused {
        true => {
            let left = Duration::from_millis(replace_after_ms.saturating_sub(node.silent_ms));
            format!("it will be replaced in {} unless it returns", duration(left))
        }
        false => "start it again, or make it leave".to_owned(),
    };
    let moves = if waiting == 1 { "1 move waits".to_owned() } else { format!("{waiting} moves wait") };
    Some(format!("{moves} for {}, which is silent: {next}", name(node)))
}

/// Replicas that have left the shard, and that their nodes have not deleted yet.
fn leaving(shard: &ShardStatus) -> usize {
    shard.members.iter().filter(|member| member.role() == ReplicaRole::Leaving).count()
}

/// Operator commands still in effect, which the operator may have forgotten. They are not problems.
fn under_orders(status: &StatusResponse) -> Vec<String> {
    let mut clauses = Vec::new();
    for node in status.nodes.iter().filter(|node| node.alive) {
        let holds = |shard: &&ShardStatus| shard.members.iter().any(|member| member.node == node.id);
        let held = status.shards.iter().filter(holds).count();
        match node.member_state() {
            MemberState::Drained if held == 0 => clauses.push(format!("{} is drained", name(node))),
            MemberState::Drained => {
                clauses.push(format!("{} is being drained, {} to go", name(node), counted(held, "replica")));
            }
            MemberState::Leaving => {
                clauses.push(format!("{} is leaving, {} to go", name(node), counted(held, "replica")));
            }
            MemberState::Active | MemberState::Dead | MemberState::Replaced => {}
        }
    }
    if status.paused {
        let paused = "moves are paused, and no dead node is replaced: `ringfort cluster resume` ends the pause";
        clauses.push(paused.to_owned());
    }
    clauses
}

/// The number of `good` voters beyond a quorum; negative if there are too few for a quorum.
fn spare_voters(shard: &ShardStatus, good: impl Fn(&ReplicaStatus) -> bool) -> i64 {
    let voters = || shard.members.iter().filter(|member| member.role() == ReplicaRole::Voter);
    let quorum = voters().count() / 2 + 1;
    voters().filter(|member| good(member)).count() as i64 - quorum as i64
}

/// Whether the report covers every slot and the system shard.
fn is_complete(status: &StatusResponse) -> bool {
    let system = status.shards.iter().any(|shard| shard.shard == SYSTEM_SHARD);
    let mut ranges: Vec<(u32, u32)> = status
        .shards
        .iter()
        .filter(|shard| shard.shard != SYSTEM_SHARD)
        .map(|shard| (shard.first_slot, shard.last_slot))
        .collect();
    ranges.sort_unstable();
    let mut next = 0;
    system
        && ranges.iter().all(|&(first, last)| first == std::mem::replace(&mut next, last.saturating_add(1)))
        && next == SLOTS
}

pub(super) fn name(node: &NodeStatus) -> String {
    if node.name.is_empty() { format!("node {}", node.id) } else { escaped(node.name.as_bytes()) }
}

/// The first few of a list, and how many more there are.
pub fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests;
