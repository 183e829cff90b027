//! The faults, and the shapes that a partition can have.

use crate::random::Random;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// A kind of fault.
#[derive(ValueEnum, Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// kill -9 of one node, which starts again after a second or two.
    Kill,
    /// kill -9 of a majority of the nodes at once.
    Majority,
    /// kill -9 of all nodes at once.
    All,
    /// SIGSTOP of one node for 0.2 to 2 seconds, then SIGCONT.
    Pause,
    /// A network partition between nodes, in one direction or both.
    Partition,
    /// Messages between nodes arrive late, some of them as if they had been lost and sent again.
    Slow,
    /// A rolling restart: each node in turn is stopped by SIGINT and started again.
    Restart,
    /// kill -9 of one node; a file of its log or its snapshots is damaged before it starts again.
    Corrupt,
    /// Syncs of one node take 100 to 900 milliseconds longer, for 2 to 5 seconds.
    SlowDisk,
    /// Syncs of one node do not return, for 3 to 10 seconds.
    HungDisk,
}

/// The longest that a shard may be without service while one node's disk hangs: every shard has a quorum of nodes with
/// healthy disks.
const HUNG_DISK_PROMISE: Duration = Duration::from_secs(3);

/// Which nodes do not hear which others. All numbers count from 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Partition {
    /// These are cut off from all others.
    Group(Vec<usize>),
    /// Two nodes do not hear each other, and all others hear both.
    Pair(usize, usize),
    /// The second does not hear the first.
    OneWay(usize, usize),
    /// No node hears it, and it hears all others.
    Mute(usize),
    /// It hears no node, and all others hear it.
    Deaf(usize),
    /// No node hears any other.
    Apart,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill -9 of one node",
            Fault::Majority => "kill -9 of a majority",
            Fault::All => "kill -9 of all",
            Fault::Pause => "pause of one node",
            Fault::Partition => "partition",
            Fault::Slow => "slow network",
            Fault::Restart => "rolling restart",
            Fault::Corrupt => "damaged file",
            Fault::SlowDisk => "slow disk of one node",
            Fault::HungDisk => "hung disk of one node",
        }
    }

    /// How long a shard may be without service, if that does not depend on the duration of the fault.
    pub fn promise(self) -> Option<Duration> {
        match self {
            Fault::HungDisk => Some(HUNG_DISK_PROMISE),
            Fault::Kill
            | Fault::Majority
            | Fault::All
            | Fault::Pause
            | Fault::Partition
            | Fault::Slow
            | Fault::Restart
            | Fault::Corrupt
            // A slow disk answers, but perhaps later than clients wait.
            | Fault::SlowDisk => None,
        }
    }
}

impl Partition {
    /// A random shape, each equally likely. Needs at least two nodes.
    pub fn draw(nodes: usize, random: &mut Random) -> Partition {
        let order = random.shuffled(nodes);
        let (one, other) = (order[0], order[1]);
        match random.below(6) {
            0 => {
                let size = 1 + random.below(nodes / 2);
                let mut group = order[..size].to_vec();
                group.sort_unstable();
                Partition::Group(group)
            }
            1 => Partition::Pair(one, other),
            2 => Partition::OneWay(one, other),
            3 => Partition::Mute(one),
            4 => Partition::Deaf(one),
            _ => Partition::Apart,
        }
    }

    /// Whether messages from `from` do not reach `to`.
    pub fn cuts(&self, from: usize, to: usize) -> bool {
        match self {
            Partition::Group(group) => group.contains(&from) != group.contains(&to),
            Partition::Pair(one, other) => (from, to) == (*one, *other) || (to, from) == (*one, *other),
            Partition::OneWay(mute, deaf) => (from, to) == (*mute, *deaf),
            Partition::Mute(node) => from == *node,
            Partition::Deaf(node) => to == *node,
            Partition::Apart => from != to,
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: &usize| format!("node{}", node + 1);
        match self {
            Partition::Group(group) => {
                let names: Vec<String> = group.iter().map(name).collect();
                write!(f, "{} cut off from all others", names.join(" and "))
            }
            Partition::Pair(one, other) => write!(f, "{} and {} do not hear each other", name(one), name(other)),
            Partition::OneWay(mute, deaf) => write!(f, "{} does not hear {}", name(deaf), name(mute)),
            Partition::Mute(node) => write!(f, "no node hears {}", name(node)),
            Partition::Deaf(node) => write!(f, "{} hears no node", name(node)),
            Partition::Apart => f.write_str("no node hears another"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn cut(partition: &Partition, nodes: usize) -> Vec<(usize, usize)> {
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        pairs.filter(|(from, to)| partition.cuts(*from, *to)).collect()
    }

    #[test]
    fn shapes_cut_what_they_say() {
        assert_eq!(cut(&Partition::Group(vec![1]), 3), [(0, 1), (1, 0), (1, 2), (2, 1)]);
        assert_eq!(cut(&Partition::Pair(0, 2), 3), [(0, 2), (2, 0)]);
        assert_eq!(cut(&Partition::OneWay(0, 2), 3), [(0, 2)]);
        assert_eq!(cut(&Partition::Mute(1), 2), [(1, 0), (1, 1)]);
        assert_eq!(cut(&Partition::Deaf(1), 2), [(0, 1), (1, 1)]);
        assert_eq!(cut(&Partition::Apart, 3).len(), 6);
        assert_eq!(Partition::OneWay(0, 2).to_string(), "node3 does not hear node1");
    }

    #[test]
    fn all_shapes_are_drawn_and_each_cuts_something() {
        for nodes in [2, 3, 5] {
            let mut random = Random::seeded(1);
            let drawn: Vec<Partition> = (0..300).map(|_| Partition::draw(nodes, &mut random)).collect();
            let shapes: BTreeSet<_> =
                drawn.iter().map(|shape| format!("{:?}", std::mem::discriminant(shape))).collect();
            assert_eq!(shapes.len(), 6);
            assert!(drawn.iter().all(|shape| cut(shape, nodes).iter().any(|(from, to)| from != to)));
            let largest = drawn.iter().map(|shape| if let Partition::Group(group) = shape { group.len() } else { 0 });
            assert_eq!(largest.max(), Some(nodes / 2));
        }
    }
}
