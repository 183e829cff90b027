//! Tests the promises of `place` on clusters that grow and shrink at random and one node at a time.
//!
//! `cargo test --release -p ringfort-ring --test placement -- --nocapture` prints the figures.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use ringfort_ring::{NodeId, Placement, ShardCount, place};
use std::collections::{BTreeMap, BTreeSet};

fn ids(nodes: impl IntoIterator<Item = u64>) -> Vec<NodeId> {
    nodes.into_iter().map(NodeId).collect()
}

fn shard_count(count: u32) -> ShardCount {
    ShardCount::new(count).unwrap()
}

/// A placement that keeps the promises about single placements, with its figures.
struct Checked {
    placement: Placement,
    nodes: Vec<NodeId>,
    /// Replicas per shard: as many as requested, or as there are nodes.
    per_shard: usize,
    replicas: BTreeMap<NodeId, usize>,
    leaders: BTreeMap<NodeId, usize>,
}

impl Checked {
    fn place(nodes: &[NodeId], shards: ShardCount, replicas: usize, previous: &Placement) -> Checked {
        let placement = place(nodes, shards, replicas, previous);
        let per_shard = replicas.min(nodes.len());
        let mut counts = Checked {
            nodes: nodes.to_vec(),
            per_shard,
            replicas: nodes.iter().map(|&node| (node, 0)).collect(),
            leaders: nodes.iter().map(|&node| (node, 0)).collect(),
            placement,
        };
        assert_eq!(counts.placement.iter().len(), shards.get() as usize);
        for (shard, on) in counts.placement.iter() {
            assert_eq!(BTreeSet::from_iter(on).len(), per_shard, "{shard:?} is on {on:?}");
            assert_eq!(on.len(), per_shard, "{shard:?} is on {on:?}");
            *counts.leaders.get_mut(&on[0]).expect("only nodes that are there") += 1;
            for node in on {
                *counts.replicas.get_mut(node).expect("only nodes that are there") += 1;
            }
        }
        for counted in [&counts.replicas, &counts.leaders] {
            let (most, mean) = most_and_mean(counted);
            assert!(most as f64 <= (1.1 * mean - 1e-9).ceil(), "{most} on a node, {mean} on average: {counted:?}");
        }
        counts
    }

    fn again(&self, nodes: &[NodeId], replicas: usize) -> Checked {
        Checked::place(nodes, shard_count(self.placement.iter().len() as u32), replicas, &self.placement)
    }

    fn assert_settled(&self, replicas: usize) {
        let shards = shard_count(self.placement.iter().len() as u32);
        assert_eq!(place(&self.nodes, shards, replicas, &self.placement), self.placement, "it comes back unchanged");
    }
}

fn most_and_mean(counted: &BTreeMap<NodeId, usize>) -> (usize, f64) {
    (*counted.values().max().unwrap(), counted.values().sum::<usize>() as f64 / counted.len() as f64)
}

/// (shard, node) pairs that are in `after` and were not in `before`.
fn moved(before: &Placement, after: &Placement) -> usize {
    after.iter().map(|(shard, on)| on.iter().filter(|node| !before.nodes_of(shard).contains(node)).count()).sum()
}

/// Shards whose leader was not forced to change, since it still has a replica, but did.
fn handovers(before: &Placement, after: &Placement) -> usize {
    after
        .iter()
        .filter(|&(shard, on)| before.preferred_leader(shard).is_some_and(|led| led != on[0] && on.contains(&led)))
        .count()
}

/// One node joins or leaves: what moved, compared with what should.
#[derive(Clone, Copy, Default)]
struct Change {
    moved: usize,
    ideal: f64,
    handovers: usize,
}

impl Change {
    fn of(before: &Checked, after: &Checked) -> Change {
        let ideal = if let Some(joined) = after.nodes.iter().find(|node| !before.nodes.contains(node)) {
            let mean = most_and_mean(&after.replicas).1;
            assert!(after.replicas[joined] >= mean as usize, "who joins gets a share: {:?}", after.replicas);
            mean
        } else {
            let left = before.nodes.iter().find(|node| !after.nodes.contains(node)).expect("a node joined or left");
            before.replicas[left] as f64
        };
        let change = Change {
            moved: moved(&before.placement, &after.placement),
            ideal,
            handovers: handovers(&before.placement, &after.placement),
        };
        assert!(
            change.moved as f64 <= 1.25 * ideal + after.per_shard as f64,
            "{} replicas moved, {ideal} would be ideal, from {:?} to {:?}",
            change.moved,
            before.replicas,
            after.replicas,
        );
        change
    }

    /// The change that moved more in relation to what it should have.
    fn worse(self, other: Change) -> Change {
        if other.ratio() > self.ratio() { other } else { self }
    }

    fn ratio(self) -> f64 {
        if self.ideal == 0.0 { 0.0 } else { self.moved as f64 / self.ideal }
    }
}

#[test]
fn table_of_balance_and_movement() {
    println!("                 most on a node / mean        worst join / ideal     worst leave / ideal  handovers");
    println!("nodes shards       replicas       leaders        (of 3)                 (of all)        join  leave");
    for shards in [64, 256, 1024] {
        for nodes in [1, 2, 3, 4, 5, 6, 8, 10, 13, 20, 33, 50, 75, 100] {
            let members = ids(1..=nodes);
            let before = Checked::place(&members, shard_count(shards), 3, &Placement::default());
            before.assert_settled(3);
            let join = (1..=3).map(|more| {
                let after = before.again(&[&members[..], &ids([nodes + more])].concat(), 3);
                Change::of(&before, &after)
            });
            let leave = members.iter().filter(|_| nodes > 1).step_by(1 + nodes as usize / 12).map(|left| {
                let rest: Vec<NodeId> = members.iter().copied().filter(|node| node != left).collect();
                Change::of(&before, &before.again(&rest, 3))
            });
            let (join, leave) =
                (join.fold(Change::default(), Change::worse), leave.fold(Change::default(), Change::worse));
            let ((replicas, replicas_mean), (leaders, leaders_mean)) =
                (most_and_mean(&before.replicas), most_and_mean(&before.leaders));
            println!(
                "{nodes:>5} {shards:>6} {replicas:>6} / {replicas_mean:>7.2} {leaders:>5} / {leaders_mean:>7.2} \
                 {:>6} / {:>6.1} = {:.2} {:>6} / {:>6.1} = {:.2} {:>5} {:>5}",
                join.moved,
                join.ideal,
                join.ratio(),
                leave.moved,
                leave.ideal,
                leave.ratio(),
                join.handovers,
                leave.handovers,
            );
        }
    }
}

/// A cluster is not placed at once but grows node by node, so imperfections could add up.
#[test]
fn cluster_grows_to_a_hundred_nodes_and_shrinks_to_one() {
    for (shards, replicas) in [(64, 3), (256, 3), (64, 5), (128, 2)] {
        let mut members = ids([1]);
        let mut now = Checked::place(&members, shard_count(shards), replicas, &Placement::default());
        let mut worst = [Change::default(); 2];
        let (mut handovers, mut to_lead, mut uneven) = (0, 0.0, 0);
        for step in 0..198 {
            let grows = step < 99;
            if grows {
                members.push(NodeId(step + 2));
            } else {
                members.remove(step as usize * 7 % members.len());
            }
            let next = now.again(&members, replicas);
            let change = Change::of(&now, &next);
            worst[usize::from(grows)] = worst[usize::from(grows)].worse(change);
            handovers += change.handovers;
            to_lead += if grows { most_and_mean(&next.leaders).1 } else { 0.0 };
            uneven += usize::from(
                next.replicas.values().max() > next.replicas.values().min().map(|least| least + 1).as_ref(),
            );
            next.assert_settled(replicas);
            now = next;
        }
        assert!(uneven <= 10, "{uneven} of 198 placements have nodes that are two or more replicas apart");
        assert!(handovers as f64 <= 1.25 * to_lead, "{handovers} handovers to give those who joined {to_lead} to lead");
        let [leave, join] = worst;
        println!(
            "{shards} shards, {replicas} replicas, 1 to 100 nodes and back: worst join {} / {:.1}, worst leave {} / {:.1}, \
             {handovers} handovers / {to_lead:.1}, \
             {uneven} uneven",
            join.moved, join.ideal, leave.moved, leave.ideal,
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// In `history`, `true` means that a node joins; `false` means that the node at this index, modulo their number,
    /// leaves.
    #[test]
    fn promises_hold_through_any_history(
        start in 1..=100u64,
        shards in prop::sample::select(vec![64, 128, 256, 512, 1024]),
        replicas in 1..=5usize,
        history in prop::collection::vec((any::<bool>(), 0..100usize), 0..10),
    ) {
        let mut members = ids(1..=start);
        let mut now = Checked::place(&members, shard_count(shards), replicas, &Placement::default());
        now.assert_settled(replicas);
        for (step, (joins, index)) in history.into_iter().enumerate() {
            if (joins || members.len() == 1) && members.len() < 100 {
                members.push(NodeId(1000 + step as u64));
            } else {
                members.remove(index % members.len());
            }
            let next = now.again(&members, replicas);
            Change::of(&now, &next);
            next.assert_settled(replicas);
            now = next;
        }
    }

    /// Several changes at once, another number of replicas, a placement from elsewhere: whatever the previous
    /// placement, the result is balanced, stable, and independent of the order of the nodes.
    #[test]
    fn any_placement_becomes_a_balanced_one(
        members in prop::collection::btree_set(1..40u64, 1..30),
        replicas in 1..=5usize,
        previous in prop::collection::vec(prop::collection::vec(1..40u64, 0..7), 0..80),
    ) {
        let members = ids(members);
        let previous = Placement::new(previous.into_iter().map(ids).collect());
        let checked = Checked::place(&members, ShardCount::default(), replicas, &previous);
        checked.assert_settled(replicas);

        let mut reordered = members;
        reordered.reverse();
        reordered.extend_from_within(..1);
        prop_assert_eq!(place(&reordered, ShardCount::default(), replicas, &previous), checked.placement);
    }
}
