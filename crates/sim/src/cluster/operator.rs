//! What operators do: make nodes leave, drain them, pause the controller, and take these commands back.
//!
//! A command is sent to every running node, because an operator may send it to any; only one of these takes effect.

use super::Cluster;
use super::node::Message;
use crate::network::Endpoint;
use ringfort_core::control::plan;
use ringfort_core::control::removal::{self, Present};
use ringfort_core::system::{MemberState, SystemCommand, Topology};
use ringfort_core::types::NodeId;
use std::sync::Arc;

impl Cluster {
    /// Issues one operator command.
    pub(super) fn operate(&mut self) {
        let Some(topology) = self.topology() else { return };
        let ids: Vec<NodeId> = topology.nodes.keys().copied().collect();
        let node = *self.faults.random().pick(&ids);
        let command = match self.faults.random().below(8) {
            0..=2 => self.order(&topology, node, MemberState::Leaving),
            3 => self.order(&topology, node, MemberState::Drained),
            4 => Some(set_state(node, None)),
            5 => Some(SystemCommand::Pause(true)),
            6 => Some(SystemCommand::Pause(false)),
            _ => {
                let groups = plan::with_even_leaders(&topology);
                Some(SystemCommand::Place { based_on: topology.epoch, groups })
            }
        };
        if let Some(command) = command {
            self.tell_all(&command);
        }
    }

    /// Takes back commands that would keep the cluster from settling. Returns whether it has settled.
    pub(super) fn tidy_up(&mut self) -> bool {
        if let Some(topology) = self.topology() {
            if topology.paused {
                self.tell_all(&SystemCommand::Pause(false));
            }
            for (&node, &state) in &topology.member_states {
                if state == MemberState::Drained {
                    self.tell_all(&set_state(node, None));
                }
            }
        }
        self.is_settled()
    }

    /// The command to make a node leave or to drain it, unless the checks that an operator sees refuse it.
    fn order(&self, topology: &Arc<Topology>, node: NodeId, state: MemberState) -> Option<SystemCommand> {
        let running = || self.nodes.values().filter_map(|node| node.running());
        let mut present = Present { live: running().map(|running| running.id()).collect(), ..Present::default() };
        let mut leaders: Vec<_> =
            running().flat_map(|running| running.replicas()).filter(|replica| replica.is_leader()).collect();
        leaders.sort_by_key(|leader| leader.status().term);
        for leader in leaders {
            let report = leader.report();
            let voters = report.voters.iter().chain(&report.outgoing).map(|voter| voter.node()).collect();
            present.voters.insert(report.shard, voters);
        }
        removal::obstacle(topology, node, &present).is_none().then(|| set_state(node, Some(state)))
    }

    fn tell_all(&mut self, command: &SystemCommand) {
        let operator = Endpoint::Client(crate::history::ClientId(u32::MAX));
        for (&id, _) in self.nodes.iter().filter(|(_, node)| node.running().is_some()) {
            self.network.send(self.now, operator, Endpoint::Node(id), Message::Propose(command.clone()));
        }
    }
}

fn set_state(node: NodeId, state: Option<MemberState>) -> SystemCommand {
    SystemCommand::SetMemberState { node, state, successor: None, fewer_replicas: false }
}
