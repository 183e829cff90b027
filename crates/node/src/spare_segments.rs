//! Makes the log's next segment ahead of its use, on a thread of its own: filling one takes as long as many syncs.
//!
//! A record that needs the segment waits for it. Meanwhile the health monitor counts each part of the segment that
//! becomes durable as a record of its own. So a slow disk that needs long for a whole segment is not mistaken for a
//! hung one, and a hung disk is noticed as soon as during a record.

use crate::clock;
use crate::threads;
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use ringfort_core::disk::Disk;
use ringfort_core::health::HealthMonitor;
use ringfort_core::log::Log;
use std::io;
use std::sync::Arc;

pub struct SpareSegments {
    disk: Arc<dyn Disk>,
    steps_tx: Sender<Step>,
    steps: Receiver<Step>,
}

/// What the thread that makes a spare segment reports.
enum Step {
    /// Another part is durable.
    Part,
    Done(io::Result<()>),
}

impl SpareSegments {
    pub fn new(disk: Arc<dyn Disk>) -> SpareSegments {
        let (steps_tx, steps) = crossbeam_channel::unbounded();
        SpareSegments { disk, steps_tx, steps }
    }

    /// Has a spare segment made if the log asks for one.
    pub fn make(&self, log: &mut Log<Arc<dyn Disk>>) {
        let Some(request) = log.spare_request() else { return };
        let (disk, steps) = (self.disk.clone(), self.steps_tx.clone());
        let started = threads::spawn("spare-segment", move || {
            // If the node has stopped, the receiver is gone.
            let send = |step| drop(steps.send(step));
            send(Step::Done(disk.preallocate(&request.name, request.size_bytes, &mut || send(Step::Part))));
        });
        if let Err(error) = started {
            log.spare_ready(Err(error));
        }
    }

    /// Tells the log of a spare segment that has been made, and waits for one that a record of this size needs.
    pub fn wait(&self, log: &mut Log<Arc<dyn Disk>>, entry_bytes: u64, health: &Mutex<HealthMonitor>) {
        let take = |log: &mut Log<Arc<dyn Disk>>, step| match step {
            Step::Part => {}
            Step::Done(outcome) => log.spare_ready(outcome),
        };
        self.steps.try_iter().for_each(|step| take(log, step));
        while log.waits_for_spare(entry_bytes) {
            health.lock().record_begun(clock::moment());
            let step = self.steps.recv().expect("this has a sender, too");
            health.lock().record_ended(clock::moment());
            take(log, step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::open;
    use crate::disk::slow::{SlowDisk, monitor, watched};
    use ringfort_core::health::DiskState;
    use ringfort_core::log::LogConfig;
    use ringfort_core::log::item::{Change, LogItem};
    use ringfort_core::timing::Timing;
    use ringfort_core::types::{ReplicaId, ShardId};
    use std::fs;
    use std::thread;
    use std::time::{Duration, Instant};

    const SEGMENT_BYTES: u64 = 1 << 20;

    /// A log that has begun its first segment, on a disk that fails as the file `faults` says.
    struct Scene {
        directory: tempfile::TempDir,
        spares: SpareSegments,
        log: Log<Arc<dyn Disk>>,
        health: Mutex<HealthMonitor>,
    }

    impl Scene {
        fn new(timing: Timing) -> Scene {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("raft")).unwrap();
            let disk = open(&directory.path().join("raft"), Some(&directory.path().join("faults"))).unwrap().0;
            let config = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
            let (mut log, _) = Log::open(disk.clone(), config).unwrap();
            let change = Change::State(Box::default());
            log.append(&[LogItem { shard: ShardId(1), replica: ReplicaId(1), change }]).unwrap();
            log.sync().unwrap();
            Scene { directory, spares: SpareSegments::new(disk), log, health: monitor(timing) }
        }

        fn set_fault(&self, fault: &str) {
            fs::write(self.directory.path().join("faults"), fault).unwrap();
        }
    }

    #[test]
    fn a_disk_that_hangs_while_a_record_waits_for_its_segment_is_noticed_and_recovers() {
        let mut scene = Scene::new(Timing::SHORTEST);
        scene.set_fault("hang");
        scene.spares.make(&mut scene.log);
        thread::scope(|scope| {
            let begun = Instant::now();
            let Scene { spares, log, health, directory } = &mut scene;
            let health = &*health;
            let waiting = scope.spawn(move || spares.wait(log, SEGMENT_BYTES, health));
            let is_hung = || health.lock().look(clock::moment()).health.disk == DiskState::Hung;
            // Much more than the patience of 200 ms: this machine may be busy.
            while !is_hung() && begun.elapsed() < Duration::from_secs(3) {
                thread::sleep(Timing::SHORTEST.tick());
            }
            let was_noticed = is_hung();
            fs::remove_file(directory.path().join("faults")).unwrap();
            waiting.join().unwrap();
            assert!(was_noticed);
        });
        assert!(!scene.log.waits_for_spare(SEGMENT_BYTES));
        assert_eq!(scene.health.lock().look(clock::moment()).health.disk, DiskState::Recovering);
    }

    /// With any timing of the cluster, each part takes less than the patience for a record.
    #[test]
    fn a_segment_that_takes_long_and_makes_progress_is_no_hang() {
        const LARGE_BYTES: u64 = 16 << 20;
        let timing = Timing::SHORTEST;
        let (disk, health): (Arc<dyn Disk>, _) = (Arc::new(SlowDisk::default()), monitor(timing));
        let config = LogConfig { segment_bytes: LARGE_BYTES, ..LogConfig::default() };
        let (mut log, _) = Log::open(disk.clone(), config).unwrap();
        let spares = SpareSegments::new(disk);
        spares.make(&mut log);
        let begun = Instant::now();
        let worst = watched(&health, timing, || spares.wait(&mut log, LARGE_BYTES, &health));
        assert!(begun.elapsed() > 3 * timing.disk_patience(), "it took much longer than a record may");
        assert!(worst <= DiskState::Slow, "{worst:?}");
    }
}
