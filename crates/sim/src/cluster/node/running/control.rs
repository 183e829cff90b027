//! The controller of a running node: its messages and its effects.

use super::*;
use crate::cluster::node::requests::Asker;
use ringfort_core::control::{PROPOSAL_TIMEOUT, takeover};
use ringfort_core::topology_store::{Effect, Outcome, SAVE_PAUSE};

impl Running {
    pub(super) fn turn_of_control(&mut self, now: Moment, out: &mut Outbox) {
        self.control_planned = false;
        for (from, message) in std::mem::take(&mut self.control_inbox) {
            self.control.handle_message(now, from, message);
        }
        if now >= self.control_tick {
            self.watch_disk(out);
            self.control.handle_tick(now);
            // This task also evaluates the disk, which the health monitor needs every few ticks.
            let look = now + 2 * self.settings.health.timing.tick();
            self.control_tick = self.control.next_tick(now).min(look);
            out.tasks.push((When::Local(self.control_tick), Task::Control));
        }
        self.perform_control(out);
    }

    pub(super) fn perform_control(&mut self, out: &mut Outbox) {
        let effects = self.control.take_effects();
        if let Some(topology) = effects.topology {
            self.save_topology(topology, out);
        }
        for (node, message) in effects.messages {
            if matches!(message, ControlMessage::Step(_)) {
                out.events.push(CONTROLLER_ACTS);
            }
            if let Some(to) = self.endpoint_of(node) {
                out.messages.push((to, Message::Control { from: self.node, to: node, message }));
            }
        }
        out.departure = out.departure.or(effects.departure);
        if self.control.leader(ShardId::SYSTEM) == Some(self.node) {
            out.events.extend(effects.steps.iter().map(|_| CONTROLLER_ACTS));
            out.events.extend(effects.proposals.iter().map(|_| CONTROLLER_ACTS));
        }
        for (shard, node) in effects.leaders {
            self.set_leader(shard, node);
        }
        for command in effects.proposals {
            self.execute_anywhere(Request::system(command), Asker::Nobody, PROPOSAL_TIMEOUT, out);
        }
        for step in effects.steps {
            self.give(step.shard, Input::Step(step), out);
        }
    }

    /// Saves a topology, as a thread of the shell does.
    pub(super) fn save_topology(&mut self, topology: Arc<Topology>, out: &mut Outbox) {
        self.topologies.offer(topology);
        self.save_unsaved_topology(out);
    }

    /// Saves the waiting topology, if there is one, and puts it into effect.
    pub(super) fn save_unsaved_topology(&mut self, out: &mut Outbox) {
        if self.is_disk_hung {
            return;
        }
        let Some(Outcome { takes_effect, error }) = self.topologies.save(&*self.disk) else { return };
        out.events.extend(error.map(|_| "topologies not saved"));
        match takes_effect {
            Effect::Full(topology) => {
                self.give_to_all(|| Input::Topology(topology.clone()), out);
                self.routed = topology;
                self.welcome(out);
            }
            Effect::Retirements(topology) => {
                self.give_to_all(|| Input::Retirements(topology.clone()), out);
                out.tasks.push((When::After(SAVE_PAUSE), Task::SaveTopology));
            }
        }
    }

    pub(in crate::cluster::node) fn propose(&mut self, command: SystemCommand, out: &mut Outbox) {
        let input = Input::Request { request: Request::system(command), responder: Responder::Nobody };
        self.give(ShardId::SYSTEM, input, out);
    }

    pub(in crate::cluster::node) fn mutation(&self) -> Mutation {
        self.settings.replica.mutation
    }

    pub(in crate::cluster::node) fn endpoint_of(&self, node: NodeId) -> Option<Endpoint> {
        let topology = self.topology();
        let departed = || topology.departed.get(&node).map(|departed| &departed.raft_address);
        let address = topology.nodes.get(&node).map(|member| &member.raft_address).or_else(departed)?;
        address.parse().ok().map(|at| Endpoint::Node(NodeId(at)))
    }

    /// The silent node that the joining node, which has the same name, replaces; an error if the silent node may be
    /// running.
    pub(in crate::cluster::node) fn replaced(&self, member: &Member) -> Result<Option<NodeId>, ()> {
        let liveness = |node| self.gossip.liveness(node, self.now.moment);
        takeover::replaced(self.topology(), member, liveness).map_err(|_| ())
    }
}
