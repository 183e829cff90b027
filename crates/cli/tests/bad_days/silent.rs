//! A node that stops answering without closing its connections: its process is stopped (SIGSTOP), which looks like a
//! machine that swaps or hangs. Clients must not wait for it: the other nodes elect new leaders within a second.

use crate::SMALL;
use crate::support::Cluster;
use ringfort_client::{Client, Consistency, Error};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Clients in a closed loop: each sends its next request after an answer. Every second request is a put; the others are
/// reads at leaders, at any replica, and at any node.
const CLIENTS: usize = 24;

/// The deadline of each put. One that is under way to the node when it stops ends then, and not later.
const PUT_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest that a read may take. It is sent to other nodes long before its deadline, but waits for a new leader:
/// for an election, and until the client and the nodes learn of it.
const READ_LIMIT: Duration = Duration::from_millis(1500);

/// How late a deadline may be met on a busy machine.
const LATENESS: Duration = Duration::from_millis(500);

/// How long throughput may take to recover.
const RECOVERED: Duration = Duration::from_secs(2);

/// How long throughput is measured.
const MEASURED: Duration = Duration::from_secs(2);

/// Clients that send requests until they are stopped.
struct Load {
    begun: Instant,
    stop: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<Done>>>,
    tasks: JoinSet<()>,
}

/// A request that has ended.
struct Done {
    began: Duration,
    ended: Duration,
    is_answered: bool,
    is_put: bool,
}

impl Load {
    fn start(client: &Client) -> Load {
        let (begun, stop, requests) = (Instant::now(), Arc::default(), Arc::default());
        let mut load = Load { begun, stop, requests, tasks: JoinSet::new() };
        for number in 0..CLIENTS {
            let (client, stop, requests) = (client.clone(), load.stop.clone(), load.requests.clone());
            load.tasks.spawn(async move {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (key, began, is_put) = (format!("{number}-{}", turn % 64), begun.elapsed(), turn % 2 == 0);
                    let result = match turn % 8 {
                        1 => client.get_with(key, Consistency::Stale).await.map(drop),
                        3 => client.scan_page(key, "", 1).await.map(drop),
                        5 | 7 => client.get(key).await.map(drop),
                        _ => client.clone().with_timeout(PUT_TIMEOUT).put(key, "value").await.map(drop),
                    };
                    match &result {
                        Ok(()) | Err(Error::UnknownOutcome(_) | Error::Unavailable { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    let is_answered = result.is_ok();
                    requests.lock().unwrap().push(Done { began, ended: begun.elapsed(), is_answered, is_put });
                }
            });
        }
        load
    }

    /// Answers per second, measured from now on.
    async fn throughput(&self) -> f64 {
        let from = self.begun.elapsed();
        sleep(MEASURED).await;
        let to = self.begun.elapsed();
        let requests = self.requests.lock().unwrap();
        let answered = requests.iter().filter(|done| done.is_answered && (from..to).contains(&done.ended)).count();
        answered as f64 / (to - from).as_secs_f64()
    }

    async fn stop(mut self) -> Vec<Done> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

/// Prints the requests that ended in each tenth of a second after the stop.
fn print_course(requests: &[Done], stopped: Duration) {
    for tenth in 0..40 {
        let (from, to) =
            (stopped + Duration::from_millis(100 * tenth), stopped + Duration::from_millis(100 * (tenth + 1)));
        let ended: Vec<_> = requests.iter().filter(|done| (from..to).contains(&done.ended)).collect();
        let answered = ended.iter().filter(|done| done.is_answered).count();
        let longest = |is_put| {
            let took = ended.iter().filter(|done| done.is_put == is_put).map(|done| done.ended - done.began);
            took.max().unwrap_or_default().as_millis()
        };
        let (failed, put, read) = (ended.len() - answered, longest(true), longest(false));
        println!("{:4} ms: {answered} answered, {failed} failed, longest put {put} ms, read {read} ms", 100 * tenth);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_do_not_wait_for_a_node_that_is_silent() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    let client = Client::connect(cluster.endpoints()).unwrap();
    let load = Load::start(&client);
    let with_three = load.throughput().await;
    let stopped = load.begun.elapsed();
    cluster.nodes[0].signal(Signal::STOP);
    sleep(RECOVERED).await;
    let silent = load.throughput().await;
    cluster.nodes[0].kill();
    sleep(RECOVERED).await;
    let dead = load.throughput().await;
    let requests = load.stop().await;
    print_course(&requests, stopped);
    println!("{with_three:.0} answers a second of three nodes, {silent:.0} of two and a silent one, {dead:.0} of two");
    // Only durations and failures are checked: other tests share the machine, so throughput is not reliable.
    for done in &requests {
        let (took, limit) = (done.ended - done.began, if done.is_put { PUT_TIMEOUT } else { READ_LIMIT });
        assert!(took <= limit + LATENESS, "a request took {took:?}; it was a put: {}", done.is_put);
    }
    let silence = stopped..stopped + RECOVERED + MEASURED;
    let failed = |is_put| {
        requests
            .iter()
            .filter(|done| !done.is_answered && done.is_put == is_put && silence.contains(&done.ended))
            .count()
    };
    println!("{} puts and {} gets failed in the silence", failed(true), failed(false));
    assert_eq!(failed(false), 0, "a read can be answered by another node");
    assert!(failed(true) <= CLIENTS, "no put is sent to a node that is known to be silent");
}
