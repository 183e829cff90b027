//! Wall clocks that step by ten seconds, on nodes that stand still at that moment: nobody may take the time of day for a
//! measure of how long it was away.

use crate::support::Cluster;
use crate::support::verifying::Verifying;
use crate::support::wall_clock::WallClock;
use crate::{SMALL, skip};
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::sleep;

/// Longer than the others need to find new leaders.
const STILL: Duration = Duration::from_millis(1200);

const STEP_SECONDS: i32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn wall_clocks_that_step_make_no_read_stale() {
    let Some(clock) = WallClock::find() else { return skip("faketime is not installed") };
    let mut cluster = Cluster::prepare(3, &SMALL);
    for node in &mut cluster.nodes {
        clock.set(node, 0);
        let program = clock.program(node);
        node.start_by(program);
    }
    cluster.wait_until_complete(3);
    let verifying = Verifying::start(&cluster.endpoints().join(","));
    for round in 0..6 {
        // Back and forth, so that in the end the clocks are twenty seconds apart.
        let seconds = if round % 2 == 0 { -STEP_SECONDS } else { STEP_SECONDS };
        let node = &mut cluster.nodes[round % 3];
        sleep(Duration::from_secs(1)).await;
        node.signal(Signal::STOP);
        clock.set(node, seconds);
        sleep(STILL).await;
        node.signal(Signal::CONT);
    }
    let node = &mut cluster.nodes[0];
    node.kill();
    clock.set(node, -STEP_SECONDS);
    let program = clock.program(node);
    node.start_by(program);
    cluster.wait_until_complete(3);
    verifying.finish();
}
