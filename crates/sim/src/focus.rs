//! A focus narrows what a seed sampled to the few faults that a kind of bug needs, and turns off what hides them
//! ([`narrowing`](crate::narrowing)).
//!
//! A run without a focus keeps what was sampled. Some mixes are so rare there that only a focus makes them happen, such
//! as three nodes with slow disks that stall at the same time. A seed's focus is drawn from the seed
//! ([`Focus::of_seed`]), or chosen on the command line (`--focus`). The gate of planted bugs chooses one for each bug.

use crate::random::Random;
use clap::ValueEnum;
use std::fmt;

/// What a run is about. The names on the command line and in tables are those of [`ValueEnum`].
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Focus {
    /// Everything, as sampled
    None,
    /// Partitions that heal when there may be two leaders, and busy clients of two keys that are never deleted. Nothing
    /// else goes wrong
    Partitions,
    /// The same, and reads need a round of messages each
    QuorumReads,
    /// Nodes that hear two groups that do not hear each other, and then restart or stall. Nothing else goes wrong
    Bridges,
    /// Clients put for a few seconds into many shards, then a node finds its disk damaged. Nothing else goes wrong
    Damage,
    /// Leadership is handed over all the time, over links that lose one direction; busy clients of two keys that are
    /// never deleted. Nothing else goes wrong
    HandOvers,
    /// Clusters that begin with one node, which crashes all the time and is slow to sync
    FromOneNode,
    /// Nodes come and go all the time, crash, and do not hear each other
    Moving,
    /// Nodes come and go all the time, while leaders stand still, are not heard and hand over. Nothing else goes wrong
    Removals,
    /// Busy clients of one shard, whose nodes crash so often that they get its snapshots, on disks that are slow to
    /// sync
    Snapshots,
    /// As sampled, and also gray failures: workers that stand still while readers go on, disks that hang, full memory
    Gray,
    /// Three nodes whose disks are slow to sync in turn, while their workers stand still again and again and their
    /// readers go on; in half of the runs also nodes that stall, bridges, flapping links or partitions. Messages are
    /// quick and none is lost
    SlowDisks,
    /// Three nodes that lose power, and whose disks always take as long to sync as an election may. Nothing else goes
    /// wrong
    SlowElections,
    /// One disk after the other hangs for ten seconds under many writes, and then answers again or its node is killed.
    /// Nothing else goes wrong
    HungDisks,
    /// Nodes restart within the time that a request takes, on disks that are slow to sync. Nothing else goes wrong
    Restarts,
    /// A node repeatedly loses all files but its identity, while the disk of another node hangs. Nothing else goes
    /// wrong
    LostDirectories,
}

/// The weight of each focus in runs for which none was chosen: the other focuses only find bugs that the gate plants.
const SHARES: [(u32, Focus); 7] = [
    (10, Focus::None),
    (4, Focus::Gray),
    (2, Focus::SlowDisks),
    (2, Focus::HungDisks),
    (2, Focus::Restarts),
    (1, Focus::SlowElections),
    (1, Focus::LostDirectories),
];

impl Focus {
    /// The focus that is drawn from the seed.
    pub fn of_seed(seed: u64) -> Focus {
        *Random::new(seed).fork("focus").pick_weighted(&SHARES)
    }
}

impl fmt::Display for Focus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no focus is hidden");
        f.write_str(value.get_name())
    }
}
