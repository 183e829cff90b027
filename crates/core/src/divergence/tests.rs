//! Which differences raise an alarm, which replica is wrong, and which differences raise none.

use super::*;
use crate::system::topology::tests::member;
use crate::timing::Timing;
use crate::types::ClusterId;
use ringfort_ring::ShardCount;

const SHARD: ShardId = ShardId(0);
const INDEX: LogIndex = LogIndex(64);

fn id(node: u64) -> ReplicaId {
    ReplicaId::new(NodeId(node), node as u32)
}

fn topology(replicas: &[ReplicaId]) -> Topology {
    let mut topology = Topology::bootstrap(
        ClusterId(1),
        ShardCount::new(1).expect("a power of two"),
        Timing::DEFAULT,
        member("node1"),
    );
    topology.groups.get_mut(&SHARD).expect("it is there").replicas = replicas.to_vec();
    topology
}

fn said(node: u64, index: LogIndex, hash: u64) -> (NodeId, Point) {
    (NodeId(node), Point { shard: SHARD, replica: id(node), index, hash })
}

fn in_minority(events: &[Event]) -> Vec<ReplicaId> {
    let replica = |event: &Event| match event {
        Event::Minority { replica, .. } => Some(*replica),
        _ => None,
    };
    events.iter().filter_map(replica).collect()
}

#[test]
fn the_one_that_two_others_contradict_ends_whatever_the_order_they_speak_in() {
    let topology = topology(&[id(1), id(2), id(3)]);
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [1, 3, 2]] {
        for own in 1..=3 {
            let mut divergence = DivergenceDetector::new(NodeId(own));
            let mut events = Vec::new();
            for node in order {
                events.extend(divergence.compare(&topology, [said(node, INDEX, if node == 2 { 7 } else { 5 })]));
            }
            assert_eq!(in_minority(&events), if own == 2 { vec![id(2)] } else { vec![] }, "{order:?}");
            let known = divergence.divergences().next().expect("an alarm stands");
            assert_eq!((known.index, &known.minority), (INDEX, &BTreeSet::from([id(2)])));
            assert_eq!(divergence.compare(&topology, [said(2, INDEX, 7)]), [], "it is said once");
        }
    }
}

#[test]
fn different_indexes_or_a_stranger_are_no_divergence() {
    let topology = topology(&[id(1), id(2), id(3)]);
    let mut divergence = DivergenceDetector::new(NodeId(1));
    let points = [said(1, INDEX, 5), said(2, LogIndex(65), 7), said(3, LogIndex(66), 9)];
    assert_eq!(divergence.compare(&topology, points), []);
    assert_eq!(divergence.compare(&topology, [said(4, INDEX, 7)]), [], "the topology does not have it");
    let forged = (NodeId(2), said(1, INDEX, 7).1);
    assert_eq!(divergence.compare(&topology, [forged]), [], "it is another node's");
}

#[test]
fn without_a_majority_nobody_ends() {
    for (replicas, points) in [
        (vec![id(1), id(2)], vec![said(1, INDEX, 5), said(2, INDEX, 7)]),
        (vec![id(1), id(2), id(3)], vec![said(1, INDEX, 5), said(2, INDEX, 7), said(3, INDEX, 9)]),
        (vec![id(1), id(2), id(3), id(4)], vec![said(1, INDEX, 5), said(2, INDEX, 5), said(3, INDEX, 9)]),
    ] {
        let topology = topology(&replicas);
        for own in 1..=3 {
            let mut divergence = DivergenceDetector::new(NodeId(own));
            let events = divergence.compare(&topology, points.clone());
            assert_eq!(in_minority(&events), []);
            assert!(matches!(events[0], Event::Alarm(_)));
            assert_eq!(divergence.divergences().count(), 1);
        }
    }
}

#[test]
fn an_alarm_is_over_when_the_replica_is_gone_or_they_agree_again() {
    let three = topology(&[id(1), id(2), id(3)]);
    let differ = [said(1, INDEX, 5), said(2, INDEX, 7), said(3, INDEX, 5)];
    let mut divergence = DivergenceDetector::new(NodeId(1));
    divergence.compare(&three, differ);
    assert_eq!(divergence.compare(&three, []), []);
    let renewed = topology(&[id(1), id(3), ReplicaId::new(NodeId(2), 9)]);
    assert_eq!(divergence.compare(&renewed, []), [Event::Over(SHARD)]);
    assert_eq!(divergence.divergences().count(), 0);

    let mut divergence = DivergenceDetector::new(NodeId(1));
    divergence.compare(&three, differ);
    let later = LogIndex(128);
    assert_eq!(divergence.compare(&three, [said(1, later, 8), said(3, later, 8)]), []);
    assert_eq!(divergence.compare(&three, [said(2, later, 8)]), [Event::Over(SHARD)]);
}

#[test]
fn a_turn_of_rounds_tells_of_every_shard_once() {
    let shards: Vec<ShardId> = (0..100).map(ShardId).chain([ShardId::SYSTEM]).collect();
    let points: Vec<Point> =
        shards.into_iter().rev().map(|shard| Point { shard, replica: id(1), index: INDEX, hash: 1 }).collect();
    let mut told = BTreeSet::new();
    for round in 5..5 + u64::from(POINT_PARTS) {
        let (part, points) = fact(round, points.iter().copied());
        assert!(part < POINT_PARTS && points.is_sorted_by_key(|point| point.shard));
        for point in points {
            assert!(told.insert(point.shard), "{:?} twice", point.shard);
        }
    }
    assert_eq!(told.len(), 101);
}
