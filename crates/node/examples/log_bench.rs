//! Prints how many batches and entries a second the log makes durable on the disk of a directory.
//!
//! `cargo run --release -p ringfort-node --example log_bench -- DIR [shards in a batch] [bytes of an entry] [seconds]`

use raft::eraftpb::{Entry, HardState};
use ringfort_core::disk::Disk;
use ringfort_core::limits::LOG_BUDGET_BYTES;
use ringfort_core::log::item::{Base, Change, LogItem, ReplicaState};
use ringfort_core::log::{Log, LogConfig};
use ringfort_core::types::{LogIndex, ReplicaId, ShardId, Term};
use ringfort_node::disk::FileDisk;
use std::error::Error;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("the directory is missing")?;
    let mut number = |otherwise: u64| arguments.next().map_or(Ok(otherwise), |argument| argument.parse());
    let (shards, entry_bytes, seconds) = (number(64)?, number(256)?, number(5)?);

    let (mut log, _) = Log::open(FileDisk::open(&directory)?, LogConfig::default())?;
    let item = |shard: u64, change| LogItem { shard: ShardId(shard as u32), replica: ReplicaId(1), change };
    let state = |shard, index| {
        let base = Base { index: LogIndex(index), term: Term(1), ..Default::default() };
        item(shard, Change::State(Box::new(ReplicaState { base, ..Default::default() })))
    };
    log.append(&(0..shards).map(|shard| state(shard, 1)).collect::<Vec<_>>())?;
    log.sync()?;

    let data = bytes::Bytes::from(vec![b'x'; entry_bytes as usize]);
    let (started, mut batches) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(seconds) {
        let index = 2 + batches;
        let mut batch = Vec::new();
        for shard in 0..shards {
            let entry = Entry { index, term: 1, data: data.clone(), ..Default::default() };
            batch.push(item(shard, Change::Entries(vec![entry])));
            batch.push(item(
                shard,
                Change::HardState(HardState { term: 1, vote: 1, commit: index, ..Default::default() }),
            ));
        }
        log.append(&batch)?;
        log.sync()?;
        batches += 1;
        if log.size_bytes() > LOG_BUDGET_BYTES {
            log.append(&(0..shards).map(|shard| state(shard, index)).collect::<Vec<_>>())?;
            log.sync()?;
        }
        // The bench fills the spare segment on this thread and pays its full cost; a node does so on another thread.
        if let Some(spare) = log.spare_request() {
            log.spare_ready(FileDisk::open(&directory)?.preallocate(&spare.name, spare.size_bytes, &mut || {}));
        }
    }
    let rate = batches as f64 / started.elapsed().as_secs_f64();
    println!(
        "{rate:.0} batches/s, {:.0} entries/s of {entry_bytes} bytes, {shards} shards a batch",
        rate * shards as f64
    );
    Ok(())
}
