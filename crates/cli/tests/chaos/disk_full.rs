//! A disk that is full for a while, and nodes that are killed meanwhile: writes are then refused or not answered, and
//! no acknowledged write is lost.

use crate::support::small_disk::SmallDisk;
use crate::support::verifying::Verifying;
use crate::support::{Cluster, Node, PATIENCE, Writers, assert_all_there};
use crate::{SMALL, skip};
use ringfort_client::Client;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const ROUNDS: usize = 3;

/// How long one node is dead while another one's disk is full.
const DEAD: Duration = Duration::from_secs(2);

/// Enough to fill a segment of the log with a few writes.
const VALUE_BYTES: usize = 64 << 10;

/// Writes until the node has failed to get another segment for its log this many times in total.
async fn write_until_refused(client: &Client, node: &Node, times: usize) {
    let begun = Instant::now();
    let refused = || node.log().matches("no space for the log").count();
    for number in 0.. {
        if refused() >= times {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "a full disk is not noticed");
        // The outcome of this write does not matter here.
        let _ = client.put(format!("large-{}", number % 20), vec![b'v'; VALUE_BYTES]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_that_is_needed_for_a_quorum_acknowledges_nothing_that_it_does_not_take() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    let Some(disk) = SmallDisk::mount(&cluster.nodes[0].directory) else {
        return skip("a small disk can't be mounted here");
    };
    cluster.nodes.iter_mut().for_each(|node| node.start());
    cluster.wait_until_complete(3);
    let client = cluster.client().with_timeout(Duration::from_secs(1));
    let verifying = Verifying::start(&cluster.endpoints().join(","));
    let writers = Writers::start(&client, "full");
    for round in 0..ROUNDS {
        writers.wait_for(200).await;
        disk.fill();
        write_until_refused(&client, &cluster.nodes[0], round + 1).await;
        writers.wait_for(50).await;
        // Without node2, the node with the full disk is needed for a quorum, and writes that it can't log must not be
        // acknowledged.
        cluster.nodes[1].kill();
        sleep(DEAD).await;
        cluster.nodes[0].kill();
        cluster.nodes[2].kill();
        disk.free();
        // Now only node1 can have the writes made while node2 was dead.
        cluster.nodes[..2].iter_mut().for_each(|node| node.start());
        writers.wait_for(200).await;
        cluster.nodes[2].start();
        cluster.wait_until_complete(3);
    }
    verifying.finish();
    let acknowledged = writers.stop().await;
    assert_all_there(&client, &acknowledged).await;
}
