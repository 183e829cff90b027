//! Real faults on real processes.
//!
//! | module | what goes wrong |
//! |---|---|
//! | `playground` | all faults of `ringfort playground --chaos`, for a while, with its own checker |
//! | `sync_errors` | a disk that fails to sync |
//! | `disk_full` | a disk without space, while another node is killed |
//! | `namespaces` | firewalls between network namespaces, which act as separate machines, and wall clocks that step |
//!
//! All but the first run beside `ringfort verify`, which checks the clients' answers. The last two need tools or root;
//! without them they report that and pass.

mod disk_full;
mod namespaces;
mod playground;
#[path = "../cluster/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests of clusters, which need other parts of it")]
mod support;
mod sync_errors;

/// Small clusters: these tests are about faults, not about numbers.
const SMALL: [&str; 3] = ["--shards=4", "--segment-bytes=1048576", "--workers=1"];

/// Reports why a test can't be run here.
fn skip(why: &str) {
    println!("skipped: {why}");
}
