//! `ringfort verify`: checks from outside whether a running cluster keeps its guarantees.
//!
//! The clients of [`workload`] use few keys at the same time and record their operations and answers; [`judge`]
//! searches for an order of each key's operations that explains the answers (`ringfort-check`), while the run
//! continues. Meanwhile the user injects the faults that the cluster must survive.
//!
//! For a [peer](store::Peer) the workload and the checker are the same, and only the [store] differs: so a user can see
//! that the checker does find violations.
//!
//! It does not check the eventual keyspace, stale reads, and scans of more than one key, which promise less, nor
//! anything after the run.

mod judge;
mod record;
mod report;
mod service;
mod store;
mod tally;
mod workload;

use super::bench::progress::Progress;
use super::playground::interrupted_by_signals;
use super::print_json;
use crate::asked::Request;
use crate::client_options::{ClientOptions, Output, parse_duration};
use crate::failure::{Answer, Failure};
use crate::text::counted;
use crate::violation::{FIRST_LOOKER, Values, page};
use bytes::Bytes;
use clap::Args;
use judge::{Judge, Judged};
use report::{Asked, Report, Verdict};
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::{Peer, Store, StoreError};
use workload::{Run, Workload};

/// How often the progress line is updated on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How often a progress line is printed if stderr is not a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Check that a running cluster is linearizable while you inject faults
///
/// Clients read and write keys that begin with verify/ and a random word. Four clients share a key and use it at the
/// same time. The answers are checked key by key during the run: is there an order of the operations that explains all
/// answers? Meanwhile, kill nodes, cut networks, fill disks. Ctrl-C ends the run early, with a verdict. The keys are
/// deleted at the end.
///
/// Exits with 0 if there is such an order, with 1 and the smallest contradiction if there is none, and with 2 if that
/// can't be decided.
#[derive(Args, Debug)]
pub struct Verify {
    /// How long the clients run.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    duration: Duration,

    /// Operations per second, over all clients, as long as the cluster keeps up.
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,

    /// The number of clients, each with one operation in flight.
    #[arg(long, value_name = "COUNT", default_value_t = 24, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    clients: u32,

    /// Verify another store at --endpoints instead, with the same workload and checker.
    #[arg(long, value_enum, value_name = "STORE")]
    against: Option<Peer>,

    /// The HTML file that shows a contradiction in a browser [default: ringfort-verify-<word>.html]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    #[command(flatten)]
    client: ClientOptions,
}

// A client of the workload is never mistaken for one that takes last looks.
const _: () = assert!(10_000 < FIRST_LOOKER);

#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error("interrupted before all keys that begin with {prefix} were deleted")]
    Interrupted { prefix: String },
    #[error("can't write {path}: {source}")]
    Page { path: String, source: io::Error },
}

impl Verify {
    pub fn run(self) -> Result<Answer, Failure> {
        if let Some(file) = &self.html {
            check_writable(file)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let values = Values::new();
        let prefix = format!("verify/{:08x}/", values.run);
        let (mut report, judged, cleared) = runtime.block_on(async {
            let store = self.connect(values, &prefix).await?;
            let (report, judged) = self.verify(&store, &prefix).await?;
            let cleared = interrupted_by_signals(store.clear(&prefix)).await?;
            Ok::<_, Failure>((report, judged, cleared))
        })?;
        let written = self.write_page(&report, &judged, values);
        report.page = written.as_ref().ok().cloned().flatten();
        match self.client.output {
            Output::Table => report.print()?,
            Output::Json => print_json(&report)?,
        }
        if let Err(error) = written {
            // The exit code must show the verdict.
            eprintln!("ringfort: {error}");
        }
        match (report.verdict, cleared) {
            (Verdict::NotLinearizable, _) => Ok(Answer::No),
            (_, None) => Err(VerifyError::Interrupted { prefix }.into()),
            (_, Some(Err(error))) => Err(error.into()),
            (Verdict::Linearizable, _) => Ok(Answer::Yes),
            (Verdict::NotDecided | Verdict::NothingAnswered, _) => Err(io::Error::other(report.sentence()).into()),
        }
    }

    /// Connects to the store. If it does not answer, this fails now instead of reporting a result later.
    async fn connect(&self, values: Values, prefix: &str) -> Result<Store, Failure> {
        let ClientOptions { endpoints, timeout, .. } = &self.client;
        let Some(peer) = self.against else { return Ok(Store::ringfort(endpoints, *timeout, values).await?) };
        let store = Store::peer(peer, endpoints, *timeout, values)?;
        let answered = store.session().call(&Bytes::from(format!("{prefix}none")), Request::Get).await;
        if let Err(failed) = answered {
            let (name, endpoints) = (store.name(), endpoints.join(","));
            return Err(StoreError::NoAnswer { name, endpoints, message: failed.message }.into());
        }
        Ok(store)
    }

    /// The run itself, until its time is over or a signal arrives, and the check of all histories.
    async fn verify(&self, store: &Store, prefix: &str) -> Result<(Report, Judged), Failure> {
        let (judge, histories_tx) = Judge::start();
        let workload = Workload::start(store.clone(), prefix.to_owned(), self.clients, self.rate, &histories_tx);
        drop(histories_tx);
        let (begun, run) = (Instant::now(), workload.run.clone());
        interrupted_by_signals(self.wait(&run, &judge)).await?;
        let duration = begun.elapsed();
        let prefix = prefix.to_owned();
        let progress = Progress::new();
        let stopped = async {
            tokio::select! {
                () = workload.stop() => {}
                () = tell_what_is_unread(&run, &progress) => {}
            }
        };
        let stopped = interrupted_by_signals(stopped).await?;
        progress.end();
        if stopped.is_none() {
            return Err(VerifyError::Interrupted { prefix }.into());
        }
        let judged = tokio::task::spawn_blocking(|| judge.finish()).await.expect("judging does not panic");
        let (store, endpoints, clients) = (store.name(), self.client.endpoints.clone(), self.clients);
        let asked = Asked { store, endpoints, clients, key_prefix: prefix, duration };
        let report = Report::new(asked, &run.tally.counts(), &judged, Instant::now());
        Ok((report, judged))
    }

    /// Waits until the duration is over, and shows progress.
    async fn wait(&self, run: &Run, judge: &Judge) {
        let begun = Instant::now();
        let progress = Progress::new();
        progress.begin("verifying", self.duration.as_millis() as u64);
        let is_terminal = io::stderr().is_terminal();
        let interval = if is_terminal { PROGRESS_INTERVAL } else { PLAIN_INTERVAL };
        let mut answered_before = 0;
        while let Some(left) = self.duration.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(interval)).await;
            let (answered, failed) = {
                let counts = run.tally.counts();
                (counts.answered(), counts.failures.total())
            };
            let rate = (answered - answered_before) as f64 / left.min(interval).as_secs_f64();
            answered_before = answered;
            let judged = judge.so_far();
            let checked = counted(judged.keys as usize, "key");
            let mut note = format!("{rate:.0}/s, {failed} failed, {checked} checked");
            if judged.not_linearizable > 0 {
                note += &format!(", {} NOT LINEARIZABLE", judged.not_linearizable);
            }
            match is_terminal {
                true => progress.set(begun.elapsed().as_millis() as u64, note),
                false => eprintln!("after {:.0} s: {answered} answered, {note}", begun.elapsed().as_secs_f64()),
            }
        }
        progress.end();
    }

    /// Writes the page of a violation, if there is one, and returns where it is.
    fn write_page(&self, report: &Report, judged: &Judged, values: Values) -> Result<Option<String>, VerifyError> {
        let (Some((_, violation)), Some(summary)) = (&judged.smallest, &report.violation) else { return Ok(None) };
        let by_default = || PathBuf::from(format!("ringfort-verify-{:08x}.html", values.run));
        let file = self.html.clone().unwrap_or_else(by_default);
        let path = file.display().to_string();
        match fs::write(&file, page(&report.sentence(), &summary.key, violation)) {
            Ok(()) => Ok(Some(path)),
            Err(source) => Err(VerifyError::Page { path, source }),
        }
    }
}

/// Fails now if the page of a violation could not be written after the run. Changes no file, and leaves no new one.
fn check_writable(file: &Path) -> Result<(), VerifyError> {
    let is_new = !file.exists();
    let opened = OpenOptions::new().create(true).append(true).open(file);
    opened
        .and_then(|_| if is_new { fs::remove_file(file) } else { Ok(()) })
        .map_err(|source| VerifyError::Page { path: file.display().to_string(), source })
}

/// Shows how many keys must still be read a last time, which takes many seconds if the cluster does not answer. Never
/// returns.
async fn tell_what_is_unread(run: &Run, progress: &Progress) {
    let all = run.unread().max(1);
    progress.begin("last reads", all);
    let is_terminal = io::stderr().is_terminal();
    loop {
        tokio::time::sleep(if is_terminal { PROGRESS_INTERVAL } else { PLAIN_INTERVAL }).await;
        let unread = run.unread();
        let left = counted(unread as usize, "key");
        match is_terminal {
            true => progress.set(all.saturating_sub(unread), format!("{left} left")),
            false => eprintln!("reading each key a last time: {left} left"),
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
        verify: Verify,
    }

    fn parsed(args: &str) -> Result<Verify, clap::Error> {
        Line::try_parse_from(format!("verify {args}").split_whitespace()).map(|line| line.verify)
    }

    #[test]
    fn a_page_that_could_not_be_written_is_refused_before_the_run() {
        let directory = tempfile::tempdir().unwrap();
        let verify = parsed(&format!("--endpoints 127.0.0.1:1 --html {}", directory.path().display())).unwrap();
        let told = verify.run().unwrap_err().to_string();
        assert!(told.starts_with(&format!("can't write {}: ", directory.path().display())), "{told}");
        let file = directory.path().join("page.html");
        check_writable(&file).unwrap();
        assert!(!file.exists());
        fs::write(&file, "kept").unwrap();
        check_writable(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn options_have_defaults_and_bounds() {
        let verify = parsed("").unwrap();
        assert_eq!((verify.duration, verify.rate, verify.clients), (Duration::from_secs(60), 500, 24));
        assert_eq!((verify.against, verify.html), (None, None));
        let verify = parsed("--against redis --duration 2m --html x.html").unwrap();
        assert_eq!((verify.against, verify.duration), (Some(Peer::Redis), Duration::from_secs(120)));
        for bad in ["--rate 0", "--clients 1", "--clients 10001", "--against mysql", "--duration 0s"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
