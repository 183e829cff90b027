//! What an entry of the system shard says. One command an entry, in a codec of its own.

use super::DecodeError;
use super::topology::{Member, read_identity, read_text};
use crate::codec::{Reader, put_bytes, put_varint};
use crate::time::Stamp;
use crate::types::{Epoch, NodeId, ReplicaId, ShardId};
use bytes::Bytes;

const FORMAT: u8 = 1;
const JOIN: u8 = 1;
const PLACE: u8 = 2;
const RETIRE: u8 = 3;
const RENEW: u8 = 4;

/// A change of the cluster's own state.
#[derive(Clone, Debug, PartialEq)]
pub enum SystemCommand {
    /// A node joins, or says again that it has, or that its addresses changed.
    Join(Member),
    /// Where shards' replicas are to be from now on, the preferred leader first. Computed from the topology at
    /// `based_on`, and refused if that is no longer the latest.
    Place { based_on: Epoch, groups: Vec<(ShardId, Vec<NodeId>)> },
    /// A replica that is not wanted any more has left its shard's configuration: its node may delete it.
    Retire { shard: ShardId, replica: ReplicaId },
    /// A replica's log is damaged or lost: its node gets a new one in its place.
    Renew { shard: ShardId, replica: ReplicaId },
}

impl SystemCommand {
    /// The payload of the entry that carries this command.
    pub fn encode(&self, stamp: Stamp) -> Bytes {
        let mut out = vec![FORMAT];
        put_varint(&mut out, stamp.0);
        match self {
            SystemCommand::Join(member) => {
                out.push(JOIN);
                put_bytes(&mut out, member.name.as_bytes());
                out.extend_from_slice(&member.identity.0.to_le_bytes());
                put_bytes(&mut out, member.raft_address.as_bytes());
                put_bytes(&mut out, member.grpc_address.as_bytes());
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
        }
        out.into()
    }

    /// Reads what [`SystemCommand::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<(Stamp, SystemCommand), DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            FORMAT => {}
            other => return Err(DecodeError::Version(other)),
        }
        let stamp = Stamp(reader.varint()?);
        let shard = |reader: &mut Reader| {
            let id = u32::try_from(reader.varint()?).map_err(|_| DecodeError::Invalid("shard"))?;
            Ok::<_, DecodeError>(ShardId(id))
        };
        let command = match reader.u8()? {
            JOIN => {
                let name = read_text(&mut reader)?;
                let identity = read_identity(&mut reader)?;
                let raft_address = read_text(&mut reader)?;
                let grpc_address = read_text(&mut reader)?;
                SystemCommand::Join(Member { name, identity, raft_address, grpc_address })
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
            other => return Err(DecodeError::Operation(other)),
        };
        reader.expect_end()?;
        Ok((stamp, command))
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
            SystemCommand::Join(member("node2")),
            SystemCommand::Place { based_on: Epoch(4), groups: vec![(ShardId(3), vec![NodeId(1), NodeId(2)])] },
            SystemCommand::Retire { shard: ShardId::SYSTEM, replica },
            SystemCommand::Renew { shard: ShardId(0), replica },
        ];
        for command in commands {
            let encoded = command.encode(Stamp(77));
            assert_eq!(SystemCommand::decode(&encoded).unwrap(), (Stamp(77), command));
            assert!((0..encoded.len()).all(|length| SystemCommand::decode(&encoded[..length]).is_err()));
        }
    }

    #[test]
    fn an_entry_keeps_its_bytes() {
        let command = SystemCommand::Retire { shard: ShardId(300), replica: ReplicaId::new(NodeId(1), 5) };
        assert_eq!(&command.encode(Stamp(1))[..], [1, 1, 3, 0xac, 2, 0x85, 0x80, 0x80, 0x80, 0x10]);
    }
}
