//! The simulator's command line: `--seed N` or `--seeds A..B`.
//!
//! The one place of this crate that reads a real clock, to say how fast the simulation is.

use crate::seeds::{Run, run_seed, run_seeds};
use clap::Parser;
use std::io;
use std::ops::Range;
use std::process::ExitCode;

/// Runs Ringfort's cluster, clients and faults on simulated time. A seed decides everything.
#[derive(Parser, Clone, PartialEq, Eq, Debug)]
#[command(name = "ringfort-sim", version)]
#[group(required = true, multiple = false)]
pub struct Arguments {
    /// Run one seed, and print its options first
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run the seeds from A to B - 1
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<Range<u64>>,
}

/// Seeds of a range between two lines of progress.
const PROGRESS_EVERY: u64 = 100;

/// What the binary does. Exits with 0 if every seed passed, 1 if one failed, 2 if the arguments are wrong or standard
/// output is gone.
pub fn main(run: impl Run) -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the speed of the simulation is told in real seconds")]
    let started = std::time::Instant::now();
    let elapsed = || started.elapsed();
    let mut out = io::stdout();
    let summary = match Arguments::parse() {
        Arguments { seed: Some(seed), .. } => run_seed(seed, &run, &elapsed, &mut out),
        Arguments { seeds, .. } => {
            let seeds = seeds.expect("one of the two is required");
            run_seeds(seeds, PROGRESS_EVERY, &run, &elapsed, &mut out)
        }
    };
    match summary {
        Ok(summary) if summary.failed.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(_) => ExitCode::from(2),
    }
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
        assert_eq!(parse(&["--seed", "7"]), Ok(Arguments { seed: Some(7), seeds: None }));
        assert_eq!(parse(&["--seeds", "5..9"]), Ok(Arguments { seed: None, seeds: Some(5..9) }));
        assert_eq!(parse(&[]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse(&["--seed", "7", "--seeds", "5..9"]), Err(ErrorKind::ArgumentConflict));
        for wrong in ["9", "9..5", "5..5", "a..b", "..5", "1...5"] {
            assert_eq!(parse(&["--seeds", wrong]), Err(ErrorKind::ValueValidation), "{wrong}");
        }
    }
}
