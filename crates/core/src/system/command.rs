//! Entries of the system shard: one command per entry, in a codec of their own.

use super::DecodeError;
use super::member_state::MemberState;
use super::topology::Member;
use crate::codec::{Reader, put_varint};
use crate::time::HlcTimestamp;
use crate::types::{Epoch, NodeId, ReplicaId, ShardId};
use bytes::Bytes;

/// The first byte of every entry of the system shard. Entries of key shards begin with a different byte
/// ([`crate::kv::entry`]).
pub const ENTRY_VERSION: u8 = 1;
const JOIN: u8 = 1;
const PLACE: u8 = 2;
const RETIRE: u8 = 3;
const RENEW: u8 = 4;
const SET_MEMBER_STATE: u8 = 5;
const REMOVE: u8 = 6;
const PAUSE: u8 = 7;

/// A change of the cluster's own state.
#[derive(Clone, Debug, PartialEq)]
pub enum SystemCommand {
    /// A node joins, repeats its join, or reports new addresses or a new zone. It takes the name of the node that it
    /// `replaces`, whose directory is lost, if that node still has the name. A node whose directory has data gives its
    /// id in `known_as`: if it were admitted under another id, its replicas would belong to no node.
    Join { member: Member, replaces: Option<NodeId>, known_as: Option<NodeId> },
    /// New targets of shards, the preferred leader first. Computed from the topology at `based_on`, and refused if that
    /// is no longer the latest.
    Place { based_on: Epoch, groups: Vec<(ShardId, Vec<NodeId>)> },
    /// A replica that is no longer in the target has left its shard's configuration: its node may delete it.
    Retire { shard: ShardId, replica: ReplicaId },
    /// A replica's log is damaged or lost: its node gets a new replica in its place.
    Renew { shard: ShardId, replica: ReplicaId },
    /// A node must hold no replicas any more, or, without a state, is active again. `successor` takes its place in
    /// every shard. Refused if too few active nodes would remain for as many replicas as before, unless
    /// `fewer_replicas` says that this is intended.
    SetMemberState { node: NodeId, state: Option<MemberState>, successor: Option<NodeId>, fewer_replicas: bool },
    /// A leaving node holds nothing any more, and stops being a member.
    Remove { node: NodeId },
    /// Pauses or resumes the controller's moves.
    Pause(bool),
}

impl SystemCommand {
    /// The payload of the entry that carries this command.
    pub fn encode(&self, timestamp: HlcTimestamp) -> Bytes {
        let mut out = vec![ENTRY_VERSION];
        put_varint(&mut out, timestamp.0);
        match self {
            SystemCommand::Join { member, replaces, known_as } => {
                out.push(JOIN);
                member.encode(&mut out);
                put_node(&mut out, *replaces);
                put_node(&mut out, *known_as);
            }
            SystemCommand::Place { based_on, groups } => {
                out.push(PLACE);
                put_varint(&mut out, based_on.0);
                put_varint(&mut out, groups.len() as u64);
                for (shard, nodes) in groups {
                    put_varint(&mut out, u64::from(shard.0));
                    put_varint(&mut out, nodes.len() as u64);
                    nodes.iter().for_each(|node| put_varint(&mut out, node.0));
                }
            }
            SystemCommand::Retire { shard, replica } | SystemCommand::Renew { shard, replica } => {
                out.push(if matches!(self, SystemCommand::Retire { .. }) { RETIRE } else { RENEW });
                put_varint(&mut out, u64::from(shard.0));
                put_varint(&mut out, replica.0);
            }
            SystemCommand::SetMemberState { node, state, successor, fewer_replicas } => {
                out.push(SET_MEMBER_STATE);
                put_varint(&mut out, node.0);
                out.push(state.map_or(0, MemberState::code));
                put_node(&mut out, *successor);
                out.push(u8::from(*fewer_replicas));
            }
            SystemCommand::Remove { node } => {
                out.push(REMOVE);
                put_varint(&mut out, node.0);
            }
            SystemCommand::Pause(paused) => out.extend_from_slice(&[PAUSE, u8::from(*paused)]),
        }
        out.into()
    }

    /// Reads what [`SystemCommand::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<(HlcTimestamp, SystemCommand), DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            ENTRY_VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let timestamp = HlcTimestamp(reader.varint()?);
        let shard = |reader: &mut Reader| {
            let id = u32::try_from(reader.varint()?).map_err(|_| DecodeError::Invalid("shard"))?;
            Ok::<_, DecodeError>(ShardId(id))
        };
        let command = match reader.u8()? {
            JOIN => {
                let member = Member::decode(&mut reader)?;
                let replaces = node(&mut reader)?;
                SystemCommand::Join { member, replaces, known_as: node(&mut reader)? }
            }
            PLACE => {
                let based_on = Epoch(reader.varint()?);
                let mut groups = Vec::new();
                for _ in 0..reader.varint()? {
                    let shard = shard(&mut reader)?;
                    let mut nodes = Vec::new();
                    for _ in 0..reader.varint()? {
                        nodes.push(NodeId(reader.varint()?));
                    }
                    groups.push((shard, nodes));
                }
                SystemCommand::Place { based_on, groups }
            }
            op @ (RETIRE | RENEW) => {
                let shard = shard(&mut reader)?;
                let replica = ReplicaId(reader.varint()?);
                if op == RETIRE {
                    SystemCommand::Retire { shard, replica }
                } else {
                    SystemCommand::Renew { shard, replica }
                }
            }
            SET_MEMBER_STATE => {
                let node = NodeId(reader.varint()?);
                let state = MemberState::decode_or_none(&mut reader)?;
                let successor = self::node(&mut reader)?;
                SystemCommand::SetMemberState { node, state, successor, fewer_replicas: switch(&mut reader)? }
            }
            REMOVE => SystemCommand::Remove { node: NodeId(reader.varint()?) },
            PAUSE => SystemCommand::Pause(switch(&mut reader)?),
            other => return Err(DecodeError::Operation(other)),
        };
        reader.expect_end()?;
        Ok((timestamp, command))
    }
}

/// Zero stands for no node.
fn put_node(out: &mut Vec<u8>, node: Option<NodeId>) {
    put_varint(out, node.map_or(0, |node| node.0));
}

fn node(reader: &mut Reader) -> Result<Option<NodeId>, DecodeError> {
    Ok(Some(NodeId(reader.varint()?)).filter(|node| node.0 != 0))
}

fn switch(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid("switch")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::topology::tests::member;

    #[test]
    fn commands_survive_their_encoding() {
        let replica = ReplicaId::new(NodeId(2), 9);
        let commands = [
            SystemCommand::Join {
                member: Member { zone: "a".into(), ..member("node2") },
                replaces: Some(NodeId(1)),
                known_as: Some(NodeId(2)),
            },
            SystemCommand::Place { based_on: Epoch(4), groups: vec![(ShardId(3), vec![NodeId(1), NodeId(2)])] },
            SystemCommand::Retire { shard: ShardId::SYSTEM, replica },
            SystemCommand::Renew { shard: ShardId(0), replica },
            SystemCommand::SetMemberState {
                node: NodeId(4),
                state: Some(MemberState::Leaving),
                successor: Some(NodeId(5)),
                fewer_replicas: true,
            },
            SystemCommand::SetMemberState { node: NodeId(4), state: None, successor: None, fewer_replicas: false },
            SystemCommand::Remove { node: NodeId(4) },
            SystemCommand::Pause(true),
        ];
        for command in commands {
            let encoded = command.encode(HlcTimestamp(77));
            assert_eq!(SystemCommand::decode(&encoded).unwrap(), (HlcTimestamp(77), command));
            assert!((0..encoded.len()).all(|length| SystemCommand::decode(&encoded[..length]).is_err()));
        }
    }

    #[test]
    fn an_entry_keeps_its_bytes() {
        let command = SystemCommand::Retire { shard: ShardId(300), replica: ReplicaId::new(NodeId(1), 5) };
        assert_eq!(&command.encode(HlcTimestamp(1))[..], [1, 1, 3, 0xac, 2, 0x85, 0x80, 0x80, 0x80, 0x10]);
    }
}
