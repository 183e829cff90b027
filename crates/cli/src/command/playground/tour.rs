//! `ringfort playground --tour`: a demonstration of a node that dies, with real processes and real kills.
//!
//! Every step checks what it claims. All keys share the hash tag `{hello}`, so that they are in one shard, and every
//! write needs the leader that is killed.

use super::cluster::Cluster;
use super::screen::Screen;
use crate::command::status::verdict::judge;
use crate::failure::Failure;
use ringfort_client::v1::GetRequest;
use ringfort_client::v1::kv_client::KvClient;
use ringfort_client::{Client, Error};
use ringfort_ring::ShardCount;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// If the whole tour takes longer than this, it has failed.
const TOUR_PATIENCE: Duration = Duration::from_secs(30);

/// If a shard is without service for longer than this after its leader was killed, the tour has failed.
const FAILOVER_PATIENCE: Duration = Duration::from_secs(10);

/// Writes before the kill, and as many after it.
const WRITES: usize = 200;

const KEY: &str = "{hello}";

#[derive(Debug, thiserror::Error)]
enum TourError {
    #[error("the tour took longer than {} s", TOUR_PATIENCE.as_secs())]
    TooLong,
    #[error("{node} returned {found:?} for {key} instead of {expected:?}")]
    WrongValue { node: String, key: String, expected: String, found: Option<String> },
    #[error("acknowledged writes are lost: {0}")]
    Lost(String),
    #[error("no leader of {KEY} is known")]
    NoLeader,
    #[error("{what} did not work again within {} s: {last}", FAILOVER_PATIENCE.as_secs())]
    NoService { what: &'static str, last: Error },
}

pub async fn take(cluster: &mut Cluster, screen: &Screen) -> Result<(), Failure> {
    timeout(TOUR_PATIENCE, tell(cluster, screen)).await.unwrap_or_else(|_| Err(TourError::TooLong.into()))
}

async fn tell(cluster: &mut Cluster, screen: &Screen) -> Result<(), Failure> {
    let begun = Instant::now();
    let status = cluster.wait_until_complete().await?;
    screen.done(&format!("after {}: {}", milliseconds(begun.elapsed()), judge(&status).sentence))?;
    let client = cluster.client()?;

    let begun = Instant::now();
    client.put(KEY, "world").await?;
    screen.done(&format!("put {KEY} world: on the disks of a quorum after {}", milliseconds(begun.elapsed())))?;
    for node in &cluster.nodes {
        expect_at(&node.endpoint, &node.command.name, "world").await?;
    }
    screen.done(&format!("get {KEY}: world, from every node"))?;
    let mut acknowledged = Vec::new();
    for number in 0..WRITES {
        write(&client, number, &mut acknowledged).await?;
    }
    screen.done(&format!("{} more writes acknowledged", acknowledged.len()))?;

    let leader = leader(cluster, &client).await?;
    let name = cluster.nodes[leader].command.name.clone();
    screen.done(&format!("{name} leads the shard of these keys"))?;
    cluster.nodes[leader].process.kill().await;
    screen.done(&format!("kill -9 {}: {name} is dead", cluster.nodes[leader].process.pid()))?;

    let killed = Instant::now();
    let mut number = WRITES;
    let writes = until_served("writing", killed, async || {
        number += 1;
        write(&client, number, &mut acknowledged).await
    });
    let reads = until_served("reading", killed, async || client.get(KEY).await.map(drop));
    let (writes, reads) = tokio::join!(writes, reads);
    let (writes, reads) = (milliseconds(writes?), milliseconds(reads?));
    screen
        .done(&format!("without service for {writes} (writes) and {reads} (reads), until a new leader was elected"))?;
    for number in number + 1..=number + WRITES {
        write(&client, number, &mut acknowledged).await?;
        let (key, value) = entry(number);
        let found = text(client.get(key.clone()).await?.map(|found| found.value.to_vec()));
        if found.as_ref() != Some(&value) {
            return Err(TourError::WrongValue { node: "the cluster".to_owned(), key, expected: value, found }.into());
        }
    }
    screen.done(&format!("{WRITES} writes acknowledged and read without {name}"))?;

    let begun = Instant::now();
    cluster.restart(leader)?;
    screen.done(&format!("{name} started again with the same command: {}", cluster.nodes[leader].command.line()))?;
    let status = cluster.wait_until_complete().await?;
    screen.done(&format!("{name} caught up after {}: {}", milliseconds(begun.elapsed()), judge(&status).sentence))?;

    let mut lost = Vec::new();
    for &number in &acknowledged {
        let (key, value) = entry(number);
        if text(client.get(key.clone()).await?.map(|found| found.value.to_vec())) != Some(value) {
            lost.push(key);
        }
    }
    if !lost.is_empty() {
        return Err(TourError::Lost(lost.join(", ")).into());
    }
    screen.done(&format!("all {} acknowledged writes read back", acknowledged.len()))?;
    Ok(())
}

fn entry(number: usize) -> (String, String) {
    (format!("{KEY}{number}"), format!("value {number}"))
}

/// Writes one key and notes it if the write is acknowledged. One that may have been applied is not repeated.
async fn write(client: &Client, number: usize, acknowledged: &mut Vec<usize>) -> Result<(), Error> {
    let (key, value) = entry(number);
    client.put(key, value).await?;
    acknowledged.push(number);
    Ok(())
}

/// Repeats a call until it succeeds. Returns the time since the node was killed.
async fn until_served(
    what: &'static str,
    killed: Instant,
    mut call: impl AsyncFnMut() -> Result<(), Error>,
) -> Result<Duration, TourError> {
    loop {
        match call().await {
            Ok(()) => return Ok(killed.elapsed()),
            Err(last) if killed.elapsed() > FAILOVER_PATIENCE => return Err(TourError::NoService { what, last }),
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Asks this node itself, which forwards requests for shards that it does not lead.
async fn expect_at(endpoint: &str, node: &str, expected: &str) -> Result<(), Failure> {
    let mut kv = KvClient::connect(format!("http://{endpoint}")).await?;
    let request = GetRequest { key: KEY.into(), ..Default::default() };
    let answer = kv.get(request).await.map_err(Error::Rejected)?.into_inner();
    let found = text(answer.found.then(|| answer.value.to_vec()));
    if found.as_deref() != Some(expected) {
        let (node, key, expected) = (node.to_owned(), KEY.to_owned(), expected.to_owned());
        return Err(TourError::WrongValue { node, key, expected, found }.into());
    }
    Ok(())
}

/// Which of the cluster's nodes leads the tour's shard.
async fn leader(cluster: &Cluster, client: &Client) -> Result<usize, Failure> {
    let shards = ShardCount::new(client.topology().await?.shard_count)?;
    let shard = shards.shard_of_key(KEY.as_bytes());
    let status = client.status().await?;
    let id = status.shards.iter().find(|status| status.shard == shard.0).map(|status| status.leader);
    let leader = status.nodes.iter().find(|node| Some(node.id) == id).ok_or(TourError::NoLeader)?;
    let position = cluster.nodes.iter().position(|node| node.command.name == leader.name);
    Ok(position.ok_or(TourError::NoLeader)?)
}

fn text(bytes: Option<Vec<u8>>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.0} ms", (duration.as_secs_f64() * 1000.0).ceil())
}
