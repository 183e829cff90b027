//! The cluster's own state: topologies, the commands that change them, and the answers to these commands
//! ([`ringfort_core::system`]). Topologies and commands come from other nodes and from the disk.

use crate::allocation::{Bound, MAP_GROWTH, SMALL_THINGS};
use crate::codec::{Codec, check, encoding};
use crate::source::Source;
use bytes::Bytes;
use ringfort_core::system::topology::MAX_NAME_BYTES;
use ringfort_core::system::{Departed, Group, Member, MemberState, SystemCommand, SystemReply, Topology};
use ringfort_core::time::HlcTimestamp;
use ringfort_core::timing::Timing;
use ringfort_core::types::{ClusterId, Epoch, Identity, NodeId, ReplicaId, ShardId};
use ringfort_ring::ShardCount;
use std::time::Duration;

pub struct Topologies;
pub struct Commands;
pub struct Replies;

/// A group without replicas takes three bytes, and with one node it takes four and two vectors, of four places each.
pub const TOPOLOGY_BOUND: Bound = Bound {
    fixed: SMALL_THINGS,
    per_byte: (MAP_GROWTH * size_of::<(ShardId, Group)>()).div_ceil(3) + 2 * 4 * size_of::<NodeId>() / 4,
};

impl Codec for Topologies {
    type Value = Topology;
    /// Nodes and shards may come in any order and more than once: the last one counts.
    const CANONICAL: bool = false;
    const BOUND: Bound = TOPOLOGY_BOUND;

    fn draw(source: &mut Source) -> Topology {
        topology(source)
    }

    fn encode(topology: &Topology) -> Bytes {
        topology.encode()
    }

    fn decode(bytes: Bytes) -> Option<Topology> {
        Topology::decode(&bytes).ok()
    }
}

impl Codec for Commands {
    type Value = (HlcTimestamp, SystemCommand);
    const CANONICAL: bool = true;
    /// Groups of a placement: a group without nodes takes two bytes.
    const BOUND: Bound = Bound::of_elements::<(ShardId, Vec<NodeId>)>(2).or(Bound::of_elements::<NodeId>(1));

    fn draw(source: &mut Source) -> Self::Value {
        (HlcTimestamp(source.number()), system_command(source))
    }

    fn encode((timestamp, command): &Self::Value) -> Bytes {
        command.encode(*timestamp)
    }

    fn decode(bytes: Bytes) -> Option<Self::Value> {
        SystemCommand::decode(&bytes).ok()
    }
}

impl Codec for Replies {
    type Value = SystemReply;
    const CANONICAL: bool = true;
    /// The text of a refusal.
    const BOUND: Bound = Bound { fixed: 64, per_byte: 1 };

    fn draw(source: &mut Source) -> SystemReply {
        reply(source)
    }

    fn encode(reply: &SystemReply) -> Bytes {
        reply.encode()
    }

    fn decode(bytes: Bytes) -> Option<SystemReply> {
        SystemReply::decode(&bytes).ok()
    }
}

pub fn member(source: &mut Source) -> Member {
    let mut text = || source.text(MAX_NAME_BYTES);
    let (name, raft_address, grpc_address, zone) = (text(), text(), text(), text());
    let identity = Identity(u128::from(source.number()) << 64 | u128::from(source.number()));
    Member { name, identity, raft_address, grpc_address, zone }
}

pub fn topology(source: &mut Source) -> Topology {
    let shards = ShardCount::new(1 << source.below(4)).expect("a power of two");
    let timing = Timing::new(Duration::from_millis(100 + source.below(9_901) as u64)).expect("it is in range");
    let mut topology = Topology::bootstrap(ClusterId(source.number()), shards, timing, member(source));
    topology.epoch = Epoch(source.number());
    topology.paused = source.flag();
    topology.nodes.extend(source.list(|source| (node(source), member(source))));
    topology.member_states.extend(source.list(|source| (node(source), member_state(source))));
    topology
        .departed
        .extend(source.list(|source| (node(source), Departed::new(&member(source), member_state(source)))));
    topology.groups.extend(source.list(|source| (shard(source), group(source))));
    topology
}

pub fn system_command(source: &mut Source) -> SystemCommand {
    match source.below(7) {
        0 => SystemCommand::Join { member: member(source), replaces: some_node(source), known_as: some_node(source) },
        1 => {
            let based_on = Epoch(source.number());
            SystemCommand::Place { based_on, groups: source.list(|source| (shard(source), source.list(node))) }
        }
        2 => SystemCommand::Retire { shard: shard(source), replica: replica(source) },
        3 => SystemCommand::Renew { shard: shard(source), replica: replica(source) },
        4 => {
            let (node, state) = (node(source), source.option(member_state));
            SystemCommand::SetMemberState { node, state, successor: some_node(source), fewer_replicas: source.flag() }
        }
        5 => SystemCommand::Remove { node: node(source) },
        _ => SystemCommand::Pause(source.flag()),
    }
}

pub fn reply(source: &mut Source) -> SystemReply {
    match source.below(3) {
        0 => SystemReply::Joined { node: node(source), epoch: Epoch(source.number()) },
        1 => SystemReply::Done(Epoch(source.number())),
        _ => SystemReply::Refused(source.text(4096)),
    }
}

pub fn node(source: &mut Source) -> NodeId {
    NodeId(source.number())
}

pub fn shard(source: &mut Source) -> ShardId {
    ShardId(source.number_u32())
}

pub fn replica(source: &mut Source) -> ReplicaId {
    ReplicaId(source.number())
}

pub fn member_state(source: &mut Source) -> MemberState {
    [MemberState::Drained, MemberState::Leaving, MemberState::Dead, MemberState::Replaced][source.below(4)]
}

/// Zero is no node.
fn some_node(source: &mut Source) -> Option<NodeId> {
    Some(node(source)).filter(|node| node.0 != 0)
}

fn group(source: &mut Source) -> Group {
    Group { target: source.list(node), replicas: source.list(replica) }
}

pub fn body(data: &[u8]) {
    let Some((&format, data)) = data.split_first() else { return };
    match format % 3 {
        0 => check::<Topologies>(data),
        1 => check::<Commands>(data),
        _ => check::<Replies>(data),
    }
}

pub fn seed(data: &[u8]) -> Bytes {
    let format = data.first().copied().unwrap_or_default() % 3;
    let encoded = match format {
        0 => encoding::<Topologies>(data),
        1 => encoding::<Commands>(data),
        _ => encoding::<Replies>(data),
    };
    [&[format], &encoded[..]].concat().into()
}
