//! The status that a thread publishes, so that readers need not interrupt it.
//!
//! A question in a thread's inbox waits behind everything else there, and a thousand questions are a thousand answers.
//! Here an asker says that it would like to know, the thread shows how it stands once for all who asked, at a moment that
//! suits it, and a thread that is stuck keeps nobody: what it showed last is taken then.

use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long an asker waits for the thread to show how it stands now: several of a worker's ticks.
const PATIENCE: Duration = Duration::from_millis(250);

pub struct Board<T> {
    shown: ArcSwapOption<T>,
    is_wanted: AtomicBool,
    changed: Notify,
}

impl<T> Default for Board<T> {
    fn default() -> Self {
        Board { shown: ArcSwapOption::empty(), is_wanted: AtomicBool::new(false), changed: Notify::new() }
    }
}

impl<T> Board<T> {
    /// What the thread shows after this call, even where the future is polled later; what it showed before, where it does
    /// not come to it in time. Nothing where it has not shown anything yet.
    pub fn ask(&self) -> impl Future<Output = Option<Arc<T>>> {
        let changed = self.changed.notified();
        self.is_wanted.store(true, Ordering::Release);
        async move {
            // Late or not, the latest is the best there is.
            let _ = timeout(PATIENCE, changed).await;
            self.shown.load_full()
        }
    }

    /// For the thread, now and then: shows how it stands, if anybody wants to know.
    pub fn show(&self, how: impl FnOnce() -> T) {
        if self.is_wanted.swap(false, Ordering::AcqRel) {
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
        board.show(|| panic!("nobody wants to know"));
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
        assert!(shown <= 2, "the first asker had left its wish behind");
        for asker in askers {
            assert!(asker.await.unwrap().is_some());
        }
        assert_eq!(board.ask().await.as_deref(), Some(&shown), "the last that was shown");
    }
}
