//! A status that a thread publishes on request, so that readers need not interrupt it.
//!
//! A status request in a thread's inbox would wait behind everything else there, and a thousand requests would need a
//! thousand answers. Here a reader sets a flag, and the thread publishes its status once for all readers when it next
//! comes to it. If the thread is stuck, readers get the status that it last published.

use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a reader waits for a new status: far longer than a thread that is not stuck takes to publish it.
const PATIENCE: Duration = Duration::from_millis(250);

pub struct Board<T> {
    shown: ArcSwapOption<T>,
    is_requested: AtomicBool,
    changed: Notify,
}

impl<T> Default for Board<T> {
    fn default() -> Self {
        Board { shown: ArcSwapOption::empty(), is_requested: AtomicBool::new(false), changed: Notify::new() }
    }
}

impl<T> Board<T> {
    /// The status that the thread publishes after this call, even if the future is polled later; the previous one if
    /// the thread does not publish in time; `None` if it has never published.
    pub fn ask(&self) -> impl Future<Output = Option<Arc<T>>> {
        let changed = self.changed.notified();
        self.is_requested.store(true, Ordering::Release);
        async move {
            // After a timeout, return the last published status.
            let _ = timeout(PATIENCE, changed).await;
            self.shown.load_full()
        }
    }

    /// Publishes the thread's status if a reader has asked. The thread calls this regularly.
    pub fn show(&self, how: impl FnOnce() -> T) {
        if self.is_requested.swap(false, Ordering::AcqRel) {
            self.shown.store(Some(Arc::new(how())));
            self.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_who_ask_are_answered_at_once_and_nobody_waits_for_a_thread_that_is_stuck() {
        let board = Arc::new(Board::default());
        board.show(|| panic!("no reader has asked"));
        assert_eq!(board.ask().await, None, "nothing has been shown yet");
        let askers: Vec<_> = (0..5)
            .map(|_| {
                tokio::spawn({
                    let board = board.clone();
                    async move { board.ask().await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let mut shown = 0;
        while !askers.iter().all(|asker| asker.is_finished()) {
            board.show(|| {
                shown += 1;
                shown
            });
            tokio::task::yield_now().await;
        }
        assert!(shown <= 2, "the first reader's request was still pending");
        for asker in askers {
            assert!(asker.await.unwrap().is_some());
        }
        assert_eq!(board.ask().await.as_deref(), Some(&shown), "the last that was shown");
    }
}
