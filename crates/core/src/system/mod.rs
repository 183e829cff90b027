//! The system shard's state machine: the members of the cluster and the target of every shard.
//!
//! The system shard is a Raft group like any other, with another state machine. Its commands are few and rare, so its
//! state is one immutable [`Topology`], replaced as a whole: a thread that holds an older one may keep reading it.
//!
//! What it guarantees:
//! - a [`NodeId`] and a [`ReplicaId`] are handed out once and never again;
//! - a name belongs to one identity: a second identity under it is refused, and the same one gets the same node id
//!   again;
//! - a replica is retired only when it is not in the target, and a node is removed only when it holds nothing;
//! - there is always at least one active node, and every change makes a new epoch.

pub mod command;
pub mod member_state;
mod reply;
pub mod topology;

use crate::codec::CodecError;
use crate::limits::{MAX_DEPARTED, REPLICATION};
use crate::time::HlcTimestamp;
use crate::types::{Epoch, NodeId, ReplicaId, ShardId};
pub use command::{ENTRY_VERSION, SystemCommand};
pub use member_state::{Departed, MemberState};
use std::sync::Arc;
pub use topology::{Addresses, Group, Member, Members, Topology};

/// Why bytes are not a topology or a command of the system shard.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("format version {0} is not known here: use the version of Ringfort that wrote it")]
    Version(u8),
    #[error("operation {0} is not known here; a newer Ringfort wrote this")]
    Operation(u8),
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// The reply to a command of the system shard.
#[derive(Clone, Debug, PartialEq)]
pub enum SystemReply {
    /// The node is a member under this id, as of this epoch. A topology of an older epoch may lack replicas that the
    /// node held before it asked.
    Joined { node: NodeId, epoch: Epoch },
    /// Done, at this epoch; the epoch is unchanged if there was nothing to do.
    Done(Epoch),
    /// Refused, with the reason in words for the operator.
    Refused(String),
}

/// The system shard's replicated state.
#[derive(Clone, Debug)]
pub struct SystemMachine {
    topology: Arc<Topology>,
    last_timestamp: HlcTimestamp,
}

impl SystemMachine {
    pub fn new(topology: Topology, last_timestamp: HlcTimestamp) -> SystemMachine {
        SystemMachine { topology: Arc::new(topology), last_timestamp }
    }

    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    pub fn last_timestamp(&self) -> HlcTimestamp {
        self.last_timestamp
    }

    /// Applies one command. Deterministic: the same state and command give the same state and reply on every node.
    pub fn apply(&mut self, timestamp: HlcTimestamp, command: SystemCommand) -> SystemReply {
        self.last_timestamp = timestamp;
        let mut next = Topology::clone(&self.topology);
        let reply = next.apply(command);
        if next != *self.topology {
            next.epoch = Epoch(next.epoch.0 + 1);
            self.topology = Arc::new(next);
        }
        match reply {
            Ok(Some(node)) => SystemReply::Joined { node, epoch: self.topology.epoch },
            Ok(None) => SystemReply::Done(self.topology.epoch),
            Err(why) => SystemReply::Refused(why),
        }
    }
}

impl Topology {
    fn apply(&mut self, command: SystemCommand) -> Result<Option<NodeId>, String> {
        match command {
            SystemCommand::Join { member, replaces, known_as } => self.join(member, replaces, known_as).map(Some),
            SystemCommand::Place { based_on, groups } => self.place(based_on, groups).map(|()| None),
            SystemCommand::Retire { shard, replica } => self.retire(shard, replica).map(|()| None),
            SystemCommand::Renew { shard, replica } => self.renew(shard, replica).map(|()| None),
            SystemCommand::SetMemberState { node, state, successor, fewer_replicas } => {
                self.set_member_state(node, state, successor, fewer_replicas).map(|()| None)
            }
            SystemCommand::Remove { node } => self.remove(node).map(|()| None),
            SystemCommand::Pause(paused) => {
                self.paused = paused;
                Ok(None)
            }
        }
    }

    fn join(&mut self, member: Member, replaces: Option<NodeId>, known_as: Option<NodeId>) -> Result<NodeId, String> {
        let is_member = |id: NodeId| self.nodes.get(&id).is_some_and(|known| known.identity == member.identity);
        if let Some(gone) = known_as.filter(|id| !is_member(*id)) {
            return Err(format!(
                "this --raft-dir holds the data of node {gone}, which is no member any more: choose an empty one to \
                 join as a new node"
            ));
        }
        if let Some((id, known)) = self.node_named(&member.name) {
            if known.identity == member.identity {
                self.nodes.insert(id, member);
                return Ok(id);
            }
            // The silence of another node proves nothing about this one.
            if replaces.is_some_and(|silent| silent != id) {
                return Err(format!(
                    "another node has joined as {:?} in the meantime (at {}): choose another --node-id",
                    member.name, known.raft_address
                ));
            }
            if replaces.is_none() {
                return Err(format!(
                    "a node named {:?} is a member already, with another identity (at {}): choose another --node-id; \
                     or start that node with its own --raft-dir; or, if that directory is lost, give --replace, or \
                     have the lost node leave first (`ringfort cluster leave {}`)",
                    member.name, known.raft_address, member.name
                ));
            }
            self.supersede(id);
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

    /// The node's directory is lost: frees its name for another node.
    fn supersede(&mut self, node: NodeId) {
        if let Some(lost) = self.nodes.get_mut(&node) {
            let suffix = format!("~{node}");
            while lost.name.len() + suffix.len() > topology::MAX_NAME_BYTES {
                lost.name.pop();
            }
            lost.name += &suffix;
            self.member_states.insert(node, MemberState::Replaced);
        }
    }

    fn set_member_state(
        &mut self,
        node: NodeId,
        state: Option<MemberState>,
        successor: Option<NodeId>,
        fewer_replicas: bool,
    ) -> Result<(), String> {
        let name = |id: NodeId| self.nodes.get(&id).map(|member| member.name.clone());
        let Some(own_name) = name(node) else {
            return match self.departed.contains_key(&node) && state.is_some_and(MemberState::leaves) {
                true => Ok(()), // It has left already.
                false => Err(format!("there is no node {node}")),
            };
        };
        let before = self.member_states.get(&node).copied();
        if before == Some(MemberState::Replaced) {
            return Err(format!("{own_name} has been replaced: its directory is lost"));
        }
        // A node that was asked to leave keeps leaving, silent or not.
        if state == Some(MemberState::Dead) && before.is_some_and(MemberState::leaves) {
            return Ok(());
        }
        let Some(state) = state else {
            self.member_states.remove(&node);
            return Ok(());
        };
        let active = self.active().count();
        let others = active - usize::from(before.is_none());
        let lacking = if fewer_replicas { 1 } else { REPLICATION.min(active) };
        if before.is_none() && others < lacking {
            return Err(match others {
                0 => format!("{own_name} is the only node that holds data: start another node first"),
                _ => {
                    // Only `leave` has that option.
                    let can_be_meant = state == MemberState::Leaving && successor.is_none();
                    let or_else = if can_be_meant { ", or have it leave with --fewer-replicas" } else { "" };
                    let nodes = if others == 1 { "node" } else { "nodes" };
                    let drained = self.member_states.iter().find(|(_, state)| **state == MemberState::Drained);
                    let undo = drained.and_then(|(&id, _)| name(id)).filter(|drained| *drained != own_name);
                    let undo =
                        undo.map(|name| format!(", or run `ringfort cluster drain {name} --undo`")).unwrap_or_default();
                    format!(
                        "without {own_name} there would be {others} {nodes} for {lacking} replicas of each shard: \
                         start another node first{undo}{or_else}"
                    )
                }
            });
        }
        if let Some(successor) = successor {
            let is_active = name(successor).is_some() && !self.member_states.contains_key(&successor);
            if !is_active || successor == node {
                return Err(format!(
                    "node {successor} can't take the place of {own_name}: give an active node that is not drained or \
                     leaving"
                ));
            }
            self.succeed(node, successor)?;
        }
        self.member_states.insert(node, state);
        Ok(())
    }

    /// Puts `successor` in each target that has `node` and does not have it yet.
    fn succeed(&mut self, node: NodeId, successor: NodeId) -> Result<(), String> {
        let is_heir = |group: &Group| group.target.contains(&node) && !group.target.contains(&successor);
        let inherited: Vec<ShardId> =
            self.groups.iter().filter(|(_, group)| is_heir(group)).map(|(&shard, _)| shard).collect();
        for shard in inherited {
            if self.replica(shard, successor).is_none() {
                self.hand_out(shard, successor)?;
            }
            if let Some(group) = self.groups.get_mut(&shard) {
                group.target.iter_mut().filter(|target| **target == node).for_each(|target| *target = successor);
            }
        }
        Ok(())
    }

    fn remove(&mut self, node: NodeId) -> Result<(), String> {
        let Some(state) = self.member_states.get(&node).copied().filter(|state| state.leaves()) else {
            return match self.nodes.contains_key(&node) {
                true => Err(format!("node {node} is not leaving")),
                false => Ok(()),
            };
        };
        match self.replicas_on(node) {
            0 => {}
            held => return Err(format!("node {node} still holds replicas of {held} shards")),
        }
        self.member_states.remove(&node);
        if let Some(member) = self.nodes.remove(&node) {
            self.departed.insert(node, Departed::new(&member, state));
        }
        while self.departed.len() > MAX_DEPARTED {
            self.departed.pop_first();
        }
        Ok(())
    }

    fn place(&mut self, based_on: Epoch, groups: Vec<(ShardId, Vec<NodeId>)>) -> Result<(), String> {
        if based_on != self.epoch {
            return Err(format!("the placement is based on epoch {based_on}, the latest is {}", self.epoch));
        }
        let may_hold = |node: &NodeId| self.nodes.contains_key(node) && !self.member_states.contains_key(node);
        for (shard, nodes) in &groups {
            let known = self.groups.contains_key(shard) && nodes.iter().all(may_hold);
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
                group.target = nodes;
            }
        }
        Ok(())
    }

    fn retire(&mut self, shard: ShardId, replica: ReplicaId) -> Result<(), String> {
        let group = self.groups.get_mut(&shard).ok_or_else(|| format!("there is no shard {shard}"))?;
        if group.target_replicas().contains(&replica) {
            return Err(format!("replica {replica} of shard {shard} is in the target"));
        }
        group.replicas.retain(|&held| held != replica);
        Ok(())
    }

    fn renew(&mut self, shard: ShardId, replica: ReplicaId) -> Result<(), String> {
        let group = self.groups.get(&shard).ok_or_else(|| format!("there is no shard {shard}"))?;
        if group.replica_on(replica.node()) != Some(replica) {
            return Ok(()); // A repeated request, or the node must have no replica any more.
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
mod tests;
