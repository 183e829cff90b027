//! Watches the disk on a thread of its own: the thread that writes the log is blocked in the system call while the disk
//! hangs.
//!
//! The core evaluates the disk ([`ringfort_core::health`]). This thread asks it once a tick, passes the result to
//! gossip, which tells the other nodes and the workers, and ends the process when the disk has not answered for
//! `--disk-timeout`. A node that is stopping does not wait for a hung disk. Nothing here blocks on stderr, which may be
//! on the same disk: the last line is given a bounded time to be written ([`crate::stderr`]).

use crate::admission::AdmissionState;
use crate::clock;
use crate::events::{GossipEvent, Mailbox};
use crate::grpc;
use crate::lifecycle::Lifecycle;
use crate::seldom::Seldom;
use crate::stderr::last_line;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;
use ringfort_core::health::{DiskReport, DiskState, HealthMonitor, NodeHealth};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tonic_health::server::HealthReporter;

static HANGS: Seldom = Seldom::new();

/// What the thread uses of its node.
pub struct DiskWatch {
    /// The time between two looks.
    pub interval: Duration,
    pub gossip: Mailbox<GossipEvent>,
    pub health: Arc<Mutex<HealthMonitor>>,
    pub admission: Arc<AdmissionState>,
    pub lifecycle: Arc<Lifecycle>,
    pub runtime: Handle,
    pub reporter: HealthReporter,
}

impl DiskWatch {
    /// Runs until `stopped` is closed.
    pub fn run(self, stopped: Receiver<()>) {
        let mut said = None;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(self.interval) {
            let report = self.health.lock().look(clock::moment());
            let is_hung = report.health.disk == DiskState::Hung;
            if is_hung && self.lifecycle.is_stopping() {
                stop_without_disk();
            }
            if report.must_end {
                end(report.age);
            }
            self.admission.set_disk_hung(is_hung);
            if said != Some(report.health) {
                self.tell(said, report);
                said = Some(report.health);
            }
            if is_hung && HANGS.due().is_some() {
                tracing::warn!(
                    "the disk has not answered for {:.1} s: this node refuses writes, and leadership moves to other \
                     nodes",
                    report.age.as_secs_f64()
                );
            }
        }
    }

    fn tell(&self, before: Option<NodeHealth>, report: DiskReport) {
        let disk = |health: NodeHealth| health.disk;
        let (was, is) = (before.map_or(DiskState::Healthy, disk), report.health.disk);
        self.gossip.send(GossipEvent::Health(report.health));
        if (was == DiskState::Hung) != (is == DiskState::Hung) && !report.health.is_stopping {
            self.runtime.block_on(grpc::set_health(&self.reporter, is != DiskState::Hung));
        }
        match (was, is) {
            _ if was == is => {}
            (DiskState::Hung, DiskState::Recovering) => {
                tracing::warn!(
                    "the disk answers again: this node leads again when the disk has been healthy for a while"
                )
            }
            (DiskState::Recovering, DiskState::Healthy | DiskState::Slow) => {
                tracing::info!("the disk has been healthy for a while: this node leads again");
            }
            _ => {}
        }
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
        "the disk has not answered for {} s, and this process ends (--disk-timeout). Check the disk, then start the \
         node again: its log is recovered at the start",
        age.as_secs()
    ));
    std::process::abort();
}
