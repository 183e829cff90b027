//! Encoding of replies to system shard commands, for the node that forwarded the command.

use super::{DecodeError, SystemReply};
use crate::codec::{Reader, put_bytes, put_varint};
use crate::types::{Epoch, NodeId};
use bytes::Bytes;

const JOINED: u8 = 1;
const DONE: u8 = 2;
const REFUSED: u8 = 3;

/// The maximal length of a reason that is decoded.
const MAX_REASON_BYTES: usize = 4096;

impl SystemReply {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            SystemReply::Joined { node, epoch } => {
                out.push(JOINED);
                put_varint(&mut out, node.0);
                put_varint(&mut out, epoch.0);
            }
            SystemReply::Done(epoch) => {
                out.push(DONE);
                put_varint(&mut out, epoch.0);
            }
            SystemReply::Refused(reason) => {
                out.push(REFUSED);
                put_bytes(&mut out, reason.as_bytes());
            }
        }
        out.into()
    }

    /// Reads what [`SystemReply::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<SystemReply, DecodeError> {
        let mut reader = Reader::new(bytes);
        let reply = match reader.u8()? {
            JOINED => SystemReply::Joined { node: NodeId(reader.varint()?), epoch: Epoch(reader.varint()?) },
            DONE => SystemReply::Done(Epoch(reader.varint()?)),
            REFUSED => {
                let reason = std::str::from_utf8(reader.bytes(MAX_REASON_BYTES)?);
                // Invalid UTF-8 is refused, not repaired: the repaired text could exceed the limit and the received
                // length.
                SystemReply::Refused(reason.map_err(|_| DecodeError::Invalid("text that is not UTF-8"))?.to_owned())
            }
            other => return Err(DecodeError::Operation(other)),
        };
        reader.expect_end()?;
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_survive_their_encoding() {
        for reply in [
            SystemReply::Joined { node: NodeId(300), epoch: Epoch(200) },
            SystemReply::Done(Epoch(7)),
            SystemReply::Refused("no".to_owned()),
        ] {
            let encoded = reply.encode();
            assert_eq!(SystemReply::decode(&encoded).unwrap(), reply);
            assert!((0..encoded.len()).all(|length| SystemReply::decode(&encoded[..length]).is_err()));
        }
    }
}
