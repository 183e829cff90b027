//! The results of a closed loop.

use super::target::Answer;
use super::workload::Action;
use hdrhistogram::Histogram;
use ringfort_client::Outcome;
use serde::Serialize;
use std::time::Duration;

/// Latencies above this count as this: far above any reasonable time limit.
const LONGEST: Duration = Duration::from_secs(3600);

/// How many decimal digits of a latency are kept: an error of 0.1 %.
const DIGITS: u8 = 3;

/// Answered requests with their latencies in nanoseconds, and those that were not answered.
#[derive(Clone)]
pub struct Measurement {
    pub duration: Duration,
    pub puts: Histogram<u64>,
    pub gets: Histogram<u64>,
    pub increments: Histogram<u64>,
    pub appends: Histogram<u64>,
    pub errors: Errors,
    /// One error in words, for all.
    pub first_error: Option<String>,
}

/// Requests without the expected answer. They are not in any latency.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Debug)]
pub struct Errors {
    /// Certainly never applied. Puts, increments and appends are writes.
    pub writes_not_applied: u64,
    /// May be applied.
    pub writes_of_unknown_outcome: u64,
    pub gets_failed: u64,
    /// The key had been loaded.
    pub gets_without_value: u64,
}

impl Measurement {
    pub fn new(duration: Duration) -> Measurement {
        let [puts, gets, increments, appends] = [(); 4].map(|()| histogram());
        Measurement { duration, puts, gets, increments, appends, errors: Errors::default(), first_error: None }
    }

    pub fn record(&mut self, action: Action, answer: Answer, latency: Duration) {
        let latencies = match action {
            Action::Put => &mut self.puts,
            Action::Get => &mut self.gets,
            Action::Increment => &mut self.increments,
            Action::Append => &mut self.appends,
        };
        match answer {
            Answer::Done => record(latencies, latency),
            Answer::NotFound => self.errors.gets_without_value += 1,
            Answer::Failed { outcome, message } => {
                *match (action, outcome) {
                    (Action::Get, _) => &mut self.errors.gets_failed,
                    (_, Outcome::NotApplied) => &mut self.errors.writes_not_applied,
                    (_, Outcome::Unknown) => &mut self.errors.writes_of_unknown_outcome,
                } += 1;
                self.first_error.get_or_insert(message);
            }
        }
    }

    /// The sum of two measurements that ran at the same time.
    pub fn with(mut self, other: &Measurement) -> Measurement {
        self.puts += &other.puts;
        self.gets += &other.gets;
        self.increments += &other.increments;
        self.appends += &other.appends;
        self.errors.writes_not_applied += other.errors.writes_not_applied;
        self.errors.writes_of_unknown_outcome += other.errors.writes_of_unknown_outcome;
        self.errors.gets_failed += other.errors.gets_failed;
        self.errors.gets_without_value += other.errors.gets_without_value;
        self.first_error = self.first_error.or_else(|| other.first_error.clone());
        self
    }

    pub fn answered(&self) -> u64 {
        [&self.puts, &self.gets, &self.increments, &self.appends].iter().map(|latencies| latencies.len()).sum()
    }

    pub fn per_second(&self) -> f64 {
        self.answered() as f64 / self.duration.as_secs_f64()
    }
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST.as_nanos() as u64, DIGITS).expect("the bounds fit each other")
}

pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(latency.as_nanos() as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_and_added_up() {
        let failed = |outcome| Answer::Failed { outcome, message: format!("{outcome:?}") };
        let mut part = Measurement::new(Duration::from_secs(2));
        part.record(Action::Put, Answer::Done, Duration::from_millis(1));
        part.record(Action::Get, Answer::Done, Duration::from_millis(2));
        part.record(Action::Increment, Answer::Done, Duration::from_millis(3));
        part.record(Action::Append, Answer::Done, Duration::from_millis(4));
        part.record(Action::Get, Answer::NotFound, Duration::ZERO);
        part.record(Action::Put, failed(Outcome::Unknown), Duration::ZERO);
        part.record(Action::Append, failed(Outcome::NotApplied), Duration::ZERO);
        part.record(Action::Get, failed(Outcome::Unknown), Duration::ZERO);
        let sum = part.clone().with(&part);
        let errors =
            Errors { writes_not_applied: 2, writes_of_unknown_outcome: 2, gets_failed: 2, gets_without_value: 2 };
        assert_eq!((sum.puts.len(), sum.gets.len(), sum.errors), (2, 2, errors));
        assert_eq!((sum.increments.len(), sum.appends.len()), (2, 2));
        assert_eq!(sum.per_second(), 4.0);
        assert_eq!(sum.first_error.as_deref(), Some("Unknown"));
        let millisecond = Duration::from_nanos(sum.puts.value_at_quantile(0.5)).as_secs_f64() * 1000.0;
        assert!((millisecond - 1.0).abs() < 0.001, "{millisecond}");
    }
}
