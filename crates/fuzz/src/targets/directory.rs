//! A node's directory at its start ([`ringfort_core::boot`]): its owner, the topology, the log with entries of the
//! shards and of the eventual keyspace, and snapshots.
//!
//! Whatever is there, a node starts from it or reports why it can't. What one start has written, the next one finds.

use super::{gossip, log, snapshot, system};
use crate::allocation::{Bound, SMALL_THINGS, within};
use crate::source::Source;
use bytes::Bytes;
use ringfort_core::boot::{self, Owner};
use ringfort_core::disk::Disk;
use ringfort_core::disk::mem::MemDisk;
use ringfort_core::eventual::journal;
use ringfort_core::log::item::{Change, LogItem};
use ringfort_core::types::{Identity, ReplicaId, ShardId};
use std::sync::Arc;

/// The log, the topology, and the keyspace that is built from the log's entries.
const BOUND: Bound = Bound { fixed: 4 * SMALL_THINGS, per_byte: 4 }
    .and(log::BOUND)
    .and(system::TOPOLOGY_BOUND)
    .and(gossip::KEYSPACE_BOUND);

fn start(disk: &Arc<MemDisk>) {
    let bytes = disk.used_bytes() as usize;
    within(BOUND, bytes, || {
        let _ = (boot::departure(&**disk), boot::owner(&**disk), boot::contacts(&**disk));
        let _ = boot::open(disk, log::config());
    });
}

/// Files with contents from the source, under correct checksums.
fn put_files(disk: &MemDisk, source: &mut Source) {
    for name in ["identity", "topology", "departed", "contacts"] {
        let content = match source.below(4) {
            0 => continue,
            1 => source.bytes(),
            _ => {
                let mut content = match name {
                    "topology" => system::topology(source).encode().to_vec(),
                    _ => [&source.number().to_le_bytes()[..], &source.bytes()].concat(),
                };
                source.damage(&mut content);
                content.into()
            }
        };
        let bytes = [&crc32c::crc32c(&content).to_le_bytes()[..], &content].concat();
        disk.create(name).expect("the disk has space");
        disk.write_at(name, 0, &bytes).expect("the disk has space");
    }
}

/// Log items of the eventual keyspace and of a shard, each possibly damaged.
fn items(source: &mut Source) -> Vec<LogItem> {
    let mut journal = journal::recover(None).expect("nothing is damaged").journal;
    let recovered = journal::recover(None).expect("nothing is damaged");
    let own = source.option(gossip::origin);
    let mut items = vec![journal.state(&recovered.keyspace, own, recovered.clock)];
    let parts = source.list(gossip::part);
    if !parts.is_empty() {
        items.push(journal.parts(parts.iter(), own));
    }
    for item in &mut items {
        let entries = match &mut item.change {
            Change::State(state) => &mut state.entries,
            Change::Entries(entries) => entries,
            _ => continue,
        };
        for entry in entries.iter_mut() {
            let mut data = entry.data.to_vec();
            if source.flag() {
                source.damage(&mut data);
            }
            entry.data = data.into();
        }
    }
    if source.flag() {
        items.clear();
        let change = if source.flag() { Change::Removed } else { Change::State(Box::new(log::state(source))) };
        items.push(LogItem { shard: ShardId::EVENTUAL, replica: ReplicaId(source.number()), change });
    }
    let (shard, replica) = (ShardId([0, u32::MAX][source.below(2)]), system::replica(source));
    let mut state = log::state(source);
    if source.flag() {
        state.base.snapshot = snapshot::NAME.to_owned();
    }
    items.push(LogItem { shard, replica, change: Change::State(Box::new(state)) });
    items
}

/// Checks the files that a node writes about itself.
fn check_written(source: &mut Source) {
    let disk = Arc::new(MemDisk::new());
    let owner = Owner { identity: Identity(source.number().into()), name: source.text(255) };
    let (topology, state) = (system::topology(source), system::member_state(source));
    boot::set_owner(&*disk, &owner).expect("the disk has space");
    boot::save_topology(&*disk, &topology).expect("the disk has space");
    let boot = boot::open(&disk, log::config()).expect("nothing is damaged");
    assert_eq!((boot.owner, boot.topology), (Some(owner), Some(topology)));
    boot::set_departure(&*disk, state).expect("the disk has space");
    assert_eq!(boot::departure(&*disk).expect("nothing is damaged"), Some(state));
    boot::clear(&*disk).expect("nothing is damaged");
    boot::contacts(&*disk).expect("nothing is damaged");
}

/// Checks that if the owner of a directory can be read, it can be written back and read again.
fn check_owner(disk: &MemDisk) {
    if let Ok(Some(owner)) = boot::owner(disk) {
        boot::set_owner(disk, &owner).expect("the disk has space");
        assert_eq!(boot::owner(disk).ok().flatten(), Some(owner));
    }
}

pub fn body(data: &[u8]) {
    let mut source = Source::new(data);
    check_written(&mut source);
    let items = items(&mut source);
    let mut segment = log::first_segment(&log::written(&[&items]));
    let mut end = Source::end_of(data);
    if end.flag() {
        segment = log::damaged_items(&segment, &mut end);
    }
    let disk = log::disk_with(&segment);
    put_files(&disk, &mut source);
    if source.flag() {
        snapshot::put_file(&disk, &snapshot::mended(&mut source));
    }
    check_owner(&disk);
    start(&disk);
    start(&disk);
}

/// Any input is valid: it is only used as decisions.
pub fn seed(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(data)
}
