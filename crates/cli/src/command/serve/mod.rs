//! `ringfort serve`.

mod options;

use crate::failure::{Answer, Failure};
use options::LogFormat;
pub use options::Serve;
use ringfort_node::{MemberState, Node, NodeConfig, stderr};
use std::io::IsTerminal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the log says at the end of a node that the cluster has removed.
pub const DIRECTORY_IS_USELESS: &str = "can be deleted";

impl Serve {
    pub fn run(self) -> Result<Answer, Failure> {
        match self.serve() {
            Ok(answer) => {
                stderr::flush();
                Ok(answer)
            }
            // The caller would write the failure to stderr, and block until stderr is read.
            Err(failure) => {
                stderr::last_line(&failure.to_string());
                std::process::exit(2);
            }
        }
    }

    fn serve(self) -> Result<Answer, Failure> {
        self.check()?;
        self.log()?;
        stderr::report_panics();
        if self.is_reachable() {
            tracing::warn!(
                "listening on {} without TLS and authentication (--insecure): anyone who can reach the ports can read \
                 and write everything",
                self.listen
            );
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut signals = runtime.block_on(async { Signals::new() })?;
        let config = self.node_config();
        loop {
            match run_once(&runtime, signals, config.clone())? {
                Ended::Stopped => return Ok(Answer::Yes),
                Ended::GivenUp(still) => signals = still,
            }
        }
    }

    /// Sends log lines to stderr, without waiting until they are read.
    fn log(&self) -> Result<(), Failure> {
        let lines = tracing_subscriber::fmt().with_env_filter(self.filter()?).with_writer(|| stderr::LogWriter);
        match self.log_format {
            LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
            LogFormat::Json => lines.json().flatten_event(true).init(),
        }
        Ok(())
    }
}

/// How a node ended without a failure.
enum Ended {
    Stopped,
    /// The cluster had declared it dead. After a restart it clears its directory and joins as a new node.
    GivenUp(Signals),
}

/// Runs a node once, from start to end.
fn run_once(runtime: &Runtime, mut signals: Signals, config: NodeConfig) -> Result<Ended, Failure> {
    let (name, directory) = (config.name.clone(), config.directory.display().to_string());
    // The first start of a node that joins may wait for its cluster, and can be aborted at any time.
    let starting = runtime.spawn_blocking(move || Node::start(config));
    let started = runtime.block_on(async {
        tokio::select! {
            started = starting => Ok(started),
            received = signals.next() => Err(received),
        }
    });
    let node = match started {
        Ok(started) => started??,
        Err(received) => {
            tracing::info!("{received}: stopped before the node had started; the next start begins from scratch");
            // The start may wait for ever.
            stderr::flush();
            std::process::exit(0);
        }
    };
    let (grpc, raft) = (node.grpc_address(), node.raft_address());
    tracing::info!("{name} serves clients on {grpc}, and nodes on {raft}");
    let (failed, departed) = (node.failed(), node.departed());
    let end = runtime.block_on(async {
        tokio::select! {
            received = signals.next() => End::Signal(received),
            failure = failed => End::Failure(failure.into()),
            why = departed => End::Departure(why),
        }
    });
    match &end {
        End::Departure(MemberState::Dead) => {
            tracing::warn!(
                "{name} was silent for so long that other nodes took its place: it joins again as a new node"
            );
            node.shutdown();
            return Ok(Ended::GivenUp(signals));
        }
        End::Departure(MemberState::Replaced) => tracing::warn!(
            "another node has joined as {name} with --replace, and has taken its place: stopping; {directory} \
             {DIRECTORY_IS_USELESS}"
        ),
        End::Departure(_) => tracing::info!(
            "{name} has left the cluster, and other nodes hold all its data: stopping; {directory} \
             {DIRECTORY_IS_USELESS}. To join again, start it with an empty --raft-dir and --join-addr"
        ),
        End::Signal(received) => {
            tracing::info!("{received}: handing over leadership and stopping; another signal ends the process at once");
        }
        End::Failure(failure) => {
            tracing::error!("{failure}: handing over leadership and stopping; a signal ends the process at once");
        }
    }
    runtime.spawn(async move {
        signals.next().await;
        stderr::flush();
        std::process::exit(1);
    });
    node.shutdown();
    tracing::info!("stopped");
    match end {
        End::Failure(failure) => Err(failure),
        End::Signal(_) | End::Departure(_) => Ok(Ended::Stopped),
    }
}

/// Why a node's run ends.
enum End {
    Signal(&'static str),
    Failure(Failure),
    Departure(MemberState),
}

/// The signals that stop a node.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
