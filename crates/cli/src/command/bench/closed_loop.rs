//! The closed loop: one task per request in flight. Each task sends its requests one after the other.
//!
//! With a rate the loop is open as long as there are enough tasks: each request has a due time at which the next free
//! task sends it, and its latency counts from that time, however late it was sent. So a stall shows in the latencies of
//! all requests that were due meanwhile, as it does for users who don't wait for each other.
//!
//! A request counts if it *began* between the end of the warm-up and the end of the run, however long it took: the slow
//! ones at the end are waited for, not forgotten. In a steady state that counts rate x duration requests, so that
//! dividing by the duration is correct. Errors always count: if a cluster has hung since the warm-up, the run is not
//! clean.

use super::measurement::Measurement;
use super::progress::Progress;
use super::target::{Answer, Target};
use super::workload::{Action, Workload};
use crate::failure::Failure;
use crate::random::Random;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, sleep_until};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// The pause after a failed request: without it, nodes that refuse would be asked as fast as the machine can.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A loading request was not answered.
#[derive(Debug, thiserror::Error)]
#[error("could not write the keys before the measurement: {0}")]
struct LoadError(String);

/// Sends the workload's requests for `warm_up` and then `duration`, distributed equally over the targets. Stopping the
/// workload ends the measurement early.
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
    let schedule =
        workload.rate.map(|rate| Arc::new(Schedule { begun: Instant::now(), rate, next: AtomicU64::new(0) }));
    let mut tasks = JoinSet::new();
    for number in 0..workload.in_flight {
        let (target, part) = (targets[number % targets.len()].clone(), parts[number % parts.len()].clone());
        tasks.spawn(one_after_the_other(target, workload.clone(), schedule.clone(), part, from, until));
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
    let ended = workload.stopped_at().map_or(until, |at| at.min(until));
    let measured = Measurement::new(ended.saturating_duration_since(from));
    parts.iter().fold(measured, |sum, part| sum.with(&locked(part)))
}

/// The due times of requests at a fixed rate.
struct Schedule {
    begun: Instant,
    /// Requests a second.
    rate: u32,
    /// The number of the next request.
    next: AtomicU64,
}

impl Schedule {
    /// Waits until the next unclaimed request is due, and returns its due time.
    async fn due(&self) -> Instant {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.begun + Duration::from_secs_f64(number as f64 / f64::from(self.rate));
        sleep_until(due.into()).await;
        due
    }
}

async fn one_after_the_other(
    target: Arc<Target>,
    workload: Arc<Workload>,
    schedule: Option<Arc<Schedule>>,
    measurement: Arc<Mutex<Measurement>>,
    from: Instant,
    until: Instant,
) {
    let mut random = Random::new();
    loop {
        let (action, key) = workload.draw(&mut random);
        let began = match &schedule {
            Some(schedule) => schedule.due().await,
            None => Instant::now(),
        };
        if began >= until || workload.is_stopped() {
            return;
        }
        let answer = target.send(action, key, &workload.value).await;
        let has_failed = matches!(answer, Answer::Failed { .. });
        if began >= from || has_failed {
            locked(&measurement).record(action, answer, began.elapsed());
        }
        if has_failed {
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

/// Puts every key of the workload once, unless it is stopped. Waits for all puts even after an error: a put still under
/// way could be applied after its key was deleted.
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
                match target.send(Action::Put, workload.key(number), &workload.value).await {
                    Answer::Failed { message, .. } => return Err(LoadError(message)),
                    Answer::Done | Answer::NotFound => progress.advance(),
                }
            }
        });
    }
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.expect("no task panics");
        if ended.is_err() && result.is_ok() {
            workload.stop();
            result = ended;
        }
    }
    Ok(result?)
}

fn locked(measurement: &Mutex<Measurement>) -> MutexGuard<'_, Measurement> {
    measurement.lock().expect("no code panics while it holds a measurement")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_due_at_the_rate_even_when_they_are_late() {
        let begun = Instant::now() - Duration::from_secs(1);
        let schedule = Schedule { begun, rate: 1000, next: AtomicU64::new(0) };
        for number in 0..1010 {
            assert_eq!(schedule.due().await, begun + Duration::from_millis(number));
        }
        assert!(Instant::now() >= begun + Duration::from_millis(1009), "the last ones were waited for");
    }
}
