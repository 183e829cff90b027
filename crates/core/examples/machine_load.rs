//! What a shard's state machine costs: memory a key, and the speed of what it does.
//!
//!     cargo run --release -p ringfort-core --example machine_load [keys]
//!
//! Linux only: resident memory is read from /proc.

use bytes::Bytes;
use ringfort_core::kv::Put;
use ringfort_core::kv::entry::{Batch, decode};
use ringfort_core::kv::state::{Machine, MachineBuilder, hash};
use ringfort_core::limits::SNAPSHOT_CHUNK_BYTES;
use ringfort_core::time::HlcTimestamp;
use std::hint::black_box;
use std::time::Instant;

const VALUE_BYTES: usize = 128;

fn main() {
    let keys: u64 = std::env::args().nth(1).map_or(1_000_000, |keys| keys.parse().expect("a number of keys"));
    println!("{keys} keys of 16 bytes, values of {VALUE_BYTES} bytes");

    let before = resident_bytes();
    let mut machine = Machine::new();
    timed("puts of new keys, in random order", keys, || put_all(&mut machine, keys, scattered));
    report_memory("after random puts", before, &machine, keys);
    timed("puts of keys that exist", keys, || put_all(&mut machine, keys, scattered));
    report_memory("after overwriting", before, &machine, keys);
    timed("gets", keys, || {
        for n in 0..keys {
            black_box(machine.get(scattered(n).as_bytes()));
        }
    });
    timed("keys hashed again", keys, || assert_eq!(machine.recomputed_hash(), machine.hash()));

    let meta = machine.begin_cut();
    let mut longest_ms = 0.0f64;
    let chunks: Vec<Bytes> = timed("keys cut", keys, || {
        std::iter::from_fn(|| {
            let start = now();
            let chunk = machine.next_chunk(SNAPSHOT_CHUNK_BYTES);
            longest_ms = longest_ms.max(start.elapsed().as_secs_f64() * 1e3);
            chunk
        })
        .collect()
    });
    println!("{longest_ms:>12.2} ms for the slowest chunk");
    let before = resident_bytes();
    let rebuilt = timed("keys built from chunks", keys, || {
        let mut builder = MachineBuilder::new(meta);
        chunks.iter().for_each(|chunk| builder.push_chunk(chunk).expect("a chunk of the cut"));
        builder.finish().expect("all chunks")
    });
    report_memory("built from chunks", before, &rebuilt, keys);

    let before = resident_bytes();
    let mut ordered = Machine::new();
    timed("puts of new keys, in key order", keys, || put_all(&mut ordered, keys, |n| format!("{n:016}")));
    report_memory("after ordered puts", before, &ordered, keys);

    let megabyte = vec![7; 1 << 20];
    timed("MiB hashed", 1000, || {
        for _ in 0..1000 {
            black_box(hash::hash(black_box(&megabyte)));
        }
    });
}

/// Applies puts as they come out of entries of 64 commands.
fn put_all(machine: &mut Machine, keys: u64, key: impl Fn(u64) -> String) {
    for first in (0..keys).step_by(64) {
        let timestamp = HlcTimestamp(first);
        let mut batch = Batch::new(timestamp);
        for n in first..keys.min(first + 64) {
            batch.push(&Put { key: key(n).into(), value: vec![n as u8; VALUE_BYTES].into() }.into());
        }
        for command in decode(batch.finish()).expect("encoded above").commands {
            command.apply(&mut machine.begin(timestamp, &mut |_| {}));
        }
    }
}

/// The n-th of a sequence of distinct keys of 16 bytes without order.
fn scattered(n: u64) -> String {
    format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn timed<T>(what: &str, count: u64, action: impl FnOnce() -> T) -> T {
    let start = now();
    let result = action();
    println!("{:>12.0} {what} a second", count as f64 / start.elapsed().as_secs_f64());
    result
}

/// The clock is this program's own; the crate that it measures has none.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

fn report_memory(when: &str, before: usize, machine: &Machine, keys: u64) {
    let resident = (resident_bytes() - before) as f64 / keys as f64;
    let estimated = machine.bytes() as f64 / keys as f64;
    println!("{resident:>12.1} bytes of resident memory a key {when}; the machine's estimate: {estimated:.1}");
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages: usize = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages");
    pages * 4096
}
