//! What is wrong with a single node, and what to do about it.

use super::verdict::name;
use crate::text::duration;
use ringfort_client::v1::{DiskHealth, NodeStanding, NodeStatus};
use std::time::Duration;

/// A node that does not answer now but was heard less than this long ago may only be slow.
const SILENCE: Duration = Duration::from_secs(1);

/// What is wrong with a node, the worst first; empty for a healthy node.
pub fn of(node: &NodeStatus) -> Vec<String> {
    let name = name(node);
    if !node.alive {
        let silence = Duration::from_millis(node.silent_ms);
        return vec![match silence < SILENCE {
            true => {
                format!("{name} does not answer: {}", after_silence(node, "wait, and start it again if it stays so"))
            }
            false => {
                format!("{name} has been silent for {}: {}", duration(silence), after_silence(node, "start it again"))
            }
        }];
    }
    let mut troubles = Vec::new();
    let health = node.health.unwrap_or_default();
    match health.disk() {
        DiskHealth::Full => troubles.push(format!(
            "{name} can't extend its log and refuses every write: free some disk space there, or see its log"
        )),
        DiskHealth::Hung => troubles.push(format!(
            "the disk of {name} has not answered for {}, and other nodes lead its shards: check that machine's disk",
            duration(Duration::from_millis(health.sync_age_ms))
        )),
        DiskHealth::Healthy | DiskHealth::Slow | DiskHealth::Recovering => {}
    }
    if node.memory_full {
        troubles.push(format!(
            "{name} has reached its --max-memory and refuses every put: delete keys, raise --max-memory, or start another node"
        ));
    }
    troubles
}

/// A remark about a node that works, if there is one.
pub fn notes(node: &NodeStatus) -> Option<String> {
    let health = node.health.filter(|_| node.alive)?;
    let name = name(node);
    if health.is_stopping {
        return Some(format!("{name} is stopping"));
    }
    match health.disk() {
        DiskHealth::Slow => Some(format!(
            "the disk of {name} is slow (a sync recently took {} ms): check what else uses it",
            health.sync_latency_ms
        )),
        DiskHealth::Recovering => Some(format!(
            "the disk of {name} hung recently: the node leads nothing until the disk has been healthy for a while"
        )),
        DiskHealth::Healthy | DiskHealth::Full | DiskHealth::Hung => None,
    }
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
fn after_silence<'a>(node: &NodeStatus, start: &'a str) -> &'a str {
    // The last report before it fell silent.
    let disk = node.health.map(|health| health.disk());
    match node.standing() {
        NodeStanding::Active | NodeStanding::Drained if disk == Some(DiskHealth::Full) => {
            "its disk was full: free some space there, and start it again"
        }
        NodeStanding::Active | NodeStanding::Drained if disk == Some(DiskHealth::Hung) => {
            "its disk did not answer: check the disk, and start the node again"
        }
        NodeStanding::Active | NodeStanding::Drained => start,
        NodeStanding::Leaving => "it leaves",
        NodeStanding::Dead => "others take its place",
        NodeStanding::Replaced => "another node has its name and takes its place",
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
        assert!(of(&node()).is_empty());
    }

    #[test]
    fn a_node_that_is_silent_is_started_again_unless_it_was_heard_just_now() {
        let silent = |silent_ms, standing: NodeStanding| {
            of(&NodeStatus { alive: false, silent_ms, standing: standing.into(), ..node() }).join("; ")
        };
        assert_eq!(silent(0, NodeStanding::Active), "node2 does not answer: wait, and start it again if it stays so");
        assert_eq!(silent(12_345, NodeStanding::Active), "node2 has been silent for 12 s: start it again");
        assert_eq!(silent(600_000, NodeStanding::Dead), "node2 has been silent for 10 min: others take its place");
    }

    fn with_disk(disk: DiskHealth) -> NodeStatus {
        let health =
            NodeHealthStatus { disk: disk.into(), sync_latency_ms: 512, sync_age_ms: 12_345, ..Default::default() };
        NodeStatus { health: Some(health), ..node() }
    }

    #[test]
    fn a_disk_that_is_full_or_hung_is_trouble_and_one_that_is_slow_is_worth_a_word() {
        let told = |disk| (of(&with_disk(disk)).join("; "), notes(&with_disk(disk)).unwrap_or_default());
        let none = String::new;
        assert_eq!(told(DiskHealth::Healthy), (none(), none()));
        let (full, hung) = (told(DiskHealth::Full), told(DiskHealth::Hung));
        assert!(full.0.contains("refuses every write") && full.1.is_empty(), "{full:?}");
        assert!(hung.0.contains("has not answered for 12 s") && hung.1.is_empty(), "{hung:?}");
        let (slow, recovering) = (told(DiskHealth::Slow), told(DiskHealth::Recovering));
        assert!(slow.0.is_empty() && slow.1.contains("512 ms"), "{slow:?}");
        assert!(recovering.0.is_empty() && recovering.1.contains("leads nothing"), "{recovering:?}");
        let silent = NodeStatus { alive: false, silent_ms: 5000, ..with_disk(DiskHealth::Full) };
        let told = of(&silent).join("; ");
        assert!(told.contains("its disk was full"), "{told}");
        assert_eq!(notes(&silent), None);
    }

    #[test]
    fn a_node_whose_memory_is_full_says_that_it_refuses_puts() {
        let full = of(&NodeStatus { memory_full: true, ..node() }).join("; ");
        assert!(full.contains("refuses every put") && full.contains("--max-memory"), "{full}");
    }
}
