//! A disk that reports a failed sync: its contents are then unknown, so the node ends and says why. The sync is never
//! retried, because a second attempt can succeed without having written what the first one lost.

use crate::SMALL;
use crate::support::verifying::Verifying;
use crate::support::{Cluster, Node, Writers, assert_all_there};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_to_sync_ends_and_the_others_go_on() {
    let mut cluster = Cluster::prepare(3, &SMALL);
    cluster.nodes[0].take_disk_faults();
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_until_complete(3);
    let client = cluster.client();
    let verifying = Verifying::start(&cluster.endpoints().join(","));
    let writers = Writers::start(&client, "sync");
    writers.wait_for(200).await;

    cluster.nodes[0].fail_disk();
    assert_eq!(cluster.nodes[0].ends(), None, "it aborts");
    let log = cluster.nodes[0].log();
    assert!(log.contains("without its log, this node must stop"), "{log}");
    writers.wait_for(200).await;

    cluster.nodes[0].heal_disk();
    cluster.nodes[0].start();
    cluster.wait_until_complete(3);
    verifying.finish();
    let acknowledged = writers.stop().await;
    // The node's data must be complete: it is needed for a quorum now.
    cluster.nodes[1].kill();
    assert_all_there(&client, &acknowledged).await;
}
