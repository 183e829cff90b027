//! The system shard's state machine: who is in the cluster, and where the data is to be.
//!
//! One Raft group like any other, with another machine on top. Its commands are few and rare, so its state is one
//! immutable [`Topology`], replaced as a whole: whoever holds an older one may keep reading it.
//!
//! What it guarantees:
//! - a [`NodeId`] and a [`ReplicaId`] are handed out once and never again;
//! - a name belongs to one identity: a second identity under it is refused, the same one is told what it was told;
//! - a replica is retired only when nothing wants it, and every change makes a new epoch.

pub mod command;
mod reply;
pub mod topology;

use crate::codec::CodecError;
use crate::time::Stamp;
use crate::types::{Epoch, NodeId, ReplicaId, ShardId};
pub use command::SystemCommand;
use std::sync::Arc;
pub use topology::{Addresses, Group, Member, Members, Topology};

/// Why bytes are not a topology or a command of the system shard.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("format version {0} is not known here; a newer Ringfort wrote this")]
    Version(u8),
    #[error("operation {0} is not known here; a newer Ringfort wrote this")]
    Operation(u8),
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// What a command of the system shard answers.
#[derive(Clone, Debug, PartialEq)]
pub enum SystemReply {
    /// The node is a member under this id.
    Joined(NodeId),
    /// Done, at this epoch; the same epoch as before where there was nothing to do.
    Done(Epoch),
    /// Not done, and why, in words for the operator.
    Refused(String),
}

/// The system shard's replicated state.
#[derive(Clone, Debug)]
pub struct SystemMachine {
    topology: Arc<Topology>,
    last_stamp: Stamp,
}

impl SystemMachine {
    pub fn new(topology: Topology, last_stamp: Stamp) -> SystemMachine {
        SystemMachine { topology: Arc::new(topology), last_stamp }
    }

    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    pub fn last_stamp(&self) -> Stamp {
        self.last_stamp
    }

    /// Applies one command. Deterministic: the same state and command give the same state and answer everywhere.
    pub fn apply(&mut self, stamp: Stamp, command: SystemCommand) -> SystemReply {
        self.last_stamp = stamp;
        let mut next = Topology::clone(&self.topology);
        let reply = next.apply(command);
        if next != *self.topology {
            next.epoch = Epoch(next.epoch.0 + 1);
            self.topology = Arc::new(next);
        }
        match reply {
            Ok(Some(node)) => SystemReply::Joined(node),
            Ok(None) => SystemReply::Done(self.topology.epoch),
            Err(why) => SystemReply::Refused(why),
        }
    }
}

impl Topology {
    fn apply(&mut self, command: SystemCommand) -> Result<Option<NodeId>, String> {
        match command {
            SystemCommand::Join(member) => self.join(member).map(Some),
            SystemCommand::Place { based_on, groups } => self.place(based_on, groups).map(|()| None),
            SystemCommand::Retire { shard, replica } => self.retire(shard, replica).map(|()| None),
            SystemCommand::Renew { shard, replica } => self.renew(shard, replica).map(|()| None),
        }
    }

    fn join(&mut self, member: Member) -> Result<NodeId, String> {
        if let Some((id, known)) = self.node_named(&member.name) {
            if known.identity != member.identity {
                return Err(format!(
                    "a node named {:?} is a member already, with another identity (at {}): choose another --node-id, \
                     or start that node with its own --raft-dir",
                    member.name, known.raft_address
                ));
            }
            self.nodes.insert(id, member);
            return Ok(id);
        }
        if let Some(known) = self.nodes.values().find(|known| known.identity == member.identity) {
            return Err(format!("this --raft-dir belongs to node {:?}: start it under that --node-id", known.name));
        }
        if self.nodes.len() >= topology::MAX_NODES {
            return Err(format!("the cluster has {} nodes, which is the limit", self.nodes.len()));
        }
        let id = NodeId(self.next_node);
        self.next_node += 1;
        self.nodes.insert(id, member);
        Ok(id)
    }

    fn place(&mut self, based_on: Epoch, groups: Vec<(ShardId, Vec<NodeId>)>) -> Result<(), String> {
        if based_on != self.epoch {
            return Err(format!("the placement is based on epoch {based_on}, the latest is {}", self.epoch));
        }
        for (shard, nodes) in &groups {
            let known = self.groups.contains_key(shard) && nodes.iter().all(|node| self.nodes.contains_key(node));
            if !known || nodes.is_empty() {
                return Err(format!("shard {shard} can't be placed on {nodes:?}"));
            }
        }
        for (shard, nodes) in groups {
            for &node in &nodes {
                if self.groups.get(&shard).is_some_and(|group| group.replica_on(node).is_none()) {
                    self.hand_out(shard, node)?;
                }
            }
            if let Some(group) = self.groups.get_mut(&shard) {
                group.wanted = nodes;
            }
        }
        Ok(())
    }

    fn retire(&mut self, shard: ShardId, replica: ReplicaId) -> Result<(), String> {
        let group = self.groups.get_mut(&shard).ok_or_else(|| format!("there is no shard {shard}"))?;
        if group.wanted_replicas().contains(&replica) {
            return Err(format!("replica {replica} of shard {shard} is wanted"));
        }
        group.replicas.retain(|&held| held != replica);
        Ok(())
    }

    fn renew(&mut self, shard: ShardId, replica: ReplicaId) -> Result<(), String> {
        let group = self.groups.get(&shard).ok_or_else(|| format!("there is no shard {shard}"))?;
        if group.replica_on(replica.node()) != Some(replica) {
            return Ok(()); // Asked twice, or the node is to have no replica any more.
        }
        self.hand_out(shard, replica.node())
    }

    fn hand_out(&mut self, shard: ShardId, node: NodeId) -> Result<(), String> {
        let number = self.next_replica;
        self.next_replica = number.checked_add(1).ok_or("no replica numbers are left")?;
        if let Some(group) = self.groups.get_mut(&shard) {
            group.replicas.push(ReplicaId::new(node, number));
            group.replicas.sort();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::topology::tests::member;
    use super::*;
    use crate::types::{ClusterId, Identity};
    use ringfort_ring::ShardCount;

    fn machine() -> SystemMachine {
        let topology = Topology::bootstrap(ClusterId(5), ShardCount::new(2).unwrap(), member("node1"));
        SystemMachine::new(topology, Stamp(0))
    }

    fn join(machine: &mut SystemMachine, name: &str) -> SystemReply {
        machine.apply(Stamp(1), SystemCommand::Join(member(name)))
    }

    fn place(machine: &mut SystemMachine, shard: u32, nodes: &[u64]) -> SystemReply {
        let based_on = machine.topology().epoch;
        let nodes = nodes.iter().map(|&n| NodeId(n)).collect();
        machine.apply(Stamp(1), SystemCommand::Place { based_on, groups: vec![(ShardId(shard), nodes)] })
    }

    #[test]
    fn join_is_idempotent_by_name_and_identity() {
        let mut machine = machine();
        assert_eq!(join(&mut machine, "node2"), SystemReply::Joined(NodeId(2)));
        let epoch = machine.topology().epoch;
        assert_eq!(join(&mut machine, "node2"), SystemReply::Joined(NodeId(2)));
        assert_eq!(machine.topology().epoch, epoch, "nothing changed, so no new epoch");
        assert_eq!(join(&mut machine, "node3"), SystemReply::Joined(NodeId(3)));
    }

    #[test]
    fn a_taken_name_and_a_taken_identity_are_refused() {
        let mut machine = machine();
        let other = Member { identity: Identity(1), ..member("node1") };
        let reply = machine.apply(Stamp(1), SystemCommand::Join(other));
        assert!(matches!(reply, SystemReply::Refused(why) if why.contains("another identity")));
        let renamed = Member { name: "node9".into(), ..member("node1") };
        let reply = machine.apply(Stamp(1), SystemCommand::Join(renamed));
        assert!(matches!(reply, SystemReply::Refused(why) if why.contains("node1")));
    }

    #[test]
    fn addresses_may_change() {
        let mut machine = machine();
        let moved = Member { raft_address: "elsewhere:1".into(), ..member("node1") };
        assert_eq!(machine.apply(Stamp(1), SystemCommand::Join(moved.clone())), SystemReply::Joined(NodeId(1)));
        assert_eq!(machine.topology().nodes[&NodeId(1)], moved);
    }

    #[test]
    fn replica_ids_are_never_handed_out_twice() {
        let mut machine = machine();
        join(&mut machine, "node2");
        place(&mut machine, 0, &[1, 2]);
        let first = machine.topology().replica(ShardId(0), NodeId(2)).unwrap();
        place(&mut machine, 0, &[1]);
        machine.apply(Stamp(1), SystemCommand::Retire { shard: ShardId(0), replica: first });
        assert_eq!(machine.topology().replica(ShardId(0), NodeId(2)), None);
        place(&mut machine, 0, &[2, 1]);
        let second = machine.topology().replica(ShardId(0), NodeId(2)).unwrap();
        assert!(second > first);
    }

    #[test]
    fn a_wanted_replica_is_not_retired_and_a_renewed_one_is_superseded() {
        let mut machine = machine();
        let old = machine.topology().replica(ShardId(0), NodeId(1)).unwrap();
        let retire = SystemCommand::Retire { shard: ShardId(0), replica: old };
        assert!(matches!(machine.apply(Stamp(1), retire.clone()), SystemReply::Refused(_)));
        machine.apply(Stamp(1), SystemCommand::Renew { shard: ShardId(0), replica: old });
        let new = machine.topology().replica(ShardId(0), NodeId(1)).unwrap();
        assert_ne!(new, old);
        let epoch = machine.topology().epoch;
        machine.apply(Stamp(1), SystemCommand::Renew { shard: ShardId(0), replica: old });
        assert_eq!(machine.topology().epoch, epoch, "renewed once");
        assert!(matches!(machine.apply(Stamp(1), retire), SystemReply::Done(_)));
    }

    #[test]
    fn a_placement_based_on_an_older_epoch_is_refused() {
        let mut machine = machine();
        let based_on = machine.topology().epoch;
        join(&mut machine, "node2");
        let place = SystemCommand::Place { based_on, groups: vec![(ShardId(0), vec![NodeId(2)])] };
        assert!(matches!(machine.apply(Stamp(1), place), SystemReply::Refused(_)));
        assert!(matches!(super::tests::place(&mut machine, 0, &[7]), SystemReply::Refused(_)));
    }
}
