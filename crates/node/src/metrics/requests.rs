//! Metrics of client requests: how many, how they ended, how long they took.

use super::{Maker, SECONDS};
use crate::error_kind::ErrorKind;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter};
use ringfort_core::kv::Kind;
use std::time::Instant;

/// How a request ended, as the client sees it (`ringfort_proto::outcome`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    Unavailable,
    Overloaded,
    Refused,
    Unknown,
    /// The client went away before the answer.
    Canceled,
}

/// Indexed by [`Outcome`].
const OUTCOMES: [&str; 6] = ["ok", "unavailable", "overloaded", "refused", "unknown", "canceled"];

/// The counters of one operation.
struct Counters {
    outcomes: [IntCounter; OUTCOMES.len()],
    seconds: Histogram,
}

/// Indexed by [`Kind`].
pub struct Requests(Vec<Counters>);

/// A request under way. If it is dropped before [`end`](Counting::end), it counts as canceled.
#[must_use]
pub struct Counting<'a> {
    counters: &'a Counters,
    begun: Instant,
    outcome: Outcome,
}

impl Requests {
    pub(super) fn new(maker: &Maker) -> Requests {
        let help = "Requests of clients to this node, by operation and outcome.";
        let outcomes = maker.counters("requests_total", help, &["operation", "outcome"]);
        let help = "How long clients waited in this node for an answer of any kind.";
        let options = HistogramOpts::new(super::full("request_duration_seconds"), help).buckets(SECONDS.to_vec());
        let seconds = maker.register(HistogramVec::new(options, &["operation"]).expect(super::DISTINCT));
        let counters = |operation: &Kind| Counters {
            outcomes: OUTCOMES.map(|outcome| outcomes.with_label_values(&[operation.name(), outcome])),
            seconds: seconds.with_label_values(&[operation.name()]),
        };
        Requests(Kind::ALL.iter().map(counters).collect())
    }
}

impl super::Metrics {
    /// Counts a request that begins.
    pub fn begin(&self, operation: Kind) -> Counting<'_> {
        let counters = &self.requests.0[operation as usize];
        Counting { counters, begun: Instant::now(), outcome: Outcome::Canceled }
    }
}

impl Counting<'_> {
    /// Ends the request, with an answer or with an error of this kind.
    pub fn end(mut self, error: Option<ErrorKind>) {
        self.outcome = match error {
            None => Outcome::Ok,
            Some(ErrorKind::Unavailable) => Outcome::Unavailable,
            Some(ErrorKind::Overloaded) => Outcome::Overloaded,
            Some(ErrorKind::Invalid | ErrorKind::Refused) => Outcome::Refused,
            Some(ErrorKind::Unknown) => Outcome::Unknown,
        };
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.counters.outcomes[self.outcome as usize].inc();
        if self.outcome != Outcome::Canceled {
            self.counters.seconds.observe(self.begun.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "a measurement: cargo test --release -p ringfort-node --lib -- --ignored --nocapture counting_costs"]
    fn counting_costs_little() {
        const REQUESTS: u32 = 10_000_000;
        let metrics = super::super::Metrics::new();
        for threads in [1, 2] {
            let begun = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..REQUESTS).for_each(|_| metrics.begin(Kind::Put).end(None)));
                }
            });
            println!("{threads} threads: {} ns a request", begun.elapsed().as_nanos() / u128::from(REQUESTS));
        }
    }

    #[test]
    fn each_request_is_counted_once_by_how_it_ended() {
        let metrics = super::super::Metrics::new();
        metrics.begin(Kind::Put).end(None);
        metrics.begin(Kind::Put).end(Some(ErrorKind::Unknown));
        metrics.begin(Kind::Scan).end(Some(ErrorKind::Invalid));
        drop(metrics.begin(Kind::Get));
        let text = metrics.text().unwrap();
        for line in [
            "ringfort_requests_total{operation=\"put\",outcome=\"ok\"} 1",
            "ringfort_requests_total{operation=\"put\",outcome=\"unknown\"} 1",
            "ringfort_requests_total{operation=\"scan\",outcome=\"refused\"} 1",
            "ringfort_requests_total{operation=\"get\",outcome=\"canceled\"} 1",
            "ringfort_requests_total{operation=\"get\",outcome=\"ok\"} 0",
            "ringfort_request_duration_seconds_count{operation=\"put\"} 2",
            "ringfort_request_duration_seconds_count{operation=\"get\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
