//! Bits that flip in the files of a stopped node: damaged data is not trusted, and is fetched from other nodes.

use crate::SMALL;
use crate::support::{Cluster, Node, came_about, list};
use ringfort_client::{Client, Error};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;

const KEYS: usize = 200;

/// The sectors of the log, as `ringfort_core::log` describes them: the first one of a record has this mark in its
/// header.
const SECTOR_BYTES: usize = 512;
const MARK: (usize, &[u8]) = (48, b"RFL1");

/// A byte in the header, and one after it.
const IN_HEADER: usize = 10;
const IN_BODY: usize = 300;

fn files(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let mut files: Vec<PathBuf> = all.filter(named).collect();
    files.sort();
    files
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Where the records of the log begin.
fn records(node: &Node) -> Vec<(PathBuf, usize)> {
    let is_record = |sector: &[u8]| sector[MARK.0..].starts_with(MARK.1);
    let records = files(&node.directory, "log-").into_iter().flat_map(|path| {
        let bytes = std::fs::read(&path).unwrap();
        let sectors = bytes.chunks_exact(SECTOR_BYTES).enumerate();
        let first: Vec<usize> = sectors.filter(|(_, sector)| is_record(sector)).map(|(number, _)| number).collect();
        first.into_iter().map(move |number| (path.clone(), number * SECTOR_BYTES))
    });
    records.collect()
}

/// Flips a bit in one of the last records of the log, but not in the very last one.
fn damage_log(node: &Node, at: usize) {
    let records = records(node);
    let (path, start) = &records[records.len() - 10];
    flip(path, start + at);
}

/// Flips a bit in the middle of every snapshot. Returns the snapshots and their shards.
fn damage_snapshots(node: &Node) -> (Vec<PathBuf>, BTreeSet<String>) {
    let (mut snapshots, mut shards) = (Vec::new(), BTreeSet::new());
    for path in files(&node.directory, "snap-") {
        let middle = std::fs::metadata(&path).unwrap().len() / 2;
        flip(&path, middle as usize);
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".snap") {
            shards.insert(name.split('-').nth(1).unwrap().to_owned());
            snapshots.push(path);
        }
    }
    assert!(shards.len() > 1, "the node has snapshots of {shards:?}");
    (snapshots, shards)
}

#[test]
fn a_node_that_has_lost_its_topology_and_its_log_begins_no_other_cluster() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_until_complete(2);
    let node = &mut cluster.nodes[0];
    node.kill();
    std::fs::remove_file(node.directory.join("topology")).unwrap();
    records(node).iter().for_each(|(path, start)| flip(path, start + IN_BODY));
    node.start();
    assert_eq!(node.ends(), Some(2), "{}", node.log());
    for part in ["has lost the file `topology`", "give --join-addr HOST:PORT of a node of its cluster"] {
        assert!(node.log().contains(part), "{}", node.log());
    }
}

async fn put_keys(client: &Client) {
    for number in 0..KEYS {
        client.put(format!("k{number:03}"), format!("value {number}")).await.unwrap();
    }
}

/// Reads all keys at the same time: reads in an offline shard end at the time limit.
async fn read_keys(client: &Client) -> BTreeMap<usize, Result<Option<String>, Error>> {
    let mut reads = JoinSet::new();
    for number in 0..KEYS {
        let client = client.clone();
        reads.spawn(async move {
            let read = client.get(format!("k{number:03}")).await;
            (number, read.map(|found| found.map(|found| String::from_utf8_lossy(&found.value).into_owned())))
        });
    }
    reads.join_all().await.into_iter().collect()
}

/// The ids of the replicas on a node, by shard.
fn replicas_on(cluster: &Cluster, node: &str) -> BTreeMap<String, u64> {
    let status = cluster.status().unwrap();
    let id = list(&status, "nodes").iter().find(|known| known["name"] == node).expect("it is known")["id"].clone();
    let shards = list(&status, "shards").iter();
    let replicas = shards.filter_map(|shard| {
        let member = list(shard, "members").iter().find(|member| member["node"] == id)?;
        Some((shard["shard"].as_str()?.to_owned(), member["replica"].as_u64()?))
    });
    replicas.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_replicas_are_replaced_from_the_others() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    let client = cluster.client();
    put_keys(&client).await;
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.wait_until_complete(3);
    put_keys(&client).await;

    for what in ["a record's header", "snapshots", "a record"] {
        let before = replicas_on(&cluster, "node2");
        put_keys(&client).await;
        cluster.nodes[1].kill();
        let (mut snapshots, mut damaged) = Default::default();
        match what {
            "a record's header" => damage_log(&cluster.nodes[1], IN_HEADER),
            "snapshots" => (snapshots, damaged) = damage_snapshots(&cluster.nodes[1]),
            _ => damage_log(&cluster.nodes[1], IN_BODY),
        }
        cluster.nodes[1].start();
        let status = cluster.wait_until_complete(3);
        let summary = status["summary"].as_str().unwrap();
        assert!(summary.contains("tolerates 1 node failure; all replicas caught up"), "{what}: {summary}");
        let after = replicas_on(&cluster, "node2");
        let replaced: BTreeSet<String> = before
            .iter()
            .filter(|(shard, replica)| after[*shard] > **replica)
            .map(|(shard, _)| shard.clone())
            .collect();
        assert!(!replaced.is_empty(), "{what}: none of {before:?} was replaced");
        assert!(replaced.is_superset(&damaged), "{what}: of {damaged:?} only {replaced:?} were replaced");
        assert!(after.iter().all(|(shard, replica)| *replica >= before[shard]), "{what}: {after:?}");
        // What is left of the old replicas takes no space any more.
        assert!(came_about(|| !snapshots.iter().any(|path| path.exists())), "{what}: {snapshots:?}");
        assert!(came_about(|| files(&cluster.nodes[1].directory, "lost-").is_empty()), "{what}");
    }
    let log = cluster.nodes[1].log();
    assert!(log.contains("found at the start") && log.contains("can't be trusted: asking for"), "{log}");

    // Node2's data must be complete: it is needed for a quorum now.
    cluster.nodes[0].kill();
    for (number, read) in read_keys(&client).await {
        assert_eq!(read.unwrap(), Some(format!("value {number}")), "k{number:03}");
    }
}

/// Deletes the log's segments and, if `with_extent`, also the file that records their existence.
fn lose_log(node: &Node, with_extent: bool) {
    let segments = files(&node.directory, "log-0");
    assert!(!segments.is_empty());
    let extent = files(&node.directory, "log-extent").into_iter().filter(|_| with_extent);
    segments.into_iter().chain(extent).for_each(|path| std::fs::remove_file(path).unwrap());
}

/// Two nodes have a write and the third does not. If one of the two loses its log and keeps its name, it must not form
/// a quorum with the third, which has never seen the write.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_log_does_not_vote_acknowledged_writes_away() {
    for with_extent in [false, true] {
        let mut cluster = Cluster::start_with(3, &SMALL);
        cluster.nodes[2].kill();
        let client = cluster.client();
        put_keys(&client).await;
        cluster.nodes[0].kill();
        cluster.nodes[1].kill();
        lose_log(&cluster.nodes[1], with_extent);
        cluster.nodes[1].start();
        cluster.nodes[2].start();
        cluster.nodes[1].wait_for_log("can't be trusted: asking for");
        let client = cluster.client().with_timeout(Duration::from_secs(2));
        for (number, read) in read_keys(&client).await {
            assert!(read.is_err(), "k{number:03} is read as {read:?}, while the only node that has it is down");
        }
        cluster.nodes[0].start();
        cluster.wait_until_complete(3);
        for (number, read) in read_keys(&cluster.client()).await {
            assert_eq!(read.unwrap(), Some(format!("value {number}")), "k{number:03}");
        }
    }
}

#[test]
fn a_node_that_has_only_its_identity_left_gets_new_replicas() {
    let mut cluster = Cluster::start_with(3, &SMALL);
    cluster.nodes[1].kill();
    for file in std::fs::read_dir(&cluster.nodes[1].directory).unwrap() {
        let path = file.unwrap().path();
        if !path.ends_with("identity") {
            std::fs::remove_file(path).unwrap();
        }
    }
    cluster.nodes[1].start();
    cluster.nodes[1].wait_for_log("can't be trusted: asking for");
    cluster.wait_until_complete(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_keeps_damaged_shards_offline_and_says_so() {
    for (at, all_are_lost) in [(IN_BODY, false), (IN_HEADER, true)] {
        let mut cluster = Cluster::start_with(1, &SMALL);
        put_keys(&cluster.client()).await;
        cluster.nodes[0].kill();
        damage_log(&cluster.nodes[0], at);
        cluster.nodes[0].start();
        let is_missed = |status: &Value| {
            let summary = status["summary"].as_str().unwrap();
            summary.contains("without a leader or a quorum") && summary.contains("replicas are offline on node1")
        };
        let status = cluster.wait_for_status("the shard is missed", is_missed);
        assert_eq!(status["healthy"], false);
        let client = cluster.client().with_timeout(Duration::from_secs(2));
        let mut unavailable = 0;
        for (number, read) in read_keys(&client).await {
            match read {
                Ok(value) => assert_eq!(value, Some(format!("value {number}")), "k{number:03}"),
                Err(error) => {
                    assert!(matches!(error, Error::Unavailable { .. }), "k{number:03}: {error}");
                    unavailable += 1;
                }
            }
        }
        assert!(unavailable > 0);
        // The state is permanent. Replacing the replica with an empty one would give up data that can still be
        // recovered.
        let status = cluster.status().unwrap();
        assert!(is_missed(&status), "{}", status["summary"]);
        assert_eq!(unavailable == KEYS, all_are_lost, "{unavailable} keys can't be read");
    }
}
