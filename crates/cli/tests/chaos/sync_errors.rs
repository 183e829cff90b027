//! A disk that says that it could not sync: nobody knows then what is on it, so the node ends, and says why. It is never
//! tried again, since a second attempt can succeed without having written what the first one lost.

use crate::support::verifying::Verifying;
use crate::support::{Cluster, Writers, assert_all_there, program};
use crate::{SMALL, skip};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library that makes syncs fail on demand, for LD_PRELOAD. Nothing where there is no C compiler.
fn library(directory: &Path) -> Option<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chaos/failing_sync.c");
    let library = directory.join("failing_sync.so");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]).output();
    let made = made.ok()?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(library)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_to_sync_ends_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let Some(library) = library(directory.path()) else { return skip("there is no C compiler") };
    let mut cluster = Cluster::prepare(3, &SMALL);
    let fails = directory.path().join("fails");
    let failing = || {
        let mut program = program();
        program.env("LD_PRELOAD", &library).env("TEST_SYNC_FAILS_WHILE", &fails);
        program
    };
    cluster.nodes[0].start_by(failing());
    cluster.nodes[1..].iter_mut().for_each(|node| node.start());
    cluster.wait_until_complete(3);
    let client = cluster.client();
    let verifying = Verifying::start(&cluster.endpoints().join(","));
    let writers = Writers::start(&client, "sync");
    writers.wait_for(200).await;

    std::fs::write(&fails, "").unwrap();
    assert_eq!(cluster.nodes[0].ends(), None, "it aborts");
    let log = cluster.nodes[0].log();
    assert!(log.contains("the log cannot go on"), "{log}");
    writers.wait_for(200).await;

    std::fs::remove_file(&fails).unwrap();
    cluster.nodes[0].start_by(failing());
    cluster.wait_until_complete(3);
    verifying.finish();
    let acknowledged = writers.stop().await;
    // What it has must be whole: it is needed for a quorum now.
    cluster.nodes[1].kill();
    assert_all_there(&client, &acknowledged).await;
}
