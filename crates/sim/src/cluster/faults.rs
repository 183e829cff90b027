//! The seed's faults, when they happen and to whom.

use super::{Cluster, Wake};
use crate::history::ClientId;
use crate::network::{Endpoint, Link};
use crate::options::Episodes;
use crate::random::Random;
use ringfort_core::time::Moment;
use ringfort_core::types::{NodeId, ReplicaId, ShardId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Something that happens to the cluster.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Partition,
    OneWayCut,
    Bridge,
    /// The bridge restarts, or stalls for a while, and does not hear one side any more when it is back.
    BridgeRestarts,
    BridgeStalls,
    BridgeIsBack,
    /// The end of them all.
    Heal,
    Crash,
    PowerLoss,
    ZoneLoss,
    Wipe,
    Death,
    Operate,
    Start(NodeId),
    Stall,
    SlowDisk,
    FastDisk(NodeId),
    WallStep,
    Join,
}

impl Fault {
    /// What is counted; none for what only ends something.
    fn name(self) -> Option<&'static str> {
        match self {
            Fault::Partition => Some("partitions"),
            Fault::OneWayCut => Some("one-way cuts"),
            Fault::Bridge => Some("bridges"),
            Fault::Crash => Some("crashes"),
            Fault::PowerLoss => Some("power losses"),
            Fault::ZoneLoss => Some("zone losses"),
            Fault::Operate => Some("operations"),
            Fault::Stall => Some("stalls"),
            Fault::SlowDisk => Some("slow disks"),
            Fault::WallStep => Some("wall steps"),
            Fault::Join => Some("joins"),
            Fault::Heal
            | Fault::BridgeRestarts
            | Fault::BridgeStalls
            | Fault::BridgeIsBack
            | Fault::Start(_)
            | Fault::FastDisk(_)
            // Counted if it came to that.
            | Fault::Wipe
            | Fault::Death => None,
        }
    }
}

pub(super) struct Faults {
    random: Random,
    active: bool,
    bridge: Option<Bridge>,
    pub counts: BTreeMap<&'static str, u64>,
    down: BTreeSet<NodeId>,
    dead: BTreeSet<NodeId>,
    /// The replica whose memory was damaged.
    damaged: Option<(ShardId, ReplicaId)>,
}

/// A node that hears everybody, and the one of two groups that it will not hear in the end.
#[derive(Clone)]
struct Bridge {
    node: NodeId,
    lost: Vec<Endpoint>,
}

/// A death that can't be now comes later.
const DEATH_PAUSE: Duration = Duration::from_millis(200);

/// How long a bridge takes to restart.
const RESTART: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(30);

/// How long it stalls.
const STALL: RangeInclusive<Duration> = Duration::from_millis(300)..=Duration::from_millis(900);

/// How long the bridge does not hear the side that it has lost.
const DEAF: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_millis(1_500);

impl Faults {
    pub fn new(random: Random) -> Faults {
        Faults {
            random,
            active: false,
            bridge: None,
            counts: BTreeMap::new(),
            down: BTreeSet::new(),
            dead: BTreeSet::new(),
            damaged: None,
        }
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether a node has gone for good.
    pub fn is_dead(&self, node: NodeId) -> bool {
        self.dead.contains(&node)
    }

    /// A node has gone for good.
    pub fn bury(&mut self, node: NodeId) {
        self.down.remove(&node);
        self.dead.insert(node);
    }
}

impl Cluster {
    pub(super) fn begin_faults(&mut self) {
        self.faults.active = true;
        self.network.set_all_links(self.options.link.clone());
        let nodes = self.options.nodes + self.options.joins;
        let connection = Link { duplicate_permille: 0, ..self.options.link.clone() };
        for client in 0..self.options.clients {
            let client = Endpoint::Client(ClientId(client as u32));
            for node in 1..=nodes {
                let node = Endpoint::Node(NodeId(node as u64));
                self.network.set_link(client, node, connection.clone());
                self.network.set_link(node, client, connection.clone());
            }
        }
        let all = [
            Fault::Partition,
            Fault::OneWayCut,
            Fault::Bridge,
            Fault::Crash,
            Fault::PowerLoss,
            Fault::ZoneLoss,
            Fault::Wipe,
            Fault::Stall,
            Fault::SlowDisk,
            Fault::WallStep,
        ];
        all.into_iter().for_each(|fault| self.plan(fault));
        for _ in 0..self.options.joins {
            let after = self.faults.random.duration(&(Duration::ZERO..=self.options.duration));
            self.agenda.put(self.now + after, Wake::Fault(Fault::Join));
        }
        let deaths = usize::from(self.options.faults.death);
        let once = [(Fault::Operate, self.options.operations), (Fault::Death, deaths)];
        for (fault, times) in once {
            for _ in 0..times {
                let after = self.faults.random.duration(&(Duration::ZERO..=self.options.duration));
                self.agenda.put(self.now + after, Wake::Fault(fault));
            }
        }
    }

    pub(super) fn end_faults(&mut self) -> Result<(), String> {
        self.faults.active = false;
        self.clients.rest();
        self.network.heal();
        self.network.set_all_links(Link::healthy(self.options.link.delay.clone()));
        for node in self.nodes.values_mut() {
            node.sync = self.options.sync.clone();
        }
        // With fewer than three others it is not replaced, and has to come back.
        if self.present().count() < 3 {
            let dead = std::mem::take(&mut self.faults.dead);
            self.faults.down.extend(dead);
        }
        for id in std::mem::take(&mut self.faults.down) {
            self.start_node(id)?;
        }
        Ok(())
    }

    /// Flips bits on the disk of one node, which then restarts: what it can't trust it must get from the others. Only
    /// with three nodes or more, whose every shard has a quorum elsewhere. Returns whether there was one.
    pub(super) fn corrupt_one(&mut self) -> Result<bool, String> {
        let present: Vec<NodeId> = self.present().map(|(id, _)| id).collect();
        if !self.options.faults.corruption || present.len() < 3 {
            return Ok(false);
        }
        *self.faults.counts.entry("corruptions").or_default() += 1;
        let id = *self.faults.random.pick(&present);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.crash(&mut self.faults.random);
            node.corrupt(&mut self.faults.random);
        }
        self.start_node(id)?;
        Ok(true)
    }

    /// Flips a bit in the memory of one replica. Only with three nodes or more, whose every shard has a quorum elsewhere.
    /// Returns whether there was one.
    pub(super) fn damage_memory(&mut self) -> bool {
        let present: Vec<NodeId> = self.present().map(|(id, _)| id).collect();
        if !self.options.faults.memory || present.len() < 3 {
            return false;
        }
        let id = *self.faults.random.pick(&present);
        let random = &mut self.faults.random;
        self.faults.damaged = self.nodes.get_mut(&id).and_then(|node| node.damage_memory(random));
        let is_damaged = self.faults.damaged.is_some();
        self.invariants.expects_divergence = is_damaged;
        *self.faults.counts.entry("memory damaged").or_default() += u64::from(is_damaged);
        is_damaged
    }

    /// The replica whose memory was damaged is gone, an alarm has told why, and the cluster is as it should be.
    pub(super) fn is_healed(&mut self) -> bool {
        let Some((shard, damaged)) = self.faults.damaged else { return true };
        let running = || self.nodes.values().filter_map(super::Node::running);
        let mut held = running().flat_map(|node| node.replicas().map(|held| (held.shard(), held.id())));
        let still_runs = held.any(|held| held == (shard, damaged));
        let is_told = running().any(|node| !node.alarms().is_empty());
        let is_over = running().all(|node| node.divergences() == 0);
        drop(held);
        !still_runs && is_told && is_over && self.tidy_up()
    }

    /// Plans the next episode of a fault, if its class is on.
    fn plan(&mut self, fault: Fault) {
        if let Some(episodes) = self.episodes(fault) {
            let after = self.faults.random.duration(&episodes.gap);
            self.agenda.put(self.now + after, Wake::Fault(fault));
        }
    }

    fn episodes(&self, fault: Fault) -> Option<Episodes> {
        let faults = &self.options.faults;
        match fault {
            Fault::Partition => faults.partitions.clone(),
            Fault::OneWayCut => faults.one_way_cuts.clone(),
            Fault::Bridge => faults.bridges.clone(),
            Fault::Crash => faults.crashes.clone(),
            Fault::PowerLoss => faults.power_losses.clone(),
            Fault::ZoneLoss => faults.zone_losses.clone(),
            Fault::Wipe => faults.wipes.clone(),
            Fault::Stall => faults.stalls.clone(),
            Fault::SlowDisk => faults.slow_disks.clone(),
            Fault::WallStep => faults.wall_steps.clone(),
            Fault::BridgeRestarts | Fault::BridgeStalls | Fault::BridgeIsBack => None,
            Fault::Heal | Fault::Start(_) | Fault::FastDisk(_) | Fault::Join | Fault::Operate | Fault::Death => None,
        }
    }

    pub(super) fn inflict(&mut self, fault: Fault) -> Result<(), String> {
        if !self.faults.active {
            return Ok(());
        }
        if let Some(name) = fault.name() {
            *self.faults.counts.entry(name).or_default() += 1;
        }
        let length = self.episodes(fault).map(|episodes| self.faults.random.duration(&episodes.length));
        let end = self.now + length.unwrap_or_default();
        let any = NodeId(1 + self.faults.random.below(self.nodes.len() as u64));
        match fault {
            Fault::Partition => {
                let (one, other) = self.split();
                self.network.partition(&[&one, &other]);
                self.agenda.put(end, Wake::Fault(Fault::Heal));
            }
            Fault::OneWayCut => {
                let (one, other) = self.split();
                self.network.cut_one_way(&one, &other);
                self.agenda.put(end, Wake::Fault(Fault::Heal));
            }
            Fault::Bridge => {
                let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
                self.faults.random.shuffle(&mut nodes);
                if let Some(node) = nodes.pop().filter(|_| nodes.len() > 1) {
                    let at = 1 + self.faults.random.below(nodes.len() as u64 - 1) as usize;
                    let endpoints = |nodes: &[NodeId]| nodes.iter().map(|&id| Endpoint::Node(id)).collect::<Vec<_>>();
                    let (lost, other) = (endpoints(&nodes[..at]), endpoints(&nodes[at..]));
                    self.network.partition(&[&lost, &other]);
                    self.faults.bridge = Some(Bridge { node, lost });
                    let ends = [Fault::Heal, Fault::BridgeRestarts, Fault::BridgeStalls];
                    self.agenda.put(end, Wake::Fault(*self.faults.random.pick(&ends)));
                }
            }
            Fault::BridgeRestarts => {
                if let Some(Bridge { node, .. }) = self.faults.bridge {
                    let back = self.now + self.faults.random.duration(&RESTART);
                    self.crash(node, back);
                    self.agenda.put(back, Wake::Fault(Fault::BridgeIsBack));
                }
            }
            Fault::BridgeStalls => {
                if let Some(node) = self.faults.bridge.as_ref().and_then(|bridge| self.nodes.get_mut(&bridge.node)) {
                    node.stalled_until = self.now + self.faults.random.duration(&STALL);
                    self.agenda.put(node.stalled_until, Wake::Fault(Fault::BridgeIsBack));
                }
            }
            Fault::BridgeIsBack => {
                if let Some(Bridge { node, lost }) = self.faults.bridge.take() {
                    self.network.cut_one_way(&lost, &[Endpoint::Node(node)]);
                }
                let heal = self.now + self.faults.random.duration(&DEAF);
                self.agenda.put(heal, Wake::Fault(Fault::Heal));
            }
            Fault::Heal => {
                self.faults.bridge = None;
                self.network.heal();
            }
            Fault::Crash => self.crash(any, end),
            Fault::PowerLoss => {
                let all: Vec<NodeId> = self.nodes.keys().copied().collect();
                all.into_iter().for_each(|id| self.crash(id, end));
            }
            Fault::ZoneLoss => {
                let zone = self.nodes[&any].zone().to_owned();
                let lost = |(_, node): &(&NodeId, &super::Node)| node.zone() == zone;
                let lost: Vec<NodeId> = self.nodes.iter().filter(lost).map(|(&id, _)| id).collect();
                lost.into_iter().for_each(|id| self.crash(id, end));
            }
            // Whoever is lost for good must be the only one that is missing, or a quorum's disks may be lost.
            Fault::Wipe => {
                if self.present().count() >= 3 && self.present().any(|(id, _)| id == any) && self.is_settled() {
                    *self.faults.counts.entry("wipes").or_default() += 1;
                    self.crash(any, end);
                    if let Some(node) = self.nodes.get_mut(&any) {
                        node.wipe();
                    }
                }
            }
            Fault::Death => {
                if self.present().count() >= 4 && self.present().any(|(id, _)| id == any) && self.is_settled() {
                    *self.faults.counts.entry("deaths").or_default() += 1;
                    self.crash(any, end);
                    self.faults.bury(any);
                } else {
                    self.agenda.put(self.now + DEATH_PAUSE, Wake::Fault(Fault::Death));
                }
            }
            Fault::Operate => self.operate(),
            Fault::Start(id) => {
                if self.faults.down.remove(&id) {
                    self.start_node(id)?;
                }
            }
            Fault::Stall => {
                if let Some(node) = self.nodes.get_mut(&any) {
                    node.stalled_until = end;
                }
            }
            Fault::SlowDisk => {
                if let Some(node) = self.nodes.get_mut(&any) {
                    node.sync = self.options.slow_sync.clone();
                    self.agenda.put(end, Wake::Fault(Fault::FastDisk(any)));
                }
            }
            Fault::FastDisk(id) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.sync = self.options.sync.clone();
                }
            }
            Fault::WallStep => {
                let by = length.unwrap_or_default().as_micros() as i64;
                let by = if self.faults.random.chance(500) { by } else { -by };
                if let Some(node) = self.nodes.get_mut(&any) {
                    node.clock.step_wall(by);
                }
            }
            Fault::Join => self.add_node()?,
        }
        self.plan(fault);
        Ok(())
    }

    pub(super) fn crash_for(&mut self, id: NodeId, time: Duration) {
        self.crash(id, self.now + time);
    }

    fn crash(&mut self, id: NodeId, until: Moment) {
        if self.present().any(|(present, _)| present == id)
            && self.faults.down.insert(id)
            && let Some(node) = self.nodes.get_mut(&id)
        {
            node.crash(&mut self.faults.random);
            self.agenda.put(until, Wake::Fault(Fault::Start(id)));
        }
    }

    /// All endpoints in two groups, a node in each where there are two.
    fn split(&mut self) -> (Vec<Endpoint>, Vec<Endpoint>) {
        let mut nodes: Vec<Endpoint> = self.nodes.keys().map(|&id| Endpoint::Node(id)).collect();
        let mut clients: Vec<Endpoint> =
            (0..self.options.clients).map(|client| Endpoint::Client(ClientId(client as u32))).collect();
        self.faults.random.shuffle(&mut nodes);
        self.faults.random.shuffle(&mut clients);
        let at = 1 + self.faults.random.below(nodes.len() as u64) as usize;
        let other_nodes = nodes.split_off(at.min(nodes.len() - usize::from(nodes.len() > 1)));
        let other_clients = clients.split_off(self.faults.random.below(clients.len() as u64 + 1) as usize);
        (nodes.into_iter().chain(clients).collect(), other_nodes.into_iter().chain(other_clients).collect())
    }
}
