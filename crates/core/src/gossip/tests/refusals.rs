//! What a node refuses, and how it handles writes and versions of its own that it does not know.

use super::*;

#[test]
fn what_is_not_to_be_believed_is_refused_and_counted() {
    let mut cluster = Cluster::new(3);
    cluster.periods = 1;
    cluster.write(1, "k", Some("v"));
    cluster.periods_until_converged(10);
    let before = (cluster.node(2).keyspace().hash(), cluster.node(2).keyspace().all_seen());
    let exchange = cluster.node(2).exchange();
    let wall = cluster.now().wall.0;
    let own = cluster.node(1).eventual.origin().unwrap();
    let part = |node: u64, after: u64, ahead_us: u64| {
        let timestamp = HlcTimestamp(wall + ahead_us);
        let entry = Entry { version: Version(after + 1), timestamp, key: "forged".into(), value: Some("v".into()) };
        let origin = Origin { node: NodeId(node), incarnation: own.incarnation };
        Part { origin, after: Version(after), upto: Version(after + 1), entries: vec![entry] }
    };
    let give = |parts: Vec<Part>, exchange| {
        let delta = Delta { exchange, node_states: Vec::new(), parts, more: false };
        Message { from: NodeId(1), to: NodeId(2), body: Body::Give(delta) }
    };
    let now = cluster.now();
    let mut refuses =
        |from: u64, message: &[u8]| cluster.node(2).handle_message(now, NodeId(from), message).unwrap_err();
    let good = give(vec![part(1, 1, 0)], exchange).encode();
    assert_eq!(refuses(9, &good), Refusal::Stranger(NodeId(9)));
    let misdelivered = Refusal::Misdelivered { from: NodeId(3), said: NodeId(1), to: NodeId(2) };
    assert_eq!(refuses(3, &good), misdelivered);
    assert!(matches!(
        refuses(1, &good[..good.len() - 1]),
        Refusal::Malformed(MessageError::Decode(DecodeError::Codec(_)))
    ));
    let large = vec![1; crate::limits::MAX_GOSSIP_MESSAGE_BYTES + 1];
    assert!(matches!(refuses(1, &large), Refusal::Malformed(MessageError::TooLarge(_))));
    assert_eq!(refuses(1, &give(vec![part(9, 0, 0)], exchange).encode()), Refusal::Stranger(NodeId(9)));
    assert_eq!(refuses(1, &give(vec![part(1, 7, 0)], exchange).encode()), Refusal::Gap(NodeId(1)));
    let ahead = Duration::from_secs(3600);
    let future = give(vec![part(1, 1, ahead.as_micros() as u64)], exchange).encode();
    assert_eq!(refuses(1, &future), Refusal::FromTheFuture { node: NodeId(1), ahead });
    let former = Exchange { incarnation: Incarnation(exchange.incarnation.0 - 1), ..exchange };
    assert_eq!(refuses(1, &give(vec![part(1, 1, 0)], former).encode()), Refusal::Late);
    let old = Exchange { version: Version(0), ..exchange };
    for _ in 0..MAX_EXCHANGE_PERIODS + 1 {
        cluster.period();
    }
    let now = cluster.now();
    let late = cluster.node(2).handle_message(now, NodeId(1), &give(vec![part(1, 1, 0)], old).encode());
    assert_eq!(late, Err(Refusal::Late));
    // No node knows more of an origin than the node that it belongs to.
    cluster.write(2, "own", Some("v"));
    let own = Part { origin: cluster.node(2).eventual.origin().unwrap(), ..part(2, 1, 0) };
    let (now, exchange) = (cluster.now(), cluster.node(2).exchange());
    let forged = cluster.node(2).handle_message(now, NodeId(1), &give(vec![own], exchange).encode());
    assert_eq!(forged, Err(Refusal::Forged(NodeId(2))));

    for kind in Refusal::KINDS {
        assert!(cluster.refused(2, kind) > 0, "{kind}");
    }
    let after = cluster.node(2).keyspace();
    assert_eq!(after.get(b"forged"), None);
    assert_eq!(after.all_seen()[&before.1.keys().next().copied().unwrap()], Version(1));
    let timestamp = cluster.node(2).eventual.latest().0;
    assert!(timestamp < wall + Duration::from_secs(60).as_micros() as u64, "the far future has moved no clock");
}

#[test]
fn what_comes_before_an_entry_from_the_future_is_taken_and_the_rest_when_its_time_has_come() {
    let mut cluster = Cluster::new(2);
    cluster.periods = 1;
    cluster.write(1, "now", Some("v"));
    cluster.periods = 101;
    cluster.write(1, "later", Some("v"));
    cluster.periods = 1;
    for _ in 0..5 {
        cluster.period();
    }
    assert_eq!((cluster.value(2, "now").is_some(), cluster.value(2, "later")), (true, None));
    assert!(cluster.refused(2, "from_the_future") > 0);
    cluster.periods = 101;
    cluster.periods_until_converged(5);
    assert!(cluster.value(2, "later").is_some());
}

#[test]
fn a_node_whose_writes_were_lost_takes_them_back_and_begins_a_new_origin() {
    let mut cluster = Cluster::new(3);
    cluster.periods = 1;
    cluster.write(2, "a", Some("1"));
    cluster.write(2, "b", Some("2"));
    cluster.periods_until_converged(10);
    let own = cluster.node(2).eventual.origin().unwrap();
    // It comes back without the last write, and does not know it.
    let mut recovered = journal::recover(None).unwrap();
    let mut part = cluster.node(1).keyspace().all_parts().remove(0);
    part.entries.truncate(1);
    part.upto = Version(1);
    recovered.keyspace.merge(part);
    recovered.own = Some(own);
    let topology = cluster.node(2).topology.clone();
    let config = cluster.node(2).config;
    let now = cluster.now();
    *cluster.node(2) = Gossip::new(NodeId(2), config, topology, recovered, now, 99);
    for _ in 0..5 {
        cluster.period();
    }
    cluster.write(2, "c", Some("3"));
    assert_ne!(cluster.node(2).eventual.origin().unwrap(), own);
    cluster.periods_until_converged(10);
    assert_eq!(cluster.value(2, "b").as_deref(), Some("2"));
    assert_eq!(cluster.value(1, "c").as_deref(), Some("3"));
}

#[test]
fn a_node_that_is_started_with_an_earlier_clock_is_believed_all_the_same() {
    let mut cluster = Cluster::new(2);
    cluster.periods = 1_000;
    for _ in 0..5 {
        cluster.period();
    }
    let (config, topology) = (cluster.node(2).config, cluster.node(2).topology.clone());
    let recovered = journal::recover(None).unwrap();
    *cluster.node(2) = Gossip::new(NodeId(2), config, topology, recovered, now(1), 99);
    cluster.node(2).say(&Fact::Build("later".into()));
    for _ in 0..5 {
        cluster.period();
    }
    assert!(cluster.node(1).facts(NodeId(2)).any(|fact| fact == Fact::Build("later".into())));
}
