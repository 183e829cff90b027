//! Entries are timestamped by the wall clock. When it steps backwards, timestamps must not.

use crate::support::wall_clock::WallClock;
use crate::support::{Cluster, came_about, program, text};
use crate::{SMALL, skip};

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_revisions_grow_while_the_wall_clock_steps_back() {
    let Some(clock) = WallClock::find() else { return skip("faketime is not installed") };
    let mut cluster = Cluster::prepare(3, &SMALL);
    for node in &mut cluster.nodes {
        clock.set(node, 0);
        let mut program = program();
        clock.take_effect(&mut program, node);
        node.start_by(program);
    }
    cluster.wait_until_complete(3);
    let client = cluster.client();
    let first = client.put("k", "v").await.unwrap();
    let mut last = (first.version, first.revision);
    // All clocks go back an hour, then one of them another hour, so that leadership changes between different clocks.
    for (offset, stepped) in [(-3600, 0..3), (-7200, 0..1)] {
        for node in &cluster.nodes[stepped] {
            clock.set(node, offset);
        }
        for _ in 0..50 {
            let put = client.put("k", "v").await.unwrap();
            assert_eq!(put.version, last.0 + 1);
            assert!(put.revision > last.1, "{} after {}", put.revision, last.1);
            last = (put.version, put.revision);
        }
    }
    // A node that starts with its clock in the past continues from its latest timestamp.
    cluster.nodes[1].kill();
    assert!(came_about(|| text(&cluster.runs(&["get", "k"]).stdout) == "v"));
    let put = client.put("other", "v").await.unwrap();
    assert_eq!(put.version, 1);
    let found = client.get("k").await.unwrap().unwrap();
    assert_eq!((found.version, found.modify_revision), last);
    // The node saw the steps: it timestamps its log by the same clock.
    let log = cluster.nodes[0].log();
    let hours = |line: &str| line.get(11..13).and_then(|hour| hour.parse::<u32>().ok());
    let first = log.lines().find_map(hours).unwrap();
    let last = log.lines().rev().find_map(hours).unwrap();
    assert!((first + 24 - last) % 24 >= 1, "from {first} to {last} o'clock");
}
