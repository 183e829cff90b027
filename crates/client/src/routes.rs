//! Which node to ask: the client's view of the cluster, without I/O and without a clock. Whether an address answers at
//! all is known to the [circuits](crate::circuit).
//!
//! The table comes from a topology and is replaced by a later one; in between, answers correct single leaders. All of
//! it is a hint: a wrong guess costs a forwarded request or one more attempt, never a wrong answer.

use crate::Error;
use ringfort_proto::metadata;
use ringfort_proto::v1::TopologyResponse;
use ringfort_ring::{ShardCount, ShardId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::metadata::{Ascii, MetadataValue};

/// A node's gRPC address, host:port.
pub(crate) type Address = Arc<str>;

/// Which nodes a request may go to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// The leader of a shard.
    Leader(ShardId),
    /// Any replica of a shard.
    Replica(ShardId),
    /// Any node.
    Node,
}

/// The client's view of the cluster.
pub(crate) struct Routes {
    /// The addresses that the user gave. Kept for ever: they may be reachable where the advertised ones are not.
    seeds: Vec<Address>,
    table: Option<Table>,
    /// Spreads requests that any node may answer.
    turn: AtomicUsize,
}

struct Table {
    learned_from: Address,
    cluster_id: u64,
    /// The cluster id as sent with every request.
    cluster_header: MetadataValue<Ascii>,
    epoch: u64,
    shard_count: ShardCount,
    nodes: Vec<Address>,
    /// Indexed by shard.
    places: Vec<Place>,
}

#[derive(Clone, Default)]
struct Place {
    leader: Option<Address>,
    members: Vec<Address>,
}

impl Routes {
    /// `seeds` must not be empty.
    pub(crate) fn new(seeds: Vec<Address>) -> Routes {
        assert!(!seeds.is_empty(), "a client needs an endpoint");
        Routes { seeds, table: None, turn: AtomicUsize::new(0) }
    }

    /// The addresses that the user gave.
    pub(crate) fn seeds(&self) -> &[Address] {
        &self.seeds
    }

    /// The addresses that the nodes of the cluster advertise, once a topology is known.
    pub(crate) fn nodes(&self) -> &[Address] {
        self.table.as_ref().map_or(&[], |table| &table.nodes)
    }

    /// Names the cluster that this client is bound to since its first topology.
    pub(crate) fn cluster_header(&self) -> Option<MetadataValue<Ascii>> {
        self.table.as_ref().map(|table| table.cluster_header.clone())
    }

    /// The shard of a key, once a topology is known.
    pub(crate) fn shard_of(&self, key: &[u8]) -> Option<ShardId> {
        self.table.as_ref().map(|table| table.shard_count.shard_of_key(key))
    }

    /// A usable address to ask: the leader if the target is the leader, then the shard's replicas, which know their
    /// leader, then any node.
    pub(crate) fn pick(&self, target: Target, is_usable: impl Fn(&Address) -> bool) -> Option<Address> {
        let place = match target {
            Target::Leader(shard) | Target::Replica(shard) => self.place(shard),
            Target::Node => None,
        };
        let leader: &[Address] = match (target, place) {
            (Target::Leader(_), Some(place)) => place.leader.as_slice(),
            _ => &[],
        };
        let members = place.map_or(&[][..], |place| &place.members);
        let nodes = self.table.as_ref().map_or(&[][..], |table| &table.nodes);
        if let [leader] = leader
            && is_usable(leader)
        {
            return Some(leader.clone());
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        [members, nodes, &self.seeds].into_iter().find_map(|group| {
            let usable: Vec<&Address> = group.iter().filter(|address| is_usable(address)).collect();
            let address = usable.get(turn.checked_rem(usable.len())?)?;
            Some(Address::clone(address))
        })
    }

    /// The next of all known addresses, in turn. Used when none is usable.
    pub(crate) fn any(&self) -> Address {
        let nodes = self.table.as_ref().map_or(&[][..], |table| &table.nodes);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (nodes.len() + self.seeds.len());
        nodes.get(turn).unwrap_or_else(|| &self.seeds[turn - nodes.len()]).clone()
    }

    /// Every known address, the silent ones last.
    pub(crate) fn all(&self, is_silent: impl Fn(&Address) -> bool) -> Vec<Address> {
        let mut addresses = self.table.as_ref().map_or_else(Vec::new, |table| table.nodes.clone());
        for seed in &self.seeds {
            if !addresses.contains(seed) {
                addresses.push(seed.clone());
            }
        }
        addresses.sort_by_key(is_silent);
        addresses
    }

    /// Whether this address is the known leader of a shard.
    pub(crate) fn is_leader(&self, shard: ShardId, address: &Address) -> bool {
        self.place(shard).is_some_and(|place| place.leader.as_ref() == Some(address))
    }

    /// Replaces the table by a topology, unless it is older than the known one.
    ///
    /// # Errors
    /// The topology belongs to another cluster or is invalid; nothing is changed then.
    pub(crate) fn adopt(&mut self, from: &Address, topology: &TopologyResponse) -> Result<(), Error> {
        let table = Table::new(from, topology)?;
        if let Some(known) = &self.table {
            if known.cluster_id != table.cluster_id {
                let (expected, found) = (known.cluster_id, table.cluster_id);
                let other_address = known.learned_from.to_string();
                return Err(Error::OtherCluster { address: from.to_string(), found, other_address, expected });
            }
            if known.epoch > table.epoch {
                return Ok(());
            }
        }
        self.table = Some(table);
        Ok(())
    }

    /// An answer named the shard's leader.
    pub(crate) fn learn_leader(&mut self, shard: ShardId, address: &str) {
        if let Some(place) = self.place_mut(shard) {
            place.leader = Some(address.into());
        }
    }

    /// The node at `address` does not lead the shard, or does not answer.
    pub(crate) fn forget_leader(&mut self, shard: ShardId, address: &Address) {
        if let Some(place) = self.place_mut(shard)
            && place.leader.as_ref() == Some(address)
        {
            place.leader = None;
        }
    }

    fn place(&self, shard: ShardId) -> Option<&Place> {
        self.table.as_ref()?.places.get(shard.0 as usize)
    }

    fn place_mut(&mut self, shard: ShardId) -> Option<&mut Place> {
        self.table.as_mut()?.places.get_mut(shard.0 as usize)
    }
}

impl Table {
    fn new(from: &Address, topology: &TopologyResponse) -> Result<Table, Error> {
        let shard_count = ShardCount::new(topology.shard_count)
            .map_err(|_| Error::BadAnswer("its shard count is not a power of two"))?;
        if topology.cluster_id == 0 {
            return Err(Error::BadAnswer("it names no cluster"));
        }
        let addresses: BTreeMap<u64, Address> =
            topology.nodes.iter().map(|node| (node.id, Address::from(node.grpc_address.as_str()))).collect();
        let mut places = vec![Place::default(); topology.shard_count as usize];
        for shard in &topology.shards {
            let place =
                places.get_mut(shard.shard as usize).ok_or(Error::BadAnswer("it names a shard that does not exist"))?;
            place.leader = addresses.get(&shard.leader).cloned();
            place.members = shard.members.iter().filter_map(|node| addresses.get(node).cloned()).collect();
        }
        Ok(Table {
            learned_from: from.clone(),
            cluster_id: topology.cluster_id,
            cluster_header: metadata::cluster_value(topology.cluster_id),
            epoch: topology.epoch,
            shard_count,
            nodes: addresses.into_values().collect(),
            places,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_proto::v1::{Node, ShardPlace};

    const SHARD: ShardId = ShardId(1);

    fn topology(epoch: u64) -> TopologyResponse {
        let node = |id: u64| Node { id, grpc_address: format!("node{id}:1"), ..Default::default() };
        let place = |shard| ShardPlace { shard, members: vec![1, 2], leader: 2 };
        TopologyResponse {
            cluster_id: 7,
            epoch,
            shard_count: 2,
            nodes: vec![node(1), node(2), node(3)],
            shards: vec![place(0), place(1)],
        }
    }

    fn routes() -> Routes {
        let mut routes = Routes::new(vec!["seed:1".into()]);
        routes.adopt(&"seed:1".into(), &topology(5)).unwrap();
        routes
    }

    #[test]
    fn leader_is_asked_and_without_it_the_other_replicas_then_other_nodes() {
        let routes = routes();
        for (silent, asked) in [(&[][..], "node2:1"), (&["node2:1"], "node1:1"), (&["node1:1", "node2:1"], "node3:1")] {
            let picked = routes.pick(Target::Leader(SHARD), |address| !silent.contains(&&**address));
            assert_eq!(picked.as_deref(), Some(asked));
        }
    }

    #[test]
    fn seeds_are_asked_where_no_advertised_address_answers() {
        let routes = routes();
        let is_seed = |address: &Address| address.starts_with("seed");
        assert_eq!(routes.pick(Target::Leader(SHARD), is_seed).as_deref(), Some("seed:1"));
        assert_eq!(&*routes.all(|address| !is_seed(address))[0], "seed:1");
    }

    #[test]
    fn none_is_picked_where_all_are_silent_and_each_is_tried_in_turn() {
        let routes = routes();
        assert_eq!(routes.pick(Target::Node, |_| false), None);
        let tried: std::collections::BTreeSet<_> = (0..4).map(|_| routes.any()).collect();
        assert_eq!(tried.len(), 4, "three nodes and a seed");
    }

    #[test]
    fn replicas_take_turns() {
        let routes = routes();
        let asked: std::collections::BTreeSet<_> =
            (0..8).filter_map(|_| routes.pick(Target::Replica(SHARD), |_| true)).collect();
        assert_eq!(asked.iter().map(|address| &**address).collect::<Vec<_>>(), ["node1:1", "node2:1"]);
    }

    #[test]
    fn only_the_leader_that_failed_is_forgotten() {
        let mut routes = routes();
        routes.learn_leader(SHARD, "node3:1");
        routes.forget_leader(SHARD, &"node2:1".into());
        assert_eq!(
            routes.pick(Target::Leader(SHARD), |_| true).as_deref(),
            Some("node3:1"),
            "a late failure of the old leader"
        );
    }

    #[test]
    fn older_topology_is_ignored_and_another_cluster_refused() {
        let mut routes = routes();
        let mut older = topology(4);
        older.shards[1].leader = 1;
        routes.adopt(&"node1:1".into(), &older).unwrap();
        assert_eq!(routes.pick(Target::Leader(SHARD), |_| true).as_deref(), Some("node2:1"));

        let other = TopologyResponse { cluster_id: 8, ..topology(9) };
        let refused = routes.adopt(&"node1:1".into(), &other).unwrap_err();
        assert!(matches!(refused, Error::OtherCluster { expected: 7, found: 8, .. }), "{refused}");
        assert_eq!(routes.cluster_header(), Some(metadata::cluster_value(7)));
    }

    #[test]
    fn senseless_topologies_are_refused() {
        let mut routes = Routes::new(vec!["seed:1".into()]);
        let mut unknown_shard = topology(1);
        unknown_shard.shards[0].shard = 2;
        for bad in [
            TopologyResponse { shard_count: 3, ..topology(1) },
            TopologyResponse { shard_count: u32::MAX, ..topology(1) },
            TopologyResponse { cluster_id: 0, ..topology(1) },
            unknown_shard,
        ] {
            assert!(matches!(routes.adopt(&"seed:1".into(), &bad), Err(Error::BadAnswer(_))), "{bad:?}");
        }
    }
}
