//! What is wrong with a single node, and what to do about it.

use super::verdict::{name, some_of};
use crate::text::{duration, escaped};
use ringfort_client::v1::{DiskHealth, LivenessState, MemberState, NodeStatus};
use std::time::Duration;

/// A node that does not answer now but was heard less than this long ago may only be slow.
const SILENCE: Duration = Duration::from_secs(1);

/// Heartbeats also arrive through other nodes, so a healthy node was always heard of less than this long ago.
const HEARTBEATS_COME: Duration = Duration::from_secs(2);

/// Whether a node is alive by its heartbeats, although it does not answer.
pub fn is_mute(node: &NodeStatus) -> bool {
    let is_alive = node.liveness.as_ref().is_some_and(|liveness| liveness.state() == LivenessState::Alive);
    // A node that was never heard of has 0.
    !node.alive && is_alive && (1..HEARTBEATS_COME.as_millis() as u64).contains(&node.silent_ms)
}

/// What is wrong with a node, the worst first; empty for a healthy node. [`shared`] adds what several nodes may have.
/// If moves `are_paused`, a dead node is not replaced.
pub fn of(node: &NodeStatus, are_paused: bool) -> Vec<String> {
    let name = name(node);
    if !node.alive {
        if is_mute(node) {
            return vec![format!(
                "{name} does not answer at {}, and was last heard {:.1} s ago: start it again, or, if its process \
                 still runs, see ringfort_connections_refused_total in its metrics",
                escaped(node.grpc_address.as_bytes()),
                Duration::from_millis(node.silent_ms).as_secs_f64()
            )];
        }
        let silence = Duration::from_millis(node.silent_ms);
        let next = |start| after_silence(node, are_paused, start);
        return vec![match silence < SILENCE {
            true => format!("{name} does not answer: {}", next("wait, and start it again if it does not return")),
            false => format!("{name} has been silent for {}: {}", duration(silence), next("start it again")),
        }];
    }
    let mut troubles = Vec::new();
    let health = node.health.unwrap_or_default();
    match health.disk() {
        DiskHealth::Hung => troubles.push(format!(
            "the disk of {name} has not answered for {}, and other nodes lead its shards: check that machine's disk",
            duration(Duration::from_millis(health.sync_age_ms))
        )),
        DiskHealth::Healthy | DiskHealth::Slow | DiskHealth::Recovering | DiskHealth::Full => {}
    }
    troubles
}

/// What is wrong with nodes that answer, reported once for all nodes with the same problem.
pub fn shared(nodes: &[NodeStatus]) -> Vec<String> {
    let names = |has: fn(&NodeStatus) -> bool| -> Vec<String> {
        nodes.iter().filter(|node| node.alive && has(node)).map(name).collect()
    };
    let full_disks = names(|node| node.health.is_some_and(|health| health.disk() == DiskHealth::Full));
    let full_memories = names(|node| node.memory_full);
    let mut troubles = Vec::new();
    if !full_disks.is_empty() {
        let (logs, refuse) = if full_disks.len() == 1 { ("its log", "refuses") } else { ("their logs", "refuse") };
        troubles.push(format!(
            "{} can't extend {logs} and {refuse} every write: free some disk space there, or see what is logged \
             there",
            some_of(&full_disks)
        ));
    }
    if !full_memories.is_empty() {
        let one = ("has reached its --max-memory", "refuses");
        let (reached, refuse) =
            if full_memories.len() == 1 { one } else { ("have reached their --max-memory", "refuse") };
        troubles.push(format!(
            "{} {reached} and {refuse} all writes but deletes: delete keys, raise --max-memory, or start another node",
            some_of(&full_memories)
        ));
    }
    troubles
}

/// Whether replicas on a node can't catch up until its disk is repaired.
pub fn is_disk_unusable(node: &NodeStatus) -> bool {
    node.health.is_some_and(|health| matches!(health.disk(), DiskHealth::Full | DiskHealth::Hung))
}

/// Remarks about nodes that work.
pub fn notes(nodes: &[NodeStatus]) -> Vec<String> {
    let healths: Vec<_> =
        nodes.iter().filter(|node| node.alive).filter_map(|node| Some((name(node), node.health?))).collect();
    let (mut notes, mut slow) = (Vec::new(), Vec::new());
    for (name, health) in &healths {
        match health.disk() {
            _ if health.is_stopping => notes.push(format!("{name} is stopping")),
            DiskHealth::Slow => slow.push((name.clone(), health.sync_latency_ms)),
            DiskHealth::Recovering => notes.push(format!(
                "the disk of {name} hung or was full recently: the node leads no shards until the disk has been \
                 healthy for a while"
            )),
            DiskHealth::Healthy | DiskHealth::Full | DiskHealth::Hung => {}
        }
    }
    let (names, latencies): (Vec<String>, Vec<u64>) = slow.into_iter().unzip();
    if let Some(longest) = latencies.iter().max() {
        let (disks, them) = if names.len() == 1 { ("disk", "is slow") } else { ("disks", "are slow") };
        let names = some_of(&names);
        notes.push(format!(
            "the {disks} of {names} {them} (a sync recently took up to {longest} ms): check what else uses the disk"
        ));
    }
    notes
}

/// The state of a node's disk, in a word.
pub fn disk_name(disk: DiskHealth) -> &'static str {
    match disk {
        DiskHealth::Healthy => "healthy",
        DiskHealth::Slow => "slow",
        DiskHealth::Recovering => "recovering",
        DiskHealth::Full => "full",
        DiskHealth::Hung => "hung",
    }
}

/// What happens to a silent node next; `start` if the operator has to act.
fn after_silence<'a>(node: &NodeStatus, are_paused: bool, start: &'a str) -> &'a str {
    // The last report before it fell silent.
    let disk = node.health.map(|health| health.disk());
    match node.member_state() {
        MemberState::Active | MemberState::Drained if disk == Some(DiskHealth::Full) => {
            "its disk was full: free some space there, and start it again"
        }
        MemberState::Active | MemberState::Drained if disk == Some(DiskHealth::Hung) => {
            "its disk did not answer: check the disk, and start the node again"
        }
        MemberState::Active | MemberState::Drained => start,
        MemberState::Leaving => "it is leaving",
        MemberState::Dead if are_paused => "other nodes take its place when moves are resumed",
        MemberState::Dead => "other nodes take its place",
        MemberState::Replaced => "another node with its name takes its place",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_client::v1::NodeHealthStatus;

    fn node() -> NodeStatus {
        NodeStatus { id: 2, name: "node2".to_owned(), alive: true, ..Default::default() }
    }

    #[test]
    fn nothing_is_wrong_with_most_nodes() {
        assert!(of(&node(), false).is_empty());
    }

    #[test]
    fn a_node_that_is_silent_is_started_again_unless_it_was_heard_just_now() {
        let silent = |silent_ms, member_state: MemberState| {
            of(&NodeStatus { alive: false, silent_ms, member_state: member_state.into(), ..node() }, false).join("; ")
        };
        let killed_just_now = NodeStatus {
            alive: false,
            silent_ms: 900,
            liveness: Some(Default::default()),
            grpc_address: "localhost:50052".to_owned(),
            ..node()
        };
        let told = of(&killed_just_now, false).concat();
        let first = "node2 does not answer at localhost:50052, and was last heard 0.9 s ago: start it again";
        assert!(told.starts_with(first), "{told}");
        assert_eq!(
            silent(0, MemberState::Active),
            "node2 does not answer: wait, and start it again if it does not return"
        );
        assert_eq!(silent(12_345, MemberState::Active), "node2 has been silent for 12 s: start it again");
        assert_eq!(silent(600_000, MemberState::Dead), "node2 has been silent for 10 min: other nodes take its place");
    }

    fn with_disk(disk: DiskHealth) -> NodeStatus {
        let health =
            NodeHealthStatus { disk: disk.into(), sync_latency_ms: 512, sync_age_ms: 12_345, ..Default::default() };
        NodeStatus { health: Some(health), ..node() }
    }

    #[test]
    fn a_disk_that_is_full_or_hung_is_trouble_and_one_that_is_slow_is_worth_a_word() {
        let all = |node: NodeStatus| [of(&node, false), shared(&[node])].concat().join("; ");
        let told = |disk| (all(with_disk(disk)), notes(&[with_disk(disk)]).concat());
        let none = String::new;
        assert_eq!(told(DiskHealth::Healthy), (none(), none()));
        let (full, hung) = (told(DiskHealth::Full), told(DiskHealth::Hung));
        assert!(full.0.contains("refuses every write") && full.1.is_empty(), "{full:?}");
        assert!(hung.0.contains("has not answered for 12 s") && hung.1.is_empty(), "{hung:?}");
        let (slow, recovering) = (told(DiskHealth::Slow), told(DiskHealth::Recovering));
        assert!(slow.0.is_empty() && slow.1.contains("up to 512 ms"), "{slow:?}");
        assert!(recovering.0.is_empty() && recovering.1.contains("leads no shards"), "{recovering:?}");
        let silent = NodeStatus { alive: false, silent_ms: 5000, ..with_disk(DiskHealth::Full) };
        let told = of(&silent, false).join("; ");
        assert!(told.contains("its disk was full"), "{told}");
        assert!(notes(&[silent]).is_empty());
    }

    #[test]
    fn a_node_whose_memory_is_full_says_that_it_refuses_puts() {
        let full = shared(&[NodeStatus { memory_full: true, ..node() }]).join("; ");
        assert!(full.contains("refuses all writes but deletes") && full.contains("--max-memory"), "{full}");
    }

    #[test]
    fn slow_disks_are_told_together() {
        let other = NodeStatus { name: "node3".to_owned(), ..with_disk(DiskHealth::Slow) };
        assert_eq!(
            notes(&[with_disk(DiskHealth::Slow), other, node()]),
            ["the disks of node2, node3 are slow (a sync recently took up to 512 ms): check what else uses the disk"]
        );
    }

    #[test]
    fn nodes_that_have_the_same_trouble_are_told_together() {
        let other = |disk| NodeStatus { name: "node3".to_owned(), ..with_disk(disk) };
        let told = shared(&[with_disk(DiskHealth::Full), other(DiskHealth::Full), node()]);
        let expected = "node2, node3 can't extend their logs and refuse every write: free some disk space there, or see \
                        what is logged there";
        assert_eq!(told, [expected]);
    }
}
