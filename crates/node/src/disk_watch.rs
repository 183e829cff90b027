//! Watches the disk on a thread of its own: the thread that writes the log is blocked in the system call while the disk
//! hangs.
//!
//! The core evaluates the disk ([`ringfort_core::health`]). This thread asks it once a tick, passes the result to
//! gossip, which tells the other nodes and the workers, and ends the process when the disk has not answered for
//! `--disk-timeout`. A node that is stopping does not wait for a hung disk. Nothing here blocks on stderr, which may be
//! on the same disk: the last line is given a bounded time to be written ([`crate::stderr`]).

use crate::clock;
use crate::events::GossipEvent;
use crate::grpc;
use crate::seldom::Seldom;
use crate::shell::Shell;
use crate::stderr::last_line;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use ringfort_core::health::{DiskReport, DiskState, NodeHealth};
use std::sync::Arc;
use std::time::Duration;
use tonic_health::server::HealthReporter;

static HANGS: Seldom = Seldom::new();

/// Runs until `stopped` is closed.
pub fn run(shell: Arc<Shell>, reporter: HealthReporter, stopped: Receiver<()>) {
    let interval = shell.routing.topology().timing.tick();
    let mut said = None;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
        let report = shell.health.lock().look(clock::moment());
        let is_hung = report.health.disk == DiskState::Hung;
        if is_hung && shell.lifecycle.is_stopping() {
            stop_without_disk();
        }
        if report.must_end {
            end(report.age);
        }
        shell.admission.set_disk_hung(is_hung);
        if said != Some(report.health) {
            tell(&shell, &reporter, said, report);
            said = Some(report.health);
        }
        if is_hung && HANGS.due().is_some() {
            tracing::warn!(
                "the disk has not answered for {:.1} s: writes are refused here, and leadership goes to other nodes",
                report.age.as_secs_f64()
            );
        }
    }
}

fn tell(shell: &Shell, reporter: &HealthReporter, before: Option<NodeHealth>, report: DiskReport) {
    let disk = |health: NodeHealth| health.disk;
    let (was, is) = (before.map_or(DiskState::Healthy, disk), report.health.disk);
    shell.gossip.send(GossipEvent::Health(report.health));
    if (was == DiskState::Hung) != (is == DiskState::Hung) && !report.health.is_stopping {
        shell.runtime.block_on(grpc::set_health(reporter, is != DiskState::Hung));
    }
    match (was, is) {
        _ if was == is => {}
        (DiskState::Hung, DiskState::Recovering) => {
            tracing::warn!("the disk answers again: this node leads again when the disk has been healthy for a while")
        }
        (DiskState::Recovering, DiskState::Healthy | DiskState::Slow) => {
            tracing::info!("the disk has been healthy for a while: this node leads again");
        }
        _ => {}
    }
}

/// Ends a process that is stopping. Everything that it acknowledged is on the disk.
pub fn stop_without_disk() -> ! {
    last_line("stopped without waiting for the disk, which does not answer");
    std::process::exit(1);
}

/// Ends the process. An orderly stop is not possible: everything that needs the disk would wait for it.
fn end(age: Duration) -> ! {
    last_line(&format!(
        "the disk has not answered for {} s, and this process ends (--disk-timeout). Check the disk, then start the node \
         again: its log is recovered at the start",
        age.as_secs()
    ));
    std::process::abort();
}
