//! Bad input and failures, with real processes: what must not end a node, and what must be reported.
//!
//! | module | what goes wrong |
//! |---|---|
//! | `beginning` | a cluster that must not be created twice, and ports that are not for clients |
//! | `starting` | directories, ports and clusters that a node can't start with |
//! | `strangers` | requests that are too large, bytes that are not requests, silent connections |
//! | `forwarding` | a node that restarts before its former requests are answered; a node that others can't connect to |
//! | `gone` | no quorum, and clients that leave before they are answered |
//! | `gossip` | gossip that is forged, truncated, too large or from the future |
//! | `silent` | a node that is stopped without closing its connections |
//! | `joining` | join requests that lead nowhere |
//! | `half_sent` | requests whose rest never comes |
//! | `overload` | more requests than can be executed, more data than may be held |
//! | `scans` | many scans of large values at once |
//! | `leaving` | nodes that must not leave, leave while others are down, die in the middle, or come back too late |
//! | `moving` | two nodes join while one leaves; the leader of the system shard dies |
//! | `descriptors` | more connections than there are file descriptors |
//! | `disk_full` | no space for the log |
//! | `hung_disk` | a disk that does not answer |
//! | `full_stderr` | a stderr that is never read |
//! | `rolling_restart` | nodes that are restarted gracefully, one after the other |
//! | `corruption` | bits that flip in files |
//! | `memory` | bits that flip in a node's memory |
//! | `wall_clock` | time that steps backwards |
//!
//! Some tests need root or a tool; without it they report that and pass.

mod beginning;
mod corruption;
mod descriptors;
mod disk_full;
mod election_timeout;
mod forwarding;
mod full_stderr;
mod gone;
mod gossip;
mod half_sent;
mod http2;
mod hung_disk;
mod joining;
mod leaving;
mod memory;
mod moving;
mod overload;
mod rolling_restart;
mod scans;
mod silent;
mod starting;
mod strangers;
#[path = "../cluster/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests of clusters, which need other parts of it")]
mod support;
mod wall_clock;

/// Small clusters: these tests are about nodes, not about numbers.
const SMALL: [&str; 3] = ["--shards=4", "--segment-bytes=1048576", "--workers=1"];

/// Reports why a test can't be run here.
fn skip(why: &str) {
    println!("skipped: {why}");
}
