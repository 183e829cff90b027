//! Drives the node's controller: feeds it events from the workers and from other nodes, and carries out its decisions.
//!
//! Another thread saves what the controller decides ([`saving`](crate::saving)), so during a long sync the controller
//! still announces leaders to other nodes and answers `status`.

use crate::clock;
use crate::events::{ControlEvent, ControlKnowledge, Mailbox, NoAnswer};
use crate::execute::Executor;
use crate::inbox::Event;
use crate::lifecycle::Lifecycle;
use crate::peers::Peers;
use crate::routing::Routing;
use crate::saving::Saved;
use crate::start_error::CLAIM_ADVICE;
use crate::workers::Workers;
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use ringfort_core::boot::Claim;
use ringfort_core::control::{Control, PROPOSAL_TIMEOUT, Testimony, codec};
use ringfort_core::liveness::Liveness;
use ringfort_core::request::Request;
use ringfort_core::system::Member;
use ringfort_core::time::Moment;
use ringfort_core::types::{ClusterId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Messages from other nodes that may wait; further ones are dropped, and their senders repeat them.
const MAX_WAITING: usize = 4096;

/// How long to wait for the controller's answer. Its thread may be waiting for a disk that hangs.
pub const KNOWLEDGE_TIMEOUT: Duration = Duration::from_millis(500);

impl Mailbox<ControlEvent> {
    /// Passes messages from another node to the control thread, or drops them if too many wait.
    pub fn deliver(&self, from: NodeId, messages: Vec<Bytes>) {
        for bytes in messages {
            match codec::decode(&bytes) {
                Ok(message) => {
                    self.offer(ControlEvent::Message { from, message }, MAX_WAITING);
                }
                Err(error) => tracing::warn!(node = %from, "a control message can't be read: {error}"),
            }
        }
    }

    /// Passes on the name and addresses with which a node introduces itself, or drops them if too many messages wait.
    pub fn introduce(&self, member: Member) {
        self.offer(ControlEvent::Introduction(member), MAX_WAITING);
    }

    /// Passes on gossip's current view of the other members' liveness.
    pub fn tell_liveness(&self, at: Moment, liveness: BTreeMap<NodeId, Liveness>) {
        self.offer(ControlEvent::Liveness(at, liveness), MAX_WAITING);
    }

    /// Passes a testimony on to the control thread.
    pub fn tell_testimony(&self, testimony: Testimony) {
        self.offer(ControlEvent::Testimony(testimony), MAX_WAITING);
    }

    /// What the controller knows of moves, and of replicas that can't be run.
    pub async fn knowledge(&self) -> Result<ControlKnowledge, NoAnswer> {
        let asked = timeout(KNOWLEDGE_TIMEOUT, self.ask(ControlEvent::Knowledge));
        asked.await.unwrap_or(Err(NoAnswer::Controller))
    }
}

/// What the thread uses of its node.
pub struct ControlThread {
    pub routing: Arc<Routing>,
    pub workers: Arc<Workers>,
    pub peers: Arc<Peers>,
    pub executor: Arc<Executor>,
    pub lifecycle: Arc<Lifecycle>,
    pub runtime: Handle,
    /// Receives what must be saved.
    pub saving: Sender<Saved>,
}

impl ControlThread {
    /// Runs until [`ControlEvent::Stop`].
    pub fn run(self, mut control: Control, events: Receiver<ControlEvent>) {
        let mut next_tick = clock::moment();
        loop {
            self.perform(&mut control);
            match events.recv_timeout(clock::until(next_tick)) {
                Ok(ControlEvent::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(event) => handle(&mut control, event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = clock::moment();
            if now >= next_tick {
                control.handle_tick(now);
                next_tick = control.next_tick(now);
            }
        }
    }

    fn perform(&self, control: &mut Control) {
        let effects = control.take_effects();
        for (node, message) in effects.messages {
            self.peers.send_control(node, &message);
        }
        for command in effects.proposals {
            let executor = self.executor.clone();
            self.runtime.spawn(async move {
                let request = Request::system(command);
                // The result is visible in the topology; if the command had no effect, the controller proposes it again.
                let _ = executor.execute(request, tokio::time::Instant::now() + PROPOSAL_TIMEOUT).await;
            });
        }
        for step in effects.steps {
            self.workers.of(step.shard).push_event(Event::Step(step));
        }
        if let Some(topology) = effects.topology {
            let _ = self.saving.send(Saved::Topology(topology));
        }
        if let Some(members) = effects.members {
            self.peers.set_members(&members);
            self.routing.set_members(members);
        }
        if let Some(cluster) = effects.claimed_by.filter(|_| !self.lifecycle.has_failed()) {
            self.stop_for(control, cluster);
        }
        if let Some(why) = effects.departure {
            let _ = self.saving.send(Saved::Departure(why));
        }
        for (shard, node) in effects.leaders {
            self.routing.set_leader(shard, node);
        }
    }

    /// Another cluster has proven that this node is its member: it must not serve in this cluster, now or after a restart.
    fn stop_for(&self, control: &Control, cluster: ClusterId) {
        let topology = control.topology();
        let Some(own) = topology.nodes.get(&self.routing.node()) else { return };
        let standing = match topology.nodes.len() {
            1 => format!("its --raft-dir holds the new cluster {}", self.routing.cluster()),
            _ => format!("it can't reach a majority of its own cluster {}", self.routing.cluster()),
        };
        self.lifecycle.fail(format!(
            "the nodes of cluster {cluster} have confirmed that {:?} at this address is a member of their cluster, and \
             {standing}. {}",
            own.name, CLAIM_ADVICE
        ));
        // A process that ends in an orderly way waits for the thread that saves.
        let claim = Claim { cluster, name: own.name.clone(), raft_address: control.own_addresses().raft.clone() };
        let _ = self.saving.send(Saved::Claim(claim));
    }
}

fn handle(control: &mut Control, event: ControlEvent) {
    let now = clock::moment();
    match event {
        ControlEvent::Applied(topology) => control.handle_topology(topology),
        ControlEvent::Report(report) => control.handle_local_report(report),
        ControlEvent::Leadership { shard, term, leads } => control.handle_leadership(now, shard, term, leads),
        ControlEvent::Lost { shard, replica, why } => control.handle_lost_replica(clock::moment(), shard, replica, why),
        ControlEvent::Message { from, message } => control.handle_message(now, from, message),
        ControlEvent::Liveness(at, liveness) => control.handle_liveness(at, liveness),
        ControlEvent::Testimony(testimony) => control.handle_testimony(now, &testimony),
        ControlEvent::Health(health) => control.handle_health(health),
        ControlEvent::Introduction(member) => control.handle_introduction(&member),
        ControlEvent::Knowledge(asked) => {
            let (progress, replace_after) = (control.progress(now), control.replace_after());
            let knowledge = ControlKnowledge { lost: control.lost_replicas().collect(), progress, replace_after };
            // The asking task may have stopped waiting.
            let _ = asked.send(knowledge);
        }
        ControlEvent::Stop => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn status_does_not_wait_for_a_controller_whose_disk_hangs() {
        let (control, _events) = Mailbox::<ControlEvent>::new();
        let asked = timeout(2 * KNOWLEDGE_TIMEOUT, control.knowledge());
        assert_eq!(asked.await.expect("it ends").map(drop), Err(NoAnswer::Controller));
    }
}
