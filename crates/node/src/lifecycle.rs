//! Whether the node goes on: why it must stop or is no longer a member, and how far it is on its way to stop.

use ringfort_core::system::MemberState;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

pub struct Lifecycle {
    /// Why the node must stop, in words for the operator.
    failure: watch::Sender<Option<String>>,
    /// Why the node is no longer a member.
    departure: watch::Sender<Option<MemberState>>,
    is_handing_over: AtomicBool,
    is_stopping: AtomicBool,
}

impl Default for Lifecycle {
    fn default() -> Lifecycle {
        Lifecycle {
            failure: watch::Sender::new(None),
            departure: watch::Sender::new(None),
            is_handing_over: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        }
    }
}

impl Lifecycle {
    /// The node must stop for this reason. Only the first reason is kept.
    pub fn fail(&self, reason: String) {
        self.failure.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(reason);
            is_first
        });
    }

    pub fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Waits until the node must stop, and returns the reason.
    pub fn failed(&self) -> impl Future<Output = String> + use<> {
        first(self.failure.subscribe())
    }

    /// The node is no longer a member, for this reason.
    pub fn depart(&self, why: MemberState) {
        self.departure.send_replace(Some(why));
    }

    /// Waits until the node is no longer a member, and returns the reason.
    pub fn departed(&self) -> impl Future<Output = MemberState> + use<> {
        first(self.departure.subscribe())
    }

    /// The node hands over its leaderships before it stops.
    pub fn hand_over(&self) {
        self.is_handing_over.store(true, Ordering::Relaxed);
    }

    pub fn is_handing_over(&self) -> bool {
        self.is_handing_over.load(Ordering::Relaxed)
    }

    /// The node is about to stop: threads no longer wait for disk space.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}

/// The first value; waits for ever if none comes.
async fn first<T: Clone>(mut told: watch::Receiver<Option<T>>) -> T {
    match told.wait_for(Option::is_some).await.map(|told| told.clone()) {
        Ok(Some(value)) => value,
        _ => std::future::pending().await,
    }
}
