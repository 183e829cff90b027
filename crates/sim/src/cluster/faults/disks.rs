//! Disks that are slow, full or hung, that fail to sync, and that lose or corrupt data.

use super::super::node::{Node, Running};
use super::super::{Cluster, World};
use super::Then;
use crate::invariant::Violation;
use ringfort_core::types::NodeId;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A full disk may still have up to this many bytes left.
const SPACE_LEFT: u64 = 256 << 10;

/// How long a node stays down after it was killed because its disk hung.
const KILLED: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(1_000);

/// How often at most a node whose disk was damaged restarts, and how long it runs before each restart: less or more
/// than it takes to replace what it has lost.
const STARTS_AFTER_DAMAGE: u64 = 2;
const RUN_AFTER_DAMAGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(1_500);

impl Cluster {
    /// A node's disk hangs until it answers again or the process is killed.
    pub(super) fn hang_disk(&mut self, id: NodeId, length: Duration) {
        let is_killed = self.faults.random.chance(500);
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.running().is_some()) {
            node.hang_disk();
            self.note(format!("the disk of node {id} hangs"));
            self.later(length, if is_killed { Then::KillHung(id) } else { Then::DiskAnswers(id) });
        }
    }

    pub(super) fn release_disk(&mut self, id: NodeId) {
        let endpoints = self.endpoints();
        let mut world = World { now: self.now, endpoints, agenda: &mut self.agenda, network: &mut self.network };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.release_disk(&mut world);
        }
    }

    pub(super) fn kill_hung(&mut self, id: NodeId) {
        if self.has_hung_disk(id) {
            let down = self.faults.random.duration(&KILLED);
            self.crash_for(id, down);
        }
    }

    fn has_hung_disk(&self, id: NodeId) -> bool {
        self.nodes.get(&id).and_then(Node::running).is_some_and(Running::is_disk_hung)
    }

    pub(super) fn slow_disk(&mut self, id: NodeId, length: Duration) {
        self.note(format!("the disk of node {id} is slow"));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.sync = self.options.slow_sync.clone();
            self.later(length, Then::FastDisk(id));
        }
    }

    pub(super) fn hurry_disk(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.sync = self.options.sync.clone();
        }
    }

    /// Only the disks of running nodes are filled: a node that joins needs its disk to store its identity, and would
    /// just not start.
    pub(super) fn fill_disk(&mut self, id: NodeId, length: Duration) {
        let left = self.faults.random.below(SPACE_LEFT);
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.running().is_some()) {
            node.fill_disk(left);
            self.note(format!("the disk of node {id} has {left} bytes left"));
            self.later(length, Then::SpaceAgain(id));
        }
    }

    pub(super) fn free_disk(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.mend_disk();
        }
    }

    pub(super) fn fail_sync(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.running().is_some()) {
            node.fail_sync();
            self.note(format!("the next sync of node {id} fails"));
        }
    }

    /// Damages the disk of one node, which then restarts and must get what it can't trust from the others. Only with
    /// three nodes or more, so that every shard has a quorum elsewhere. Returns whether a disk was damaged.
    pub(in super::super) fn damage_one(&mut self) -> Result<bool, Violation> {
        let present: Vec<NodeId> = self.present().map(|(id, _)| id).collect();
        if !self.options.faults.corruption || present.len() < 3 {
            return Ok(false);
        }
        self.faults.random = self.faults.root.fork("damage");
        let id = *self.faults.random.pick(&present);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.crash(&mut self.faults.random);
            let damage = node.damage(&mut self.faults.random);
            self.note(format!("node {id} crashes"));
            for damage in damage {
                self.note(format!("on its disk {damage}"));
                *self.faults.counts.entry(damage.name()).or_default() += 1;
                if damage.leaves_no_trace() {
                    self.invariants.excuse(id);
                }
            }
        }
        self.start_node(id)?;
        for _ in 0..self.faults.random.below(STARTS_AFTER_DAMAGE + 1) {
            let runs = self.faults.random.duration(&RUN_AFTER_DAMAGE);
            self.run_until_moment(self.now + runs)?;
            if let Some(node) = self.nodes.get_mut(&id) {
                node.crash(&mut self.faults.random);
            }
            self.note(format!("node {id} crashes"));
            self.start_node(id)?;
        }
        Ok(true)
    }
}
