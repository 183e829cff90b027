//! Clients that write, read and delete without pause, remember each answer, and time the gaps between them.
//!
//! Some clients share each shard: they work on the same key at a time, so that their answers can contradict each other,
//! and move on to the next key after a number of operations that the checker can handle. A client soon gives up on a
//! request and sends another one, so that a hung node delays one request and not the measurement.
//!
//! A shard is **without service** while no write to it is acknowledged. The measurement is the longest stretch between
//! two acknowledgements since a fault began. It includes the clients' own pauses, their timeouts and the detour through
//! a node that knows no leader yet: what a user would see, not what the nodes' logs say.

use super::history::KeyHistory;
use crate::asked::{COUNTERS_ONE_OF, Request};
use crate::random::Random;
use crate::violation::{FIRST_LOOKER, Values};
use bytes::Bytes;
use ringfort_check::{Ending, MAX_OPERATIONS, Operation, Time, Value};
use ringfort_client::{Client, Error, Outcome};
use ringfort_node::Kind as Asked;
use ringfort_ring::{ShardCount, ShardId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Clients of each shard, each with one request at a time.
const CLIENTS: u32 = 3;

/// A client gives up on a request that takes longer. With a longer limit, the measurement would show hung nodes instead
/// of the cluster.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// The pause of a client after an answer.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(30);

/// The share of a kind of request for a key, in percent; the shares add up to 100.
fn share(kind: Asked, is_counter: bool) -> u32 {
    match kind {
        Asked::Put if is_counter => 0,
        Asked::Append if is_counter => 0,
        Asked::Increment if !is_counter => 0,
        Asked::Increment => 55,
        Asked::Put => 30,
        Asked::Append => 25,
        Asked::Get => 35,
        Asked::Delete => 10,
        // A scan reads all shards, so it would not measure any single one.
        Asked::Scan => 0,
    }
}

/// After this many operations on a key, the clients move on to the next one.
const KEY_OPERATIONS: usize = 150;

// In addition there are the operations that were under way, and two reads at the end.
const _: () = assert!(KEY_OPERATIONS + CLIENTS as usize + 2 <= MAX_OPERATIONS);

/// The last reads have more time, because they must be answered.
const FINAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How many last reads run at a time.
const FINAL_READERS: usize = 16;

pub struct Workload {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

struct Shared {
    client: Client,
    values: Values,
    shards: Vec<Mutex<Shard>>,
    begun: Instant,
    is_stopped: AtomicBool,
}

/// The state of one shard's workload.
struct Shard {
    /// A hash tag that maps to the shard.
    tag: String,
    /// The last one is in use.
    keys: Vec<KeyHistory>,
    service: Service,
}

/// The service of a shard since a fault began.
struct Service {
    /// When a write was last acknowledged, or when the fault began if that is later.
    last: Instant,
    longest_gap: Duration,
    /// The latest begin of all acknowledged writes.
    last_begun: Option<Instant>,
}

impl Workload {
    /// Starts the clients on every shard of the cluster. Must be called on a runtime, on which the clients run.
    pub fn start(client: &Client, shards: ShardCount, seed: u64) -> Workload {
        let now = Instant::now();
        let shard = |shard| Shard {
            tag: tag_of(shards, shard),
            keys: Vec::new(),
            service: Service { last: now, longest_gap: Duration::ZERO, last_begun: None },
        };
        let shared = Arc::new(Shared {
            client: client.clone().with_timeout(REQUEST_TIMEOUT),
            values: Values::new(),
            shards: shards.ids().map(|id| Mutex::new(shard(id))).collect(),
            begun: now,
            is_stopped: AtomicBool::new(false),
        });
        let mut clients = JoinSet::new();
        for number in 0..shared.shards.len() as u32 * CLIENTS {
            let random = Random::seeded(seed ^ (u64::from(number) + 1) << 32);
            clients.spawn(run(shared.clone(), (number / CLIENTS) as usize, number, random));
        }
        Workload { shared, clients }
    }

    /// A handle to watch the shards' service.
    pub fn service(&self) -> ServiceWatch {
        ServiceWatch(self.shared.clone())
    }

    /// A fault begins: gaps count from now. Clients move on to new keys, so that each key sees only one fault.
    pub fn begin_fault(&self) {
        let now = Instant::now();
        for shard in &self.shared.shards {
            let mut shard = lock(shard);
            shard.service = Service { last: now, longest_gap: Duration::ZERO, last_begun: None };
            shard.next_key();
        }
    }

    /// The longest time without service of each shard since the fault began.
    pub fn gaps(&self) -> Vec<Duration> {
        let now = Instant::now();
        let gap = |service: &Service| service.longest_gap.max(now.saturating_duration_since(service.last));
        self.shared.shards.iter().map(|shard| gap(&lock(shard).service)).collect()
    }

    /// Whether each shard has acknowledged a write that began after this moment.
    pub fn has_served_since(&self, moment: Instant) -> bool {
        self.shared.shards.iter().all(|shard| lock(shard).service.last_begun.is_some_and(|begun| begun > moment))
    }

    /// Stops the clients, reads every used key once more, and returns the histories.
    ///
    /// # Errors
    /// A key can't be read.
    pub async fn finish(mut self) -> Result<Vec<KeyHistory>, Error> {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        let client = self.shared.client.clone().with_timeout(FINAL_TIMEOUT);
        let values = self.shared.values;
        let begun = self.shared.begun;
        let mut unread: Vec<KeyHistory> =
            self.shared.shards.iter().flat_map(|shard| std::mem::take(&mut lock(shard).keys)).collect();
        let (mut readers, mut read) = (JoinSet::new(), Vec::new());
        loop {
            while readers.len() < FINAL_READERS
                && let Some(mut key) = unread.pop()
            {
                let client = client.clone();
                readers.spawn(async move {
                    let invoked = time_since(begun);
                    let kind = Request::Get.ask(&client, values, key.name.clone().into()).await?;
                    let ending = Ending::Answered(time_since(begun));
                    key.last_read = Some(Operation { client: FIRST_LOOKER, kind, invoked, ending });
                    Ok::<_, Error>(key)
                });
            }
            match readers.join_next().await {
                Some(key) => read.push(key.expect("a reader does not panic")?),
                None => return Ok(read),
            }
        }
    }
}

/// The current service of the shards.
pub struct ServiceWatch(Arc<Shared>);

impl ServiceWatch {
    /// The longest time for which any shard has been waiting for a write to be acknowledged.
    pub fn waiting(&self) -> Duration {
        let waits = self.0.shards.iter().map(|shard| lock(shard).service.last.elapsed());
        waits.max().unwrap_or_default()
    }
}

/// One client, until the work ends.
async fn run(shared: Arc<Shared>, shard: usize, client: u32, mut random: Random) {
    let mut number = 1;
    while !shared.is_stopped.load(Ordering::Relaxed) {
        let (key, name) = lock(&shared.shards[shard]).take_key();
        let (begun, invoked) = (Instant::now(), time_since(shared.begun));
        let share = |kind| share(kind, (key as u64).is_multiple_of(COUNTERS_ONE_OF));
        let asked = Asked::drawn(share, |sum| random.below(sum as usize) as u32);
        let request = Request::new(asked, Value { writer: client, number });
        number += u32::from(request.writes_value());
        let (kind, ending) = match request.ask(&shared.client, shared.values, name).await {
            Ok(kind) => (kind, Ending::Answered(time_since(shared.begun))),
            Err(error) if error.outcome() == Outcome::Unknown => (request.unanswered(), Ending::Unknown),
            Err(_) => (request.unanswered(), Ending::Refused),
        };
        let operation = Operation { client, kind, invoked, ending };
        lock(&shared.shards[shard]).note(key, operation, begun);
        sleep(random.between(LEAST_PAUSE, LONGEST_PAUSE)).await;
    }
}

impl Shard {
    /// The number and the name of the key for the next operation.
    fn take_key(&mut self) -> (usize, Bytes) {
        if self.keys.last().is_none_or(|key| key.begun == KEY_OPERATIONS) {
            self.next_key();
        }
        let number = self.keys.len() - 1;
        let key = &mut self.keys[number];
        key.begun += 1;
        (number, Bytes::from(key.name.clone()))
    }

    /// An operation that began at `begun` has ended.
    fn note(&mut self, key: usize, operation: Operation, begun: Instant) {
        if operation.kind.is_write() && operation.is_answered() {
            self.service.acknowledge(begun, Instant::now());
        }
        self.keys[key].operations.push(operation);
    }

    fn next_key(&mut self) {
        self.keys.push(KeyHistory::new(format!("{{{}}}/{}", self.tag, self.keys.len())));
    }
}

impl Service {
    /// A write that began at `begun` is acknowledged.
    fn acknowledge(&mut self, begun: Instant, now: Instant) {
        self.longest_gap = self.longest_gap.max(now.saturating_duration_since(self.last));
        self.last = now;
        self.last_begun = self.last_begun.max(Some(begun));
    }
}

fn time_since(begun: Instant) -> Time {
    Time(begun.elapsed().as_nanos().try_into().expect("a run takes less than centuries"))
}

/// A hash tag whose keys belong to this shard.
fn tag_of(shards: ShardCount, shard: ShardId) -> String {
    let mut tags = (0..).map(|number| format!("chaos-{number}"));
    tags.find(|tag| shards.shard_of_key(tag.as_bytes()) == shard).expect("some tag is of each shard")
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().expect("no code panics while it holds a shard")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard() -> Shard {
        let service = Service { last: Instant::now(), longest_gap: Duration::ZERO, last_begun: None };
        Shard { tag: "t".to_owned(), keys: Vec::new(), service }
    }

    #[test]
    fn keys_are_left_before_they_are_too_long_to_judge() {
        let mut shard = shard();
        for _ in 0..KEY_OPERATIONS {
            assert_eq!(shard.take_key(), (0, "{t}/0".into()));
        }
        assert_eq!(shard.take_key(), (1, "{t}/1".into()));
        shard.next_key();
        assert_eq!(shard.take_key().0, 2);
    }

    #[test]
    fn a_gap_is_the_longest_time_between_acknowledgements() {
        let mut service = shard().service;
        let start = service.last;
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        service.acknowledge(after(10), after(40));
        service.acknowledge(after(30), after(50));
        assert_eq!((service.longest_gap, service.last), (Duration::from_millis(40), after(50)));
        // A write that began later may be acknowledged before an earlier one.
        service.acknowledge(after(20), after(60));
        assert_eq!(service.last_begun, Some(after(30)));
    }

    #[test]
    fn tags_are_of_their_shards() {
        let shards = ShardCount::new(8).unwrap();
        for shard in shards.ids() {
            let key = format!("{{{}}}/17", tag_of(shards, shard));
            assert_eq!(shards.shard_of_key(key.as_bytes()), shard);
        }
    }
}
