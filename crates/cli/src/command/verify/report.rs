//! The result: as JSON, or as sentences, a table and a drawing.

use super::judge::Judged;
use super::tally::{Counts, Failures};
use crate::command::bench::report::{Percentiles, add_row, latency_table};
use crate::command::print_line;
use crate::failure::Failure;
use crate::text::{counted, escaped};
use crate::violation::ViolationReport;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Linearizable,
    NotLinearizable,
    /// The search for an explanation of some key's history was given up.
    NotDecided,
    /// No operation was answered.
    NothingAnswered,
}

/// The answer of `-o json`.
#[derive(Serialize, Debug)]
pub struct Report {
    pub verdict: Verdict,
    pub store: &'static str,
    pub endpoints: Vec<String>,
    pub seconds: f64,
    pub clients: u32,
    pub key_prefix: String,
    /// Operations that were answered.
    pub operations: u64,
    pub operations_per_second: f64,
    /// Writes that may have been applied.
    pub ambiguous: u64,
    /// Writes that were answered as certainly not applied.
    pub refused: u64,
    pub gets_unanswered: u64,
    pub first_error: Option<String>,
    pub keys_checked: u64,
    pub keys_not_linearizable: u64,
    pub keys_not_decided: u64,
    /// Keys whose last value could not be read in the end.
    pub keys_without_last_look: u64,
    /// By the plural of an operation's name: `puts`, `gets` and so on.
    #[serde(flatten)]
    pub by_operation: BTreeMap<String, Operations>,
    pub longest_without_service_ms: f64,
    pub worst_shard: Option<Shard>,
    pub violation: Option<ViolationReport>,
    /// The file in which the violation is drawn for a browser.
    pub page: Option<String>,
}

#[derive(Serialize, Debug)]
pub struct Operations {
    pub operations: u64,
    pub operations_per_second: f64,
    /// `null` if there were none.
    pub latency_ms: Option<Percentiles>,
}

#[derive(Serialize, Debug)]
pub struct Shard {
    pub shard: u32,
    pub longest_without_service_ms: f64,
}

/// The parameters of the run, for the report.
pub struct Asked {
    pub store: &'static str,
    pub endpoints: Vec<String>,
    pub clients: u32,
    pub key_prefix: String,
    /// How long the clients sent requests.
    pub duration: Duration,
}

impl Report {
    /// The report of a run that is over `now`.
    pub fn new(asked: Asked, counts: &Counts, judged: &Judged, now: Instant) -> Report {
        let seconds = asked.duration.as_secs_f64();
        let operations = |latencies: &Histogram<u64>| Operations {
            operations: latencies.len(),
            operations_per_second: latencies.len() as f64 / seconds,
            latency_ms: (!latencies.is_empty()).then(|| Percentiles::new(latencies)),
        };
        let Failures { refused, ambiguous, gets, first } = counts.failures.clone();
        Report {
            verdict: verdict(counts, judged),
            store: asked.store,
            endpoints: asked.endpoints,
            seconds,
            clients: asked.clients,
            key_prefix: asked.key_prefix,
            operations: counts.answered(),
            operations_per_second: counts.answered() as f64 / seconds,
            ambiguous,
            refused,
            gets_unanswered: gets,
            first_error: first,
            keys_checked: judged.keys,
            keys_not_linearizable: judged.not_linearizable,
            keys_not_decided: judged.undecided,
            keys_without_last_look: judged.without_last_look,
            by_operation: counts
                .latencies()
                .map(|(asked, latencies)| (format!("{}s", asked.name()), operations(latencies)))
                .collect(),
            longest_without_service_ms: milliseconds(counts.service.longest_until(now)),
            worst_shard: counts
                .worst_shard(now)
                .map(|(shard, longest)| Shard { shard, longest_without_service_ms: milliseconds(longest) }),
            violation: judged.smallest.as_ref().map(|(key, violation)| ViolationReport::new(key, violation)),
            page: None,
        }
    }

    /// The verdict in words.
    pub fn sentence(&self) -> String {
        let Report { operations, keys_checked, keys_not_linearizable, keys_not_decided, store, .. } = self;
        let keys = |number: u64| counted(number as usize, "key");
        let operations = counted(*operations as usize, "operation");
        let what = format!("{operations} on {} of {store} in {:.1} s", keys(*keys_checked), self.seconds);
        match self.verdict {
            Verdict::Linearizable => format!("linearizable: {what}, and no answer contradicts another"),
            Verdict::NotLinearizable => {
                let keys = keys(*keys_not_linearizable);
                format!("NOT LINEARIZABLE: {what}, and no order explains the answers on {keys}")
            }
            Verdict::NotDecided => format!(
                "not decided: {what}; the check of {} took too long: try fewer --clients",
                keys(*keys_not_decided)
            ),
            Verdict::NothingAnswered => format!("not decided: no operation was answered in {:.1} s", self.seconds),
        }
    }

    /// Prints the report as text.
    pub fn print(&self) -> Result<(), Failure> {
        print_line(&self.sentence())?;
        if let Some(violation) = &self.violation {
            print_line(&format!("\nkey {}: {}\n", violation.key, violation.reason))?;
            for line in &violation.drawing {
                print_line(line)?;
            }
        }
        let mut table = latency_table();
        for (name, operations) in &self.by_operation {
            if let Some(latency) = &operations.latency_ms {
                let numbers = [operations.operations as f64, operations.operations_per_second.round()];
                add_row(&mut table, name.clone(), Some(numbers), latency);
            }
        }
        print_line(&format!("\n{table}\n"))?;
        print_line(&self.failures())?;
        let of_shard = self.worst_shard.as_ref().map_or(String::new(), |worst| {
            format!(
                "; longest time without a write to a single shard {:.0} ms (shard {})",
                worst.longest_without_service_ms, worst.shard
            )
        });
        print_line(&format!("longest time without service {:.0} ms{of_shard}", self.longest_without_service_ms))?;
        self.page.as_ref().map_or(Ok(()), |page| print_line(&format!("the contradiction is drawn in {page}")))
    }

    fn failures(&self) -> String {
        let kinds = [
            (self.ambiguous, "writes of unknown outcome"),
            (self.refused, "writes not applied"),
            (self.gets_unanswered, "gets without an answer"),
            (self.keys_without_last_look, "keys without a last read"),
        ];
        let seen: Vec<String> =
            kinds.iter().filter(|kind| kind.0 > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
        match (&seen[..], &self.first_error) {
            ([], _) => "no errors".to_owned(),
            (seen, None) => seen.join(", "),
            (seen, Some(first)) => format!("{}; one of them: {}", seen.join(", "), escaped(first.as_bytes())),
        }
    }
}

fn verdict(counts: &Counts, judged: &Judged) -> Verdict {
    if judged.not_linearizable > 0 {
        Verdict::NotLinearizable
    } else if counts.answered() == 0 {
        Verdict::NothingAnswered
    } else if judged.undecided > 0 {
        Verdict::NotDecided
    } else {
        Verdict::Linearizable
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
