//! The thread that checks each history when it ends, while the run continues.

use bytes::Bytes;
use ringfort_check::{Operation, Reason, Verdict, Violation, judge};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use tokio::sync::mpsc;

/// For up to this many keys that are not linearizable, the smallest proof is searched for; further ones are only
/// counted.
const VIOLATIONS_SHRUNK: u64 = 20;

/// How many histories may wait to be checked. If there are more, the clients wait.
const QUEUE: usize = 256;

/// A key's whole history.
pub struct History {
    pub key: Bytes,
    pub operations: Vec<Operation>,
    /// Whether the key was read once more after all other operations.
    pub has_last_look: bool,
}

/// What has been judged so far.
#[derive(Clone, Default, Debug)]
pub struct Judged {
    pub keys: u64,
    pub not_linearizable: u64,
    pub undecided: u64,
    /// Keys whose last value could not be read.
    pub without_last_look: u64,
    /// The violation with the fewest operations; those with a specific reason are preferred.
    pub smallest: Option<(Bytes, Violation)>,
}

pub struct Judge {
    judged: Arc<Mutex<Judged>>,
    thread: JoinHandle<()>,
}

impl Judge {
    /// Starts the thread, which ends when all senders are dropped.
    pub fn start() -> (Judge, mpsc::Sender<History>) {
        let (histories_tx, mut histories_rx) = mpsc::channel::<History>(QUEUE);
        let judged = Arc::new(Mutex::new(Judged::default()));
        let results = judged.clone();
        let thread = thread::spawn(move || {
            while let Some(history) = histories_rx.blocking_recv() {
                let verdict = judge(&history.operations);
                let is_shrunk =
                    verdict == Verdict::NotLinearizable && locked(&results).not_linearizable < VIOLATIONS_SHRUNK;
                let violation = is_shrunk.then(|| Violation::of(&history.operations));
                locked(&results).add(history, verdict, violation);
            }
        });
        (Judge { judged, thread }, histories_tx)
    }

    pub fn so_far(&self) -> Judged {
        locked(&self.judged).clone()
    }

    /// Waits for the last history. Blocks.
    pub fn finish(self) -> Judged {
        self.thread.join().expect("judging does not panic");
        locked(&self.judged).clone()
    }
}

impl Judged {
    fn add(&mut self, history: History, verdict: Verdict, violation: Option<Violation>) {
        self.keys += 1;
        self.without_last_look += u64::from(!history.has_last_look);
        self.not_linearizable += u64::from(verdict == Verdict::NotLinearizable);
        self.undecided += u64::from(verdict == Verdict::Undecided);
        if let Some(violation) = violation {
            let rank = |violation: &Violation| (violation.reason == Reason::NoOrder, violation.operations.len());
            if self.smallest.as_ref().is_none_or(|(_, other)| rank(&violation) < rank(other)) {
                self.smallest = Some((history.key, violation));
            }
        }
    }
}

fn locked(judged: &Mutex<Judged>) -> MutexGuard<'_, Judged> {
    judged.lock().expect("no code panics while it holds the results")
}
