//! A byte that changes in the memory of a running node: the node finds it, stops serving the shard, and gets the shard
//! from the others.

use crate::support::{Cluster, Node, list};
use crate::{SMALL, skip};
use serde_json::Value;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

const KEY: &str = "the key whose value is damaged";

/// Memory is searched in pieces of this size, which overlap by a value.
const PIECE_BYTES: usize = 1 << 20;

/// The key's entry as stored in the node's map: its value after the last of the entry's numbers, which is zero after
/// one put. In the log, the value follows its length instead.
fn in_map() -> Vec<u8> {
    [b"\0", value().as_bytes()].concat()
}

fn value() -> String {
    (0..40).map(|number| format!("recognizable {number:02};")).collect()
}

/// Flips a bit of each copy of the map's entry in the memory of a node. Returns how many copies there were.
fn flip_in_memory(node: &Node) -> io::Result<usize> {
    let id = node.process_id();
    let memory = File::options().read(true).write(true).open(format!("/proc/{id}/mem"))?;
    let wanted = in_map();
    let mut flipped = 0;
    for line in fs::read_to_string(format!("/proc/{id}/maps"))?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, access) = (fields.next().unwrap(), fields.next().unwrap());
        if !access.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut piece = vec![0; PIECE_BYTES + wanted.len()];
        while at < end {
            let length = piece.len().min((end - at) as usize);
            // Some mappings can't be read.
            let Ok(read) = memory.read_at(&mut piece[..length], at) else { break };
            if read == 0 {
                break;
            }
            for found in piece[..read].windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted) {
                let middle = found.0 + wanted.len() / 2;
                if found.0 < PIECE_BYTES {
                    memory.write_all_at(&[piece[middle] ^ 0x10], at + middle as u64)?;
                    flipped += 1;
                }
            }
            at += read.min(PIECE_BYTES) as u64;
        }
    }
    Ok(flipped)
}

/// The shard that `status` says has damaged memory, and its replica on node 2.
fn damaged(status: &Value) -> Option<(Value, u64)> {
    list(status, "shards").iter().find_map(|shard| {
        let member = list(shard, "members").iter().find(|member| member["quarantine"] == "memory")?;
        Some((shard["shard"].clone(), member["replica"].as_u64()?))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_changes_in_memory_is_found_and_its_replica_made_anew() {
    let cluster = Cluster::start_with(3, &SMALL);
    cluster.wait_until_complete(3);
    let client = cluster.client();
    client.put(KEY, value()).await.unwrap();
    // Keep the alarm visible: while paused, nothing is replaced.
    cluster.prints(&["cluster", "pause"]);
    match flip_in_memory(&cluster.nodes[1]) {
        Ok(0) => panic!("the value is nowhere in the memory of node2"),
        Ok(copies) => println!("flipped a bit in {copies} copies"),
        Err(error) => return skip(&format!("another process's memory can't be changed here: {error}")),
    }
    let status = cluster.wait_for_status("the alarm", |status| damaged(status).is_some());
    let summary = status["summary"].as_str().unwrap();
    assert!(summary.contains("on node2 is damaged, so the cluster replaces that replica"), "{summary}");
    assert_eq!(status["healthy"], false);
    let (shard, replica) = damaged(&status).unwrap();
    cluster.nodes[1].wait_for_log("its memory differs from what was written to it");
    let from_each = || {
        cluster
            .endpoints()
            .into_iter()
            .flat_map(|endpoint| [vec![], vec!["--stale"]].map(|flags| (endpoint.clone(), flags)))
    };
    let read_everywhere = || {
        for (endpoint, flags) in from_each() {
            let arguments = [&["get", KEY, "--endpoints", &endpoint][..], &flags].concat();
            let read = cluster.prints(&arguments);
            assert_eq!(read.trim_end(), value(), "{arguments:?}");
        }
    };
    read_everywhere();
    cluster.prints(&["cluster", "resume"]);
    let status = cluster.wait_until_complete(3);
    let shards = list(&status, "shards").iter();
    let again = shards.filter(|known| known["shard"] == shard).flat_map(|known| list(known, "members"));
    let renewed = again.filter_map(|member| member["replica"].as_u64()).filter(|now| now >> 32 == replica >> 32);
    assert!(renewed.clone().all(|now| now > replica) && renewed.count() == 1, "replica {replica}: {status}");
    read_everywhere();
}
