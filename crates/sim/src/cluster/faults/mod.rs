//! Schedules and carries out faults.
//!
//! An enabled class of faults produces *episodes*: one begins, lasts, ends, and the next one is planned. Each episode
//! has a number, and draws from its own random stream, named after the fault and the count of its episodes. So a run
//! can leave some out ([`Without`](super::Without)) without changing the others.
//!
//! | file | faults |
//! |---|---|
//! | [`links`] | partitions, one-way cuts, bridges, flapping |
//! | [`machines`] | crashes (also midway), power loss, lost zones, wipes, lost directories, deaths, stalls, clocks |
//! | [`memory`] | full memory, a flipped bit in a replica's memory |
//! | [`disks`] | slow, full or hung disks, failed syncs, flipped bits, sectors that are lost or written elsewhere |
//!
//! Faults of single messages are in [`crate::network`].

mod disks;
mod links;
mod machines;
mod memory;

pub(super) use machines::worker_stall;

use super::node::Node;
use super::{Cluster, Wake};
use crate::history::ClientId;
use crate::invariant::Violation;
use crate::network::{Endpoint, Link};
use crate::options::Episodes;
use crate::random::Random;
use ringfort_core::time::Moment;
use ringfort_core::types::{NodeId, ReplicaId, ShardId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Something that happens to the cluster.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Partition,
    OneWayCut,
    Bridge,
    Flapping,
    Crash,
    CrashMidway,
    PowerLoss,
    ZoneLoss,
    Wipe,
    LostDirectory,
    Death,
    Operate,
    Stall,
    WorkerStall,
    SlowDisk,
    HungDisk,
    FullDisk,
    FullMemory,
    SyncError,
    Stop,
    HandOver,
    WallStep,
    Drift,
    Join,
    /// A later step or the end of an episode.
    Then(Then),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// All links are restored.
    Heal,
    /// The bridge restarts or stalls for a while, and no longer hears one side when it is back.
    BridgeRestarts,
    BridgeStalls,
    BridgeIsBack,
    /// The flapping links are cut or restored, until the episode ends.
    Flap {
        cut: bool,
        until: Moment,
    },
    Start(NodeId),
    FastDisk(NodeId),
    /// The workers stall again, unless the episode is over.
    StallWorkers {
        id: NodeId,
        until: Moment,
    },
    /// The disk that hung answers again, or its node is killed.
    DiskAnswers(NodeId),
    KillHung(NodeId),
    MemoryAgain(NodeId),
    SpaceAgain(NodeId),
    /// Tries again to kill a node for good.
    Die,
}

impl Fault {
    /// The name in counts and in the timeline.
    fn name(self) -> &'static str {
        match self {
            Fault::Partition => "partitions",
            Fault::OneWayCut => "one-way cuts",
            Fault::Bridge => "bridges",
            Fault::Flapping => "flapping links",
            Fault::Crash => "crashes",
            Fault::CrashMidway => "crashes midway",
            Fault::PowerLoss => "power losses",
            Fault::ZoneLoss => "zone losses",
            Fault::Wipe => "wipes",
            Fault::LostDirectory => "lost directories",
            Fault::Death => "deaths",
            Fault::Operate => "operations",
            Fault::Stall => "stalls",
            Fault::WorkerStall => "worker stalls",
            Fault::SlowDisk => "slow disks",
            Fault::HungDisk => "hung disks",
            Fault::FullDisk => "full disks",
            Fault::FullMemory => "full memory",
            Fault::SyncError => "sync errors",
            Fault::Stop => "stops",
            Fault::HandOver => "hand-overs",
            Fault::WallStep => "wall steps",
            Fault::Drift => "drift changes",
            Fault::Join => "joins",
            Fault::Then(_) => "",
        }
    }
}

/// How often drifting clocks change their rate.
const DRIFT_EPISODES: Episodes = Episodes {
    gap: Duration::from_millis(500)..=Duration::from_millis(5_000),
    length: Duration::ZERO..=Duration::ZERO,
};

pub(super) struct Faults {
    root: Random,
    random: Random,
    active: bool,
    begun: u64,
    bridge: Option<links::Bridge>,
    flapping: (Vec<Endpoint>, Vec<Endpoint>),
    pub counts: BTreeMap<&'static str, u64>,
    down: BTreeSet<NodeId>,
    dead: BTreeSet<NodeId>,
    /// Nodes that will crash midway, and how long they will be down.
    midway: BTreeMap<NodeId, Duration>,
    /// Nodes that are stopping gracefully, and how long they will be down.
    stopping: BTreeMap<NodeId, Duration>,
    /// Nodes whose workers stall repeatedly.
    faltering: BTreeSet<NodeId>,
    /// The node that lost its directory last.
    loser: Option<NodeId>,
    /// The replica whose memory was damaged.
    damaged: Option<(ShardId, ReplicaId)>,
}

impl Faults {
    pub fn new(root: Random) -> Faults {
        Faults {
            random: root.clone(),
            root,
            active: false,
            begun: 0,
            bridge: None,
            flapping: (Vec::new(), Vec::new()),
            counts: BTreeMap::new(),
            down: BTreeSet::new(),
            dead: BTreeSet::new(),
            midway: BTreeMap::new(),
            stopping: BTreeMap::new(),
            faltering: BTreeSet::new(),
            loser: None,
            damaged: None,
        }
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Faults that have begun, including those that were left out.
    pub fn begun(&self) -> u64 {
        self.begun
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
            Fault::Flapping,
            Fault::Crash,
            Fault::CrashMidway,
            Fault::PowerLoss,
            Fault::ZoneLoss,
            Fault::Wipe,
            Fault::LostDirectory,
            Fault::Stall,
            Fault::WorkerStall,
            Fault::SlowDisk,
            Fault::HungDisk,
            Fault::FullDisk,
            Fault::FullMemory,
            Fault::SyncError,
            Fault::Stop,
            Fault::HandOver,
            Fault::WallStep,
            Fault::Drift,
        ];
        for fault in all {
            self.faults.random = self.faults.root.fork(fault.name());
            self.plan(fault);
        }
        let once = [
            (Fault::Join, self.options.joins),
            (Fault::Operate, self.options.operations),
            (Fault::Death, usize::from(self.options.faults.death)),
        ];
        for (fault, times) in once {
            for _ in 0..times {
                let after = self.faults.random.duration(&(Duration::ZERO..=self.options.duration));
                self.agenda.put(self.now + after, Wake::Fault(fault));
            }
        }
    }

    pub(super) fn end_faults(&mut self) -> Result<(), Violation> {
        self.faults.active = false;
        self.faults.midway.clear();
        self.clients.rest();
        self.network.heal();
        self.network.set_all_links(Link::healthy(self.options.link.delay.clone()));
        for node in self.nodes.values_mut() {
            node.sync = self.options.sync.clone();
            node.mend_disk();
            node.set_memory_full(false);
        }
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        all.into_iter().for_each(|id| self.release_disk(id));
        for (id, _) in std::mem::take(&mut self.faults.stopping) {
            if self.nodes.get_mut(&id).is_some_and(Node::end_stop) {
                self.faults.down.insert(id);
            }
        }
        // With fewer than three other nodes it is not replaced, and must come back.
        if self.present().count() < 3 {
            let dead = std::mem::take(&mut self.faults.dead);
            self.faults.down.extend(dead);
        }
        for id in std::mem::take(&mut self.faults.down) {
            self.start_node(id)?;
        }
        Ok(())
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
            Fault::Flapping => faults.flapping.clone(),
            Fault::Crash => faults.crashes.clone(),
            Fault::CrashMidway => faults.crashes_midway.clone(),
            Fault::PowerLoss => faults.power_losses.clone(),
            Fault::ZoneLoss => faults.zone_losses.clone(),
            Fault::Wipe => faults.wipes.clone(),
            Fault::LostDirectory => faults.lost_directories.clone(),
            Fault::Stall => faults.stalls.clone(),
            Fault::WorkerStall => faults.worker_stalls.clone(),
            Fault::SlowDisk => faults.slow_disks.clone(),
            Fault::HungDisk => faults.hung_disks.clone(),
            Fault::FullDisk => faults.full_disks.clone(),
            Fault::FullMemory => faults.full_memory.clone(),
            Fault::SyncError => faults.sync_errors.clone(),
            Fault::Stop => faults.stops.clone(),
            Fault::HandOver => faults.handovers.clone(),
            Fault::WallStep => faults.wall_steps.clone(),
            Fault::Drift => faults.clock_drift.then_some(DRIFT_EPISODES),
            Fault::Join | Fault::Operate | Fault::Death | Fault::Then(_) => None,
        }
    }

    pub(super) fn inflict(&mut self, fault: Fault) -> Result<(), Violation> {
        if !self.faults.active {
            return Ok(());
        }
        if let Fault::Then(then) = fault {
            return self.go_on_with(then);
        }
        let name = fault.name();
        let number = self.faults.begun;
        self.faults.begun += 1;
        let count = self.faults.counts.entry(name).or_default();
        *count += 1;
        self.faults.random = self.faults.root.fork(&format!("{name} {count}"));
        let length = self.episodes(fault).map(|episodes| self.faults.random.duration(&episodes.length));
        let length = length.unwrap_or_default();
        // The next episode is planned first, so that its draws do not depend on what this one does.
        self.plan(fault);
        let any = NodeId(1 + self.faults.random.below(self.nodes.len() as u64));
        if self.without.faults.contains(&number) {
            return Ok(());
        }
        match fault {
            Fault::Partition => self.partition(length),
            Fault::OneWayCut => self.cut_one_way(length),
            Fault::Bridge => self.bridge(length),
            Fault::Flapping => self.begin_flapping(length),
            Fault::Crash => self.crash_for(any, length),
            Fault::CrashMidway => self.crash_midway(any, length),
            Fault::PowerLoss => self.crash_all(|_| true, length),
            Fault::ZoneLoss => {
                let zone = self.nodes[&any].zone().to_owned();
                self.crash_all(|node| node.zone() == zone, length);
            }
            Fault::Wipe => self.wipe(any, length),
            Fault::LostDirectory => self.lose_directory(any, length),
            Fault::Death => self.kill(any),
            Fault::Operate => self.operate(),
            Fault::Stall => self.stall(any, length),
            Fault::WorkerStall => self.falter(any, length),
            Fault::SlowDisk => self.slow_disk(any, length),
            Fault::HungDisk => self.hang_disk(any, length),
            Fault::FullDisk => self.fill_disk(any, length),
            Fault::FullMemory => self.fill_memory(any, length),
            Fault::SyncError => self.fail_sync(any),
            Fault::Stop => self.stop(any, length),
            Fault::HandOver => self.hand_over(any),
            Fault::WallStep => self.step_wall_clock(any),
            Fault::Drift => self.change_drift(any),
            Fault::Join => return self.add_node(),
            Fault::Then(_) => {}
        }
        Ok(())
    }

    fn go_on_with(&mut self, then: Then) -> Result<(), Violation> {
        match then {
            Then::Heal => self.heal(),
            Then::BridgeRestarts => self.restart_bridge(),
            Then::BridgeStalls => self.stall_bridge(),
            Then::BridgeIsBack => self.deafen_bridge(),
            Then::Flap { cut, until } => self.flap(cut, until),
            Then::Start(id) => {
                if self.faults.down.remove(&id) {
                    return self.start_node(id);
                }
            }
            Then::FastDisk(id) => self.hurry_disk(id),
            Then::StallWorkers { id, until } => self.stall_workers(id, until),
            Then::DiskAnswers(id) => self.release_disk(id),
            Then::KillHung(id) => self.kill_hung(id),
            Then::MemoryAgain(id) => self.free_memory(id),
            Then::SpaceAgain(id) => self.free_disk(id),
            Then::Die => {
                let any = NodeId(1 + self.faults.random.below(self.nodes.len() as u64));
                self.kill(any);
            }
        }
        Ok(())
    }

    fn later(&mut self, after: Duration, then: Then) {
        self.agenda.put(self.now + after, Wake::Fault(Fault::Then(then)));
    }
}
