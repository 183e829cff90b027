//! The topology: which nodes there are, and where every shard's replicas are to be.
//!
//! It is the whole state of the system shard. Every node keeps the latest one it has heard of, in memory and on disk.

use super::DecodeError;
use crate::codec::{Reader, put_bytes, put_varint};
use crate::types::{ClusterId, Epoch, Identity, NodeId, ReplicaId, ShardId};
use bytes::Bytes;
use ringfort_ring::ShardCount;
use std::collections::BTreeMap;

/// The longest name or address of a node, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Nodes that a cluster may have.
pub const MAX_NODES: usize = 10_000;

const FORMAT: u8 = 1;

/// The cluster's own state, at one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    pub cluster: ClusterId,
    pub epoch: Epoch,
    pub shards: ShardCount,
    pub nodes: Members,
    /// One for each shard, and one for [`ShardId::SYSTEM`].
    pub groups: BTreeMap<ShardId, Group>,
    pub(super) next_node: u64,
    pub(super) next_replica: u32,
}

/// A node that has joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Chosen by the operator, unique in the cluster.
    pub name: String,
    pub identity: Identity,
    /// Where other nodes reach it, `host:port`.
    pub raft_address: String,
    /// Where clients reach it, `host:port`.
    pub grpc_address: String,
}

/// The nodes of a cluster.
pub type Members = BTreeMap<NodeId, Member>;

/// Where a node is reached, as in [`Member`].
#[derive(Clone, Debug, PartialEq)]
pub struct Addresses {
    pub raft: String,
    pub grpc: String,
}

impl Member {
    pub fn addresses(&self) -> Addresses {
        Addresses { raft: self.raft_address.clone(), grpc: self.grpc_address.clone() }
    }

    /// The same node at other addresses.
    pub fn at(&self, Addresses { raft, grpc }: Addresses) -> Member {
        Member { raft_address: raft, grpc_address: grpc, ..self.clone() }
    }
}

/// Where one shard's replicas are to be, and which there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The nodes that should hold a replica, the preferred leader first.
    pub wanted: Vec<NodeId>,
    /// Every replica that has been handed out and not been retired, ascending. More than are wanted while a shard moves.
    pub replicas: Vec<ReplicaId>,
}

impl Group {
    /// The replica that `node` should hold: the latest one handed out for it.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas.iter().rev().find(|replica| replica.node() == node).copied()
    }

    /// The replicas that should be the voters, the preferred leader first.
    pub fn wanted_replicas(&self) -> Vec<ReplicaId> {
        self.wanted.iter().filter_map(|&node| self.replica_on(node)).collect()
    }
}

impl Topology {
    /// A new cluster of one node, which holds the only replica of every shard.
    pub fn bootstrap(cluster: ClusterId, shards: ShardCount, member: Member) -> Topology {
        let node = NodeId(1);
        let mut topology = Topology {
            cluster,
            epoch: Epoch(1),
            shards,
            nodes: BTreeMap::from([(node, member)]),
            groups: BTreeMap::new(),
            next_node: 2,
            next_replica: 1,
        };
        for shard in shards.ids().chain([ShardId::SYSTEM]) {
            let replica = ReplicaId::new(node, topology.next_replica);
            topology.next_replica += 1;
            topology.groups.insert(shard, Group { wanted: vec![node], replicas: vec![replica] });
        }
        topology
    }

    /// The replica of `shard` that `node` should hold, if any.
    pub fn replica(&self, shard: ShardId, node: NodeId) -> Option<ReplicaId> {
        self.groups.get(&shard)?.replica_on(node)
    }

    /// Whether this id was ever given to a node, which need not be a member any more.
    pub fn has_handed_out(&self, node: NodeId) -> bool {
        (1..self.next_node).contains(&node.0)
    }

    pub fn node_named(&self, name: &str) -> Option<(NodeId, &Member)> {
        self.nodes.iter().find(|(_, member)| member.name == name).map(|(&id, member)| (id, member))
    }

    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.cluster.0);
        put_varint(&mut out, self.epoch.0);
        put_varint(&mut out, u64::from(self.shards.get()));
        put_varint(&mut out, self.next_node);
        put_varint(&mut out, u64::from(self.next_replica));
        put_varint(&mut out, self.nodes.len() as u64);
        for (id, member) in &self.nodes {
            put_varint(&mut out, id.0);
            put_bytes(&mut out, member.name.as_bytes());
            out.extend_from_slice(&member.identity.0.to_le_bytes());
            put_bytes(&mut out, member.raft_address.as_bytes());
            put_bytes(&mut out, member.grpc_address.as_bytes());
        }
        put_varint(&mut out, self.groups.len() as u64);
        for (shard, group) in &self.groups {
            put_varint(&mut out, u64::from(shard.0));
            put_varint(&mut out, group.wanted.len() as u64);
            group.wanted.iter().for_each(|node| put_varint(&mut out, node.0));
            put_varint(&mut out, group.replicas.len() as u64);
            group.replicas.iter().for_each(|replica| put_varint(&mut out, replica.0));
        }
        out.into()
    }

    /// Reads what [`Topology::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Topology, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            FORMAT => {}
            other => return Err(DecodeError::Version(other)),
        }
        let cluster = ClusterId(reader.varint()?);
        let epoch = Epoch(reader.varint()?);
        let shards = u32::try_from(reader.varint()?).ok().and_then(|count| ShardCount::new(count).ok());
        let shards = shards.ok_or(DecodeError::Invalid("shard count"))?;
        let next_node = reader.varint()?;
        let next_replica = read_u32(&mut reader, "replica number")?;
        let mut nodes = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let id = NodeId(reader.varint()?);
            let name = read_text(&mut reader)?;
            let identity = read_identity(&mut reader)?;
            let raft_address = read_text(&mut reader)?;
            let grpc_address = read_text(&mut reader)?;
            nodes.insert(id, Member { name, identity, raft_address, grpc_address });
        }
        let mut groups = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let shard = ShardId(read_u32(&mut reader, "shard")?);
            let mut group = Group::default();
            for _ in 0..reader.varint()? {
                group.wanted.push(NodeId(reader.varint()?));
            }
            for _ in 0..reader.varint()? {
                group.replicas.push(ReplicaId(reader.varint()?));
            }
            groups.insert(shard, group);
        }
        reader.expect_end()?;
        Ok(Topology { cluster, epoch, shards, nodes, groups, next_node, next_replica })
    }
}

fn read_u32(reader: &mut Reader, what: &'static str) -> Result<u32, DecodeError> {
    u32::try_from(reader.varint()?).map_err(|_| DecodeError::Invalid(what))
}

pub(crate) fn read_text(reader: &mut Reader) -> Result<String, DecodeError> {
    let bytes = reader.bytes(MAX_NAME_BYTES)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Invalid("text that is not UTF-8"))
}

pub(super) fn read_identity(reader: &mut Reader) -> Result<Identity, DecodeError> {
    let low = reader.u64()?;
    Ok(Identity(u128::from(reader.u64()?) << 64 | u128::from(low)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn member(name: &str) -> Member {
        Member {
            name: name.into(),
            identity: Identity(name.bytes().fold(7, |hash, byte| hash * 31 + u128::from(byte))),
            raft_address: format!("{name}:12001"),
            grpc_address: format!("{name}:50051"),
        }
    }

    #[test]
    fn a_topology_survives_its_encoding() {
        let topology = Topology::bootstrap(ClusterId(99), ShardCount::new(8).unwrap(), member("one"));
        assert_eq!(topology.groups.len(), 9);
        assert_eq!(Topology::decode(&topology.encode()).unwrap(), topology);
    }

    #[test]
    fn damaged_bytes_are_an_error_and_no_panic() {
        let encoded = Topology::bootstrap(ClusterId(99), ShardCount::new(2).unwrap(), member("one")).encode();
        for length in 0..encoded.len() {
            assert!(Topology::decode(&encoded[..length]).is_err());
        }
        for position in 0..encoded.len() {
            for bit in 0..8 {
                let mut damaged = encoded.to_vec();
                damaged[position] ^= 1 << bit;
                let _ = Topology::decode(&damaged);
            }
        }
    }
}
