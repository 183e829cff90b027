//! Faults of a node's disk, directory and memory.

use super::{Damage, Node, State, running};
use crate::cluster::World;
use crate::random::Random;
use ringfort_core::boot;
use ringfort_core::disk::Disk;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::types::{ReplicaId, ShardId};
use std::sync::Arc;

impl Node {
    pub fn stop_disk_after(&mut self, writes: u64) {
        self.disk.stop_after(Some(writes));
    }

    pub fn has_disk_stopped(&self) -> bool {
        self.disk.has_stopped()
    }

    pub fn fail_sync(&mut self) {
        self.disk.fail_sync(1);
    }

    /// Leaves this many bytes of space on the disk.
    pub fn fill_disk(&mut self, left_bytes: u64) {
        self.disk.set_capacity(Some(self.disk.used_bytes() + left_bytes));
    }

    /// Ends all disk faults: there is space, syncs work, and the disk does not stop.
    pub fn mend_disk(&mut self) {
        self.disk.set_capacity(None);
        self.disk.fail_sync(0);
        self.disk.stop_after(None);
    }

    /// From now on the node's disk does not answer.
    pub fn hang_disk(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.hang_disk();
        }
    }

    pub fn release_disk(&mut self, world: &mut World) {
        if let State::Running(running) = &mut self.state {
            let mut outbox = running::Outbox::default();
            running.release_disk(&mut outbox);
            self.perform(outbox, world);
        }
    }

    pub fn set_memory_full(&mut self, is_full: bool) {
        if let State::Running(running) = &mut self.state {
            running.set_memory_full(is_full);
        }
    }

    /// Deletes the whole disk while the node is down.
    pub fn wipe(&mut self) {
        self.disk = Arc::new(MemDisk::new());
        self.is_wiped = true;
        self.is_damaged = false;
    }

    /// Deletes all files in its directory but the identity, while it is down.
    pub fn lose_directory(&mut self) {
        let files = self.disk.list().expect("this disk can be listed");
        for name in files.iter().filter(|name| *name != boot::IDENTITY_FILE) {
            self.disk.delete(name).expect("this disk deletes");
        }
    }

    /// Damages its log and snapshots in some places, and returns the damage.
    pub fn damage(&mut self, random: &mut Random) -> Vec<Damage> {
        self.is_damaged = true;
        let mut files = self.disk.list().expect("this disk can be listed");
        files.retain(|name| name.starts_with("log-") || name.starts_with("snap-"));
        let mut damage = Vec::new();
        if files.is_empty() {
            return damage; // It has no replica yet.
        }
        let segments: Vec<String> = files.iter().filter(|name| name.ends_with(".seg")).cloned().collect();
        if !segments.is_empty() && random.chance(250) {
            damage.push(Damage::delete(&self.disk, segments, random));
            return damage;
        }
        for _ in 0..=random.below(4) {
            let name = random.pick(&files);
            let size = self.disk.size(name).ok().flatten().unwrap_or_default();
            if size > 0 {
                // Most of a segment's data is at its beginning.
                let within = if random.chance(500) { size } else { size.min(16 << 10) };
                let at = random.below(within);
                damage.push(Damage::inflict(&self.disk, name, at, within, random));
            }
        }
        damage
    }

    /// Flips a bit in the memory of one of its replicas. Returns which one; `None` if no replica has anything to
    /// damage.
    pub fn damage_memory(&mut self, random: &mut Random) -> Option<(ShardId, ReplicaId)> {
        let views: Vec<_> = self.running()?.views().filter(|view| view.size().0 > 0).cloned().collect();
        if views.is_empty() {
            return None;
        }
        let view = random.pick(&views);
        view.flip_a_bit(random.below(1 << 20) as usize, random.below(7) as u32).then_some((view.shard, view.replica))
    }
}
