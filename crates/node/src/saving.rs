//! Saves the controller's decisions: topologies, and that the node is no longer a member.
//!
//! Saving needs syncs, which may take long or never return, so it has its own thread. [`TopologyStore`] decides when a
//! topology takes effect.

use crate::events::GossipEvent;
use crate::inbox::Event;
use crate::shell::Shell;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use ringfort_core::boot::{self, Claim};
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

/// Saves each decision, then puts it into effect; of several waiting topologies, only the latest is saved. Runs until
/// the sender is dropped.
pub fn run(shell: Arc<Shell>, decisions: Receiver<Saved>) {
    let mut store = TopologyStore::new(&*shell.disk, shell.routing.node());
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
                Saved::Departure(why) => save_departure(&shell, why),
                Saved::Claim(claim) => save_claim(&shell, &claim),
            }
        }
        let Some(Outcome { takes_effect, error }) = store.save(&*shell.disk) else { continue };
        let (Effect::Full(topology) | Effect::Retirements(topology)) = &takes_effect;
        let (epoch, must_wait) = (topology.epoch, store.is_waiting());
        if let Some(error) = error
            && warned_of.replace(epoch) != Some(epoch)
        {
            tracing::warn!(%epoch, %error, must_wait, "could not save the topology: check the disk");
        }
        match takes_effect {
            Effect::Full(topology) => {
                shell.workers.push_event_to_all(|| Event::Topology(topology.clone()));
                shell.gossip.send(GossipEvent::Topology(topology.clone()));
                shell.routing.set_topology(topology);
            }
            Effect::Retirements(topology) => {
                shell.workers.push_event_to_all(|| Event::Retirements(topology.clone()));
            }
        }
    }
}

fn save_departure(shell: &Shell, why: MemberState) {
    match boot::set_departure(&*shell.disk, why) {
        Ok(()) => shell.lifecycle.depart(why),
        Err(error) => shell.lifecycle.fail(format!(
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
