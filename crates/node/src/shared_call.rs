//! One expensive computation shared by concurrent callers.

use std::future::Future;
use std::time::Instant;
use tokio::sync::Mutex;

/// The last result of a computation, and when that began.
///
/// A caller gets a result whose computation began after the call, so the result is never older than the call. While one
/// computation runs, further callers wait, and the next computation serves them all.
pub struct SharedCall<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for SharedCall<T> {
    fn default() -> Self {
        SharedCall(Mutex::new(None))
    }
}

impl<T: Clone> SharedCall<T> {
    pub async fn get(&self, compute: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((begun, result)) = &*last
            && *begun >= asked
        {
            return result.clone();
        }
        let begun = Instant::now();
        let result = compute.await;
        *last = Some((begun, result.clone()));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::task::{JoinSet, yield_now};

    #[tokio::test]
    async fn all_who_ask_meanwhile_share_the_next_result_and_nobody_gets_an_older_one() {
        let shared = Arc::new(SharedCall::default());
        let computed = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (shared, computed) = (shared.clone(), computed.clone());
            async move {
                shared
                    .get(async {
                        yield_now().await;
                        computed.fetch_add(1, Ordering::Relaxed)
                    })
                    .await
            }
        };
        let mut asked = JoinSet::new();
        (0..10).for_each(|_| drop(asked.spawn(ask())));
        let results = asked.join_all().await;
        assert_eq!(computed.load(Ordering::Relaxed), 2, "one that ran, and one for the nine who came meanwhile");
        assert_eq!(results.iter().max(), Some(&1));
        assert_eq!(ask().await, 2, "a later question is answered anew");
    }
}
