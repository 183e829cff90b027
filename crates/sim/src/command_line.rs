//! The simulator's command line: what to run and what to print.
//!
//! This is the only place in this crate that reads a real clock, to report how fast the simulation is.

use crate::cluster::Case;
use crate::focus::Focus;
use crate::gate;
use crate::minimise::{Minimised, minimise};
use crate::options::Options;
use crate::seeds::{Run, run_caught, run_seed, run_seeds};
use clap::Parser;
use ringfort_core::mutation::CAN_BE_PLANTED;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

/// Runs Ringfort's cluster, clients and faults on simulated time. A seed decides everything.
#[derive(Parser, Clone, PartialEq, Eq, Debug)]
#[command(name = "ringfort-sim", version)]
pub struct Arguments {
    #[command(flatten)]
    task: Task,
    /// Narrow the options of every seed to this; without it, each seed draws its focus
    #[arg(long, value_name = "FOCUS")]
    focus: Option<Focus>,
}

/// What to run, one of these.
#[derive(clap::Args, Clone, PartialEq, Eq, Debug)]
#[group(required = true, multiple = false)]
struct Task {
    /// Run one seed, and print its options first
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run the seeds from A to B - 1
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Print the fingerprints of the seeds from A to B - 1, which are the same in every build of the same sources
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    fingerprints: Option<Range<u64>>,
    /// Measure the speed with 5 nodes and 8 shards, on one core, over the seeds from A to B - 1
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    speed: Option<Range<u64>>,
    /// Make a failing seed as small as possible, and print what happens in it
    #[arg(long, value_name = "N")]
    minimise: Option<u64>,
    /// Look for every planted bug, and print what found it (needs a build with `--features mutations`)
    #[arg(long)]
    mutations: bool,
}

/// Seeds of a range between two lines of progress.
const PROGRESS_EVERY: u64 = 100;

/// The binary's main function. Exits with 0 if every seed passed, 1 if one failed, 2 if the arguments are wrong or
/// standard output is closed.
pub fn main(run: impl Run) -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the speed of the simulation is told in real seconds")]
    let started = std::time::Instant::now();
    let elapsed = || started.elapsed();
    let mut out = io::stdout();
    let Arguments { task, focus } = Arguments::parse();
    let summary = match task {
        Task { fingerprints: Some(seeds), .. } => return print_fingerprints(seeds, focus, &run),
        Task { speed: Some(seeds), .. } => return measure_speed(seeds, focus, &run, &elapsed),
        Task { mutations: true, .. } => return find_planted(),
        Task { minimise: Some(seed), .. } => return minimise_seed(seed, focus),
        Task { seed: Some(seed), .. } => run_seed(seed, focus, &run, &elapsed, &mut out),
        Task { seeds, .. } => {
            let seeds = seeds.expect("one of the two is required");
            run_seeds(seeds, focus, PROGRESS_EVERY, &run, &elapsed, &mut out)
        }
    };
    match summary {
        Ok(summary) if summary.failed.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(_) => ExitCode::from(2),
    }
}

fn print_fingerprints(seeds: Range<u64>, focus: Option<Focus>, run: &impl Run) -> ExitCode {
    for seed in seeds {
        println!("{seed} {:016x}", run_caught(Focus::options_of(seed, focus), run).fingerprint);
    }
    ExitCode::SUCCESS
}

fn measure_speed(seeds: Range<u64>, focus: Option<Focus>, run: &impl Run, elapsed: &dyn Fn() -> Duration) -> ExitCode {
    let (mut simulated, mut operations, count) = (Duration::ZERO, 0, seeds.end - seeds.start);
    for seed in seeds {
        let outcome = run_caught(Options { nodes: 5, joins: 0, shards: 8, ..Focus::options_of(seed, focus) }, run);
        simulated += outcome.simulated;
        operations += outcome.operations;
    }
    let speed = simulated.as_secs_f64() / elapsed().as_secs_f64();
    println!("5 nodes, 8 shards, one core: {speed:.0} s simulated a second, {} operations a seed", operations / count);
    ExitCode::SUCCESS
}

/// The most cases that minimising may run.
const MOST_RUNS: u32 = 600;

fn minimise_seed(seed: u64, focus: Option<Focus>) -> ExitCode {
    let case = Case::of(Focus::options_of(seed, focus));
    let Some(Minimised { case, before, replay, runs }) = minimise(case, MOST_RUNS) else {
        println!("seed {seed} does not fail");
        return ExitCode::SUCCESS;
    };
    let left = |all: u64, without: &BTreeSet<u64>| (0..all).filter(|number| !without.contains(number)).count();
    let operations = replay.begun.operations.min(case.without.operations_from.unwrap_or(u64::MAX));
    let Case { options, without, .. } = case;
    println!("{options}\n{}", replay.timeline);
    println!(
        "{} of {} faults, {} of {} operations and {} of {} eventual writes are left, after {runs} runs",
        left(replay.begun.faults, &without.faults),
        before.faults,
        left(operations, &without.operations),
        before.operations,
        left(replay.begun.eventual_writes, &without.eventual_writes),
        before.eventual_writes,
    );
    ExitCode::from(1)
}

/// Every planted bug must be found.
fn find_planted() -> ExitCode {
    if !CAN_BE_PLANTED {
        eprintln!("this build can't plant bugs: build it with --features mutations");
        return ExitCode::from(2);
    }
    let findings = gate::run(gate::searches());
    println!("{}", gate::Table(&findings));
    ExitCode::from(u8::from(findings.iter().any(|finding| finding.found.is_none())))
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    match parsed {
        Some(range) if !range.is_empty() => Ok(range),
        Some(_) => Err("no seed is in this range".to_owned()),
        None => Err("expected two numbers, as in 0..1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::error::ErrorKind> {
        let all = ["ringfort-sim"].iter().chain(arguments);
        Arguments::try_parse_from(all).map_err(|error| error.kind())
    }

    #[test]
    fn one_seed_or_a_range() {
        use clap::error::ErrorKind;
        assert_eq!(parse(&["--seed", "7"]).map(|arguments| arguments.task.seed), Ok(Some(7)));
        assert_eq!(parse(&["--seeds", "5..9"]).map(|arguments| arguments.task.seeds), Ok(Some(5..9)));
        let focus = parse(&["--seeds", "5..9", "--focus", "slow-disks"]).map(|arguments| arguments.focus);
        assert_eq!(focus, Ok(Some(Focus::SlowDisks)));
        assert_eq!(parse(&["--focus", "slow-disks"]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse(&[]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse(&["--seed", "7", "--seeds", "5..9"]), Err(ErrorKind::ArgumentConflict));
        for wrong in ["9", "9..5", "5..5", "a..b", "..5", "1...5"] {
            assert_eq!(parse(&["--seeds", wrong]), Err(ErrorKind::ValueValidation), "{wrong}");
        }
    }
}
