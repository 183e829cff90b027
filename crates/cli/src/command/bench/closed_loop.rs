//! The closed loop: as many tasks as requests are in flight, each of which sends one after the other.
//!
//! A request counts if it *began* between the end of the warm-up and the end of the run, however long it took: the
//! slow ones at the end are waited for, not forgotten. In a steady state that counts rate x duration requests, so
//! that dividing by the duration is right. Errors count at all times: a cluster that hangs since the warm-up is no clean
//! run.

use super::measurement::Measurement;
use super::progress::Progress;
use super::target::{Answer, Target};
use super::workload::{Operation, Random, Workload};
use crate::failure::Failure;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// A failed request is not followed at once: nodes that refuse would be asked as fast as the machine can.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A loading request was not answered.
#[derive(Debug, thiserror::Error)]
#[error("the keys can't be loaded: {0}")]
struct LoadError(String);

/// Sends the workload's requests for `warm_up` and then `duration`, unless it is stopped. Each of the targets carries an equal part of them.
pub async fn run(
    targets: &[Arc<Target>],
    workload: &Arc<Workload>,
    warm_up: Duration,
    duration: Duration,
    progress: &Progress,
) -> Measurement {
    let from = Instant::now() + warm_up;
    let until = from + duration;
    let parts: Vec<_> = targets.iter().map(|_| Arc::new(Mutex::new(Measurement::new(duration)))).collect();
    let mut tasks = JoinSet::new();
    for number in 0..workload.in_flight {
        let (target, part) = (targets[number % targets.len()].clone(), parts[number % parts.len()].clone());
        tasks.spawn(one_after_the_other(target, workload.clone(), part, from, until));
    }
    let mut ticks = interval(PROGRESS_INTERVAL);
    let mut before = 0;
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(ended) => ended.expect("no task panics"),
                None => break,
            },
            _ = ticks.tick() => {
                let answered = parts.iter().map(|part| locked(part).answered()).sum::<u64>();
                let rate = (answered - before) as f64 / PROGRESS_INTERVAL.as_secs_f64();
                before = answered;
                let left = until.saturating_duration_since(Instant::now());
                let note = if left > duration { "warming up".to_owned() } else { format!("{rate:.0}/s") };
                progress.set((warm_up + duration - left).as_millis() as u64, note);
            }
        }
    }
    parts.iter().fold(Measurement::new(duration), |sum, part| sum.with(&locked(part)))
}

async fn one_after_the_other(
    target: Arc<Target>,
    workload: Arc<Workload>,
    measurement: Arc<Mutex<Measurement>>,
    from: Instant,
    until: Instant,
) {
    let mut random = Random::new();
    loop {
        let operation = workload.draw(&mut random);
        let is_get = matches!(operation, Operation::Get(_));
        let began = Instant::now();
        if began >= until || workload.is_stopped() {
            return;
        }
        let answer = target.send(operation, &workload.value).await;
        let has_failed = matches!(answer, Answer::Failed { .. });
        if began >= from || has_failed {
            locked(&measurement).record(is_get, answer, began.elapsed());
        }
        if has_failed {
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

/// Puts every key of the workload once, unless it is stopped.
pub async fn load(targets: &[Arc<Target>], workload: &Arc<Workload>, progress: &Progress) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..workload.in_flight {
        let (target, workload) = (targets[number % targets.len()].clone(), workload.clone());
        let (next, progress) = (next.clone(), progress.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= workload.keys || workload.is_stopped() {
                    return Ok(());
                }
                match target.send(Operation::Put(workload.key(number)), &workload.value).await {
                    Answer::Failed { message, .. } => return Err(LoadError(message)),
                    Answer::Done | Answer::NotFound => progress.advance(),
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task panics")?;
    }
    Ok(())
}

fn locked(measurement: &Mutex<Measurement>) -> MutexGuard<'_, Measurement> {
    measurement.lock().expect("no code panics while it holds a measurement")
}
