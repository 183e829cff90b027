//! `ringfort serve`.

mod options;

use crate::failure::{Answer, Failure};
use options::LogFormat;
pub use options::Serve;
use ringfort_node::Node;
use std::io::IsTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};

impl Serve {
    pub fn run(self) -> Result<Answer, Failure> {
        self.check()?;
        self.log()?;
        if self.is_reachable() {
            tracing::warn!(
                "listening on {} without TLS and authentication (--insecure): whoever reaches the ports may read and \
                 write everything",
                self.listen
            );
        }
        let name = self.node_id.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut signals = runtime.block_on(async { Signals::new() })?;
        let config = self.node_config();
        // The first start of a node that joins may wait for its cluster. Nothing that it does meanwhile must be finished.
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
                runtime.shutdown_background();
                tracing::info!("{received}: stopped before the node had started; started again, it begins anew");
                return Ok(Answer::Yes);
            }
        };
        let (grpc, raft) = (node.grpc_address(), node.raft_address());
        tracing::info!("{name} serves on {grpc}, and nodes on {raft}");
        let failed = node.failed();
        let (received, failure) = runtime.block_on(async {
            tokio::select! {
                received = signals.next() => (received, None),
                failure = failed => ("failure", Some(failure)),
            }
        });
        tracing::info!("{received}: handing over and stopping; a signal now stops at once");
        runtime.spawn(async move {
            signals.next().await;
            std::process::exit(1);
        });
        node.shutdown();
        tracing::info!("stopped");
        failure.map_or(Ok(Answer::Yes), |failure| Err(Failure::from(failure)))
    }

    /// Sends what is logged to stderr.
    fn log(&self) -> Result<(), Failure> {
        let lines = tracing_subscriber::fmt().with_env_filter(self.filter()?).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
            LogFormat::Json => lines.json().flatten_event(true).init(),
        }
        Ok(())
    }
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
