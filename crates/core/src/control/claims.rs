//! Whether another cluster claims this node as its member.
//!
//! If a node loses its directory and creates a cluster of its own, its former peers keep calling it under their
//! cluster's id. Serving clients from the new, empty cluster would lose the data of the old one, so the node must stop.
//! A call alone proves nothing: anyone can make one, and it must not stop a healthy node. So this node asks the caller
//! back, at the address that the caller gives; the answer is a [`Testimony`]. The rule:
//!
//! **A node stops when two members of one other cluster have each testified that the member as which they called this
//! node has this node's name. One witness is enough if that cluster has no second. A node whose own cluster has further
//! nodes stops only after it has reached no majority of them for [`PATIENCE`].** A testimony counts for
//! [`TESTIMONY_LIFE`]: nodes of another cluster that still call this one repeat it every few seconds. One from before
//! an operator corrected an address must not stop a node that is cut off for a moment.
//!
//! Node ids do not matter: a node that joined with `--replace` has a new one. A node that took over the address of a
//! removed node has another name, and keeps running.

use crate::liveness::LivenessView;
use crate::system::Topology;
use crate::time::Moment;
use crate::types::{ClusterId, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many members of another cluster must testify.
const WITNESSES: usize = 2;

/// How many other clusters' testimonies are kept; those of further clusters are ignored.
const MAX_CLAIMANTS: usize = 16;

/// How long a node of a larger cluster must have reached no majority of it. Longer than a node needs after a start to
/// hear from the others.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a testimony counts: much longer than a caller takes to call again, and longer than [`PATIENCE`].
const TESTIMONY_LIFE: Duration = Duration::from_secs(60);

const _: () = assert!(PATIENCE.as_nanos() < TESTIMONY_LIFE.as_nanos());

/// What a member of another cluster answered when it was asked at its own address.
#[derive(Clone, Debug, PartialEq)]
pub struct Testimony {
    pub cluster: ClusterId,
    /// The member that called, and the member as which it called this node.
    pub from: NodeId,
    pub to: NodeId,
    /// The gRPC address at which it was asked.
    pub asked: String,
    /// The members of its cluster, each with its name and gRPC address.
    pub members: BTreeMap<NodeId, (String, String)>,
}

#[derive(Default)]
pub(super) struct Claims {
    witnesses: BTreeMap<ClusterId, Claim>,
    /// Since when this node has reached no majority of its cluster.
    apart_since: Option<Moment>,
}

#[derive(Default)]
struct Claim {
    /// The members that have testified, and when they last did.
    from: BTreeMap<NodeId, Moment>,
    /// How many witnesses are enough.
    needed: usize,
}

impl Claims {
    pub fn hear(&mut self, now: Moment, testimony: &Testimony, topology: &Topology, own: NodeId) {
        self.forget_old(now);
        let Testimony { cluster, from, to, asked, members } = testimony;
        let Some(member) = topology.nodes.get(&own) else { return };
        let is_named = members.get(to).is_some_and(|(name, _)| *name == member.name);
        let is_who_was_asked = members.get(from).is_some_and(|(_, address)| address == asked);
        let has_room = self.witnesses.len() < MAX_CLAIMANTS || self.witnesses.contains_key(cluster);
        if *cluster == topology.cluster || from == to || !is_named || !is_who_was_asked || !has_room {
            return;
        }
        let claim = self.witnesses.entry(*cluster).or_default();
        claim.from.insert(*from, now);
        claim.needed = WITNESSES.min(members.len() - 1);
    }

    /// The cluster whose claim is proven, if there is one: this node must stop. Call it at each tick.
    pub fn proven(
        &mut self,
        now: Moment,
        topology: &Topology,
        own: NodeId,
        liveness: &LivenessView,
    ) -> Option<ClusterId> {
        self.forget_old(now);
        let heard = topology.nodes.keys().filter(|&&node| node == own || liveness.is_heard(node)).count();
        let is_alone = topology.nodes.len() == 1;
        if !is_alone && 2 * heard > topology.nodes.len() {
            self.apart_since = None;
            return None;
        }
        let since = *self.apart_since.get_or_insert(now);
        if !is_alone && now < since + PATIENCE {
            return None;
        }
        let proven = self.witnesses.iter().find(|(_, claim)| claim.from.len() >= claim.needed);
        proven.map(|(&cluster, _)| cluster)
    }

    fn forget_old(&mut self, now: Moment) {
        for claim in self.witnesses.values_mut() {
            claim.from.retain(|_, testified| now < *testified + TESTIMONY_LIFE);
        }
        self.witnesses.retain(|_, claim| !claim.from.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::{Liveness, LivenessState, Reason};
    use crate::system::topology::tests::member;
    use crate::timing::Timing;
    use ringfort_ring::ShardCount;

    const OWN: NodeId = NodeId(1);
    const THEIRS: ClusterId = ClusterId(9);

    fn own_cluster(nodes: u64) -> Topology {
        let mut topology =
            Topology::bootstrap(ClusterId(5), ShardCount::new(2).unwrap(), Timing::DEFAULT, member("node1"));
        (2..=nodes).for_each(|node| drop(topology.nodes.insert(NodeId(node), member(&format!("node{node}")))));
        topology
    }

    /// The testimony of member `from` of another cluster, in which this node is member 4 besides `others` members.
    fn testimony(from: u64, others: u64) -> Testimony {
        let address = |node: u64| format!("host{node}:1");
        let mut members: BTreeMap<_, _> =
            (5..5 + others).map(|node| (NodeId(node), (format!("node{node}"), address(node)))).collect();
        members.insert(NodeId(4), ("node1".to_owned(), address(4)));
        Testimony { cluster: THEIRS, from: NodeId(from), to: NodeId(4), asked: address(from), members }
    }

    fn proven(claims: &mut Claims, topology: &Topology, liveness: &LivenessView, at: u64) -> Option<ClusterId> {
        claims.proven(Moment(at * 1_000_000_000), topology, OWN, liveness)
    }

    #[test]
    fn two_members_of_another_cluster_stop_a_node_that_is_alone() {
        let (topology, liveness) = (own_cluster(1), LivenessView::default());
        let mut claims = Claims::default();
        for _ in 0..3 {
            claims.hear(Moment(0), &testimony(5, 2), &topology, OWN);
            assert_eq!(proven(&mut claims, &topology, &liveness, 1), None, "one says it, however often");
        }
        claims.hear(Moment(0), &testimony(6, 2), &topology, OWN);
        assert_eq!(proven(&mut claims, &topology, &liveness, 1), Some(THEIRS));
        let mut claims = Claims::default();
        claims.hear(Moment(0), &testimony(5, 1), &topology, OWN);
        assert_eq!(proven(&mut claims, &topology, &liveness, 1), Some(THEIRS), "there is no second");
    }

    #[test]
    fn what_does_not_fit_is_no_testimony() {
        let (topology, liveness) = (own_cluster(1), LivenessView::default());
        let mut claims = Claims::default();
        for from in [5, 6] {
            let good = testimony(from, 2);
            let mut other_name = good.clone();
            other_name.members.insert(NodeId(4), ("node7".to_owned(), String::new()));
            let mut unknown = good.clone();
            unknown.members.remove(&NodeId(from));
            for bad in [
                Testimony { cluster: topology.cluster, ..good.clone() },
                Testimony { asked: "elsewhere:1".to_owned(), ..good.clone() },
                Testimony { to: NodeId(7), ..good.clone() },
                Testimony { from: NodeId(4), asked: "host4:1".to_owned(), ..good.clone() },
                other_name,
                unknown,
            ] {
                claims.hear(Moment(0), &bad, &topology, OWN);
            }
        }
        assert_eq!(proven(&mut claims, &topology, &liveness, 100), None);
    }

    #[test]
    fn a_node_that_reaches_a_majority_of_its_cluster_goes_on() {
        let topology = own_cluster(3);
        let mut claims = Claims::default();
        claims.hear(Moment(0), &testimony(5, 2), &topology, OWN);
        claims.hear(Moment(0), &testimony(6, 2), &topology, OWN);
        let (state, reason, since) = (LivenessState::Alive, Reason::Heard, Moment(0));
        let heard = Liveness { state, since, reason, heard: since, was_heard: true, phi: 0.0 };
        let mut with = LivenessView::default();
        with.tell(Moment(0), BTreeMap::from([(NodeId(2), heard)]));
        let without = LivenessView::default();
        assert_eq!(proven(&mut claims, &topology, &without, 1), None, "it may have just started");
        assert_eq!(proven(&mut claims, &topology, &with, 5), None);
        assert_eq!(proven(&mut claims, &topology, &without, 20), None, "for a moment");
        assert_eq!(proven(&mut claims, &topology, &without, 31), Some(THEIRS));
    }

    #[test]
    fn what_was_said_long_ago_proves_nothing() {
        let (topology, without) = (own_cluster(3), LivenessView::default());
        let mut claims = Claims::default();
        claims.hear(Moment(0), &testimony(5, 2), &topology, OWN);
        claims.hear(Moment(0), &testimony(6, 2), &topology, OWN);
        assert_eq!(proven(&mut claims, &topology, &without, 50), None, "it may have just started");
        assert_eq!(proven(&mut claims, &topology, &without, 61), None, "nobody has called for a minute");
        for from in [5, 6] {
            claims.hear(Moment(62_000_000_000), &testimony(from, 2), &topology, OWN);
        }
        assert_eq!(proven(&mut claims, &topology, &without, 62), Some(THEIRS));
    }
}
