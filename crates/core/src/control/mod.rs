//! Each node's part in running the cluster: what it announces, what it knows of the other nodes, and, on the leader of
//! the system shard, the controller.
//!
//! Every node announces to every other node the epoch of its topology, the shards that it leads, and its addresses. A
//! node that receives a lower epoch than its own answers with its topology, so the latest topology reaches every node
//! within one announcement interval after the node can be reached. What a node knows of the others is soft state: any
//! message here may be lost or late.
//!
//! Because announcements carry addresses, a node that was restarted elsewhere is dialled at its new address at once by
//! the nodes that it reaches. With their votes it can become part of a quorum again, which then writes its addresses
//! into the topology ([`address_book`]).
//!
//! The leaders of shards report their membership to the leader of the system shard. Its controller (`controller.rs`)
//! compares the reports with the topology's target and answers with one step at a time ([`plan`]). It keeps no state
//! that it could not learn again, so a new system leader continues where the old one stopped: reports of shards that
//! are not settled are repeated, and a report that is not repeated is soon forgotten.
//!
//! A node that is not in the latest topology is no longer a member. It keeps calling the others, which answer with that
//! topology; so it learns that it was removed, however long it was away. A node that another cluster claims as its
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

/// Announcements are sent this often, and at once when their content has changed.
pub const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_millis(500);

/// How often a node checks what is due, whatever the cluster's election timeout.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a proposal of the controller may take. Afterwards the controller decides again.
pub const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A step or a proposal that has had no effect for this long is decided again.
const PATIENCE: Duration = Duration::from_secs(1);

/// A leader that has not announced itself for this long may no longer lead.
const LEADER_PATIENCE: Duration = ANNOUNCEMENT_INTERVAL.saturating_mul(3);

/// A leader that lacks a quorum steps down after this many election timeouts.
const STEPS_DOWN_AFTER: u32 = 2;

/// The usual [`ControlConfig::proven_after`]. What may delay a leader's announcements, or its finding that it has no
/// quorum, is shorter: a connection is closed after 3 s of silence, and a worker's turn takes far less than a second.
pub const PROVEN_AFTER: Duration = Duration::from_secs(5);

/// A replica on this node that can't be run.
struct Lost {
    why: QuarantineReason,
    since: Moment,
}

/// How a node runs the cluster while it leads the system shard.
#[derive(Clone, Copy, Debug)]
pub struct ControlConfig {
    /// Shards of more than [`SMALL_MOVE_BYTES`](crate::limits::SMALL_MOVE_BYTES) that receive a new replica at the same
    /// time.
    pub moves: usize,
    /// A node that is silent for this long is declared dead, and its replicas are placed on other nodes.
    pub replace_after: Duration,
    /// A node that was away is given leadership only after it has been back for this long.
    pub lead_after: Duration,
    /// A leader that announces itself without a gap for this much longer than it could without a quorum, since a replica
    /// was lost, has a quorum without it.
    pub proven_after: Duration,
    pub mutation: Mutation,
}

impl Default for ControlConfig {
    fn default() -> ControlConfig {
        ControlConfig {
            moves: CONCURRENT_MOVES,
            replace_after: REPLACE_AFTER,
            lead_after: LEAD_AFTER,
            proven_after: PROVEN_AFTER,
            mutation: Mutation::None,
        }
    }
}

/// The effects that the shell performs for a [`Control`].
#[derive(Default)]
pub struct ControlEffects {
    pub messages: Vec<(NodeId, ControlMessage)>,
    /// Commands for the system shard, wherever its leader is. Their outcome appears in the topology.
    pub proposals: Vec<SystemCommand>,
    /// Steps for shards that this node leads itself.
    pub steps: Vec<StepRequest>,
    /// A newer topology: write it to disk, then pass it to the workers and the routing table.
    pub topology: Option<Arc<Topology>>,
    /// All nodes with the addresses at which to reach them, if any has changed. They may be newer than the topology's.
    pub members: Option<Arc<Members>>,
    /// The leaders that were heard, each with its shard. They include known leaders, because a replica here may have
    /// found them silent meanwhile.
    pub leaders: Vec<(ShardId, NodeId)>,
    /// This node is no longer a member, for this reason. It must stop, and its directory is of no further use.
    pub departure: Option<MemberState>,
    /// Another cluster has proven that this node is its member. The node must stop.
    pub claimed_by: Option<ClusterId>,
}

/// The latest known leader of a shard.
struct Leader {
    term: Term,
    node: NodeId,
    /// When it last announced that.
    heard: Moment,
    /// Since when it has announced that without a gap of [`LEADER_PATIENCE`].
    since: Moment,
}

/// One node's controller and its knowledge of the other nodes.
pub struct Control {
    node: NodeId,
    /// This node with its present addresses and zone.
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
    /// See [`ControlConfig::proven_after`].
    proven_after: Duration,
    /// Replicas of this node that can't be trusted and need replacing.
    lost: BTreeMap<(ShardId, ReplicaId), Lost>,
    renewed: Option<Moment>,
    reintroduced: Option<Moment>,
    next_announcement: Moment,
    announcement_due: bool,
    has_departed: bool,
    out: ControlEffects,
}

impl Control {
    /// `own` is this node with its present addresses and zone.
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
            proven_after: config.proven_after,
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

    /// The leader of `shard`, as far as this node knows.
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.leaders.get(&shard).map(|leader| leader.node)
    }

    /// A node that is silent for this long is replaced, if enough other nodes are alive and this node leads the system
    /// shard.
    pub fn replace_after(&self) -> Duration {
        self.controller.replace_after()
    }

    /// The progress of moves. Known only on the leader of the system shard.
    pub fn progress(&self, now: Moment) -> Option<Progress> {
        self.led.contains_key(&ShardId::SYSTEM).then(|| self.controller.progress(now))
    }

    /// When [`handle_tick`](Control::handle_tick) is due.
    pub fn next_tick(&self, now: Moment) -> Moment {
        now + LOOK_INTERVAL
    }

    /// Sends what is due, and on the system shard's leader runs the controller.
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

    /// Handles a topology that the system shard's replica here has applied or another node has sent.
    pub fn handle_topology(&mut self, topology: Arc<Topology>) {
        if topology.epoch <= self.topology.epoch || topology.cluster != self.topology.cluster {
            return;
        }
        if !topology.nodes.contains_key(&self.node) {
            // The topology no longer records old departures; `Leaving` is the closest reason then.
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

    /// A replica on this node has become its shard's leader, or has ceased to be.
    pub fn handle_leadership(&mut self, now: Moment, shard: ShardId, term: Term, leads: bool) {
        if leads {
            self.led.insert(shard, term);
            self.learn_leader(now, shard, term, self.node);
        } else {
            self.led.remove(&shard);
            if shard == ShardId::SYSTEM {
                self.controller.forget();
            }
        }
        self.announcement_due = true;
    }

    /// A replica on this node can't be run, for this reason.
    pub fn handle_lost_replica(&mut self, now: Moment, shard: ShardId, replica: ReplicaId, why: QuarantineReason) {
        self.lost.entry((shard, replica)).or_insert(Lost { why, since: now });
    }

    /// The replicas on this node that can't be run.
    pub fn lost_replicas(&self) -> impl Iterator<Item = (ShardId, ReplicaId, QuarantineReason)> + '_ {
        self.lost.iter().map(|(&(shard, replica), lost)| (shard, replica, lost.why))
    }

    /// Handles a node's introduction: its name, identity and addresses, sent outside the streams between nodes. A known
    /// member is dialled at these addresses; all others are ignored until the system shard admits them.
    pub fn handle_introduction(&mut self, member: &Member) {
        if let Some((node, known)) = self.topology.node_named(&member.name)
            && known.identity == member.identity
        {
            self.learn_addresses(node, member.addresses());
        }
    }

    /// Handles the testimony of a member of another cluster that had called this node.
    pub fn handle_testimony(&mut self, now: Moment, testimony: &Testimony) {
        self.claims.hear(now, testimony, &self.topology, self.node);
    }

    /// Handles the report of a shard that this node leads.
    pub fn handle_local_report(&mut self, report: ShardReport) {
        if self.led.contains_key(&ShardId::SYSTEM) {
            self.handle_report(report);
        } else if let Some(leader) = self.leader(ShardId::SYSTEM) {
            self.out.messages.push((leader, ControlMessage::Report(report)));
        }
    }

    /// Handles gossip's liveness of all other members at this moment. Call it once a gossip period: there is no other
    /// source of silence.
    pub fn handle_liveness(&mut self, at: Moment, liveness: BTreeMap<NodeId, Liveness>) {
        self.leadership.learn_liveness(&liveness);
        self.liveness.tell(at, liveness);
    }

    /// Handles a change in the reported health of the nodes.
    pub fn handle_health(&mut self, health: HealthView) {
        self.leadership.learn_health(health);
    }

    /// Handles a message from another node.
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

    /// The effects that have come up since the last call.
    pub fn take_effects(&mut self) -> ControlEffects {
        std::mem::take(&mut self.out)
    }

    fn handle_announcement(&mut self, now: Moment, from: NodeId, announcement: Announcement) {
        for (shard, term) in announcement.leads {
            self.learn_leader(now, shard, term, from);
        }
        self.learn_addresses(from, announcement.addresses);
        if announcement.epoch < self.topology.epoch {
            self.out.messages.push((from, ControlMessage::Topology(self.topology.clone())));
        }
    }

    fn learn_leader(&mut self, now: Moment, shard: ShardId, term: Term, node: NodeId) {
        let known = self.leaders.get(&shard);
        if known.is_none_or(|known| term >= known.term) {
            let same = known.filter(|known| (known.term, known.node) == (term, node));
            let since = same.filter(|known| now < known.heard + LEADER_PATIENCE).map_or(now, |known| known.since);
            self.out.leaders.push((shard, node));
            self.leaders.insert(shard, Leader { term, node, heard: now, since });
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

    /// Asks for new replicas in place of those that can't be run, if another node has led the shard for long enough since
    /// they stopped: then a quorum without them has every acknowledged write. Otherwise the damaged log may hold the only
    /// copy. It is kept, for a restart that can read it or for an operator to recover, because a new replica would take
    /// its place.
    fn ask_for_new_replicas(&mut self, now: Moment) {
        let topology = &self.topology;
        // A lost replica is listed for as long as its shard has it, even if the new one is already assigned.
        let held = |shard: &ShardId| topology.groups.get(shard).map(|group| &group.replicas[..]).unwrap_or_default();
        self.lost.retain(|(shard, replica), _| held(shard).contains(replica));
        if self.renewed.is_some_and(|at| now < at + PATIENCE) {
            return;
        }
        let proven_after = topology.timing.election_timeout() * STEPS_DOWN_AFTER + self.proven_after;
        let is_led_without = |shard: ShardId, since: Moment| {
            self.leaders.get(&shard).is_some_and(|leader| {
                leader.node != self.node
                    && now < leader.heard + LEADER_PATIENCE
                    && leader.heard >= leader.since.max(since) + proven_after
            })
        };
        let is_latest = |shard, replica: ReplicaId| topology.replica(shard, replica.node()) == Some(replica);
        let replaceable = self
            .lost
            .iter()
            .filter(|((shard, replica), lost)| is_led_without(*shard, lost.since) && is_latest(*shard, *replica));
        let renew: Vec<_> = replaceable.map(|(&(shard, replica), _)| SystemCommand::Renew { shard, replica }).collect();
        if !renew.is_empty() {
            self.renewed = Some(now);
            self.out.proposals.extend(renew);
        }
    }

    /// Proposes this node's present addresses and zone until the topology has them.
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
        let renew = [SystemCommand::Renew { shard, replica }];
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
        let lost_at = Moment::default() + PATIENCE;
        control.handle_lost_replica(lost_at, shard, replica, QuarantineReason::Memory);
        // Five seconds, and two election timeouts of 0.4 s.
        for _ in 0..5 {
            assert_eq!(asked_after(&mut control, PATIENCE, Some(shard)), [], "the leader may need it for its quorum");
        }
        assert_eq!(asked_after(&mut control, LEADER_PATIENCE, None), [], "its leader may have failed");
        assert_eq!(asked_after(&mut control, PATIENCE, Some(ShardId(1))), [], "it leads another shard");
        for _ in 0..6 {
            assert_eq!(asked_after(&mut control, PATIENCE, Some(shard)), [], "it may have been paused in the gap");
        }
        assert_eq!(asked_after(&mut control, PATIENCE, Some(shard)), renew);
        assert_eq!(asked_after(&mut control, PATIENCE, Some(shard)), renew, "until it has an effect");
        assert_eq!(asked_after(&mut control, LEADER_PATIENCE, None), [], "its leader has failed");
        control.handle_leadership(lost_at + Duration::from_secs(60), shard, Term(4), true);
        assert_eq!(asked_after(&mut control, PATIENCE, None), [], "a leader here is no other quorum");
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
        // The topology does not record old departures.
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
