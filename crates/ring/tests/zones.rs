//! Tests the promises of `place` for nodes in zones: the promises without zones, and that zones are not crowded.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use ringfort_ring::{NodeId, Placement, ShardCount, Site, Zone, place};
use std::collections::{BTreeMap, BTreeSet};

const REPLICAS: usize = 3;

fn shard_count(count: u32) -> ShardCount {
    ShardCount::new(count).unwrap()
}

fn site(node: u64, zone: u32) -> Site {
    Site { node: NodeId(node), zone: Zone(zone) }
}

/// Replicas above ceil(R / zones) in a zone, over all shards.
fn crowded(placement: &Placement, sites: &[Site]) -> usize {
    let zone_of: BTreeMap<NodeId, Zone> = sites.iter().map(|site| (site.node, site.zone)).collect();
    let zones = zone_of.values().collect::<BTreeSet<_>>().len();
    let most = REPLICAS.min(sites.len()).div_ceil(zones);
    let of_shard = |on: &[NodeId]| {
        let mut counts: BTreeMap<Zone, usize> = BTreeMap::new();
        on.iter().for_each(|node| *counts.entry(zone_of[node]).or_default() += 1);
        counts.values().map(|count| count.saturating_sub(most)).sum::<usize>()
    };
    placement.iter().map(|(_, on)| of_shard(on)).sum()
}

fn moved(before: &Placement, after: &Placement) -> usize {
    after.iter().map(|(shard, on)| on.iter().filter(|node| !before.nodes_of(shard).contains(node)).count()).sum()
}

/// Replicas of each node. Checks the promises about single placements.
fn checked(placement: &Placement, sites: &[Site]) -> BTreeMap<NodeId, usize> {
    let (mut replicas, mut leaders) = (BTreeMap::new(), BTreeMap::new());
    for site in sites {
        replicas.insert(site.node, 0);
        leaders.insert(site.node, 0);
    }
    for (shard, on) in placement.iter() {
        assert_eq!(BTreeSet::from_iter(on).len(), REPLICAS.min(sites.len()), "{shard:?} is on {on:?}");
        *leaders.get_mut(&on[0]).unwrap() += 1;
        on.iter().for_each(|node| *replicas.get_mut(node).unwrap() += 1);
    }
    for counted in [&replicas, &leaders] {
        let total: usize = counted.values().sum();
        let most = (11 * total).div_ceil(10 * sites.len());
        assert!(counted.values().all(|count| *count <= most), "over {most}: {counted:?}");
    }
    replicas
}

/// Calls `place` until nothing changes any more.
fn settled(sites: &[Site], shards: ShardCount, first: &Placement) -> Placement {
    let mut now = first.clone();
    for _ in 0..1000 {
        let next = place(sites, shards, REPLICAS, &now);
        if next == now {
            return now;
        }
        assert!(crowded(&next, sites) < crowded(&now, sites), "a call that moves anything crowds less");
        checked(&next, sites);
        now = next;
    }
    panic!("no end of moves on {sites:?}");
}

#[test]
fn a_lost_zone_takes_no_shard_with_it() {
    for per_zone in 1..=10 {
        let sites: Vec<Site> = (0..3 * per_zone).map(|node| site(node + 1, (node % 3) as u32)).collect();
        let placement = place(&sites, shard_count(256), REPLICAS, &Placement::default());
        checked(&placement, &sites);
        assert_eq!(crowded(&placement, &sites), 0, "{per_zone} nodes a zone");
    }
}

#[test]
fn labels_that_come_later_are_followed() {
    let unlabelled: Vec<Site> = (1..=9).map(|node| site(node, 0)).collect();
    let labelled: Vec<Site> = (1..=9).map(|node| site(node, node as u32 % 3)).collect();
    let before = place(&unlabelled, shard_count(128), REPLICAS, &Placement::default());
    assert!(crowded(&before, &labelled) > 50);
    let first = place(&labelled, shard_count(128), REPLICAS, &before);
    assert!(moved(&before, &first) <= 128 * 3 / 9 / 4 + REPLICAS, "not all at once");
    assert_eq!(crowded(&settled(&labelled, shard_count(128), &first), &labelled), 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// With hardly one shard per node every replica counts, and repeated placement still converges.
    #[test]
    fn few_shards_come_to_rest(
        zones in prop::collection::vec(0..4u32, 1..12),
        shards in prop::sample::select(vec![1, 2, 4, 8, 16]),
        previous in prop::collection::vec(prop::collection::vec(1..14u64, 0..5), 0..16),
    ) {
        let sites: Vec<Site> = (1..).zip(&zones).map(|(node, &zone)| site(node, zone)).collect();
        let shards = shard_count(shards);
        let previous = previous.into_iter().map(|on| on.into_iter().map(NodeId).collect()).collect();
        let first = place(&sites, shards, REPLICAS, &Placement::new(previous));
        checked(&settled(&sites, shards, &first), &sites);
    }

    /// Nodes join and leave one at a time, in any of the zones. Then zones are filled up to the same size.
    #[test]
    fn promises_hold_through_any_history(
        zones in 2..=5u32,
        start in 1..=40u64,
        shards in prop::sample::select(vec![64, 256, 1024]),
        history in prop::collection::vec((any::<bool>(), 0..100usize), 0..12),
    ) {
        let shards = shard_count(shards);
        let mut sites: Vec<Site> = (1..=start).map(|node| site(node, node as u32 * 7 % zones)).collect();
        let mut now = settled(&sites, shards, &place(&sites, shards, REPLICAS, &Placement::default()));
        for (step, (joins, index)) in history.into_iter().enumerate() {
            let replicas = checked(&now, &sites);
            let ideal = if joins || sites.len() == 1 {
                sites.push(site(1000 + step as u64, index as u32 % zones));
                shards.get() as usize * REPLICAS.min(sites.len()) / sites.len()
            } else {
                let left = sites.remove(index % sites.len());
                replicas[&left.node]
            };
            let next = place(&sites, shards, REPLICAS, &now);
            checked(&next, &sites);
            let moves = moved(&now, &next);
            prop_assert!(moves as f64 <= 1.25 * ideal as f64 + REPLICAS as f64, "{moves} moved, ideal are {ideal}");
            now = settled(&sites, shards, &next);
        }
        let sizes = |sites: &[Site]| (0..zones).map(|zone| sites.iter().filter(|site| site.zone.0 == zone).count()).collect::<Vec<_>>();
        let most = *sizes(&sites).iter().max().unwrap();
        for zone in 0..zones {
            for more in sizes(&sites)[zone as usize]..most {
                sites.push(site(2000 + 100 * u64::from(zone) + more as u64, zone));
            }
        }
        now = settled(&sites, shards, &place(&sites, shards, REPLICAS, &now));
        prop_assert_eq!(crowded(&now, &sites), 0, "zones of {:?} nodes", sizes(&sites));
    }
}
