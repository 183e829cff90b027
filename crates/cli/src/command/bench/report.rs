//! The result: as JSON, or as a table and sentences. Latencies are shown in milliseconds.

use super::measurement::{Errors, Measurement};
use crate::command::print_line;
use crate::failure::Failure;
use crate::text::{counted, escaped};
use comfy_table::{Cell, CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// What machine and disk can do, measured around the run.
pub struct Floor {
    pub echo_before: Measurement,
    pub echo_after: Measurement,
    pub directory: PathBuf,
    /// Nanoseconds.
    pub syncs: Histogram<u64>,
}

/// The answer of `-o json`.
#[derive(Serialize)]
pub struct Report {
    pub connections: usize,
    pub in_flight: usize,
    /// The requested rate, in requests per second.
    pub rate: Option<u32>,
    pub value_bytes: usize,
    pub reads_percent: u8,
    pub increments_percent: u8,
    pub appends_percent: u8,
    pub keys: u64,
    pub blind: bool,
    #[serde(flatten)]
    pub rates: Rates,
    pub errors: Errors,
    pub first_error: Option<String>,
    pub key_prefix: String,
    /// `null` if the keys were kept.
    pub keys_deleted: Option<u64>,
    /// A signal ended the run early: the figures cover a shorter time.
    pub interrupted: bool,
    pub floor: Option<FloorReport>,
}

#[derive(Serialize)]
pub struct Rates {
    pub seconds: f64,
    /// Requests that were answered.
    pub operations: u64,
    pub operations_per_second: f64,
    pub puts: Option<Operations>,
    pub gets: Option<Operations>,
    pub increments: Option<Operations>,
    pub appends: Option<Operations>,
}

#[derive(Serialize)]
pub struct Operations {
    pub operations: u64,
    pub operations_per_second: f64,
    pub latency_ms: Percentiles,
}

#[derive(Serialize, Debug)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

#[derive(Serialize)]
pub struct FloorReport {
    pub echo_before: Rates,
    pub echo_after: Rates,
    /// The second echo's rate by the first one's: how steady the machine was meanwhile.
    pub echo_drift: f64,
    /// The cluster's rate by the mean of the two echoes', for the same mix of requests.
    pub operations_per_echo: f64,
    pub fdatasync_directory: String,
    pub fdatasync_latency_ms: Percentiles,
    /// With one request in flight: the median put by the median fdatasync.
    pub put_per_fdatasync: Option<f64>,
}

impl Rates {
    pub fn new(measurement: &Measurement) -> Rates {
        let seconds = measurement.duration.as_secs_f64();
        let operations = |latencies: &Histogram<u64>| {
            (!latencies.is_empty()).then(|| Operations {
                operations: latencies.len(),
                operations_per_second: latencies.len() as f64 / seconds,
                latency_ms: Percentiles::new(latencies),
            })
        };
        Rates {
            seconds,
            operations: measurement.answered(),
            operations_per_second: measurement.per_second(),
            puts: operations(&measurement.puts),
            gets: operations(&measurement.gets),
            increments: operations(&measurement.increments),
            appends: operations(&measurement.appends),
        }
    }
}

impl Percentiles {
    pub fn new(nanoseconds: &Histogram<u64>) -> Percentiles {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e6;
        Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max: at(1.0) }
    }
}

impl FloorReport {
    pub fn new(floor: &Floor, run: &Measurement, in_flight: usize) -> FloorReport {
        let (before, after) = (floor.echo_before.per_second(), floor.echo_after.per_second());
        let median = |latencies: &Histogram<u64>| latencies.value_at_quantile(0.5) as f64;
        let is_single = in_flight == 1 && !run.puts.is_empty();
        FloorReport {
            echo_before: Rates::new(&floor.echo_before),
            echo_after: Rates::new(&floor.echo_after),
            echo_drift: after / before,
            operations_per_echo: run.per_second() / ((before + after) / 2.0),
            fdatasync_directory: floor.directory.display().to_string(),
            fdatasync_latency_ms: Percentiles::new(&floor.syncs),
            put_per_fdatasync: is_single.then(|| median(&run.puts) / median(&floor.syncs)),
        }
    }
}

impl Report {
    pub fn print(&self) -> Result<(), Failure> {
        let routing = if self.blind { "to the endpoints in turn" } else { "to the leader of its key" };
        let in_flight = match self.rate {
            Some(rate) => format!("{rate} per second, at most {} in flight", self.in_flight),
            None => format!("{} in flight", self.in_flight),
        };
        print_line(&format!(
            "{} of {} bytes, {}; {in_flight} from {} clients for {} s, each {routing}\n",
            self.mix(),
            self.value_bytes,
            counted(self.keys as usize, "key"),
            self.connections,
            (self.rates.seconds * 10.0).round() / 10.0
        ))?;
        print_line(&format!("{}\n", self.table()))?;
        if let Some(floor) = &self.floor {
            print_line(&floor.sentences())?;
        }
        print_line(&self.failures())?;
        if self.interrupted {
            print_line("interrupted: the figures cover the time until then")?;
        }
        match self.keys_deleted {
            Some(count) => print_line(&format!("{} deleted", counted(count as usize, "key"))),
            None => print_line(&format!("the keys are kept; they begin with {}", self.key_prefix)),
        }
    }

    /// The mix of requests in words.
    fn mix(&self) -> String {
        let Report { reads_percent, increments_percent, appends_percent, .. } = *self;
        let shares = [(reads_percent, "gets"), (increments_percent, "increments"), (appends_percent, "appends")];
        if let Some((_, all)) = shares.iter().find(|(percent, _)| *percent == 100) {
            return (*all).to_owned();
        }
        let asked: Vec<String> =
            shares.iter().filter(|share| share.0 > 0).map(|(percent, kind)| format!("{percent} % {kind}")).collect();
        match (&asked[..], shares.iter().map(|share| share.0).sum::<u8>()) {
            ([], _) => "puts".to_owned(),
            (asked, 100) => asked.join(", "),
            (asked, _) => format!("{}, the rest puts", asked.join(", ")),
        }
    }

    fn table(&self) -> Table {
        let mut table = latency_table();
        let mut rates = |name: &str, rates: &Rates| {
            let Rates { puts, gets, increments, appends, .. } = rates;
            for (kind, operations) in [("puts", puts), ("gets", gets), ("increments", increments), ("appends", appends)]
            {
                if let Some(operations) = operations {
                    let numbers = [operations.operations as f64, operations.operations_per_second.round()];
                    add_row(&mut table, format!("{kind}{name}"), Some(numbers), &operations.latency_ms);
                }
            }
        };
        rates("", &self.rates);
        if let Some(floor) = &self.floor {
            rates(", echo before", &floor.echo_before);
            rates(", echo after", &floor.echo_after);
            add_row(&mut table, "4 KiB and fdatasync".to_owned(), None, &floor.fdatasync_latency_ms);
        }
        table
    }

    fn failures(&self) -> String {
        let Errors { writes_not_applied, writes_of_unknown_outcome, gets_failed, gets_without_value } = self.errors;
        let kinds = [
            (writes_not_applied, "writes not applied"),
            (writes_of_unknown_outcome, "writes of unknown outcome"),
            (gets_failed, "gets failed"),
            (gets_without_value, "gets found no value although one was put"),
        ];
        let seen: Vec<_> =
            kinds.iter().filter(|kind| kind.0 > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
        match (&seen[..], &self.first_error) {
            ([], _) => "no errors".to_owned(),
            (seen, None) => format!("errors: {}", seen.join(", ")),
            (seen, Some(first)) => format!("errors: {}; one of them: {}", seen.join(", "), escaped(first.as_bytes())),
        }
    }
}

impl FloorReport {
    fn sentences(&self) -> String {
        let mut text = format!(
            "the cluster answered {:.3} times as many requests per second as a bare gRPC echo; the echo after the run \
             answered {:.2} times as many as the one before\nfdatasync was measured in {}",
            self.operations_per_echo, self.echo_drift, self.fdatasync_directory
        );
        if let Some(ratio) = self.put_per_fdatasync {
            text += &format!("\na put takes as long as {ratio:.2} overwrites with fdatasync (p50)");
        }
        text
    }
}

/// A table for [`add_row`].
pub fn latency_table() -> Table {
    let mut table = Table::new();
    table.load_preset(if io::stdout().is_terminal() { presets::UTF8_HORIZONTAL_ONLY } else { presets::NOTHING });
    table.set_header(["", "REQUESTS", "PER SECOND", "P50 ms", "P90 ms", "P99 ms", "P99.9 ms", "MAX ms"]);
    table
}

/// `numbers`: requests, and how many a second.
pub fn add_row(table: &mut Table, name: String, numbers: Option<[f64; 2]>, latency: &Percentiles) {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut row = vec![Cell::new(name)];
    match numbers {
        Some(numbers) => row.extend(numbers.map(|number| right(number.to_string()))),
        None => row.extend(["", ""].map(Cell::new)),
    }
    let Percentiles { p50, p90, p99, p99_9, max } = latency;
    row.extend([p50, p90, p99, p99_9, max].map(|milliseconds| right(format!("{milliseconds:.3}"))));
    table.add_row(row);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::bench::measurement::histogram;
    use crate::command::bench::target::Answer;
    use crate::command::bench::workload::Action;
    use std::time::Duration;

    fn measured(puts: u64, latency: Duration) -> Measurement {
        let mut measurement = Measurement::new(Duration::from_secs(2));
        (0..puts).for_each(|_| measurement.record(Action::Put, Answer::Done, latency));
        measurement
    }

    fn floor() -> Floor {
        let mut syncs = histogram();
        syncs.record(2_000_000).unwrap();
        Floor {
            echo_before: measured(30, Duration::from_micros(10)),
            echo_after: measured(10, Duration::from_micros(30)),
            directory: PathBuf::from("/data"),
            syncs,
        }
    }

    #[test]
    fn rates_are_per_second_and_latencies_in_milliseconds() {
        let rates = Rates::new(&measured(10, Duration::from_millis(3)));
        assert_eq!((rates.operations, rates.operations_per_second), (10, 5.0));
        assert!(rates.gets.is_none());
        let latency = rates.puts.unwrap().latency_ms;
        assert!((latency.p50 - 3.0).abs() < 0.01 && latency.p50 <= latency.max, "{}", latency.p50);
    }

    #[test]
    fn floor_is_the_mean_of_both_echoes_and_syncs_count_for_single_puts() {
        let run = measured(5, Duration::from_millis(3));
        let many = FloorReport::new(&floor(), &run, 2);
        assert_eq!((many.operations_per_echo, many.put_per_fdatasync), (0.25, None));
        assert!((many.echo_drift - 1.0 / 3.0).abs() < 1e-9);
        let single = FloorReport::new(&floor(), &run, 1).put_per_fdatasync.unwrap();
        assert!((single - 1.5).abs() < 0.01, "{single}");
    }
}
