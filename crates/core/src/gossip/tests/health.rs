//! What nodes know of each other's health.

use super::*;
use crate::health::{DiskState, NodeHealth};

const HUNG: NodeHealth = NodeHealth { disk: DiskState::Hung, sync_latency_ms: 1024, is_stopping: false };

#[test]
fn a_node_that_hangs_is_known_to_all_before_the_next_period_and_its_next_life_begins_anew() {
    let mut cluster = Cluster::new(5);
    cluster.period();
    let now = cluster.now();
    cluster.node(2).announce(now, HUNG);
    cluster.perform(2);
    while !cluster.network.is_empty() {
        let _ = cluster.deliver(0);
    }
    for node in 1..=5 {
        assert_eq!(cluster.node(node).health.get(&NodeId(2)), Some(&HUNG), "as node {node} knows");
    }
    let (topology, config) = (topology(5), cluster.node(2).config);
    let recovered = journal::recover(None).unwrap();
    cluster.periods += 1;
    *cluster.node(2) = Gossip::new(NodeId(2), config, topology, recovered, cluster.now(), 7);
    (0..20).for_each(|_| cluster.period());
    assert!((1..=5).all(|node| cluster.node(node).health.is_empty()));
}

#[test]
fn health_is_published_where_it_has_changed() {
    let mut cluster = Cluster::new(2);
    let now = cluster.now();
    cluster.node(1).announce(now, HUNG);
    let effects = cluster.node(1).take_effects();
    assert_eq!(effects.health.expect("it has changed").get(&NodeId(1)), Some(&HUNG));
    assert_eq!(effects.messages.len(), 1, "the other node is told at once");
    cluster.node(1).announce(now, NodeHealth { sync_latency_ms: 2048, ..HUNG });
    let effects = cluster.node(1).take_effects();
    assert!(effects.health.is_some() && effects.messages.is_empty(), "that is for the next period");
    assert!(cluster.node(1).take_effects().health.is_none());
}
