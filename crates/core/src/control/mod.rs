//! Each node's part in running the cluster: what it tells the others, what it knows of them, and, on the leader of the
//! system shard, the controller.
//!
//! Every node announces to every other one: the epoch it knows and the shards it leads. Whoever sees a lower epoch than
//! its own answers with the topology, so that the latest one reaches all nodes that can be reached, at the latest a
//! announcement after they can be. What is known of others is soft: any message here may be lost or come late.
//!
//! An announcement also says where its sender is now. A node that was started elsewhere is so dialled at once by those
//! that it reaches, and with their votes can become part of a quorum again, which then writes its addresses into the
//! topology ([`address_book`]).
//!
//! Leaders of shards report how their membership stands to the leader of the system shard. Its controller
//! (`controller.rs`) compares that with what the topology wants and answers with one step at a time ([`plan`]). It
//! keeps nothing that it could not learn again, so that a new system leader goes on where the old one stopped: reports
//! of shards that are not settled are repeated, and one that is not repeated is soon forgotten.
//!
//! A node that is not in the latest topology is no member any more. It goes on calling the others, which answer with
//! that topology; so it learns that it was removed, however long it was away. A node that another cluster claims as its
//! member learns that as well ([`claims`]).

mod address_book;
mod claims;
pub mod codec;
mod controller;
mod leadership;

pub mod plan;
pub mod preview;
pub mod progress;
pub mod removal;
pub mod takeover;

use crate::divergence::QuarantineReason;
use crate::health::HealthView;
use crate::limits::{CONCURRENT_MOVES, LEAD_AFTER, REPLACE_AFTER};
use crate::liveness::{Liveness, LivenessView};
use crate::message::{Announcement, ControlMessage, ShardReport, StepRequest};
use crate::mutation::Mutation;
use crate::system::{Addresses, Member, MemberState, Members, SystemCommand, Topology};
use crate::time::Moment;
use crate::types::{ClusterId, NodeId, ReplicaId, ShardId, Term};
use address_book::AddressBook;
use claims::Claims;
pub use claims::Testimony;
use controller::{Controller, Round};
use leadership::Leadership;

use progress::Progress;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Announcements go out this often, and at once when what they say has changed.
pub const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_millis(500);

/// What is due is looked at this often, whatever the cluster's election timeout.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a proposal of the controller may take. Afterwards the controller decides anew.
pub const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A step or a proposal whose effect has not been seen for this long is decided anew.
const PATIENCE: Duration = Duration::from_secs(1);

/// A leader that has not announced itself for this long may lead no more.
const LEADER_PATIENCE: Duration = ANNOUNCEMENT_INTERVAL.saturating_mul(3);

/// How a node runs the cluster while it leads the system shard.
#[derive(Clone, Copy, Debug)]
pub struct ControlConfig {
    /// Shards of more than [`SMALL_MOVE_BYTES`](crate::limits::SMALL_MOVE_BYTES) that receive a new replica at the same
    /// time.
    pub moves: usize,
    /// A node that is silent for this long loses its replicas to others.
    pub replace_after: Duration,
    /// A node that was away is given leadership only after it has been back for this long.
    pub lead_after: Duration,
    pub mutation: Mutation,
}

impl Default for ControlConfig {
    fn default() -> ControlConfig {
        ControlConfig {
            moves: CONCURRENT_MOVES,
            replace_after: REPLACE_AFTER,
            lead_after: LEAD_AFTER,
            mutation: Mutation::None,
        }
    }
}

/// What a [`Control`] wants done.
#[derive(Default)]
pub struct ControlEffects {
    pub messages: Vec<(NodeId, ControlMessage)>,
    /// Commands for the system shard, wherever its leader is. Their outcome shows in the topology.
    pub proposals: Vec<SystemCommand>,
    /// Steps for shards that this node leads itself.
    pub steps: Vec<StepRequest>,
    /// A newer topology than before: to be written to disk, given to the workers and to the routing.
    pub topology: Option<Arc<Topology>>,
    /// All nodes with the addresses to reach them at, where these have changed. They may be ahead of the topology's.
    pub members: Option<Arc<Members>>,
    /// The leaders that were heard, each with its shard. This includes known leaders: a replica here may have found
    /// them silent meanwhile.
    pub leaders: Vec<(ShardId, NodeId)>,
    /// This node is no member any more, for this reason. It must stop, and its directory serves no longer.
    pub departure: Option<MemberState>,
    /// Another cluster has proven that this node is its member. The node must stop.
    pub claimed_by: Option<ClusterId>,
}

/// The latest leader of a shard that is known.
struct Leader {
    term: Term,
    node: NodeId,
    /// When it last said so.
    heard: Moment,
}

/// One node's controller and its knowledge of the others.
pub struct Control {
    node: NodeId,
    /// This node as it is to be known.
    own: Member,
    topology: Arc<Topology>,
    address_book: AddressBook,
    /// The shards that this node leads.
    led: BTreeMap<ShardId, Term>,
    leaders: BTreeMap<ShardId, Leader>,
    liveness: LivenessView,
    claims: Claims,
    leadership: Leadership,
    controller: Controller,
    /// Replicas of this node that can't be trusted, to be replaced by new ones.
    lost: BTreeMap<(ShardId, ReplicaId), QuarantineReason>,
    renewed: Option<Moment>,
    reintroduced: Option<Moment>,
    next_announcement: Moment,
    announcement_due: bool,
    has_departed: bool,
    out: ControlEffects,
}

impl Control {
    /// `own` is this node as it is to be known: with the addresses and the zone that it has now.
    pub fn new(node: NodeId, topology: Arc<Topology>, own: Member, config: ControlConfig, now: Moment) -> Control {
        let mut control = Control {
            node,
            topology: topology.clone(),
            address_book: AddressBook::new(node, own.addresses()),
            own,
            led: BTreeMap::new(),
            leaders: BTreeMap::new(),
            liveness: LivenessView::default(),
            claims: Claims::default(),
            leadership: Leadership::default(),
            controller: Controller::new(node, config),
            lost: BTreeMap::new(),
            renewed: None,
            reintroduced: None,
            next_announcement: now,
            announcement_due: true,
            has_departed: false,
            out: ControlEffects::default(),
        };
        control.out.topology = Some(topology);
        control.publish_members();
        control
    }

    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// The addresses at which this node is reached now.
    pub fn own_addresses(&self) -> &Addresses {
        self.address_book.own()
    }

    /// Who leads `shard`, as far as this node knows.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.leaders.get(&shard).map(|leader| leader.node)
    }

    /// A node that is silent for this long is replaced if enough other nodes are there and this node leads the system
    /// shard.
    pub fn replace_after(&self) -> Duration {
        self.controller.replace_after()
    }

    /// How far the moves are. Known only on the leader of the system shard.
    pub fn progress(&self, now: Moment) -> Option<Progress> {
        self.led.contains_key(&ShardId::SYSTEM).then(|| self.controller.progress(now))
    }

    /// When [`handle_tick`](Control::handle_tick) is due.
    pub fn next_tick(&self, now: Moment) -> Moment {
        now + LOOK_INTERVAL
    }

    /// Says what is due to be said, and on the system shard's leader decides what is to be done.
    pub fn handle_tick(&mut self, now: Moment) {
        if self.has_departed {
            return;
        }
        self.out.claimed_by = self.claims.proven(now, &self.topology, self.node, &self.liveness);
        if self.announcement_due || now >= self.next_announcement {
            self.announce(now);
        }
        self.ask_for_new_replicas(now);
        self.ask_to_be_known(now);
        if self.led.contains_key(&ShardId::SYSTEM) {
            let Control { controller, topology, liveness, leadership, out, .. } = self;
            controller.run(Round { now, topology, liveness, leadership, out });
            if let Some(uncommitted) = self.controller.publish_early(&self.topology, &self.out.proposals) {
                self.handle_topology(uncommitted);
            }
        }
    }

    /// Takes a topology: applied by the system shard's replica here, or pushed by another node.
    pub fn handle_topology(&mut self, topology: Arc<Topology>) {
        if topology.epoch <= self.topology.epoch || topology.cluster != self.topology.cluster {
            return;
        }
        if !topology.nodes.contains_key(&self.node) {
            // An old departure is forgotten; what is left is that an operator has to look.
            let why = topology.departed.get(&self.node).map_or(MemberState::Leaving, |departed| departed.why);
            self.has_departed = true;
            self.out.departure = Some(why);
            return;
        }
        self.address_book.follow(&self.topology, &topology);
        self.topology = topology.clone();
        self.out.topology = Some(topology);
        self.publish_members();
        self.announcement_due = true;
    }

    /// A replica on this node has become its shard's leader, or ceased to be.
    pub fn handle_leadership(&mut self, now: Moment, shard: ShardId, term: Term, leads: bool) {
        if leads {
            self.led.insert(shard, term);
            self.learn_leader(shard, Leader { term, node: self.node, heard: now });
        } else {
            self.led.remove(&shard);
            if shard == ShardId::SYSTEM {
                self.controller.forget();
            }
        }
        self.announcement_due = true;
    }

    /// A replica on this node can't be run, for this reason.
    pub fn handle_lost_replica(&mut self, shard: ShardId, replica: ReplicaId, why: QuarantineReason) {
        self.lost.insert((shard, replica), why);
    }

    /// The replicas on this node that can't be run.
    pub fn lost_replicas(&self) -> impl Iterator<Item = (ShardId, ReplicaId, QuarantineReason)> + '_ {
        self.lost.iter().map(|(&(shard, replica), &why)| (shard, replica, why))
    }

    /// A node has told this one who and where it is, outside of the streams between nodes. One that proves to be a
    /// known member is dialled there; anybody else is none of this node's business before the system shard takes them
    /// in.
    pub fn handle_introduction(&mut self, member: &Member) {
        if let Some((node, known)) = self.topology.node_named(&member.name)
            && known.identity == member.identity
        {
            self.learn_addresses(node, member.addresses());
        }
    }

    /// Takes the testimony of a member of another cluster that had called this node.
    pub fn handle_testimony(&mut self, now: Moment, testimony: &Testimony) {
        self.claims.hear(now, testimony, &self.topology, self.node);
    }

    /// A shard that this node leads reports.
    pub fn handle_local_report(&mut self, report: ShardReport) {
        if self.led.contains_key(&ShardId::SYSTEM) {
            self.handle_report(report);
        } else if let Some(leader) = self.leader(ShardId::SYSTEM) {
            self.out.messages.push((leader, ControlMessage::Report(report)));
        }
    }

    /// What gossip thought of all other members at this moment. To be called once a period of it: nothing else tells
    /// who is silent.
    pub fn handle_liveness(&mut self, at: Moment, liveness: BTreeMap<NodeId, Liveness>) {
        self.leadership.learn_liveness(&liveness);
        self.liveness.tell(at, liveness);
    }

    /// The reported health of a node has changed.
    pub fn handle_health(&mut self, health: HealthView) {
        self.leadership.learn_health(health);
    }

    /// Takes a message of another node.
    pub fn handle_message(&mut self, now: Moment, from: NodeId, message: ControlMessage) {
        if self.topology.has_removed(from) {
            self.out.messages.push((from, ControlMessage::Topology(self.topology.clone())));
            return;
        }
        if !self.topology.nodes.contains_key(&from) && !matches!(message, ControlMessage::Topology(_)) {
            return;
        }
        match message {
            ControlMessage::Announcement(announcement) => self.handle_announcement(now, from, announcement),
            ControlMessage::Topology(topology) => self.handle_topology(topology),
            ControlMessage::Report(report) => self.handle_report(report),
            ControlMessage::Step(step) => self.out.steps.push(step),
        }
    }

    /// What is to be done since the last call.
    pub fn take_effects(&mut self) -> ControlEffects {
        std::mem::take(&mut self.out)
    }

    fn handle_announcement(&mut self, now: Moment, from: NodeId, announcement: Announcement) {
        for (shard, term) in announcement.leads {
            self.learn_leader(shard, Leader { term, node: from, heard: now });
        }
        self.learn_addresses(from, announcement.addresses);
        if announcement.epoch < self.topology.epoch {
            self.out.messages.push((from, ControlMessage::Topology(self.topology.clone())));
        }
    }

    fn learn_leader(&mut self, shard: ShardId, leader: Leader) {
        if self.leaders.get(&shard).is_none_or(|known| leader.term >= known.term) {
            self.out.leaders.push((shard, leader.node));
            self.leaders.insert(shard, leader);
        }
    }

    fn learn_addresses(&mut self, node: NodeId, addresses: Addresses) {
        if self.address_book.hear(&self.topology, node, addresses) {
            self.publish_members();
        }
    }

    fn publish_members(&mut self) {
        self.out.members = Some(Arc::new(self.address_book.members(&self.topology)));
    }

    fn handle_report(&mut self, report: ShardReport) {
        if self.led.contains_key(&ShardId::SYSTEM) {
            self.controller.learn(report);
        }
    }

    fn announce(&mut self, now: Moment) {
        self.announcement_due = false;
        self.next_announcement = now + ANNOUNCEMENT_INTERVAL;
        let leads: Vec<(ShardId, Term)> = self.led.iter().map(|(&shard, &term)| (shard, term)).collect();
        for &node in self.topology.nodes.keys().filter(|&&node| node != self.node) {
            let addresses = self.address_book.own().clone();
            let announcement = Announcement { epoch: self.topology.epoch, leads: leads.clone(), addresses };
            self.out.messages.push((node, ControlMessage::Announcement(announcement)));
        }
    }

    /// Replicas that can't be run are replaced where the shard has a leader on another node: a quorum has all that was
    /// acknowledged, without them. Where none has been heard of lately, what is left in their log may be all there is;
    /// it stays as it is, to be read again at a restart or recovered by an operator, since a new replica would take its
    /// place.
    fn ask_for_new_replicas(&mut self, now: Moment) {
        let topology = &self.topology;
        // Told of for as long as the shard has it, also when the new one is on its way.
        let held = |shard: &ShardId| topology.groups.get(shard).map(|group| &group.replicas[..]).unwrap_or_default();
        self.lost.retain(|(shard, replica), _| held(shard).contains(replica));
        if self.renewed.is_some_and(|at| now < at + PATIENCE) {
            return;
        }
        let leads_elsewhere = |leader: &Leader| leader.node != self.node && now < leader.heard + LEADER_PATIENCE;
        let is_led_elsewhere = |shard: ShardId| self.leaders.get(&shard).is_some_and(leads_elsewhere);
        let is_latest = |shard, replica: ReplicaId| topology.replica(shard, replica.node()) == Some(replica);
        let replaceable =
            self.lost.keys().filter(|(shard, replica)| is_led_elsewhere(*shard) && is_latest(*shard, *replica));
        let renew: Vec<_> = replaceable.map(|&(shard, replica)| SystemCommand::Renew { shard, replica }).collect();
        if !renew.is_empty() {
            self.renewed = Some(now);
            self.out.proposals.extend(renew);
        }
    }

    /// Has the topology show this node as it is now, until it does.
    fn ask_to_be_known(&mut self, now: Moment) {
        let is_known = self.topology.nodes.get(&self.node).is_none_or(|known| *known == self.own);
        if !is_known && self.reintroduced.is_none_or(|at| now >= at + PATIENCE) {
            self.reintroduced = Some(now);
            let member = self.own.clone();
            self.out.proposals.push(SystemCommand::Join { member, replaces: None, known_as: Some(self.node) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Departed;
    use crate::system::topology::tests::member;
    use crate::timing::Timing;
    use crate::types::{ClusterId, Epoch};
    use ringfort_ring::ShardCount;

    #[test]
    fn a_lost_replica_is_replaced_only_while_another_node_leads_its_shard() {
        let mut topology =
            Topology::bootstrap(ClusterId(5), ShardCount::new(2).unwrap(), Timing::DEFAULT, member("node1"));
        topology.nodes.insert(NodeId(2), member("node2"));
        let (shard, node) = (ShardId(0), NodeId(1));
        let replica = topology.replica(shard, node).expect("the first node has all");
        let renew = SystemCommand::Renew { shard, replica };
        let mut now = Moment::default();
        let mut control = Control::new(node, Arc::new(topology), member("node1"), ControlConfig::default(), now);
        let mut asked_after = |control: &mut Control, pause, leads: Option<ShardId>| {
            now = now + pause;
            if let Some(shard) = leads {
                let (leads, addresses) = (vec![(shard, Term(3))], member("node2").addresses());
                let announcement = Announcement { epoch: Epoch(1), leads, addresses };
                control.handle_message(now, NodeId(2), ControlMessage::Announcement(announcement));
            }
            control.handle_tick(now);
            control.take_effects().proposals
        };
        assert_eq!(asked_after(&mut control, PATIENCE, Some(shard)), [], "nothing is lost yet");
        asked_after(&mut control, LEADER_PATIENCE, None);
        control.handle_lost_replica(shard, replica, QuarantineReason::Memory);
        assert_eq!(asked_after(&mut control, PATIENCE, None), [], "its leader may have failed");
        assert_eq!(asked_after(&mut control, PATIENCE, Some(ShardId(1))), [], "it leads another shard");
        assert_eq!(asked_after(&mut control, PATIENCE, Some(shard)), [renew.clone()]);
        assert_eq!(asked_after(&mut control, PATIENCE, Some(shard)), [renew], "until it has an effect");
        assert_eq!(asked_after(&mut control, LEADER_PATIENCE, None), [], "its leader has failed");
    }

    #[test]
    fn each_announcement_of_a_leader_says_that_it_is_not_silent() {
        let mut topology =
            Topology::bootstrap(ClusterId(5), ShardCount::new(2).unwrap(), Timing::DEFAULT, member("node1"));
        topology.nodes.insert(NodeId(2), member("node2"));
        topology.nodes.insert(NodeId(3), member("node3"));
        let (config, now) = (ControlConfig::default(), Moment::default());
        let mut control = Control::new(NodeId(1), Arc::new(topology), member("node1"), config, now);
        let mut heard = |node, term| {
            let (leads, addresses) = (vec![(ShardId(0), Term(term))], member("node2").addresses());
            let announcement = Announcement { epoch: Epoch(1), leads, addresses };
            control.handle_message(now, NodeId(node), ControlMessage::Announcement(announcement));
            control.take_effects().leaders
        };
        assert_eq!(heard(2, 3), [(ShardId(0), NodeId(2))]);
        assert_eq!(heard(2, 3), [(ShardId(0), NodeId(2))], "the replica here may have found it silent meanwhile");
        assert_eq!(heard(3, 2), [], "it was deposed");
        assert_eq!(heard(3, 4), [(ShardId(0), NodeId(3))]);
    }

    #[test]
    fn a_node_that_was_removed_is_told_when_it_calls_and_falls_silent() {
        let mut old = Topology::bootstrap(ClusterId(5), ShardCount::new(2).unwrap(), Timing::DEFAULT, member("node1"));
        old.nodes.insert(NodeId(2), member("node2"));
        let now = Moment::default();
        let control = |node, topology: Topology| {
            let own = topology.nodes[&NodeId(node)].clone();
            Control::new(NodeId(node), Arc::new(topology), own, ControlConfig::default(), now)
        };
        // Departures of long ago are forgotten.
        for is_remembered in [true, false] {
            let mut new = old.clone();
            new.epoch = Epoch(9);
            let removed = new.nodes.remove(&NodeId(1)).unwrap();
            if is_remembered {
                new.departed.insert(NodeId(1), Departed::new(&removed, MemberState::Dead));
            }
            let (mut member, mut returned) = (control(2, new), control(1, old.clone()));
            returned.handle_tick(now);
            let said = returned.take_effects().messages;
            assert_eq!(said.len(), 1, "its announcement");
            member.take_effects();
            member.handle_message(now, NodeId(1), said[0].1.clone());
            let answer = member.take_effects().messages;
            assert!(matches!(&answer[..], [(NodeId(1), ControlMessage::Topology(_))]), "{answer:?}");
            returned.handle_message(now, NodeId(2), answer[0].1.clone());
            let effects = returned.take_effects();
            assert_eq!(effects.departure, Some(if is_remembered { MemberState::Dead } else { MemberState::Leaving }));
            assert!(effects.topology.is_none(), "its directory keeps the topology in which it is a member");
            returned.handle_tick(now + 10 * ANNOUNCEMENT_INTERVAL);
            assert!(returned.take_effects().messages.is_empty());
        }
    }
}
