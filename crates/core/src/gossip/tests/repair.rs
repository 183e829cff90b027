//! Two nodes that have seen the same versions and hold different values.

use super::*;

/// Nodes 1 and 2 hold the same values of `keys` keys, except for one key: node 2 has skipped its second write, which
/// node 1 has.
fn skipped(nodes: u64, keys: u64, second: Option<&str>) -> Cluster {
    let mut cluster = Cluster::new(nodes);
    cluster.periods = 1;
    let value = "v".repeat(4_096);
    (0..keys).for_each(|key| cluster.write(1, &format!("key{key}"), Some(&value)));
    cluster.write(1, "k", Some("first"));
    cluster.periods_until_converged(20);
    cluster.write(1, "k", second);
    // The part of a sender that holds a third write, which is then lost.
    let (origin, upto) = cluster.node(1).keyspace().all_seen().pop_first().unwrap();
    let part = Part { origin, after: Version(upto.0 - 1), upto, entries: Vec::new() };
    for node in 2..=nodes {
        cluster.node(node).eventual.handle_part(Wall(u64::MAX), part.clone()).unwrap();
        cluster.perform(node);
    }
    assert_eq!(cluster.node(1).keyspace().all_seen(), cluster.node(2).keyspace().all_seen());
    assert_eq!(cluster.value(2, "k").as_deref(), Some("first"));
    cluster
}

#[test]
fn a_write_that_was_skipped_is_taken_when_the_one_that_beat_it_is_lost() {
    let mut cluster = skipped(3, 0, Some("second"));
    cluster.periods_until_converged(10);
    assert_eq!(cluster.value(2, "k").as_deref(), Some("second"));
    for _ in 0..5 {
        cluster.period();
    }
    assert!(cluster.nodes.iter().all(|node| node.differences.is_empty()));
}

#[test]
fn a_deletion_that_was_skipped_is_not_forgotten_before_it_is_taken() {
    let mut cluster = skipped(3, 0, None);
    for _ in 0..60 {
        cluster.period();
    }
    assert_eq!(cluster.value(1, "k"), None);
    assert!(cluster.is_converged());
    assert_eq!(cluster.node(1).keyspace().tombstones(), 0, "it goes when all have it");
}

#[test]
fn a_repair_goes_on_over_many_messages_and_rests_when_it_is_done() {
    let mut cluster = skipped(2, 200, Some("second"));
    assert!(cluster.node(1).keyspace().bytes() > 3 * GOSSIP_DELTA_BYTES);
    cluster.periods_until_converged(4);
    // A repair that can't finish, because the other node holds an entry that is refused here, does not take up the
    // whole network.
    let mut cluster = skipped(2, 200, Some("second"));
    let [wall, sent] = [cluster.now().wall, Wall(0)];
    let mut all = 0;
    for _ in 0..20 {
        cluster.periods += 1;
        for node in 1..=2 {
            let mut now = cluster.now();
            now.wall = if node == 2 { sent } else { wall };
            cluster.node(node).handle_tick(now);
            cluster.perform(node);
        }
        while !cluster.network.is_empty() {
            let (from, to, bytes) = cluster.network.remove(0);
            let body = Message::decode(&bytes).unwrap().body;
            all += usize::from(to == NodeId(2) && matches!(body, Body::All(..)));
            let mut now = cluster.now();
            now.wall = if to.0 == 2 { sent } else { wall };
            let _ = cluster.node(to.0).handle_message(now, from, &bytes);
            cluster.perform(to.0);
        }
    }
    assert_eq!(cluster.value(2, "k").as_deref(), Some("first"));
    assert!((4..10).contains(&all), "{all} answers");
}

#[test]
fn what_was_deleted_and_forgotten_does_not_come_back_with_a_late_message() {
    let mut cluster = Cluster::new(2);
    cluster.periods = 1;
    cluster.write(1, "k", Some("v"));
    let mut put = cluster.node(1).keyspace().all_parts();
    put[0].upto = Version(2);
    cluster.periods_until_converged(5);
    let wall = cluster.now().wall;
    let digest = cluster.node(1).digest(wall);
    cluster.write(2, "k", None);
    for _ in 0..20 {
        cluster.period();
    }
    assert_eq!((cluster.value(2, "k"), cluster.node(2).keyspace().tombstones()), (None, 0));
    let delta = Delta { exchange: cluster.node(2).exchange(), node_states: Vec::new(), parts: put, more: false };
    for body in [Body::Give(delta.clone()), Body::Answer(digest.clone(), delta.clone()), Body::All(digest, delta)] {
        let now = cluster.now();
        let message = Message { from: NodeId(1), to: NodeId(2), body }.encode();
        cluster.node(2).handle_message(now, NodeId(1), &message).unwrap();
        cluster.perform(2);
        assert_eq!(cluster.value(2, "k"), None);
    }
}
