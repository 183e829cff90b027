//! `ringfort bench`: measures a cluster under load, and what the machine could do at best.
//!
//! A closed loop ([`closed_loop`]): a fixed number of requests is in flight, and each answer is followed by the next
//! request. Rate and latency therefore determine each other (in flight = rate x latency), and a cluster that stalls
//! gets fewer requests: the figures show its capacity, not how long the users of an open system would wait.
//!
//! Load generator and nodes often share a machine, and machines differ. Hence the floor: a bare gRPC echo ([`echo`])
//! with the same messages, connections and requests in flight, before and after the run, and a synced write ([`disk`]).
//! Ratios to the floor can be compared between machines; absolute figures cannot.

pub mod cleanup;
mod closed_loop;
mod disk;
pub mod echo;
pub mod measurement;
pub mod progress;
pub mod report;
pub mod target;
pub mod workload;

use super::playground::interrupted_by_signals;
use super::print_json;
use crate::client_options::{ClientOptions, Output, parse_duration};
use crate::failure::{Answer, Failure};
use clap::Args;
use cleanup::delete_all;
use disk::Disk;
use echo::EchoProcess;
use measurement::{Errors, Measurement};
use progress::Progress;
use report::{Floor, FloorReport, Rates, Report};
use ringfort_client::Client;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use target::Target;
use workload::{Mix, Workload};

/// The disk is measured for at most this long.
const DISK_DURATION: Duration = Duration::from_secs(2);

/// Measure the throughput and latency of a cluster
///
/// Keeps a number of requests in flight, and sends the next one when one is answered. The keys begin with bench/ and a
/// random word, and are deleted afterwards. Ctrl-C ends the run early and reports the results so far. Exits with 1 if
/// requests failed.
///
/// With --rate, requests are sent at that rate, whether or not earlier ones are answered, up to --in-flight.
///
/// With --floor, also measures the best that the machine can do: a separate gRPC server process that answers the same
/// requests at once, before and after the run, and 4 KiB writes with fdatasync. The ratios to these can be compared
/// between machines.
#[derive(Args, Debug)]
pub struct Bench {
    /// The number of separate clients, each with its own connection to each node.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,

    /// The number of requests in flight, over all connections.
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,

    /// Requests per second. The latency of a request counts from the time at which it was due [default: as many as are
    /// answered]
    #[arg(long, value_name = "COUNT", conflicts_with = "floor", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,

    /// The size of a value.
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(..=1 << 20))]
    value_size: u32,

    /// The percentage of gets. Requests that are not of another kind are puts. If there are gets, all keys are written
    /// first.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    reads: u8,

    /// The percentage of increments. They have keys of their own.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    increments: u8,

    /// The percentage of appends of --value-size bytes. They have keys of their own, whose values grow: with few keys, up
    /// to the limit of 1 MiB, where appends are refused.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    appends: u8,

    /// The number of keys of each kind. Each request takes one of them at random.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = parse_keys)]
    keys: u64,

    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,

    /// How long to send requests before measuring.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,

    /// Send requests to the endpoints in turn, instead of to the leader of the key.
    #[arg(long)]
    blind: bool,

    /// Keep the keys in the cluster.
    #[arg(long)]
    keep: bool,

    /// Also measure a gRPC echo and the disk of this machine. Each echo takes half the --duration.
    #[arg(long)]
    floor: bool,

    /// The directory in which --floor writes, on the same disk as the nodes [default: the directory for temporary
    /// files]
    #[arg(long, value_name = "DIR", requires = "floor")]
    floor_dir: Option<PathBuf>,

    #[command(flatten)]
    client: ClientOptions,
}

fn parse_keys(text: &str) -> Result<u64, String> {
    let keys = text.parse().ok().filter(|&keys| keys > 0);
    keys.ok_or_else(|| "give a whole number, 1 or more".to_owned())
}

#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("interrupted before anything was measured")]
    Measuring,
    #[error("interrupted before all keys that begin with {prefix} were deleted")]
    Deleting { prefix: String },
}

impl Bench {
    pub fn run(self) -> Result<Answer, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let progress = Progress::new();
        let mix = Mix { gets: self.reads, increments: self.increments, appends: self.appends }.check()?;
        let workload = Workload::new(self.keys, self.value_size as usize, mix, self.in_flight as usize, self.rate);
        let result = runtime.block_on(self.measure_and_clean_up(&Arc::new(workload), &progress));
        progress.end();
        let (report, cleanup) = result?;
        match self.client.output {
            Output::Table => report.print()?,
            Output::Json => print_json(&report)?,
        }
        cleanup?;
        let is_clean = report.errors == Errors::default() && report.rates.operations > 0;
        Ok(if is_clean { Answer::Yes } else { Answer::No })
    }

    /// The report, and how the deletion of the keys ended.
    async fn measure_and_clean_up(
        &self,
        workload: &Arc<Workload>,
        progress: &Progress,
    ) -> Result<(Report, Result<(), Failure>), Failure> {
        let client = Client::connect(&self.client.endpoints)?.with_timeout(self.client.timeout);
        client.check_endpoints().await?;
        // If the cluster does not answer, fail now instead of reporting a result later.
        let nodes = client.topology().await?.nodes.len();
        let nodes = if self.blind { self.client.endpoints.len() } else { nodes };
        let mut measuring = pin!(self.measure(nodes, workload, progress));
        let mut interrupted = false;
        let measured = match interrupted_by_signals(measuring.as_mut()).await? {
            Some(measured) => measured,
            None => {
                interrupted = true;
                workload.stop();
                // Puts under way could otherwise be applied after their keys were deleted.
                measuring.await
            }
        };
        let deleted = match self.keep {
            true => Ok(None),
            false => self.delete(&client, workload, progress).await.map(Some),
        };
        let (measurement, floor) = measured?;
        if interrupted && measurement.duration.is_zero() {
            deleted?;
            return Err(Interrupted::Measuring.into());
        }
        let keys_deleted = *deleted.as_ref().unwrap_or(&None);
        let report = Report { interrupted, ..self.report(workload, measurement, floor, keys_deleted) };
        Ok((report, deleted.map(drop)))
    }

    async fn delete(&self, client: &Client, workload: &Workload, progress: &Progress) -> Result<u64, Failure> {
        progress.begin("deleting", self.keys);
        match interrupted_by_signals(delete_all(client, &workload.prefix, progress)).await? {
            Some(deleted) => Ok(deleted?),
            None => Err(Interrupted::Deleting { prefix: workload.prefix.clone() }.into()),
        }
    }

    /// Each client has a connection to each of `nodes`; the echo is asked over as many.
    async fn measure(
        &self,
        nodes: usize,
        workload: &Arc<Workload>,
        progress: &Progress,
    ) -> Result<(Measurement, Option<Floor>), Failure> {
        let (timeout, endpoints) = (self.client.timeout, &self.client.endpoints);
        let connect = if self.blind { Target::nodes } else { Target::leaders };
        let targets: Vec<Arc<Target>> = (0..self.connections)
            .map(|_| Ok(Arc::new(connect(endpoints, timeout)?)))
            .collect::<Result<_, Failure>>()?;
        if !self.floor {
            return Ok((self.measure_cluster(&targets, workload, progress).await?, None));
        }

        let directory = self.floor_dir.clone().unwrap_or_else(std::env::temp_dir);
        progress.begin("disk", 1);
        let syncs = tokio::task::block_in_place(|| Disk::open(&directory)?.measure(self.duration.min(DISK_DURATION)))?;
        let echo = EchoProcess::start(self.value_size as usize).await?;
        let echoes = echo.targets(usize::from(self.connections) * nodes, timeout)?;
        let echo_before = self.measure_echo("echo before", &echoes, workload, progress).await;
        let measurement = self.measure_cluster(&targets, workload, progress).await?;
        if workload.is_stopped() {
            return Ok((measurement, None));
        }
        let echo_after = self.measure_echo("echo after", &echoes, workload, progress).await;
        Ok((measurement, Some(Floor { echo_before, echo_after, directory, syncs })))
    }

    async fn measure_cluster(
        &self,
        targets: &[Arc<Target>],
        workload: &Arc<Workload>,
        progress: &Progress,
    ) -> Result<Measurement, Failure> {
        if self.reads > 0 {
            progress.begin("loading", self.keys);
            closed_loop::load(targets, workload, progress).await?;
        }
        progress.begin("measuring", (self.warm_up + self.duration).as_millis() as u64);
        Ok(closed_loop::run(targets, workload, self.warm_up, self.duration, progress).await)
    }

    async fn measure_echo(
        &self,
        phase: &'static str,
        echoes: &[Arc<Target>],
        workload: &Arc<Workload>,
        progress: &Progress,
    ) -> Measurement {
        let duration = self.duration / 2;
        progress.begin(phase, (self.warm_up + duration).as_millis() as u64);
        closed_loop::run(echoes, workload, self.warm_up, duration, progress).await
    }

    fn report(
        &self,
        workload: &Workload,
        measurement: Measurement,
        floor: Option<Floor>,
        keys_deleted: Option<u64>,
    ) -> Report {
        Report {
            connections: self.connections.into(),
            in_flight: workload.in_flight,
            rate: self.rate,
            value_bytes: workload.value.len(),
            reads_percent: self.reads,
            increments_percent: self.increments,
            appends_percent: self.appends,
            keys: self.keys,
            blind: self.blind,
            rates: Rates::new(&measurement),
            errors: measurement.errors,
            floor: floor.map(|floor| FloorReport::new(&floor, &measurement, workload.in_flight)),
            first_error: measurement.first_error,
            key_prefix: workload.prefix.clone(),
            keys_deleted,
            interrupted: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn parsed(args: &str) -> Result<Bench, clap::Error> {
        Line::try_parse_from(format!("bench {args}").split_whitespace()).map(|line| line.bench)
    }

    #[test]
    fn options_have_defaults_and_bounds() {
        let bench = parsed("").unwrap();
        assert_eq!((bench.connections, bench.in_flight, bench.value_size), (4, 256, 128));
        assert_eq!((bench.reads, bench.keys, bench.blind, bench.keep, bench.floor), (0, 100_000, false, false, false));
        assert_eq!((bench.duration, bench.warm_up), (Duration::from_secs(10), Duration::from_secs(2)));
        let bench = parsed("--reads 100 --value-size 0 --in-flight=1 --duration 500ms --floor --floor-dir /x").unwrap();
        assert_eq!((bench.reads, bench.value_size, bench.in_flight), (100, 0, 1));
        assert_eq!(bench.duration, Duration::from_millis(500));
        for bad in ["--reads 101", "--connections 0", "--in-flight 0", "--keys 0", "--value-size 1048577"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        assert!(parsed("--floor-dir /x").is_err(), "a directory for nothing");
    }
}
