//! The request of `proto.KV/Gossip`, written by hand: generated code would decode a map of any size before its keys
//! could be counted, and an entry of a few bytes on the wire takes a hundred in memory.

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, btree_map, skip_field, string};
use prost::{DecodeError, Message};
use std::collections::BTreeMap;

/// The most keys in one call; further ones are not decoded, and the call is refused. More would also keep other work of
/// its network thread waiting.
pub const MAX_GOSSIP_KEYS: usize = 4096;

/// The number of the map's field.
const STATE: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GossipRequest {
    pub state: BTreeMap<String, String>,
    /// Entries that were not decoded, because there are more than [`MAX_GOSSIP_KEYS`]. It is not sent.
    pub left_out: usize,
}

impl Message for GossipRequest {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        let (encode, length) = (string::encode, string::encoded_len);
        btree_map::encode(encode, length, encode, length, STATE, &self.state, buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag == STATE && self.state.len() < MAX_GOSSIP_KEYS {
            return btree_map::merge(string::merge, string::merge, &mut self.state, buffer, context);
        }
        self.left_out += usize::from(tag == STATE);
        skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        btree_map::encoded_len(string::encoded_len, string::encoded_len, STATE, &self.state)
    }

    fn clear(&mut self) {
        *self = GossipRequest::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(keys: usize) -> GossipRequest {
        let entries = (0..keys).map(|key| (format!("{key:06}"), "v".to_owned()));
        GossipRequest { state: entries.collect(), left_out: 0 }
    }

    #[test]
    fn what_is_sent_is_received() {
        for keys in [0, 1, MAX_GOSSIP_KEYS] {
            let request = request(keys);
            assert_eq!(GossipRequest::decode(&*request.encode_to_vec()).unwrap(), request);
        }
        assert_eq!(request(1).encode_to_vec(), b"\x0a\x0b\x0a\x06000000\x12\x01v", "as the .proto file says");
    }

    #[test]
    fn entries_beyond_the_limit_are_counted_and_not_decoded() {
        let sent = request(MAX_GOSSIP_KEYS + 1000).encode_to_vec();
        let received = GossipRequest::decode(&*sent).unwrap();
        assert_eq!((received.state.len(), received.left_out), (MAX_GOSSIP_KEYS, 1000));
    }
}
