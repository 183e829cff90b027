//! The clients: what they request, when, and what they record.
//!
//! **Four clients share a key** and send requests at the same beats, so that their operations overlap although the rate
//! is modest: some contradictions show only between racing operations. Others show only without a race: a concurrent
//! put hides the loss of another. So at each beat a client decides at random whether to send a request. A client whose
//! operation takes longer than a beat skips beats; it never has two under way.
//!
//! **A last look.** A write that was acknowledged before a failover and lost in it can't be noticed by requests before
//! the failover. So a key that has had its operations rests for a while, and is then read once more, before it is
//! checked and deleted.
//!
//! Clients continue whatever happens. An operation without an answer stays open to the end of its key's history, unless
//! the store reported that it was not applied.

use super::judge::History;
use super::record::{Keys, Lane, Record};
use super::store::{Failed, Session, Store};
use super::tally::Tally;
use crate::asked::Request;
use crate::random::Random;
use crate::violation::FIRST_LOOKER;
use ringfort_check::{Ending, Kind, Operation, Time, Value};
use ringfort_client::Outcome;
use ringfort_node::Kind as Asked;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

/// How many clients share a key.
pub const CLIENTS_PER_KEY: u32 = 4;

/// A client sends a request at one in this many beats, at random.
const BEATS_PER_OPERATION: u32 = 2;

/// A key rests this long before the last look: longer than most failovers take.
const REST: Duration = Duration::from_secs(5);

/// How many keys may rest. If there are more, the clients wait.
const RESTING: usize = 4096;

/// How many tasks take last looks.
const LOOKERS: u32 = 4;

/// How often the last look is tried, and the pause between attempts.
const LOOKS: u32 = 5;
const PAUSE_BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// The pause after a failed request, however high the rate: without it, servers that refuse would be asked as fast as
/// the machine can.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// What all clients share.
pub struct Run {
    store: Store,
    keys: Keys,
    lanes: Vec<Lane>,
    /// Between two beats.
    period: Duration,
    begun: Instant,
    pub tally: Tally,
    /// Keys that have had their operations but not their last look.
    unread: AtomicU64,
}

/// A key that has had its operations, and since when it rests.
type Resting = (Instant, Arc<Record>);

/// A run under way.
pub struct Workload {
    pub run: Arc<Run>,
    stop_tx: watch::Sender<bool>,
    clients: JoinSet<()>,
    lookers: JoinSet<()>,
    resting_tx: mpsc::Sender<Resting>,
}

impl Workload {
    /// Starts `clients` clients that together send `rate` requests a second. Histories go to `histories_tx`.
    pub fn start(
        store: Store,
        prefix: String,
        clients: u32,
        rate: u32,
        histories_tx: &mpsc::Sender<History>,
    ) -> Workload {
        let lanes = Lane::several(clients.div_ceil(CLIENTS_PER_KEY) as usize);
        let period = Duration::from_secs(1) * clients / rate / BEATS_PER_OPERATION;
        let (keys, begun, tally) =
            (Keys::new(prefix, store.shards(), store.has_counters_and_appends()), Instant::now(), Tally::new());
        let run = Arc::new(Run { store, keys, lanes, period, begun, tally, unread: AtomicU64::new(0) });
        let (resting_tx, resting_rx) = mpsc::channel(RESTING);
        let (stop_tx, stop_rx) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            tasks.spawn(ask(run.clone(), client, resting_tx.clone(), stop_rx.clone()));
        }
        let (mut lookers, resting_rx) = (JoinSet::new(), Arc::new(Mutex::new(resting_rx)));
        for looker in 0..LOOKERS {
            let client = FIRST_LOOKER + looker;
            lookers.spawn(look(run.clone(), client, resting_rx.clone(), histories_tx.clone(), stop_rx.clone()));
        }
        Workload { run, stop_tx, clients: tasks, lookers, resting_tx }
    }

    /// Lets no further operations begin, waits for those under way, and has the last keys checked.
    pub async fn stop(mut self) {
        self.stop_tx.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no client panics");
        }
        for record in self.run.lanes.iter().filter_map(Lane::close) {
            self.run.unread.fetch_add(1, Ordering::Relaxed);
            let sent = self.resting_tx.send((Instant::now(), record)).await;
            sent.expect("the lookers run until all senders are gone");
        }
        drop(self.resting_tx);
        while let Some(ended) = self.lookers.join_next().await {
            ended.expect("no looker panics");
        }
    }
}

impl Run {
    /// How many keys wait for their last look.
    pub fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// Sends one request and counts it. Returns what to record: nothing for a get without an answer.
    async fn operate(
        &self,
        session: &mut Session,
        record: &Record,
        client: u32,
        request: Request,
    ) -> (Option<Operation>, Result<(), Failed>) {
        let shard = self.store.shard_of(&record.key);
        let begun = Instant::now();
        self.tally.begin(shard, request, begun);
        let result = session.call(&record.key, request).await;
        let ended = Instant::now();
        self.tally.end(shard, request, result.as_ref().err(), begun, ended);
        let (kind, ending, result) = match result {
            Ok(kind) => (kind, Some(Ending::Answered(self.time(ended))), Ok(())),
            Err(failed) => {
                let ending = match failed.outcome {
                    _ if !request.is_write() => None,
                    Outcome::NotApplied => Some(Ending::Refused),
                    Outcome::Unknown => Some(Ending::Unknown),
                };
                (request.unanswered(), ending, Err(failed))
            }
        };
        let invoked = self.time(begun);
        (ending.map(|ending| Operation { client, kind, invoked, ending }), result)
    }

    /// The time since the beginning of the run.
    fn time(&self, at: Instant) -> Time {
        Time(at.saturating_duration_since(self.begun).as_nanos() as u64)
    }

    /// The next beat of a lane. Lanes take turns.
    fn next_beat(&self, lane: usize, now: Instant) -> Instant {
        let first = self.begun + self.period * lane as u32 / self.lanes.len() as u32;
        let since = now.saturating_duration_since(first);
        let beats = since.as_nanos() / self.period.as_nanos().max(1) + 1;
        first + Duration::from_nanos((beats * self.period.as_nanos()) as u64)
    }
}

/// What is asked for on a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mix {
    /// Increments, and neither puts nor appends, so that no increment is refused.
    Counter,
    Text,
    /// Puts without appends, for a store that has none.
    PutText,
}

/// The share of a kind of operation on a key, in percent; the shares add up to 100.
fn share(kind: Asked, mix: Mix) -> u32 {
    match (kind, mix) {
        (Asked::Increment, Mix::Counter) | (Asked::Put, Mix::PutText) => 45,
        (Asked::Put, Mix::Text) => 25,
        (Asked::Append, Mix::Text) => 20,
        (Asked::Put | Asked::Increment | Asked::Append, _) => 0,
        (Asked::Get, _) => 35,
        (Asked::Scan, _) => 5,
        (Asked::Delete, _) => 15,
    }
}

/// One client.
async fn ask(run: Arc<Run>, client: u32, resting_tx: mpsc::Sender<Resting>, mut stop_rx: watch::Receiver<bool>) {
    let number = (client % run.lanes.len() as u32) as usize;
    let (mut session, mut random, mut next_value) = (run.store.session(), Random::new(), 1);
    loop {
        tokio::select! {
            () = sleep_until(run.next_beat(number, Instant::now()).into()) => {}
            _ = stop_rx.changed() => return,
        }
        if !random.next().is_multiple_of(u64::from(BEATS_PER_OPERATION)) {
            continue;
        }
        let record = run.lanes[number].begin(&run.keys);
        let mix = match record.is_counter {
            true => Mix::Counter,
            false if run.store.has_counters_and_appends() => Mix::Text,
            false => Mix::PutText,
        };
        let share = |kind| share(kind, mix);
        let asked = Asked::drawn(share, |sum| (random.next() % u64::from(sum)) as u32);
        let request = Request::new(asked, Value { writer: client, number: next_value });
        next_value += u32::from(request.writes_value());
        let (operation, result) = run.operate(&mut session, &record, client, request).await;
        if record.end(operation) {
            run.unread.fetch_add(1, Ordering::Relaxed);
            let sent = resting_tx.send((Instant::now(), record)).await;
            sent.expect("the lookers run until all senders are gone");
        }
        if result.is_err() {
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

/// Takes last looks, and hands the histories on.
async fn look(
    run: Arc<Run>,
    client: u32,
    resting_rx: Arc<Mutex<mpsc::Receiver<Resting>>>,
    histories_tx: mpsc::Sender<History>,
    mut stop_rx: watch::Receiver<bool>,
) {
    let mut session = run.store.session();
    loop {
        let Some((since, record)) = resting_rx.lock().await.recv().await else { return };
        if !*stop_rx.borrow() {
            tokio::select! {
                () = sleep_until((since + REST).into()) => {}
                _ = stop_rx.changed() => {}
            }
        }
        let mut operations = record.take();
        let mut seen = None;
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(PAUSE_BETWEEN_LOOKS).await;
            }
            seen = run.operate(&mut session, &record, client, Request::Get).await.0;
            if seen.is_some() {
                break;
            }
        }
        let has_last_look = seen.is_some();
        let is_there = matches!(&seen, Some(Operation { kind: Kind::Get { found: Some(_) }, .. }));
        operations.extend(seen);
        if is_there {
            // A key that can't be deleted now is found by its prefix at the end.
            let _ = session.call(&record.key, Request::Delete).await;
        }
        let history = History { key: record.key.clone(), operations, has_last_look };
        histories_tx.send(history).await.expect("the judge runs until all senders are gone");
        run.unread.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_asked_for() {
        for kind in Asked::ALL {
            let asked = share(*kind, Mix::Counter) + share(*kind, Mix::Text);
            assert!(asked > 0, "{kind:?} is not asked for, so it is not verified");
        }
        for mix in [Mix::Counter, Mix::Text, Mix::PutText] {
            assert_eq!(Asked::ALL.iter().map(|kind| share(*kind, mix)).sum::<u32>(), 100);
        }
    }
}
