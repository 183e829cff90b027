//! The topology: the cluster's nodes, and the target and replicas of every shard.
//!
//! It is the whole state of the system shard. Every node keeps the latest one it has received, in memory and on disk.

use super::DecodeError;
use super::member_state::{Departed, MemberState};
use crate::codec::{Reader, put_bytes, put_varint};
use crate::timing::Timing;
use crate::types::{ClusterId, Epoch, Identity, NodeId, ReplicaId, ShardId};
use bytes::Bytes;
use ringfort_ring::{ShardCount, Site, Zone};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The longest name, address or zone of a node, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// The rule for a node's name, as a request to the user. The number is [`MAX_NAME_BYTES`].
pub const NODE_NAME_RULE: &str = "give 1 to 255 letters, digits, dots, underscores or dashes";

/// Whether a text can be a node's name: 1 to [`MAX_NAME_BYTES`] letters, digits, dots, underscores and dashes. Names
/// appear in commands, metrics and paths.
pub fn is_node_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.chars().all(is_allowed)
}

/// Nodes that a cluster may have.
pub const MAX_NODES: usize = 10_000;

/// Raised whenever any format in a node's directory changes: a start reads the topology before the log and the
/// snapshots, so it refuses a directory of an older format with a message that says so.
const FORMAT: u8 = 3;

/// The cluster's own state, at one epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    pub cluster: ClusterId,
    pub epoch: Epoch,
    pub shards: ShardCount,
    /// Chosen when the cluster was created, like `shards`: no command changes either.
    pub timing: Timing,
    pub nodes: Members,
    /// The members that must hold no replicas, and why. All others are active.
    pub member_states: BTreeMap<NodeId, MemberState>,
    /// The most recent nodes that are no longer members.
    pub departed: BTreeMap<NodeId, Departed>,
    /// The controller begins no moves.
    pub paused: bool,
    /// One for each shard, and one for [`ShardId::SYSTEM`].
    pub groups: BTreeMap<ShardId, Group>,
    pub(super) next_node: u64,
    pub(super) next_replica: u32,
}

/// A node that has joined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// The operator's choice, unique in the cluster.
    pub name: String,
    pub identity: Identity,
    /// Where other nodes reach it, `host:port`.
    pub raft_address: String,
    /// Where clients reach it, `host:port`.
    pub grpc_address: String,
    /// The failure domain that the operator assigned; empty for none.
    pub zone: String,
}

impl Member {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        out.extend_from_slice(&self.identity.0.to_le_bytes());
        for text in [&self.raft_address, &self.grpc_address, &self.zone] {
            put_bytes(out, text.as_bytes());
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Member, DecodeError> {
        let name = read_text(reader)?;
        let identity = read_identity(reader)?;
        let [raft_address, grpc_address, zone] = [read_text(reader)?, read_text(reader)?, read_text(reader)?];
        Ok(Member { name, identity, raft_address, grpc_address, zone })
    }
}

/// The nodes of a cluster.
pub type Members = BTreeMap<NodeId, Member>;

/// A node's addresses, as in [`Member`].
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

/// The target of one shard and its replicas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The nodes that should hold a replica, the preferred leader first.
    pub target: Vec<NodeId>,
    /// Every replica that has been handed out and not been retired, ascending. More than the target while a shard
    /// moves.
    pub replicas: Vec<ReplicaId>,
}

impl Group {
    /// The replica that `node` should hold: the latest one handed out for it.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas.iter().rev().find(|replica| replica.node() == node).copied()
    }

    /// The replicas that should be the voters, the preferred leader first.
    pub fn target_replicas(&self) -> Vec<ReplicaId> {
        self.target.iter().filter_map(|&node| self.replica_on(node)).collect()
    }
}

impl Topology {
    /// A new cluster of one node, which holds the only replica of every shard.
    pub fn bootstrap(cluster: ClusterId, shards: ShardCount, timing: Timing, member: Member) -> Topology {
        let node = NodeId(1);
        let mut topology = Topology {
            cluster,
            epoch: Epoch(1),
            shards,
            timing,
            nodes: BTreeMap::from([(node, member)]),
            member_states: BTreeMap::new(),
            departed: BTreeMap::new(),
            paused: false,
            groups: BTreeMap::new(),
            next_node: 2,
            next_replica: 1,
        };
        for shard in shards.ids().chain([ShardId::SYSTEM]) {
            let replica = ReplicaId::new(node, topology.next_replica);
            topology.next_replica += 1;
            topology.groups.insert(shard, Group { target: vec![node], replicas: vec![replica] });
        }
        topology
    }

    /// Whether this topology is no older than the one that first named `replica`, so that a replica missing from it was
    /// retired.
    pub fn has_named(&self, replica: ReplicaId) -> bool {
        replica.number() < self.next_replica
    }

    /// The replica of `shard` that `node` should hold, if any.
    pub fn replica(&self, shard: ShardId, node: NodeId) -> Option<ReplicaId> {
        self.groups.get(&shard)?.replica_on(node)
    }

    /// Whether this id was ever given to a node, which need not be a member any more.
    pub fn has_handed_out(&self, node: NodeId) -> bool {
        (1..self.next_node).contains(&node.0)
    }

    /// Whether this node was a member and no longer is, even if its departure is no longer recorded.
    pub fn has_removed(&self, node: NodeId) -> bool {
        self.has_handed_out(node) && !self.nodes.contains_key(&node)
    }

    /// The members that hold replicas, with their zones.
    pub fn sites(&self) -> Vec<Site> {
        let labels: BTreeSet<&str> = self.nodes.values().map(|member| &*member.zone).collect();
        let zone = |label: &str| Zone(labels.range(..label).count() as u32);
        self.active().map(|(node, member)| Site { node, zone: zone(&member.zone) }).collect()
    }

    /// The members that hold replicas.
    pub fn active(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        let is_active = |(node, _): &(&NodeId, _)| !self.member_states.contains_key(node);
        self.nodes.iter().filter(is_active).map(|(&node, member)| (node, member))
    }

    /// The number of replicas, of all shards, that `node` holds or should hold.
    pub fn replicas_on(&self, node: NodeId) -> usize {
        let on_node = |group: &&Group| {
            group.target.contains(&node) || group.replicas.iter().any(|replica| replica.node() == node)
        };
        self.groups.values().filter(on_node).count()
    }

    pub fn node_named(&self, name: &str) -> Option<(NodeId, &Member)> {
        self.nodes.iter().find(|(_, member)| member.name == name).map(|(&id, member)| (id, member))
    }

    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.cluster.0);
        put_varint(&mut out, self.epoch.0);
        put_varint(&mut out, u64::from(self.shards.get()));
        put_varint(&mut out, u64::from(self.timing.election_timeout_ms()));
        put_varint(&mut out, self.next_node);
        put_varint(&mut out, u64::from(self.next_replica));
        put_varint(&mut out, self.nodes.len() as u64);
        for (id, member) in &self.nodes {
            put_varint(&mut out, id.0);
            member.encode(&mut out);
        }
        put_varint(&mut out, self.member_states.len() as u64);
        for (id, state) in &self.member_states {
            put_varint(&mut out, id.0);
            out.push(state.code());
        }
        put_varint(&mut out, self.departed.len() as u64);
        for (id, departed) in &self.departed {
            put_varint(&mut out, id.0);
            departed.encode(&mut out);
        }
        out.push(u8::from(self.paused));
        put_varint(&mut out, self.groups.len() as u64);
        for (shard, group) in &self.groups {
            put_varint(&mut out, u64::from(shard.0));
            put_varint(&mut out, group.target.len() as u64);
            group.target.iter().for_each(|node| put_varint(&mut out, node.0));
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
        let timing = Timing::new(Duration::from_millis(reader.varint()?));
        let timing = timing.map_err(|_| DecodeError::Invalid("election timeout"))?;
        let next_node = reader.varint()?;
        let next_replica = read_u32(&mut reader, "replica number")?;
        let mut nodes = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let id = NodeId(reader.varint()?);
            nodes.insert(id, Member::decode(&mut reader)?);
        }
        let mut member_states = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let id = NodeId(reader.varint()?);
            member_states.insert(id, MemberState::decode(&mut reader)?);
        }
        let mut departed = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let id = NodeId(reader.varint()?);
            departed.insert(id, Departed::decode(&mut reader)?);
        }
        let paused = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Invalid("switch")),
        };
        let mut groups = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let shard = ShardId(read_u32(&mut reader, "shard")?);
            let mut group = Group::default();
            for _ in 0..reader.varint()? {
                group.target.push(NodeId(reader.varint()?));
            }
            for _ in 0..reader.varint()? {
                group.replicas.push(ReplicaId(reader.varint()?));
            }
            groups.insert(shard, group);
        }
        reader.expect_end()?;
        Ok(Topology {
            cluster,
            epoch,
            shards,
            timing,
            nodes,
            member_states,
            departed,
            paused,
            groups,
            next_node,
            next_replica,
        })
    }
}

fn read_u32(reader: &mut Reader, what: &'static str) -> Result<u32, DecodeError> {
    u32::try_from(reader.varint()?).map_err(|_| DecodeError::Invalid(what))
}

pub(super) fn read_identity(reader: &mut Reader) -> Result<Identity, DecodeError> {
    let low = reader.u64()?;
    Ok(Identity(u128::from(reader.u64()?) << 64 | u128::from(low)))
}

pub(crate) fn read_text(reader: &mut Reader) -> Result<String, DecodeError> {
    let bytes = reader.bytes(MAX_NAME_BYTES)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Invalid("text that is not UTF-8"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        assert!(NODE_NAME_RULE.contains(&MAX_NAME_BYTES.to_string()));
        for good in ["node1", "a", "ringfort-0.zone_b", &"n".repeat(MAX_NAME_BYTES)] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "a b", "a/b", "node1~1", "n\u{e4}me", "a\n", &"n".repeat(MAX_NAME_BYTES + 1)] {
            assert!(!is_node_name(bad), "{bad:?}");
        }
    }

    pub(crate) fn member(name: &str) -> Member {
        Member {
            name: name.into(),
            identity: Identity(name.bytes().fold(7, |hash, byte| hash * 31 + u128::from(byte))),
            raft_address: format!("{name}:12001"),
            grpc_address: format!("{name}:50051"),
            zone: String::new(),
        }
    }

    fn topology() -> Topology {
        let member_of = |name, zone: &str| Member { zone: zone.into(), ..member(name) };
        let mut topology =
            Topology::bootstrap(ClusterId(99), ShardCount::new(8).unwrap(), Timing::DEFAULT, member_of("one", "east"));
        topology.nodes.insert(NodeId(3), member_of("three", "west"));
        topology.nodes.insert(NodeId(4), member_of("four", "east"));
        topology.nodes.insert(NodeId(5), member_of("five", ""));
        topology.member_states.insert(NodeId(3), MemberState::Leaving);
        topology.departed.insert(NodeId(2), Departed::new(&member("two"), MemberState::Dead));
        topology.paused = true;
        topology
    }

    #[test]
    fn an_encoded_topology_looks_like_this() {
        let timing = Timing::new(Duration::from_millis(2_000)).unwrap();
        let topology = Topology::bootstrap(ClusterId(7), ShardCount::new(1).unwrap(), timing, member("a"));
        let golden: [&[u8]; 9] = [
            // Format, cluster, epoch, shards, and the election timeout in milliseconds.
            &[3, 7, 1, 1, 0xd0, 0x0f],
            // The next node's id and the next replica's number.
            &[2, 3],
            // One node, its id and name.
            &[1, 1, 1, b'a'],
            &topology.nodes[&NodeId(1)].identity.0.to_le_bytes(),
            b"\x07a:12001\x07a:50051\x00",
            // No member states, no departed nodes, not paused, two groups.
            &[0, 0, 0, 2],
            // A shard: its target is node 1, and replica 1 there.
            &[0, 1, 1, 1, 0x81, 0x80, 0x80, 0x80, 0x10],
            // The system shard, and replica 2.
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[1, 1, 1, 0x82, 0x80, 0x80, 0x80, 0x10],
        ];
        assert_eq!(topology.encode(), golden.concat());
    }

    #[test]
    fn neither_another_format_nor_an_election_timeout_out_of_range_is_read() {
        let topology = Topology::bootstrap(ClusterId(7), ShardCount::new(1).unwrap(), Timing::DEFAULT, member("a"));
        let encoded = topology.encode();
        assert_eq!(encoded[4..6], [0x90, 0x03], "400 ms");
        let refused = |position: usize, byte| {
            let mut other = encoded.to_vec();
            other[position] = byte;
            Topology::decode(&other).unwrap_err().to_string()
        };
        assert!(refused(0, 1).contains("use the version of Ringfort that wrote it"));
        // 16,272 ms.
        assert_eq!(refused(5, 0x7f), "invalid election timeout");
    }

    #[test]
    fn a_topology_survives_its_encoding() {
        let topology = topology();
        assert_eq!(topology.groups.len(), 9);
        assert_eq!(Topology::decode(&topology.encode()).unwrap(), topology);
    }

    #[test]
    fn sites_are_the_active_nodes_with_a_number_for_each_zone() {
        let site = |node, zone| Site { node: NodeId(node), zone: Zone(zone) };
        assert_eq!(topology().sites(), [site(1, 1), site(4, 1), site(5, 0)]);
    }

    #[test]
    fn damaged_bytes_are_an_error_and_no_panic() {
        let encoded = topology().encode();
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
