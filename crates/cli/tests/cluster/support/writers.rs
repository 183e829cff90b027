//! Clients that write without pause, and record which writes were acknowledged.

use ringfort_client::{Client, Error};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::PATIENCE;

/// How many tasks write at the same time, each one write after the other.
const TASKS: usize = 3;

/// How many reads run at the same time when everything is read back.
const READERS: usize = 16;

pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    tasks: JoinSet<BTreeMap<String, String>>,
}

impl Writers {
    /// Starts to write keys that begin with `prefix`, each of them once.
    pub fn start(client: &Client, prefix: &'static str) -> Writers {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (client, stop, count) = (client.clone(), stop.clone(), acknowledged.clone());
            tasks.spawn(async move {
                let mut written = BTreeMap::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (key, value) = (format!("{prefix}-{task}-{number}"), format!("value {number} of {task}"));
                    match client.put(key.clone(), value.clone()).await {
                        Ok(_) => {
                            written.insert(key, value);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Error::UnknownOutcome(_) | Error::Unavailable { .. } | Error::Overloaded(_)) => {}
                        Err(error) => panic!("{key}: {error}"),
                    }
                }
                written
            });
        }
        Writers { stop, acknowledged, tasks }
    }

    /// Waits until this many more writes are acknowledged. Returns how long that took.
    #[track_caller]
    pub fn wait_for(&self, more: usize) -> impl Future<Output = Duration> {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        let (acknowledged, begun) = (self.acknowledged.clone(), Instant::now());
        async move {
            while acknowledged.load(Ordering::Relaxed) < wanted {
                assert!(begun.elapsed() < PATIENCE, "writes do not get on");
                sleep(Duration::from_millis(5)).await;
            }
            begun.elapsed()
        }
    }

    /// Stops the writers, and returns all acknowledged writes.
    pub async fn stop(self) -> BTreeMap<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

/// Reads every acknowledged write back.
pub async fn assert_all_there(client: &Client, acknowledged: &BTreeMap<String, String>) {
    let entries = Arc::new(acknowledged.clone().into_iter().collect::<Vec<_>>());
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let (client, entries) = (client.clone(), entries.clone());
        readers.spawn(async move {
            let mut lost = Vec::new();
            for (key, value) in entries.iter().skip(reader).step_by(READERS) {
                let found = client.get(key.clone()).await.unwrap_or_else(|error| panic!("{key}: {error}"));
                if found.as_ref().is_none_or(|found| found.value != value.as_bytes()) {
                    lost.push(key.clone());
                }
            }
            lost
        });
    }
    let lost: Vec<String> = readers.join_all().await.into_iter().flatten().collect();
    assert!(lost.is_empty(), "lost {} of {} acknowledged writes: {lost:?}", lost.len(), acknowledged.len());
}
