//! Members that must hold no replicas, and nodes that are no longer members.
//!
//! A member state says that a node must hold nothing, and whether it is removed once that is so. The controller moves
//! the node's replicas away like all other moves; nothing here waits for them.

use super::DecodeError;
use super::topology::{Member, read_text};
use crate::codec::{Reader, put_bytes};

/// Why a member must hold no replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberState {
    /// An operator wants it empty. It stays a member.
    Drained,
    /// An operator wants it removed.
    Leaving,
    /// It has been silent for too long. It becomes active again if it is heard before it is removed.
    Dead,
    /// Its directory is lost, and another node has its name.
    Replaced,
}

impl MemberState {
    /// Whether the node is removed once it holds nothing.
    pub fn leaves(self) -> bool {
        self != MemberState::Drained
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            MemberState::Drained => 1,
            MemberState::Leaving => 2,
            MemberState::Dead => 3,
            MemberState::Replaced => 4,
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<MemberState, DecodeError> {
        MemberState::decode_or_none(reader)?.ok_or(DecodeError::Invalid("member state"))
    }

    pub(super) fn decode_or_none(reader: &mut Reader) -> Result<Option<MemberState>, DecodeError> {
        match reader.u8()? {
            0 => Ok(None),
            1 => Ok(Some(MemberState::Drained)),
            2 => Ok(Some(MemberState::Leaving)),
            3 => Ok(Some(MemberState::Dead)),
            4 => Ok(Some(MemberState::Replaced)),
            _ => Err(DecodeError::Invalid("member state")),
        }
    }
}

/// A former member: enough to tell it that it was removed when it comes back.
#[derive(Clone, Debug, PartialEq)]
pub struct Departed {
    pub name: String,
    /// Its last address, `host:port`.
    pub raft_address: String,
    /// Its last state, one that [leaves](MemberState::leaves).
    pub why: MemberState,
}

impl Departed {
    pub fn new(member: &Member, why: MemberState) -> Departed {
        let (name, raft_address) = (member.name.clone(), member.raft_address.clone());
        Departed { name, raft_address, why }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        put_bytes(out, self.raft_address.as_bytes());
        out.push(self.why.code());
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Departed, DecodeError> {
        let (name, raft_address) = (read_text(reader)?, read_text(reader)?);
        Ok(Departed { name, raft_address, why: MemberState::decode(reader)? })
    }
}
