//! `ringfort playground`: a cluster of real processes on this machine, to try things on.
//!
//! [`cluster`] starts and stops the nodes, [`process`] is one of them, [`tour`] demonstrates a failover, [`chaos`]
//! injects faults, [`screen`] prints. All of it runs on the main thread.

mod chaos;
mod cluster;
mod process;
mod screen;
mod tour;

use super::status::verdict::REPLICATION_FACTOR;
use crate::client_options::Output;
use crate::failure::{Answer, Failure};
use clap::Args;
use cluster::Cluster;
use process::{Logs, program};
use screen::Screen;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

/// Start a cluster on this machine to experiment with
///
/// The nodes are separate processes, on ports 50051, 50052, ... if these are free. Ctrl-C stops them all; they also end
/// if the playground is killed. Their data is in a temporary directory that is removed at the end, unless --dir is
/// given.
#[derive(Args, Debug)]
pub struct Playground {
    /// The number of nodes. Only a cluster of three or more survives the failure of a node.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,

    /// A directory to keep the data in. A playground that is started again with it continues with the same data and
    /// ports.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Show what the nodes log.
    #[arg(long, conflicts_with_all = ["tour", "chaos"])]
    logs: bool,

    /// Demonstrate in a few seconds what happens when a node is killed: write, kill the leader, keep writing, read
    /// everything back.
    #[arg(long, conflicts_with_all = ["nodes", "dir"])]
    tour: bool,

    /// Inject one fault after the other while clients run: kill, pause, cut off and damage nodes, and make their disks
    /// slow or hang. Then report how long service was interrupted, and whether the clients' answers were correct.
    /// Ctrl-C ends the run early. Needs three nodes or more.
    #[arg(long, conflicts_with = "tour")]
    chaos: bool,

    #[command(flatten)]
    options: chaos::ChaosOptions,
}

#[derive(Debug, thiserror::Error)]
#[error("--chaos needs a cluster that survives the failure of a node: give --nodes=3 or more")]
struct TooFew;

impl Playground {
    pub fn run(self) -> Result<Answer, Failure> {
        if self.chaos && self.nodes < 3 {
            return Err(TooFew.into());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let is_silent = self.chaos && self.options.output == Output::Json;
            let screen = Arc::new(if is_silent { Screen::silent() } else { Screen::new() });
            let logs = match (self.tour, self.chaos) {
                (false, false) if self.logs => Logs::Shown,
                (false, false) | (true, _) => Logs::Hidden,
                (_, true) => Logs::InFiles,
            };
            let arguments = |number, directory: &Path| match self.chaos {
                true => chaos::arguments(number, directory),
                false => Vec::new(),
            };
            let count = self.nodes.into();
            let mut cluster = Cluster::start(count, self.dir.clone(), logs, screen.clone(), arguments)?;
            if cluster.nodes.len() > count {
                let kept = nodes(cluster.nodes.len());
                screen
                    .line(&format!("{} holds a cluster of {kept}, and all of them start", cluster.path().display()))?;
            }
            let result = self.use_up(&mut cluster, &screen).await;
            // Whatever happened, leave no process and no temporary directory behind.
            let stopped_well = stop(cluster, &screen).await?;
            Ok(if result? == Answer::Yes && stopped_well { Answer::Yes } else { Answer::No })
        })
    }

    /// Runs what the options ask for on the cluster.
    async fn use_up(&self, cluster: &mut Cluster, screen: &Screen) -> Result<Answer, Failure> {
        if self.chaos {
            // Signals end a chaos run, but not at once.
            return chaos::run(cluster, &self.options, screen).await;
        }
        if !self.tour {
            return interrupted_by_signals(play(cluster, screen)).await?.unwrap_or(Ok(())).map(|()| Answer::Yes);
        }
        match interrupted_by_signals(tour::take(cluster, screen)).await? {
            Some(Ok(())) => Ok(Answer::Yes),
            Some(Err(failure)) => {
                screen.failed(&failure.to_string())?;
                Ok(Answer::No)
            }
            None => Ok(Answer::No),
        }
    }
}

/// Runs until the work is done (its result) or SIGINT, SIGTERM or SIGHUP arrives (`None`).
pub(super) async fn interrupted_by_signals<T>(work: impl Future<Output = T>) -> io::Result<Option<T>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        result = work => Some(result),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hangup.recv() => None,
    })
}

/// Shows what to try, and which nodes end, until all have ended.
async fn play(cluster: &mut Cluster, screen: &Screen) -> Result<(), Failure> {
    let begun = Instant::now();
    cluster.wait_until_complete().await?;
    let serve = if cluster.nodes.len() == 1 { "serves" } else { "serve" };
    screen.done(&format!("{} {serve} after {:.1} s", nodes(cluster.nodes.len()), begun.elapsed().as_secs_f32()))?;
    screen.line(&manual(cluster))?;
    let mut running = cluster.nodes.len();
    while running > 0 {
        let ended = cluster.next_ended().await;
        running -= 1;
        screen.line(&ended.to_string())?;
        let node = cluster.nodes.iter().find(|node| node.command.name == ended.name);
        if let Some(node) = node.filter(|_| !ended.is_removed()) {
            screen.line(&format!("to start {} again: {}", ended.name, node.command.line()))?;
        }
    }
    screen.line("no nodes are left")?;
    Ok(())
}

fn manual(cluster: &Cluster) -> String {
    let program = program();
    let mut text = String::from("\n");
    for node in &cluster.nodes {
        text += &format!("  {}  {}  process {}\n", node.command.name, node.endpoint, node.process.pid());
    }
    let kept = if cluster.is_temporary() { "removed at the end; --dir keeps it" } else { "kept" };
    text += &format!("  data   {} ({kept})\n", cluster.path().display());
    text += "\nTry this in another terminal:\n\n";
    if program != "ringfort" {
        text += &format!("  alias ringfort={program}\n");
    }
    text += &format!("  export RINGFORT_ENDPOINTS={}\n", cluster.endpoints().join(","));
    for command in ["put hello world", "get hello", "status"] {
        text += &format!("  ringfort {command}\n");
    }
    let last = cluster.nodes.last().expect("there is at least one node");
    if cluster.nodes.len() >= REPLICATION_FACTOR {
        text +=
            &format!("  kill -9 {}   # {} dies; put, get and status again\n", last.process.pid(), last.command.name);
        text += &format!("  {}   # {} comes back\n", last.command.line(), last.command.name);
    }
    if let Ok(newcomer) = cluster.newcomer() {
        text += &format!("  {}   # another node joins\n", newcomer.line());
    }
    if cluster.nodes.len() < REPLICATION_FACTOR {
        text +=
            "\nA cluster this small does not survive the failure of a node: let more nodes join, or give --nodes=3.\n";
    }
    text += "\nCtrl-C stops all nodes.\n";
    text
}

/// Stops all nodes. Returns whether they ended cleanly.
async fn stop(cluster: Cluster, screen: &Screen) -> io::Result<bool> {
    // Even if the output's reader is gone, the nodes must be stopped.
    let _ = screen.line("stopping ...");
    let begun = Instant::now();
    let failed = cluster.stop().await;
    match failed {
        0 => screen.done(&format!("all nodes stopped after {:.1} s", begun.elapsed().as_secs_f32()))?,
        _ => screen.failed(&format!("{} did not stop cleanly", nodes(failed)))?,
    }
    Ok(failed == 0)
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}
