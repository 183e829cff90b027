//! Once writes have stopped and links work, all nodes converge to the same eventual keyspace and consider each other
//! alive (docs/gossip.md).

use super::super::Cluster;
use super::Node;
use crate::invariant::{Invariant, Violation};
use ringfort_core::gossip::status::MemberStatus;
use ringfort_core::liveness::LivenessState;
use ringfort_core::time::Moment;
use ringfort_core::version::VersionVector;
use std::time::Duration;

/// After the faults, delayed messages arrive within this time.
pub const REST: Duration = Duration::from_secs(10);

/// All other wall clocks catch up with those that have jumped ahead within this time: the sum of all jumps.
pub const CATCH_UP: Duration = Duration::from_secs(600);

/// Then all nodes must have converged within this time: 20 gossip periods.
pub const CONVERGENCE: Duration = Duration::from_secs(10);

impl Cluster {
    pub(in super::super) fn must_converge(&mut self) -> Result<(), Violation> {
        let unequal =
            "the nodes do not hold the same of the eventual keyspace, or do not all take each other to be alive,";
        self.run_until(CONVERGENCE, Invariant::GossipConvergence, |cluster| cluster.is_converged(), unequal)
    }

    /// No timestamp is in the future of any node.
    pub(in super::super) fn is_caught_up(&self) -> bool {
        let running = || self.nodes.values().filter_map(Node::running);
        let latest = running().map(|running| running.gossip().keyspace().clock()).max().unwrap_or_default();
        self.present().all(|(_, node)| node.clock.read(self.now).wall.0 >= latest.0)
    }

    /// All nodes hold the same keyspace, and consider all others alive.
    fn is_converged(&self) -> bool {
        let states: Option<Vec<_>> = self.present().map(|(_, node)| state(node, self.now)).collect();
        states.is_some_and(|states| states.iter().all(|(state, all_alive)| *all_alive && *state == states[0].0))
    }
}

/// A node's keyspace hash and version vector, and whether it considers all others alive.
fn state(node: &Node, now: Moment) -> Option<((u64, VersionVector), bool)> {
    let gossip = node.running()?.gossip();
    let now = node.clock.read(now).moment;
    let alive = |member: &MemberStatus| member.liveness.is_none_or(|liveness| liveness.state == LivenessState::Alive);
    let all_alive = gossip.status(now).members.iter().all(alive);
    Some(((gossip.keyspace().hash(), gossip.keyspace().all_seen()), all_alive))
}
