//! Saves what the controller decides: topologies, and that the node is no member any more.
//!
//! Saving needs syncs, which may take long or never return, so a thread of its own does it.
//!
//! A topology is on disk before any worker acts on it, so that a restarted node never knows less than it acted on.
//! There is one exception: if a topology can't be saved and gives this node no new replica ([`boot::assigns_anew`]),
//! the workers act on it all the same, because a full disk may need exactly this topology to get rid of replicas. If it
//! gives a new replica, the workers only remove the replicas that it retires, and saving is tried again.

use crate::gossip_thread::GossipEvent;
use crate::inbox::Event;
use crate::shell::Shell;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use ringfort_core::boot::{self, Claim};
use ringfort_core::disk::Disk;
use ringfort_core::system::{MemberState, Topology};
use ringfort_core::types::{Epoch, NodeId};
use std::sync::Arc;
use std::time::Duration;

/// The pause before a topology that must be saved is tried again.
const PAUSE: Duration = Duration::from_millis(250);

pub enum Saved {
    Topology(Arc<Topology>),
    /// The node is no member any more.
    Departure(MemberState),
    /// Another cluster has proven that this node is its member.
    Claim(Claim),
}

/// Saves each decision, and only the latest of several topologies, then has it take effect. Runs until the sender is
/// gone.
pub fn run(shell: Arc<Shell>, decisions: Receiver<Saved>) {
    let mut topologies = Topologies::new(&*shell.disk, shell.node);
    loop {
        let next = match topologies.waiting {
            None => decisions.recv().map_err(RecvTimeoutError::from),
            Some(_) => decisions.recv_timeout(PAUSE),
        };
        if matches!(next, Err(RecvTimeoutError::Disconnected)) {
            return;
        }
        for decision in next.into_iter().chain(decisions.try_iter()) {
            match decision {
                Saved::Topology(later) => topologies.waiting = Some(later),
                Saved::Departure(why) => save_departure(&shell, why),
                Saved::Claim(claim) => save_claim(&shell, &claim),
            }
        }
        match topologies.save() {
            None => {}
            Some(Effect::Full(topology)) => {
                shell.push_event_to_all(|| Event::Topology(topology.clone()));
                let _ = shell.gossip.send(GossipEvent::Topology(topology.clone()));
                shell.routing.set_topology(topology);
            }
            Some(Effect::Retirements(topology)) => {
                shell.push_event_to_all(|| Event::Retirements(topology.clone()));
            }
        }
    }
}

/// How a topology takes effect.
enum Effect {
    Full(Arc<Topology>),
    /// Replicas that it retires are removed. The rest waits until it is saved.
    Retirements(Arc<Topology>),
}

/// The topology on the disk, and the one that is to follow.
struct Topologies<'a> {
    disk: &'a dyn Disk,
    node: NodeId,
    saved: Option<Arc<Topology>>,
    waiting: Option<Arc<Topology>>,
    warned_of: Option<Epoch>,
}

impl Topologies<'_> {
    fn new(disk: &dyn Disk, node: NodeId) -> Topologies<'_> {
        let saved = boot::saved_topology(disk).ok().flatten().map(Arc::new);
        Topologies { disk, node, saved, waiting: None, warned_of: None }
    }

    /// Saves the topology that waits, if there is one. It waits on if it must be saved and could not.
    fn save(&mut self) -> Option<Effect> {
        let topology = self.waiting.take()?;
        let Err(error) = boot::save_topology(self.disk, &topology) else {
            self.saved = Some(topology.clone());
            return Some(Effect::Full(topology));
        };
        let must_wait = boot::assigns_anew(self.saved.as_deref(), &topology, self.node);
        if self.warned_of.replace(topology.epoch) != Some(topology.epoch) {
            tracing::warn!(epoch = %topology.epoch, %error, must_wait, "could not save the topology: check the disk");
        }
        if must_wait {
            self.waiting = Some(topology.clone());
            return Some(Effect::Retirements(topology));
        }
        Some(Effect::Full(topology))
    }
}

fn save_departure(shell: &Shell, why: MemberState) {
    match boot::set_departure(&*shell.disk, why) {
        Ok(()) => drop(shell.departure.send_replace(Some(why))),
        Err(error) => shell.fail(format!(
            "this node is no member any more ({why:?}), and could not write that to its directory ({error}): check the \
             disk"
        )),
    }
}

fn save_claim(shell: &Shell, claim: &Claim) {
    if let Err(error) = boot::set_claim(&*shell.disk, claim) {
        tracing::warn!(
            %error,
            "could not record that this node belongs to cluster {}: do not start it again on this \
             directory, where it would serve for a moment",
            claim.cluster
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_core::disk::mem::MemDisk;
    use ringfort_core::system::Member;
    use ringfort_core::timing::Timing;
    use ringfort_core::types::{ClusterId, Identity, ReplicaId, ShardId};
    use ringfort_ring::ShardCount;

    #[test]
    fn a_topology_with_a_new_replica_is_acted_on_only_when_it_is_saved() {
        let (disk, node) = (MemDisk::new(), NodeId(1));
        let member = Member { identity: Identity(1), ..Member::default() };
        let mut topology = Topology::bootstrap(ClusterId(1), ShardCount::new(2).unwrap(), Timing::DEFAULT, member);
        boot::save_topology(&disk, &topology).unwrap();
        disk.set_capacity(Some(disk.used_bytes()));
        let mut topologies = Topologies::new(&disk, node);
        let effect = |topologies: &mut Topologies| match topologies.save()? {
            Effect::Full(topology) => Some(("full", topology.epoch)),
            Effect::Retirements(topology) => Some(("retirements", topology.epoch)),
        };
        let save = |topologies: &mut Topologies, topology: &Topology| {
            topologies.waiting = Some(Arc::new(topology.clone()));
            effect(topologies)
        };
        topology.epoch = Epoch(20);
        assert_eq!(save(&mut topologies, &topology), Some(("full", Epoch(20))), "it needs nothing of the disk");
        topology.epoch = Epoch(21);
        topology.groups.get_mut(&ShardId(0)).unwrap().replicas.push(ReplicaId::new(node, 100));
        assert_eq!(save(&mut topologies, &topology), Some(("retirements", Epoch(21))));
        assert_eq!(effect(&mut topologies), Some(("retirements", Epoch(21))));
        disk.set_capacity(None);
        assert_eq!(effect(&mut topologies), Some(("full", Epoch(21))));
        assert_eq!(effect(&mut topologies), None);
        assert_eq!(boot::saved_topology(&disk).unwrap().unwrap().epoch, Epoch(21));
    }
}
