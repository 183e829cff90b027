//! Gossip as a whole: small clusters on a network that loses, duplicates and reorders messages.

mod health;
mod refusals;
mod repair;

use super::message::{Body, Delta, Exchange, Message, MessageError};
use super::*;
use crate::eventual::codec::DecodeError;
use crate::eventual::journal;
use crate::eventual::keyspace::{Entry, Part};
use crate::limits::{GOSSIP_DELTA_BYTES, MAX_EVENTUAL_BYTES, MAX_EVENTUAL_ENTRY_BYTES};
use crate::liveness;
use crate::system::topology::tests::member;
use crate::system::{SystemCommand, SystemMachine};
use crate::time::{HlcTimestamp, Wall};
use crate::timing::Timing;
use crate::types::{ClusterId, Epoch};
use crate::version::{Origin, Version};
use proptest::prelude::*;
use ringfort_ring::ShardCount;

const PERIOD: Duration = Duration::from_millis(500);

fn topology(nodes: u64) -> Arc<Topology> {
    let topology = Topology::bootstrap(ClusterId(5), ShardCount::new(1).unwrap(), Timing::DEFAULT, member("node1"));
    let mut machine = SystemMachine::new(topology, HlcTimestamp(0));
    for node in 2..=nodes {
        machine.apply(
            HlcTimestamp(node),
            SystemCommand::Join { member: member(&format!("node{node}")), replaces: None, known_as: None },
        );
    }
    machine.topology().clone()
}

/// Nodes whose disks sync at once, and the messages in flight between them.
struct Cluster {
    nodes: Vec<Gossip<u64>>,
    network: Vec<(NodeId, NodeId, Bytes)>,
    replies: Vec<(u64, Result<Written, WriteError>)>,
    periods: u64,
}

impl Cluster {
    fn new(nodes: u64) -> Cluster {
        Cluster::mutated(nodes, Mutation::None)
    }

    fn mutated(nodes: u64, mutation: Mutation) -> Cluster {
        let topology = topology(nodes);
        let config = GossipConfig { period: PERIOD, fan_out: 1, mutation };
        let start = |node: u64| {
            let recovered = journal::recover(None).unwrap();
            Gossip::new(NodeId(node), config, topology.clone(), recovered, now(0), 1_000 + node)
        };
        Cluster { nodes: (1..=nodes).map(start).collect(), network: Vec::new(), replies: Vec::new(), periods: 0 }
    }

    fn now(&self) -> Now {
        now(self.periods)
    }

    fn node(&mut self, node: u64) -> &mut Gossip<u64> {
        &mut self.nodes[node as usize - 1]
    }

    /// Performs a node's effects.
    fn perform(&mut self, node: u64) {
        loop {
            let now = self.now();
            let gossip = self.node(node);
            let effects = gossip.take_effects();
            if let Some(batch) = &effects.log {
                gossip.handle_persisted(now, batch.number);
            }
            let is_done = effects.log.is_none();
            self.network.extend(effects.messages.into_iter().map(|(to, bytes)| (NodeId(node), to, bytes)));
            self.replies.extend(effects.replies);
            if is_done {
                return;
            }
        }
    }

    fn write(&mut self, node: u64, key: &str, value: Option<&str>) {
        let (now, key) = (self.now(), Bytes::copy_from_slice(key.as_bytes()));
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        self.node(node).handle_write(now, key, value, 0);
        self.perform(node);
    }

    fn deliver(&mut self, at: usize) -> Result<(), Refusal> {
        let (from, to, bytes) = self.network.remove(at);
        let now = self.now();
        let result = self.node(to.0).handle_message(now, from, &bytes);
        self.perform(to.0);
        result
    }

    /// A period in which every message arrives, in order.
    fn period(&mut self) {
        self.periods += 1;
        for node in 1..=self.nodes.len() as u64 {
            let now = self.now();
            self.node(node).handle_tick(now);
            self.perform(node);
        }
        while !self.network.is_empty() {
            let _ = self.deliver(0);
        }
    }

    fn is_converged(&self) -> bool {
        let first = self.nodes[0].keyspace();
        self.nodes
            .iter()
            .all(|node| node.keyspace().hash() == first.hash() && node.keyspace().all_seen() == first.all_seen())
    }

    fn periods_until_converged(&mut self, most: u64) -> u64 {
        for periods in 0..=most {
            if self.is_converged() {
                return periods;
            }
            self.period();
        }
        panic!("not the same after {most} periods");
    }

    fn value(&mut self, node: u64, key: &str) -> Option<String> {
        let found = self.node(node).get(key.as_bytes())?;
        Some(String::from_utf8(found.value.to_vec()).unwrap())
    }

    fn refused(&mut self, node: u64, kind: &str) -> u64 {
        self.node(node).refused().get(kind).copied().unwrap_or_default()
    }
}

fn now(periods: u64) -> Now {
    let moment = Moment(1_000_000_000) + PERIOD * periods as u32;
    Now { moment, wall: Wall(1_700_000_000_000_000 + 500_000 * periods) }
}

#[test]
fn a_write_is_answered_when_it_is_durable_and_reaches_every_node() {
    let mut cluster = Cluster::new(5);
    cluster.periods = 1;
    let now = cluster.now();
    cluster.node(3).handle_write(now, "k".into(), Some("v".into()), 77);
    let effects = cluster.node(3).take_effects();
    let number = effects.log.expect("it is to be logged").number;
    assert!(effects.replies.is_empty() && cluster.value(3, "k").is_none(), "it is not durable yet");
    cluster.node(3).handle_persisted(now, number);
    cluster.perform(3);
    let [(77, Ok(Written { existed: false, .. }))] = cluster.replies[..] else { panic!("{:?}", cluster.replies) };
    cluster.periods_until_converged(10);
    for node in 1..=5 {
        assert_eq!(cluster.value(node, "k").as_deref(), Some("v"));
    }
    cluster.write(1, "k", None);
    assert!(matches!(cluster.replies[1], (0, Ok(Written { existed: true, .. }))));
    cluster.periods_until_converged(10);
    assert_eq!(cluster.value(5, "k"), None);
    for _ in 0..60 {
        cluster.period();
    }
    let tombstones: usize = cluster.nodes.iter().map(|node| node.keyspace().tombstones()).sum();
    assert_eq!(tombstones, 0, "all know that all have deleted it");
    assert_eq!(cluster.value(5, "k"), None);
}

#[test]
fn a_write_wins_over_every_one_that_its_node_knew() {
    let mut cluster = Cluster::new(2);
    cluster.periods = 1;
    cluster.write(1, "k", Some("first"));
    cluster.periods_until_converged(5);
    cluster.periods = 0; // Node 2's wall clock is behind.
    cluster.write(2, "k", Some("second"));
    cluster.periods = 9;
    cluster.periods_until_converged(5);
    assert_eq!(cluster.value(1, "k").as_deref(), Some("second"));
}

#[test]
fn a_thousand_keys_differ_nowhere_ten_periods_after_a_partition() {
    let mut cluster = Cluster::new(5);
    cluster.periods = 1;
    let side = |node: NodeId| node.0 <= 2;
    // Both sides write all keys, and converge among themselves.
    for key in 0..1_000u64 {
        cluster.write(key % 2 + 1, &format!("key{key}"), Some("of two nodes"));
        cluster.write(key % 3 + 3, &format!("key{key}"), Some("of three nodes"));
    }
    for _ in 0..10 {
        cluster.periods += 1;
        for node in 1..=5 {
            let now = cluster.now();
            cluster.node(node).handle_tick(now);
            cluster.perform(node);
        }
        while !cluster.network.is_empty() {
            let (from, to, _) = cluster.network[0];
            match side(from) == side(to) {
                true => cluster.deliver(0).unwrap(),
                false => drop(cluster.network.remove(0)),
            }
        }
    }
    assert_ne!(cluster.node(1).keyspace().hash(), cluster.node(3).keyspace().hash());
    assert_eq!(cluster.value(2, "key0").as_deref(), Some("of two nodes"));
    assert!((1..=10).contains(&cluster.periods_until_converged(10)));
    assert_eq!(cluster.node(4).keyspace().keys(), 1_000);
}

#[test]
fn more_than_a_message_holds_follows_at_once() {
    let mut cluster = Cluster::new(2);
    cluster.periods = 1;
    let value = "v".repeat(MAX_EVENTUAL_ENTRY_BYTES - 10);
    for key in 0..40 {
        cluster.write(1, &format!("key{key}"), Some(&value));
    }
    assert!(40 * value.len() > 8 * GOSSIP_DELTA_BYTES);
    assert!(cluster.periods_until_converged(2) <= 2);
}

#[test]
fn writes_beyond_the_limits_are_refused_and_deletes_make_room() {
    let mut cluster = Cluster::new(1);
    let value = "v".repeat(MAX_EVENTUAL_ENTRY_BYTES - 10);
    let mut written = 0;
    while cluster.replies.iter().all(|(_, reply)| reply.is_ok()) {
        cluster.write(1, &format!("key{written}"), Some(&value));
        written += 1;
    }
    assert_eq!(cluster.replies.pop().unwrap().1, Err(WriteError::Full));
    assert!(cluster.node(1).keyspace().bytes() <= MAX_EVENTUAL_BYTES);
    cluster.write(1, "key0", None);
    assert!(cluster.replies.pop().unwrap().1.is_ok());
    cluster.write(1, "key0", Some(&value));
    assert!(cluster.replies.pop().unwrap().1.is_ok());
    cluster.write(1, "large", Some(&"v".repeat(MAX_EVENTUAL_ENTRY_BYTES)));
    assert!(matches!(cluster.replies.pop().unwrap().1, Err(WriteError::TooLarge(_))));
    let now = cluster.now();
    let refused = loop {
        cluster.node(1).handle_write(now, "key0".into(), None, 0);
        if let Some((_, reply)) = cluster.node(1).eventual.take_replies().pop() {
            break reply;
        }
    };
    assert_eq!(refused, Err(WriteError::Overloaded), "nothing is synced");
}

#[test]
fn nodes_know_each_other_and_who_is_dead() {
    let mut cluster = Cluster::new(3);
    for node in 1..=3 {
        cluster.node(node).say(&Fact::Build(format!("build {node}")));
    }
    for _ in 0..10 {
        cluster.period();
    }
    let now = cluster.now().moment;
    let status = cluster.node(1).status(now);
    assert_eq!(status.members.len(), 3);
    for member in &status.members {
        assert!(member.facts.contains(&Fact::Build(format!("build {}", member.node))), "{member:?}");
        assert_eq!(
            member.liveness.map(|liveness| liveness.state),
            match member.node.0 {
                1 => None,
                _ => Some(liveness::LivenessState::Alive),
            }
        );
    }
    // Node 3 is silent from here on.
    for _ in 0..30 {
        cluster.periods += 1;
        let now = cluster.now();
        cluster.node(1).handle_tick(now);
        cluster.node(2).handle_tick(now);
        (1..=2).for_each(|node| cluster.perform(node));
        while let Some(at) = cluster.network.iter().position(|(_, to, _)| to.0 != 3) {
            let _ = cluster.deliver(at);
        }
        cluster.network.clear();
    }
    let now = cluster.now().moment;
    let state = |gossip: &Gossip<u64>, node| gossip.liveness(NodeId(node), now).unwrap().state;
    assert_eq!(state(cluster.node(1), 3), liveness::LivenessState::Dead);
    assert_eq!(state(cluster.node(1), 2), liveness::LivenessState::Alive);
}

#[test]
fn a_member_that_is_removed_is_forgotten_and_its_data_stays() {
    let mut cluster = Cluster::new(3);
    cluster.periods = 1;
    cluster.write(3, "k", Some("v"));
    cluster.periods_until_converged(10);
    let mut smaller = Topology::clone(&cluster.node(1).topology);
    smaller.epoch = Epoch(smaller.epoch.0 + 1);
    smaller.nodes.remove(&NodeId(3));
    let (smaller, now) = (Arc::new(smaller), cluster.now());
    for node in 1..=2 {
        cluster.node(node).handle_topology(now.moment, smaller.clone());
    }
    cluster.nodes.pop();
    cluster.write(1, "k", None);
    cluster.write(1, "l", Some("v"));
    for _ in 0..40 {
        cluster.period();
    }
    assert_eq!(cluster.node(1).liveness(NodeId(3), now.moment), None);
    assert_eq!(cluster.node(1).status(now.moment).members.len(), 2);
    assert_eq!((cluster.value(2, "k"), cluster.value(2, "l").as_deref()), (None, Some("v")));
    assert_eq!(cluster.node(2).keyspace().tombstones(), 0, "it does not wait for who is gone");
}

/// Something that happens to a cluster.
#[derive(Clone, Debug)]
enum Step {
    Write { node: u64, key: u8, value: Option<u8> },
    Tick(u64),
    Deliver(prop::sample::Index),
    Double(prop::sample::Index),
    Lose(prop::sample::Index),
    Period,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..=4u64, 0..6u8, prop::option::of(any::<u8>()))
            .prop_map(|(node, key, value)| Step::Write { node, key, value }),
        3 => (1..=4u64).prop_map(Step::Tick),
        6 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        2 => any::<prop::sample::Index>().prop_map(Step::Double),
        2 => any::<prop::sample::Index>().prop_map(Step::Lose),
        1 => Just(Step::Period),
    ]
}

/// Performs the steps, then lets the network work; after some time every node must have the latest write of each key.
fn run(cluster: &mut Cluster, steps: Vec<Step>) -> Result<(), String> {
    // By key: the largest timestamp of all acknowledged writes, and its value.
    let mut latest: BTreeMap<u8, (HlcTimestamp, u64, Option<u8>)> = BTreeMap::new();
    for step in steps {
        let count = cluster.network.len();
        match step {
            Step::Write { node, key, value } => {
                cluster.write(node, &key.to_string(), value.map(|value| value.to_string()).as_deref());
                let (_, reply) = cluster.replies.pop().ok_or("a write was not answered")?;
                let timestamp = reply.map_err(|error| error.to_string())?.timestamp;
                let origin = cluster.node(node).eventual.origin().map_or(0, |own| own.node.0);
                let known = latest.entry(key).or_insert((timestamp, origin, value));
                if (timestamp, origin) > (known.0, known.1) {
                    *known = (timestamp, origin, value);
                }
            }
            Step::Tick(node) => {
                cluster.periods += 1;
                let now = cluster.now();
                cluster.node(node).handle_tick(now);
                cluster.perform(node);
            }
            Step::Deliver(at) if count > 0 => drop(cluster.deliver(at.index(count))),
            Step::Double(at) if count > 0 => {
                let message = cluster.network[at.index(count)].clone();
                cluster.network.push(message);
            }
            Step::Lose(at) if count > 0 => drop(cluster.network.remove(at.index(count))),
            Step::Deliver(_) | Step::Double(_) | Step::Lose(_) => {}
            Step::Period => cluster.period(),
        }
    }
    for _ in 0..60 {
        cluster.period();
    }
    if !cluster.is_converged() {
        return Err("they are not the same".into());
    }
    for (key, (_, _, value)) in latest {
        let expected = value.map(|value| value.to_string());
        let found = cluster.value(2, &key.to_string());
        if found != expected {
            return Err(format!("key {key} has {found:?} in place of {expected:?}"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        parts in prop::collection::vec(message::tests::any_part(), 1..6),
        order in any::<prop::sample::Index>(),
        repeated in any::<prop::sample::Index>(),
    ) {
        // Parts of one origin must agree on each version: only the first part of each origin counts, taken from version
        // 0.
        let mut origins = BTreeMap::new();
        for part in parts {
            origins.entry(part.origin).or_insert(Part { after: Version(0), ..part });
        }
        let parts: Vec<Part> = origins.into_values().collect();
        let merged = |parts: &[Part]| {
            let mut keyspace = Keyspace::default();
            parts.iter().for_each(|part| keyspace.merge(part.clone()));
            (keyspace.hash(), keyspace.all_seen(), keyspace.bytes(), keyspace.tombstones(), keyspace.all_parts())
        };
        let expected = merged(&parts);
        let mut rotated = parts.clone();
        rotated.rotate_left(order.index(parts.len()));
        prop_assert_eq!(&merged(&rotated), &expected);
        rotated.reverse();
        rotated.push(parts[repeated.index(parts.len())].clone());
        prop_assert_eq!(&merged(&rotated), &expected);
        // Associative: merging parts that another node has merged and passed on equals merging the parts themselves.
        let (some, rest) = parts.split_at(order.index(parts.len()));
        let passed_on: Vec<Part> = [merged(some).4, merged(rest).4].concat();
        prop_assert_eq!(&merged(&passed_on), &expected);
    }

    #[test]
    fn nodes_converge_to_the_last_write_whatever_the_network_does(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut cluster = Cluster::new(4);
        cluster.periods = 1;
        prop_assert_eq!(run(&mut cluster, steps), Ok(()));
    }
}

#[test]
fn a_deleted_key_comes_back_if_tombstones_are_forgotten_too_early() {
    if !cfg!(feature = "mutations") {
        return;
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let found = runner.run(&prop::collection::vec(any_step(), 0..120), |steps| {
        let mut cluster = Cluster::mutated(4, Mutation::ForgetTombstones);
        cluster.periods = 1;
        run(&mut cluster, steps).map_err(TestCaseError::fail)
    });
    assert!(found.is_err(), "the property test does not see the planted bug");
}
