//! A simulated network: datagrams between nodes and clients on virtual time, with all kinds of faults.
//!
//! A message may be late, lost, duplicated or reordered, or delayed for so long that its sender's state has changed
//! several times (a *straggler*: the TimeoutNow of two terms ago). There are no connections: the most that a protocol
//! gets from TCP is that messages which arrive keep their order, and a link behaves like that while `reorder`,
//! `duplicate` and `straggle` are zero. If a link is cut while a message is under way, the message is lost: whether it
//! passes is decided when it would arrive.
//!
//! Messages without sequence numbers are never duplicated, as over a connection ([`Network::send_once`]). The parts of
//! a snapshot keep their order and are lost only if the link is cut ([`Network::send_in_stream`]).

use crate::agenda::Agenda;
use crate::history::ClientId;
use crate::random::Random;
use ringfort_core::time::Moment;
use ringfort_core::types::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A sender or receiver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Endpoint {
    Node(NodeId),
    Client(ClientId),
}

/// How one direction between two endpoints treats a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Uniform in this range.
    pub delay: RangeInclusive<Duration>,
    pub drop_permille: u32,
    /// A second copy is sent on its own, out of order. Half of the copies arrive soon; the others are as late as
    /// stragglers, when the message's effect has long been superseded.
    pub duplicate_permille: u32,
    /// The message may overtake others and be overtaken.
    pub reorder_permille: u32,
    /// The message takes an additional delay out of `straggle`, and does not keep its order.
    pub straggle_permille: u32,
    pub straggle: RangeInclusive<Duration>,
}

/// Counts of messages by outcome.
///
/// `sent + duplicated = delivered + dropped + cut +` those under way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    pub sent: u64,
    pub duplicated: u64,
    pub delivered: u64,
    pub dropped: u64,
    /// Lost to a cut link.
    pub cut: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery<M> {
    pub from: Endpoint,
    pub to: Endpoint,
    pub message: M,
}

/// All links and the messages under way.
///
/// Deterministic: deliveries are ordered by (time, order of sending), and chances come from the one stream given.
#[derive(Clone, Debug)]
pub struct Network<M> {
    random: Random,
    usual: Link,
    special: BTreeMap<(Endpoint, Endpoint), Link>,
    /// When the last in-order message arrives.
    last_arrival: BTreeMap<(Endpoint, Endpoint), Moment>,
    cut: BTreeSet<(Endpoint, Endpoint)>,
    under_way: Agenda<Delivery<M>>,
    counts: Counts,
}

impl<M: Clone> Network<M> {
    /// Every link is like `usual` until [`Network::set_link`] says otherwise.
    pub fn new(random: Random, usual: Link) -> Network<M> {
        Network {
            random,
            usual,
            special: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            cut: BTreeSet::new(),
            under_way: Agenda::default(),
            counts: Counts::default(),
        }
    }

    /// Sets what happens to later messages in this direction.
    pub fn set_link(&mut self, from: Endpoint, to: Endpoint, link: Link) {
        self.special.insert((from, to), link);
    }

    /// Every link, including special ones, is like `usual` from now on. Messages under way are not affected.
    pub fn set_all_links(&mut self, usual: Link) {
        self.special.clear();
        self.usual = usual;
    }

    /// Cuts both directions between endpoints of different groups. Endpoints in no group keep all their links.
    pub fn partition(&mut self, groups: &[&[Endpoint]]) {
        for (index, group) in groups.iter().enumerate() {
            for other in groups.iter().skip(index + 1) {
                self.cut_one_way(group, other);
                self.cut_one_way(other, group);
            }
        }
    }

    /// Cuts the links from each of `from` to each of `to`, but not in the other direction.
    pub fn cut_one_way(&mut self, from: &[Endpoint], to: &[Endpoint]) {
        self.cut.extend(from.iter().flat_map(|from| to.iter().map(|to| (*from, *to))));
    }

    /// Whether nothing passes in this direction.
    pub fn is_cut(&self, from: Endpoint, to: Endpoint) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Restores every cut link.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn send(&mut self, now: Moment, from: Endpoint, to: Endpoint, message: M) {
        self.send_over(self.link(from, to), now, from, to, message);
    }

    /// Sends a message that may be late or lost but is never duplicated, as over a connection.
    pub fn send_once(&mut self, now: Moment, from: Endpoint, to: Endpoint, message: M) {
        self.send_over(Link { duplicate_permille: 0, ..self.link(from, to) }, now, from, to, message);
    }

    /// Sends a message that keeps its order, and is lost only if the link is cut.
    pub fn send_in_stream(&mut self, now: Moment, from: Endpoint, to: Endpoint, message: M) {
        self.send_over(Link::healthy(self.link(from, to).delay), now, from, to, message);
    }

    fn link(&self, from: Endpoint, to: Endpoint) -> Link {
        self.special.get(&(from, to)).unwrap_or(&self.usual).clone()
    }

    fn send_over(&mut self, link: Link, now: Moment, from: Endpoint, to: Endpoint, message: M) {
        self.counts.sent += 1;
        let random = &mut self.random;
        if random.chance(link.drop_permille) {
            self.counts.dropped += 1;
            return;
        }
        if random.chance(link.duplicate_permille) {
            self.counts.duplicated += 1;
            let mut at = now + random.duration(&link.delay);
            if random.chance(500) {
                at = at + random.duration(&link.straggle);
            }
            self.under_way.put(at, Delivery { from, to, message: message.clone() });
        }
        let mut at = now + random.duration(&link.delay);
        if random.chance(link.straggle_permille) {
            at = at + random.duration(&link.straggle);
        } else if !random.chance(link.reorder_permille) {
            let last = self.last_arrival.entry((from, to)).or_default();
            *last = at.max(*last);
            at = *last;
        }
        self.under_way.put(at, Delivery { from, to, message });
    }

    /// When to call [`Network::deliver`] next. A message due then may turn out to be cut off.
    pub fn next_at(&self) -> Option<Moment> {
        self.under_way.next_at()
    }

    /// The next message that has arrived by `now`. Call it until it returns `None`.
    pub fn deliver(&mut self, now: Moment) -> Option<Delivery<M>> {
        while let Some((_, delivery)) = self.under_way.take_due(now) {
            if self.cut.contains(&(delivery.from, delivery.to)) {
                self.counts.cut += 1;
            } else {
                self.counts.delivered += 1;
                return Some(delivery);
            }
        }
        None
    }

    /// The number of messages that were sent and have neither arrived nor been lost.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl Link {
    /// A link that delays, and does nothing else.
    pub fn healthy(delay: RangeInclusive<Duration>) -> Link {
        Link {
            delay,
            drop_permille: 0,
            duplicate_permille: 0,
            reorder_permille: 0,
            straggle_permille: 0,
            straggle: Duration::ZERO..=Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Endpoint = Endpoint::Node(NodeId(1));
    const B: Endpoint = Endpoint::Node(NodeId(2));
    const C: Endpoint = Endpoint::Client(ClientId(1));
    const LATE: Moment = Moment(u64::MAX);

    fn network(change: impl FnOnce(&mut Link)) -> Network<u32> {
        let mut link = Link::healthy(Duration::from_millis(1)..=Duration::from_millis(9));
        change(&mut link);
        Network::new(Random::new(1).fork("network"), link)
    }

    fn arrivals(network: &mut Network<u32>) -> Vec<u32> {
        std::iter::from_fn(|| network.deliver(LATE)).map(|delivery| delivery.message).collect()
    }

    fn send_all(network: &mut Network<u32>, from: Endpoint, to: Endpoint, count: u32) {
        for message in 0..count {
            network.send(Moment(u64::from(message) * 1000), from, to, message);
        }
    }

    #[test]
    fn healthy_links_delay_and_keep_order() {
        let mut network = network(|_| {});
        send_all(&mut network, A, B, 1000);
        assert_eq!(network.deliver(Moment(999_999)), None, "earlier than the least delay");
        assert_eq!(network.next_at().map(|at| at >= Moment(1_000_000)), Some(true));
        assert_eq!(arrivals(&mut network), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn each_fault_happens_at_its_rate() {
        let near = |count: u64, expected: u64| assert!(count.abs_diff(expected) < expected / 4, "{count} {expected}");

        let mut dropping = network(|link| link.drop_permille = 100);
        send_all(&mut dropping, A, B, 10_000);
        near(dropping.counts().dropped, 1000);
        assert_eq!(arrivals(&mut dropping).len() as u64, 10_000 - dropping.counts().dropped);

        let mut duplicating = network(|link| link.duplicate_permille = 100);
        send_all(&mut duplicating, A, B, 10_000);
        near(duplicating.counts().duplicated, 1000);
        assert_eq!(arrivals(&mut duplicating).len() as u64, 10_000 + duplicating.counts().duplicated);

        let mut reordering = network(|link| link.reorder_permille = 100);
        send_all(&mut reordering, A, B, 10_000);
        let overtaken = arrivals(&mut reordering).windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!(overtaken > 500, "{overtaken}");

        let mut straggling = network(|link| {
            link.straggle_permille = 100;
            link.straggle = Duration::from_secs(10)..=Duration::from_secs(20);
        });
        send_all(&mut straggling, A, B, 10_000);
        while straggling.deliver(Moment(9_000_000_000)).is_some() {}
        near(straggling.under_way() as u64, 1000);
        assert!(straggling.next_at().unwrap() >= Moment(10_000_000_000));
    }

    #[test]
    fn partitions_cut_both_ways_and_heal() {
        let mut network = network(|_| {});
        network.partition(&[&[A, C], &[B]]);
        for (from, to, message) in [(A, B, 1), (B, A, 2), (A, C, 3), (B, C, 4)] {
            network.send(Moment(0), from, to, message);
        }
        assert_eq!(arrivals(&mut network), [3]);
        network.heal();
        network.send(Moment(0), A, B, 5);
        assert_eq!(arrivals(&mut network), [5]);
        assert_eq!(network.counts(), Counts { sent: 5, delivered: 2, cut: 3, ..Counts::default() });
    }

    #[test]
    fn one_way_cuts_lose_what_is_under_way_and_not_the_way_back() {
        let mut network = network(|_| {});
        network.send(Moment(0), A, B, 1);
        network.cut_one_way(&[A], &[B]);
        network.send(Moment(0), B, A, 2);
        assert_eq!(arrivals(&mut network), [2]);
    }

    #[test]
    fn links_differ_by_direction() {
        let mut network = network(|_| {});
        network.set_link(A, B, Link { drop_permille: 1000, ..Link::healthy(Duration::ZERO..=Duration::ZERO) });
        network.send(Moment(0), A, B, 1);
        network.send(Moment(0), B, A, 2);
        assert_eq!(arrivals(&mut network), [2]);
        network.set_all_links(Link::healthy(Duration::ZERO..=Duration::ZERO));
        network.send(Moment(0), A, B, 3);
        assert_eq!(arrivals(&mut network), [3]);
    }

    #[test]
    fn same_seed_delivers_the_same() {
        let run = || {
            let mut network = network(|link| {
                (link.drop_permille, link.duplicate_permille, link.reorder_permille) = (50, 50, 200);
            });
            send_all(&mut network, A, B, 1000);
            arrivals(&mut network)
        };
        assert_eq!(run(), run());
    }
}
