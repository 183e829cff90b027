//! Runs one or many seeds, and reports the results.
//!
//! A run is a function from [`Options`] to [`Outcome`]. It shares nothing with other runs, so two seeds run at a time,
//! each on its own thread. Results are reported in the order of the seeds, whichever ends first, so that the same range
//! prints the same lines. A run that panics counts as failed and does not end the range: assertions in the code under
//! test are findings too. (That needs `panic = "unwind"`, the default.)
//!
//! Each failure is printed with the command that repeats it, on a line of its own.

use crate::focus::Focus;
use crate::invariant::{Invariant, Violation};
use crate::options::Options;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The result of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub simulated: Duration,
    /// Operations that clients completed.
    pub operations: u64,
    /// Event counts by name; they reveal a class of faults that does nothing.
    pub events: BTreeMap<&'static str, u64>,
    /// [`crate::trace::Trace::fingerprint`]; the same whenever the seed is run.
    pub fingerprint: u64,
    /// What went wrong.
    pub failure: Option<Violation>,
}

/// The results of all runs. Displayed as one line.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    pub seeds: u64,
    pub failed: Vec<u64>,
    pub simulated: Duration,
    pub operations: u64,
    pub events: BTreeMap<&'static str, u64>,
    /// Real time.
    pub elapsed: Duration,
}

/// A simulation, as this module sees it.
pub trait Run: Fn(Options) -> Outcome + Sync {}
impl<F: Fn(Options) -> Outcome + Sync> Run for F {}

/// How many seeds of a range run at the same time.
pub const SEEDS_AT_A_TIME: usize = 2;

/// Runs one seed, under the given focus or else the one drawn from the seed. Prints its options first, then the
/// fingerprint, the failure if there is one, and the summary.
///
/// `elapsed` is the real time since the start.
///
/// # Errors
///
/// Only those of `out`.
pub fn run_seed(
    seed: u64,
    focus: Option<Focus>,
    run: &impl Run,
    elapsed: &dyn Fn() -> Duration,
    out: &mut impl Write,
) -> io::Result<Summary> {
    let options = Focus::options_of(seed, focus);
    writeln!(out, "{options}")?;
    out.flush()?;
    let outcome = run_caught(options, run);
    let mut summary = Summary::default();
    writeln!(out, "fingerprint      {:016x}", outcome.fingerprint)?;
    summary.add(seed, focus, outcome, out)?;
    summary.finish(elapsed, out)
}

/// Runs all seeds of the range, under the given focus or else the one drawn from each seed. Prints failures, a line of
/// progress after every `progress_every` seeds, and the summary.
///
/// `elapsed` is the real time since the start.
///
/// # Errors
///
/// Only those of `out`; the rest of the range is not run.
pub fn run_seeds(
    seeds: Range<u64>,
    focus: Option<Focus>,
    progress_every: u64,
    run: &impl Run,
    elapsed: &dyn Fn() -> Duration,
    out: &mut impl Write,
) -> io::Result<Summary> {
    let next = AtomicU64::new(seeds.start);
    let (outcome_tx, outcome_rx) = mpsc::channel();
    thread::scope(|scope| {
        for outcome_tx in vec![outcome_tx; SEEDS_AT_A_TIME] {
            let (next, end) = (&next, seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if outcome_tx.send((seed, run_caught(Focus::options_of(seed, focus), run))).is_err() {
                        return; // the reader of our output is gone
                    }
                }
            });
        }
        // Moved in, so that an early return tells the threads to stop.
        let outcome_rx = outcome_rx;
        let mut early = BTreeMap::new();
        let mut summary = Summary::default();
        for seed in seeds.clone() {
            let outcome = loop {
                match early.remove(&seed) {
                    Some(outcome) => break outcome,
                    None => early.extend([outcome_rx.recv().expect("threads send one outcome a seed")]),
                }
            };
            summary.add(seed, focus, outcome, out)?;
            if summary.seeds.is_multiple_of(progress_every) && seed + 1 < seeds.end {
                writeln!(out, "... {summary}", summary = Summary { elapsed: elapsed(), ..summary.clone() })?;
                out.flush()?;
            }
        }
        summary.finish(elapsed, out)
    })
}

/// Runs the options and turns a panic into a failed run of which nothing else is known.
pub fn run_caught(options: Options, run: &impl Run) -> Outcome {
    caught(|| run(options))
}

/// The outcome of a run, whether or not it panicked.
pub fn caught(run: impl FnOnce() -> Outcome) -> Outcome {
    // The run's state is dropped with it or only read afterwards: a half-changed state is never used again.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of unknown kind");
        Outcome {
            simulated: Duration::ZERO,
            operations: 0,
            events: BTreeMap::new(),
            fingerprint: 0,
            failure: Some(Invariant::Assertion.broken(message)),
        }
    })
}

impl Summary {
    fn add(&mut self, seed: u64, focus: Option<Focus>, outcome: Outcome, out: &mut impl Write) -> io::Result<()> {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.operations += outcome.operations;
        for (name, count) in outcome.events {
            *self.events.entry(name).or_default() += count;
        }
        let Some(failure) = outcome.failure else { return Ok(()) };
        self.failed.push(seed);
        writeln!(out, "\nseed {seed} failed: {failure}\nto run it again:\n  {}\n", command(seed, focus))?;
        out.flush()
    }

    fn finish(mut self, elapsed: &dyn Fn() -> Duration, out: &mut impl Write) -> io::Result<Summary> {
        self.elapsed = elapsed();
        let events: Vec<String> = self.events.iter().map(|(name, count)| format!("{count} {name}")).collect();
        if !events.is_empty() {
            writeln!(out, "{}", events.join(", "))?;
        }
        writeln!(out, "{self}")?;
        out.flush()?;
        Ok(self)
    }
}

/// The shell command that runs a seed again.
fn command(seed: u64, focus: Option<Focus>) -> String {
    let focus = focus.map(|focus| format!(" --focus {focus}")).unwrap_or_default();
    format!("cargo run --release -p {} -- --seed {seed}{focus}", env!("CARGO_PKG_NAME"))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { seeds, failed, simulated, operations, elapsed, .. } = self;
        write!(f, "{} of {seeds} seeds failed, ", failed.len())?;
        write!(f, "{:.0} s simulated in {:.1} s", simulated.as_secs_f64(), elapsed.as_secs_f64())?;
        if !elapsed.is_zero() {
            write!(f, " ({:.0} s a second)", simulated.as_secs_f64() / elapsed.as_secs_f64())?;
        }
        write!(f, ", {operations} operations, {} a seed", operations / seeds.max(&1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at seed 3, panics at seed 5, and is slow at even ones, so that outcomes arrive out of order.
    fn toy(options: Options) -> Outcome {
        if options.seed.is_multiple_of(2) {
            (0..100_000).for_each(|word| {
                std::hint::black_box(word);
            });
        }
        assert!(options.seed != 5, "five is right out");
        Outcome {
            simulated: Duration::from_secs(10),
            events: BTreeMap::new(),
            operations: 100,
            fingerprint: options.seed,
            failure: (options.seed == 3).then(|| Invariant::LogMatching.broken("three\nis wrong")),
        }
    }

    #[test]
    fn range_reports_in_order_of_seeds() {
        let expected = "
seed 3 failed: log matching: three
is wrong
to run it again:
  cargo run --release -p ringfort-sim -- --seed 3

... 1 of 4 seeds failed, 40 s simulated in 2.0 s (20 s a second), 400 operations, 100 a seed

seed 5 failed: no assertion fails: five is right out
to run it again:
  cargo run --release -p ringfort-sim -- --seed 5

2 of 8 seeds failed, 70 s simulated in 2.0 s (35 s a second), 700 operations, 87 a seed
";
        let mut out = Vec::new();
        let summary = run_seeds(0..8, None, 4, &toy, &|| Duration::from_secs(2), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(summary.failed, [3, 5]);
    }

    #[test]
    fn single_seed_prints_its_options_first() {
        let mut out = Vec::new();
        run_seed(7, Some(Focus::SlowDisks), &toy, &|| Duration::from_secs(1), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let expected = format!(
            "{}\nfingerprint      0000000000000007\n{}\n",
            Focus::SlowDisks.options(7),
            "0 of 1 seeds failed, 10 s simulated in 1.0 s (10 s a second), 100 operations, 100 a seed"
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn a_failed_seed_tells_the_focus_that_was_chosen() {
        let mut out = Vec::new();
        run_seed(3, Some(Focus::SlowDisks), &toy, &|| Duration::ZERO, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("-- --seed 3 --focus slow-disks\n"));
    }

    #[test]
    fn closed_pipe_ends_the_range() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let result = run_seeds(0..u64::MAX, None, 1, &toy, &|| Duration::ZERO, &mut Closed);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn empty_range_is_a_summary() {
        let mut out = Vec::new();
        run_seeds(4..4, None, 1, &toy, &|| Duration::ZERO, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "0 of 0 seeds failed, 0 s simulated in 0.0 s, 0 operations, 0 a seed\n"
        );
    }
}
