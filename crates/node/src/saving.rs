//! Saves the controller's decisions: topologies, and that the node is no longer a member.
//!
//! Saving needs syncs, which may take long or never return, so it has its own thread. [`TopologyStore`] decides when a
//! topology takes effect.

use crate::events::{GossipEvent, Mailbox};
use crate::inbox::Event;
use crate::lifecycle::Lifecycle;
use crate::routing::Routing;
use crate::workers::Workers;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use ringfort_core::boot::{self, Claim};
use ringfort_core::disk::Disk;
use ringfort_core::system::{MemberState, Topology};
use ringfort_core::topology_store::{Effect, Outcome, SAVE_PAUSE, TopologyStore};
use std::sync::Arc;

pub enum Saved {
    Topology(Arc<Topology>),
    /// The node is no longer a member.
    Departure(MemberState),
    /// Another cluster has proven that this node is its member.
    Claim(Claim),
}

/// What the thread uses of its node.
pub struct SavingThread {
    pub disk: Arc<dyn Disk>,
    pub routing: Arc<Routing>,
    pub workers: Arc<Workers>,
    pub gossip: Mailbox<GossipEvent>,
    pub lifecycle: Arc<Lifecycle>,
}

impl SavingThread {
    /// Saves each decision, then puts it into effect; of several waiting topologies, only the latest is saved. Runs until
    /// the sender is dropped.
    pub fn run(self, decisions: Receiver<Saved>) {
        let mut store = TopologyStore::new(&*self.disk, self.routing.node());
        let mut warned_of = None;
        loop {
            let next = match store.is_waiting() {
                false => decisions.recv().map_err(RecvTimeoutError::from),
                true => decisions.recv_timeout(SAVE_PAUSE),
            };
            if matches!(next, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            for decision in next.into_iter().chain(decisions.try_iter()) {
                match decision {
                    Saved::Topology(later) => store.offer(later),
                    Saved::Departure(why) => self.save_departure(why),
                    Saved::Claim(claim) => self.save_claim(&claim),
                }
            }
            let Some(Outcome { takes_effect, error }) = store.save(&*self.disk) else { continue };
            let (Effect::Full(topology) | Effect::Retirements(topology)) = &takes_effect;
            let (epoch, must_wait) = (topology.epoch, store.is_waiting());
            if let Some(error) = error
                && warned_of.replace(epoch) != Some(epoch)
            {
                tracing::warn!(%epoch, %error, must_wait, "could not save the topology: check the disk");
            }
            match takes_effect {
                Effect::Full(topology) => {
                    self.workers.push_event_to_all(|| Event::Topology(topology.clone()));
                    self.gossip.send(GossipEvent::Topology(topology.clone()));
                    self.routing.set_topology(topology);
                }
                Effect::Retirements(topology) => {
                    self.workers.push_event_to_all(|| Event::Retirements(topology.clone()));
                }
            }
        }
    }

    fn save_departure(&self, why: MemberState) {
        match boot::set_departure(&*self.disk, why) {
            Ok(()) => self.lifecycle.depart(why),
            Err(error) => self.lifecycle.fail(format!(
                "this node is no member any more ({why:?}), and could not write that to its directory ({error}): \
                 check the disk"
            )),
        }
    }

    fn save_claim(&self, claim: &Claim) {
        if let Err(error) = boot::set_claim(&*self.disk, claim) {
            tracing::warn!(
                %error,
                "could not record that this node belongs to cluster {}: do not start it again with this directory, \
                 or it would serve for a moment",
                claim.cluster
            );
        }
    }
}
