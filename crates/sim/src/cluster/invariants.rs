//! What must hold at every moment of a run, whatever happens.
//!
//! | invariant | source |
//! |---|---|
//! | at most one leader a term | Raft paper, figure 3, election safety |
//! | equal state at equal index | Raft paper, figure 3, state machine safety |
//! | the divergence watch raises no alarm without damage | `core::watch` |
//! | at most one replica of a shard may serve reads by itself | Raft thesis, 6.4.1 |
//!
//! Those of configurations and topologies are in [`Configurations`].

use super::configurations::Configurations;
use super::node::Node;
use ringfort_core::time::Moment;
use ringfort_core::types::{LogIndex, NodeId, ShardId, Term};
use std::collections::BTreeMap;

/// Hashes of a shard's states kept for comparison, the latest indexes.
const HASHES_KEPT: usize = 20_000;

#[derive(Default)]
pub(super) struct Invariants {
    leaders: BTreeMap<(ShardId, Term), NodeId>,
    states: BTreeMap<ShardId, BTreeMap<LogIndex, (u64, NodeId)>>,
    configurations: Configurations,
    /// Replicas may differ, and memory be damaged: that is what the run is about.
    pub expects_divergence: bool,
}

impl Invariants {
    /// Checks what `id` has just done against all others.
    pub fn check(&mut self, now: Moment, id: NodeId, nodes: &BTreeMap<NodeId, Node>) -> Result<(), String> {
        let Some(running) = nodes.get(&id).and_then(Node::running) else { return Ok(()) };
        self.configurations.check(running, nodes)?;
        if let (Some(alarm), false) = (running.alarms().first(), self.expects_divergence) {
            return Err(format!("node {id} raised an alarm without a reason: {alarm}"));
        }
        for replica in running.replicas() {
            let (shard, position) = (replica.shard(), replica.position());
            if position.is_leader {
                let leader = *self.leaders.entry((shard, position.term)).or_insert(id);
                if leader != id {
                    return Err(format!("nodes {leader} and {id} both lead shard {shard} in term {}", position.term));
                }
            }
            if shard != ShardId::SYSTEM && !self.expects_divergence {
                let hash = replica.view().machine().hash();
                let states = self.states.entry(shard).or_default();
                let (known, by) = *states.entry(position.applied).or_insert((hash, id));
                if known != hash {
                    let index = position.applied;
                    return Err(format!("shard {shard} differs at index {index} between nodes {by} and {id}"));
                }
                if states.len() > HASHES_KEPT {
                    states.pop_first();
                }
            }
            self.check_lease(now, id, shard, nodes)?;
        }
        Ok(())
    }

    fn check_lease(
        &self,
        now: Moment,
        id: NodeId,
        shard: ShardId,
        nodes: &BTreeMap<NodeId, Node>,
    ) -> Result<(), String> {
        let serves = |node: &Node| {
            let view = node.running().and_then(|running| running.view(shard));
            view.is_some_and(|view| node.clock.read(now).moment < view.lease_until())
        };
        if nodes.get(&id).is_some_and(serves)
            && let Some((other, _)) = nodes.iter().find(|(other, node)| **other != id && serves(node))
        {
            return Err(format!("nodes {id} and {other} may both serve reads of shard {shard} by themselves"));
        }
        Ok(())
    }

    /// In the end all replicas that have applied equally much hold the same, and the kept-up hash is the real one.
    pub fn check_replicas_agree(&self, nodes: &BTreeMap<NodeId, Node>) -> Result<(), String> {
        for (id, node) in nodes {
            for replica in node.running().into_iter().flat_map(|running| running.replicas()) {
                let machine = replica.view().machine();
                if machine.hash() != machine.recomputed_hash() {
                    return Err(format!("the hash of shard {} on node {id} is not that of its map", replica.shard()));
                }
            }
        }
        Ok(())
    }
}
