//! Machines that crash, stall, are lost for good, or have wrong clocks.

use super::super::node::Node;
use super::super::{Cluster, World};
use super::Then;
use crate::clock::MAX_DRIFT_PPM;
use ringfort_core::time::Moment;
use ringfort_core::timing::Timing;
use ringfort_core::types::NodeId;
use std::ops::RangeInclusive;
use std::time::Duration;

/// If a node can't be killed now, it is tried again after this time.
const DEATH_PAUSE: Duration = Duration::from_millis(200);

/// A node that crashes midway does so at one of its next writes to disk, of which there are this many.
const MIDWAY_WRITES: u64 = 12;

/// How long workers stall: up to twice the longest lease and election timeout.
pub fn worker_stall(timing: Timing) -> RangeInclusive<Duration> {
    let quarter = timing.election_timeout() / 4;
    quarter..=9 * quarter
}

/// How long workers run between stalls: a few rounds of heartbeats.
const WORKER_PAUSE: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_millis(250);

/// How far from true time a wall clock may jump.
const MAX_WALL_OFFSET_US: i64 = 10_000_000;

impl Cluster {
    /// One node loses power for a while.
    pub(in super::super) fn crash_for(&mut self, id: NodeId, down: Duration) {
        if self.present().any(|(present, _)| present == id)
            && self.faults.down.insert(id)
            && let Some(node) = self.nodes.get_mut(&id)
        {
            node.crash(&mut self.faults.random);
            self.note(format!("node {id} crashes"));
            self.later(down, Then::Start(id));
        }
    }

    /// A node will crash between two writes to its disk: of that turn's effects, only those before the crash happen.
    pub(super) fn crash_midway(&mut self, id: NodeId, down: Duration) {
        let writes = self.faults.random.below(MIDWAY_WRITES);
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.running().is_some()) {
            node.stop_disk_after(writes);
            self.faults.midway.insert(id, down);
            self.note(format!("node {id} will crash after {writes} more writes to its disk"));
        }
    }

    /// Ends a node that has just reached the write at which it crashes.
    pub(in super::super) fn crash_if_midway(&mut self, id: NodeId) {
        if self.nodes.get(&id).is_some_and(Node::has_disk_stopped)
            && let Some(down) = self.faults.midway.remove(&id)
        {
            self.crash_for(id, down);
        }
    }

    /// A node begins a graceful stop.
    pub(super) fn stop(&mut self, id: NodeId, down: Duration) {
        self.note(format!("node {id} begins to stop"));
        let endpoints = self.endpoints();
        let mut world = World { now: self.now, endpoints, agenda: &mut self.agenda, network: &mut self.network };
        if self.nodes.get_mut(&id).is_some_and(|node| node.stop(&mut world)) {
            self.faults.stopping.insert(id, down);
        }
    }

    /// A node that has stopped gracefully starts again after a while.
    pub(in super::super) fn restart_if_stopped(&mut self, id: NodeId) {
        if self.nodes.get_mut(&id).is_some_and(Node::take_stopped)
            && let Some(down) = self.faults.stopping.remove(&id)
        {
            self.note(format!("node {id} has stopped"));
            self.count("stopped in good order");
            self.faults.down.insert(id);
            self.later(down, Then::Start(id));
        }
    }

    /// A node that has aborted starts again after a while.
    pub(in super::super) fn restart_if_aborted(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id)
            && node.take_aborted()
        {
            self.note(format!("node {id} aborts"));
            self.faults.down.insert(id);
            let down =
                self.options.faults.sync_errors.clone().map(|errors| self.faults.random.duration(&errors.length));
            self.later(down.unwrap_or_default(), Then::Start(id));
        }
    }

    pub(super) fn crash_all(&mut self, is_hit: impl Fn(&Node) -> bool, down: Duration) {
        let hit: Vec<NodeId> = self.nodes.iter().filter(|(_, node)| is_hit(node)).map(|(&id, _)| id).collect();
        hit.into_iter().for_each(|id| self.crash_for(id, down));
    }

    /// Loses a node's disk. No other node may be missing, or the disks of a quorum could be lost.
    pub(super) fn wipe(&mut self, id: NodeId, down: Duration) {
        if self.present().count() >= 3 && self.present().any(|(present, _)| present == id) && self.is_settled() {
            self.count("disks wiped");
            self.crash_for(id, down);
            self.note(format!("the disk of node {id} is lost"));
            if let Some(node) = self.nodes.get_mut(&id) {
                node.wipe();
            }
        }
    }

    /// A node loses all files but its identity. The other nodes must hold all data: either nothing is missing, or the
    /// same node lost its files last time.
    pub(super) fn lose_directory(&mut self, id: NodeId, down: Duration) {
        let loser = if self.is_settled() { Some(id) } else { self.faults.loser };
        let Some(id) = loser.filter(|id| self.present().any(|(present, _)| present == *id)) else { return };
        if self.present().count() < 3 || self.faults.down.contains(&id) {
            return;
        }
        self.count("directories lost");
        self.faults.loser = Some(id);
        if let Some(running) = self.nodes.get(&id).and_then(Node::running) {
            self.eventual.forget_answers_of(running.id());
        }
        self.crash_for(id, down);
        self.note(format!("node {id} loses its directory but for its identity"));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.lose_directory();
        }
    }

    pub(super) fn kill(&mut self, id: NodeId) {
        if self.present().count() >= 4 && self.present().any(|(present, _)| present == id) && self.is_settled() {
            self.count("nodes lost for good");
            self.crash_for(id, Duration::ZERO);
            self.note(format!("node {id} is gone for good"));
            self.faults.bury(id);
        } else {
            self.later(DEATH_PAUSE, Then::Die);
        }
    }

    pub(super) fn stall(&mut self, id: NodeId, length: Duration) {
        self.note(format!("node {id} stands still for {length:?}"));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.stalled_until = self.now + length;
        }
    }

    /// The workers of a node stall repeatedly, as they would while dropping large maps or without CPU time. Readers and
    /// the other threads continue.
    pub(super) fn falter(&mut self, id: NodeId, length: Duration) {
        // Two overlapping episodes could form an unbounded stall.
        if self.faults.faltering.insert(id) {
            self.stall_workers(id, self.now + length);
        }
    }

    pub(super) fn stall_workers(&mut self, id: NodeId, until: Moment) {
        if self.now >= until {
            self.faults.faltering.remove(&id);
            return;
        }
        let stall = self.faults.random.duration(&worker_stall(self.options.timing));
        let pause = self.faults.random.duration(&WORKER_PAUSE);
        self.note(format!("the workers of node {id} stand still for {stall:?}"));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.workers_stalled_until = self.now + stall;
        }
        self.read_beside(id, self.now + stall);
        self.later(stall + pause, Then::StallWorkers { id, until });
    }

    pub(super) fn hand_over(&mut self, id: NodeId) {
        self.note(format!("node {id} hands its leadership over"));
        let endpoints = self.endpoints();
        let mut world = World { now: self.now, endpoints, agenda: &mut self.agenda, network: &mut self.network };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.hand_over(&mut world);
        }
    }

    /// Steps the wall clock to a random offset within the bound. Steps by a random amount could add up to any offset.
    pub(super) fn step_wall_clock(&mut self, id: NodeId) {
        let offset = self.faults.random.below(2 * MAX_WALL_OFFSET_US as u64 + 1) as i64 - MAX_WALL_OFFSET_US;
        self.note(format!("the wall clock of node {id} is set {:.3} s off", offset as f64 / 1e6));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.clock.set_wall_offset(offset);
        }
    }

    pub(super) fn change_drift(&mut self, id: NodeId) {
        let drift_ppm = self.faults.random.below(2 * MAX_DRIFT_PPM as u64 + 1) as i64 - MAX_DRIFT_PPM;
        let endpoints = self.endpoints();
        let mut world = World { now: self.now, endpoints, agenda: &mut self.agenda, network: &mut self.network };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.set_drift(drift_ppm, &mut world);
        }
    }

    pub(in super::super) fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }
}
