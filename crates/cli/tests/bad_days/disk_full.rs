//! No space for the log: writes are refused within their deadlines, reads continue, and writes continue once there is
//! space again.

use crate::support::small_disk::{DISK_BYTES, SmallDisk};
use crate::support::{Cluster, PATIENCE};
use crate::{SMALL, skip};
use ringfort_client::{Client, Error};
use std::time::{Duration, Instant};

const VALUE_BYTES: usize = 64 << 10;

fn value(number: usize) -> Vec<u8> {
    let mut value = vec![b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&(number as u64).to_le_bytes());
    value
}

async fn assert_has(client: &Client, acknowledged: &[usize]) {
    for &number in acknowledged {
        let found = client.get(format!("k{number}")).await.unwrap();
        assert!(found.is_some_and(|found| found.value == value(number)), "k{number} was acknowledged and is not there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_writes_but_not_reads_and_loses_nothing() {
    let mut cluster = Cluster::prepare(1, &SMALL);
    let Some(disk) = SmallDisk::mount(&cluster.nodes[0].directory) else {
        return skip("a small disk can't be mounted here");
    };
    std::fs::write(disk.ballast(), vec![1; 12 << 20]).unwrap();
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    let client = cluster.client().with_timeout(Duration::from_secs(1));

    let mut acknowledged = Vec::new();
    let mut unknown = 0;
    let mut refused = 0;
    for number in 0.. {
        let begun = Instant::now();
        match client.put(format!("k{number}"), value(number)).await {
            Ok(_) => {
                assert_eq!(refused, 0, "there is no space yet");
                acknowledged.push(number);
            }
            // Writes that were proposed before the log found the disk full.
            Err(Error::UnknownOutcome(_)) => {
                unknown += 1;
                assert!(unknown < 10, "writes are taken in that can't be logged");
            }
            Err(error @ Error::Overloaded(_)) => {
                assert!(
                    error.to_string().contains("the request was not executed: the disk of node1 is full"),
                    "{error}"
                );
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        if refused == 10 {
            break;
        }
        assert!(number < 1000, "the disk is larger than it should be");
    }
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    assert!(matches!(client.delete("k0").await, Err(Error::Overloaded(_))), "a delete must be logged, too");
    assert_has(&client, &acknowledged).await;
    assert!(cluster.nodes[0].runs());

    disk.free();
    let begun = Instant::now();
    while client.put("after", "v").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "no writes though there is space");
    }
    assert_has(&client, &acknowledged).await;
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    assert_has(&client, &acknowledged).await;
    assert!(client.get("after").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_full_disk_of_three_does_not_stop_the_cluster() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    let Some(disk) = SmallDisk::mount(&cluster.nodes[0].directory) else {
        return skip("a small disk can't be mounted here");
    };
    cluster.nodes.iter_mut().for_each(|node| node.start());
    cluster.wait_until_complete(3);
    let client = cluster.client();
    disk.fill();
    let begun = Instant::now();
    let mut acknowledged = Vec::new();
    let mut longest = Duration::ZERO;
    for number in 0..200 {
        let put = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "the cluster has stopped at {number}");
            match client.put(format!("k{number}"), value(number)).await {
                Ok(_) => break acknowledged.push(number),
                Err(Error::UnknownOutcome(_)) => break,
                Err(Error::Overloaded(_) | Error::Unavailable { .. }) => {
                    tokio::time::sleep(Duration::from_millis(20)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
        longest = longest.max(put.elapsed());
    }
    println!("{} of 200 in {:?}, the longest {longest:?}", acknowledged.len(), begun.elapsed());
    assert!(acknowledged.len() >= 190, "{}", acknowledged.len());
    cluster.nodes[0].wait_for_log("no space for the log");
    disk.free();
    cluster.wait_until_complete(3);
    cluster.nodes[1].kill();
    assert_has(&client, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_waits_for_space_and_nobody_waits_for_it() {
    let mut cluster = Cluster::prepare(2, &SMALL);
    let Some(disk) = SmallDisk::mount(&cluster.nodes[1].directory) else {
        return skip("a small disk can't be mounted here");
    };
    cluster.nodes[0].start();
    cluster.wait_until_complete(1);
    let client = cluster.client();
    let written: Vec<usize> = (0..100).collect();
    for &number in &written {
        client.put(format!("k{number}"), value(number)).await.unwrap();
    }
    // Enough space for the node to start, but not for the 6 MiB of data.
    std::fs::write(disk.ballast(), vec![1; (DISK_BYTES - (5 << 20)) as usize]).unwrap();
    cluster.nodes[1].start();
    cluster.wait_for_status("node2 is a member", |status| status["nodes"].as_array().is_some_and(|all| all.len() == 2));
    let status = cluster.wait_for_status("a replica is on its way", |status| status["moves"]["left"] != 0);
    assert_eq!(status["healthy"], false);
    assert_has(&client, &written).await;
    client.put("k0", value(0)).await.unwrap();
    disk.free();
    cluster.wait_until_complete(2);
    assert_has(&client, &written).await;
}
