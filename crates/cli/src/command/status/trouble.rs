//! What is wrong with one node by itself, and what to do about it.

use super::verdict::name;
use crate::text::duration;
use ringfort_client::v1::{NodeStanding, NodeStatus};
use std::time::Duration;

/// A node that does not answer, but was heard less than this long ago, has perhaps only been slow once.
const SILENCE: Duration = Duration::from_secs(1);

/// What is wrong with a node, the worst first; nothing with most.
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
    if node.memory_full {
        troubles.push(format!(
            "{name} has reached its --max-memory and refuses every put: delete keys, give it more, or start another node"
        ));
    }
    troubles
}

/// What follows for a node that is silent; `start` where it is up to the operator.
fn after_silence<'a>(node: &NodeStatus, start: &'a str) -> &'a str {
    match node.standing() {
        NodeStanding::Active | NodeStanding::Drained => start,
        NodeStanding::Leaving => "it leaves",
        NodeStanding::Dead => "others take its place",
        NodeStanding::Replaced => "another node has its name and takes its place",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_node_whose_memory_is_full_says_that_it_refuses_puts() {
        let full = of(&NodeStatus { memory_full: true, ..node() }).join("; ");
        assert!(full.contains("refuses every put") && full.contains("--max-memory"), "{full}");
    }
}
