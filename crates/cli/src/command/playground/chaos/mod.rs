//! `ringfort playground --chaos`: faults of all kinds, one after the other, under clients whose answers are checked.
//!
//! | module | |
//! |---|---|
//! | [`fault`] | the kinds of faults |
//! | [`stage`] | injects a fault, heals it, and waits for recovery |
//! | [`network`] | a proxy between the nodes that cuts and slows their connections |
//! | [`disks`] | makes a node's disk slow, or hang |
//! | [`damage`] | flips bits in files, and truncates them |
//! | [`workload`] | the clients, and how long they had no service |
//! | [`history`] | the clients' histories, and whether they are linearizable |
//! | [`report`] | the results |
//!
//! The seed decides which faults happen, and their details. It does not decide how processes, disks and clients
//! interleave: unlike in the simulator, the same seed does not give the same run. The faults do *not* include lost disk
//! caches: caches survive a kill -9, so no write is lost for lack of a sync. The simulator covers that.

mod damage;
mod disks;
mod fault;
mod history;
mod network;
mod report;
mod stage;
mod workload;

use super::cluster::Cluster;
use super::interrupted_by_signals;
use super::screen::Screen;
use crate::client_options::{Output, parse_duration};
use crate::command::print_json;
use crate::failure::{Answer, Failure};
use crate::random::Random;
use crate::text::counted;
use clap::{Args, ValueEnum};
use disks::DiskFault;
use fault::Fault;
use history::Findings;
use report::Report;
use ringfort_ring::ShardCount;
use stage::{Injected, Stage, StageError};
use std::cell::RefCell;
use std::future::pending;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use workload::Workload;

/// Few shards, so that the clients use each of them often.
const SHARDS: u32 = 8;

/// Small log segments, so that there are several of them, and snapshots.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Histories are kept in memory until the end: about 100 MB after this time.
const LONGEST_RUN: Duration = Duration::from_secs(30 * 60);

/// The page that shows a contradiction in a browser, beside the nodes' data.
const VIOLATION_PAGE: &str = "violation.html";

/// How often the progress line changes.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// Options that go with --chaos.
#[derive(Args, Debug)]
#[command(next_help_heading = "Chaos")]
pub struct ChaosOptions {
    /// How long to inject faults, up to 30m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_length, requires = "chaos")]
    duration: Duration,

    /// Which kinds of faults to inject, separated by commas. All kinds unless given.
    #[arg(long, value_name = "FAULT,...", value_enum, value_delimiter = ',', requires = "chaos")]
    faults: Vec<Fault>,

    /// The seed that determines the faults and their order. Random unless given.
    #[arg(long, value_name = "NUMBER", requires = "chaos")]
    seed: Option<u64>,

    /// The format of the report. With json, nothing else is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table, requires = "chaos")]
    pub output: Output,
}

/// Additional arguments for each node of a cluster under chaos.
pub fn arguments(number: usize, directory: &Path) -> Vec<String> {
    let mut arguments = Stage::arguments(number, directory);
    arguments.extend([format!("--shards={SHARDS}"), format!("--segment-bytes={SEGMENT_BYTES}")]);
    arguments
}

/// Injects faults until the time is over, a signal arrives, or a check fails; then checks the histories.
pub async fn run(cluster: &mut Cluster, options: &ChaosOptions, screen: &Screen) -> Result<Answer, Failure> {
    let nodes = cluster.nodes.len();
    let seed = options.seed.unwrap_or_else(|| Random::new().next() % 1_000_000);
    let network = Stage::network(cluster);
    for number in 0..nodes {
        // A kept directory may still hold faults, and nodes wait for a disk that hangs.
        disks::set(cluster.path(), number, DiskFault::None)?;
    }
    let begun = Instant::now();
    cluster.wait_until_complete().await?;
    screen.done(&format!("{nodes} nodes serve after {:.1} s; seed {seed}", begun.elapsed().as_secs_f32()))?;

    let client = cluster.client()?;
    let shards = ShardCount::new(client.topology().await?.shard_count)?;
    let workload = Workload::start(&client, shards, seed);
    let mut stage = Stage { cluster, network, client, workload, random: Random::seeded(seed) };
    let begun = Instant::now();
    let (faults, failure) = inject_all(&mut stage, options, screen).await?;
    let seconds = begun.elapsed().as_secs_f64();

    screen.progress("reading everything back")?;
    // Report the failure that happened first.
    let failure = match (failure, stage.heal().await) {
        (None, Err(error)) => Some(error),
        (failure, _) => failure,
    };
    let mut failure = failure.map(|error| error.to_string());
    let findings = match stage.workload.finish().await {
        Ok(keys) => tokio::task::spawn_blocking(move || Findings::of(&keys)).await?,
        Err(error) => {
            failure.get_or_insert(format!("could not read all keys back: {error}"));
            Findings::default()
        }
    };
    let report = Report::new(seed, nodes, seconds, faults, findings, failure);
    show(&report, options, screen)?;
    if report.answer() == Answer::No {
        cluster.keep();
        if let Some(page) = report.page() {
            std::fs::write(cluster.path().join(VIOLATION_PAGE), page)?;
            screen.line(&format!("the contradiction is drawn in {}", cluster.path().join(VIOLATION_PAGE).display()))?;
        }
        screen.line(&format!("the nodes' logs and data are kept in {}", cluster.path().display()))?;
    }
    Ok(report.answer())
}

/// Injects one fault after the other. Returns the faults after which service came back, and what ended the run early,
/// if anything.
async fn inject_all(
    stage: &mut Stage<'_>,
    options: &ChaosOptions,
    screen: &Screen,
) -> Result<(Vec<Injected>, Option<StageError>), Failure> {
    let kinds = if options.faults.is_empty() { Fault::value_variants() } else { &options.faults };
    let begun = Instant::now();
    let mut faults: Vec<Injected> = Vec::new();
    let mut interrupted = pin!(interrupted_by_signals(pending::<()>()));
    while begun.elapsed() < options.duration {
        let fault = stage.random.choose(kinds);
        let service = stage.workload.service();
        let doing = RefCell::new("waiting until the cluster has recovered".to_owned());
        let progress = async {
            loop {
                let left = options.duration.saturating_sub(begun.elapsed()).as_secs();
                let (so_far, waiting) = (counted(faults.len(), "fault"), service.waiting().as_millis());
                let text = format!("{left} s left, {so_far}; {}: {waiting} ms without service", doing.borrow());
                if let Err(error) = screen.progress(&text) {
                    return error;
                }
                sleep(PROGRESS_PAUSE).await;
            }
        };
        let injected = tokio::select! {
            injected = stage.inject(fault, |what| *doing.borrow_mut() = what.to_owned()) => injected,
            ended = &mut interrupted => {
                ended?;
                break;
            }
            error = progress => return Err(error.into()),
        };
        match injected {
            Ok(injected) => {
                screen.done(&format!("{}: {:.0} ms without service", injected.what, injected.outage_ms))?;
                let broken = injected.broken_promise();
                faults.push(injected);
                if broken.is_some() {
                    return Ok((faults, broken));
                }
            }
            Err(error) => return Ok((faults, Some(error))),
        }
    }
    Ok((faults, None))
}

fn show(report: &Report, options: &ChaosOptions, screen: &Screen) -> Result<(), Failure> {
    if options.output == Output::Json {
        return print_json(report);
    }
    screen.line(&format!(
        "\n{} in {:.0} s, seed {}\n\n{}\n",
        counted(report.faults.len(), "fault"),
        report.seconds,
        report.seed,
        report.table()
    ))?;
    if let Some(failure) = &report.failure {
        screen.failed(failure)?;
    }
    if report.linearizable {
        screen.done(&report.sentence())?;
    } else {
        screen.failed(&report.sentence())?;
        for line in report.proofs() {
            screen.line(&line)?;
        }
    }
    Ok(())
}

fn parse_length(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        length if length > LONGEST_RUN => Err("give 30m or less".to_owned()),
        length => Ok(length),
    }
}
