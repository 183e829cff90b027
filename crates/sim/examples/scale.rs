//! What a large cluster costs at rest, and what moves when nodes come and go. See docs/scale.md.
//!
//!     cargo run --release -p ringfort-sim --example scale -- rest|join|death|zone [nodes] [shards] [moves]

use ringfort_sim::cluster::scale::{Moved, Scale, Traffic};
use std::time::Duration;

const SECONDS: u64 = 10;

/// Shorter than in any real cluster, because nothing happens until then.
const REPLACE_AFTER: Duration = Duration::from_secs(30);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let mut number = |otherwise: usize| arguments.next().map_or(otherwise, |text| text.parse().expect("a number"));
    let (nodes, shards, moves) = (number(100), number(1024), number(8));
    let mut scale = Scale::new(nodes, shards as u32, moves, REPLACE_AFTER);
    println!("{nodes} nodes, {shards} shards, {moves} moves at once");
    match &*what {
        "rest" => rest(scale.rest(Duration::from_secs(SECONDS)), nodes as u64),
        "join" => moved("one node joins", scale.join()),
        "death" => moved("one node dies", scale.death()),
        "zone" => moved("a zone of a third of the nodes goes", scale.zone_loss()),
        _ => println!("say rest, join, death or zone"),
    }
}

fn rest(traffic: Traffic, nodes: u64) {
    let each = |count: u64| count as f64 / (nodes * SECONDS) as f64;
    println!("at rest, sent by each node in a second:");
    println!("  {:>8.0} bytes in {:.0} batches", each(traffic.bytes), each(traffic.batches));
    println!("  {:>8.0} messages of Raft, {:.0} of the control plane", each(traffic.raft), each(traffic.control));
}

fn moved(what: &str, moved: Moved) {
    println!("{what}:");
    println!("  {} replicas made anew, {} snapshots sent", moved.replicas, moved.traffic.snapshots);
    println!("  every shard has a leader after {:.1} s", moved.leaders_after.as_secs_f64());
    println!("  moves begin after {:.1} s", moved.begun_after.as_secs_f64());
    println!("  all is settled after {:.1} s", moved.settled_after.as_secs_f64());
    println!("  {:.0} MB sent by all nodes meanwhile, without snapshots", moved.traffic.bytes as f64 / 1e6);
}
