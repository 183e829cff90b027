//! The header of a snapshot.
//!
//! | bytes | meaning |
//! |---|---|
//! | `01` | version of the whole format |
//! | u32 | shard |
//! | varint | index |
//! | varint | term |
//! | configuration | voters, learners, outgoing voters, next learners: a varint count and a u64 each; then 0 or 1 |
//! | the rest | the state machine's own |

use super::{MAX_CHUNK_BYTES, SnapshotError};
use crate::codec::{CodecError, Reader, put_u32, put_u64, put_varint};
use crate::types::{LogIndex, ShardId, Term};
use bytes::Bytes;
use raft::eraftpb::ConfState;

pub(super) const VERSION: u8 = 1;

/// Identifies the state in a snapshot. Encoded canonically: equal headers are equal bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotHeader {
    pub shard: ShardId,
    /// The last entry in the state.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// The configuration at `index`.
    pub conf_state: ConfState,
    /// What the state machine needs to read the chunks; for a map, its [`CutMeta`](crate::kv::state::CutMeta).
    pub meta: Bytes,
}

impl SnapshotHeader {
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        put_u32(&mut out, self.shard.0);
        put_varint(&mut out, self.index.0);
        put_varint(&mut out, self.term.0);
        put_conf_state(&mut out, &self.conf_state);
        out.extend_from_slice(&self.meta);
        assert!(out.len() <= MAX_CHUNK_BYTES, "a snapshot's header of {} bytes", out.len());
        out.into()
    }

    pub fn decode(encoded: &Bytes) -> Result<SnapshotHeader, SnapshotError> {
        let mut reader = Reader::new(encoded);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(SnapshotError::UnknownVersion(version));
        }
        if encoded.len() > MAX_CHUNK_BYTES {
            return Err(CodecError::TooLong { len: encoded.len() as u64, max: MAX_CHUNK_BYTES }.into());
        }
        let shard = ShardId(reader.u32()?);
        let index = LogIndex(reader.varint()?);
        let term = Term(reader.varint()?);
        let conf_state = read_conf_state(&mut reader)?;
        Ok(SnapshotHeader { shard, index, term, conf_state, meta: encoded.slice_ref(reader.rest()) })
    }
}

fn put_conf_state(out: &mut Vec<u8>, conf_state: &ConfState) {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave, .. } = conf_state;
    for replicas in [voters, learners, voters_outgoing, learners_next] {
        put_varint(out, replicas.len() as u64);
        replicas.iter().for_each(|replica| put_u64(out, *replica));
    }
    out.push(u8::from(*auto_leave));
}

fn read_conf_state(reader: &mut Reader<'_>) -> Result<ConfState, SnapshotError> {
    let [voters, learners, voters_outgoing, learners_next] =
        [read_replicas(reader)?, read_replicas(reader)?, read_replicas(reader)?, read_replicas(reader)?];
    let auto_leave = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(SnapshotError::Corrupt("a flag is neither 0 nor 1")),
    };
    Ok(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave, ..ConfState::default() })
}

fn read_replicas(reader: &mut Reader<'_>) -> Result<Vec<u64>, CodecError> {
    let count = usize::try_from(reader.varint()?).map_err(|_| CodecError::Truncated)?;
    let replicas = reader.take(count.checked_mul(8).ok_or(CodecError::Truncated)?)?;
    Ok(replicas.as_chunks().0.iter().map(|replica| u64::from_le_bytes(*replica)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conf_state([voters, learners, voters_outgoing, learners_next]: [Vec<u64>; 4], auto_leave: bool) -> ConfState {
        ConfState { voters, learners, voters_outgoing, learners_next, auto_leave, ..ConfState::default() }
    }

    fn any_header() -> impl Strategy<Value = SnapshotHeader> {
        let replicas = || prop::collection::vec(any::<u64>(), 0..4);
        let conf_state = ([replicas(), replicas(), replicas(), replicas()], any::<bool>())
            .prop_map(|(replicas, auto_leave)| conf_state(replicas, auto_leave));
        let meta = prop::collection::vec(any::<u8>(), 0..50);
        (any::<u32>(), any::<u64>(), any::<u64>(), conf_state, meta).prop_map(
            |(shard, index, term, conf_state, meta)| SnapshotHeader {
                shard: ShardId(shard),
                index: LogIndex(index),
                term: Term(term),
                conf_state,
                meta: meta.into(),
            },
        )
    }

    #[test]
    fn encoding_is_pinned() {
        let header = SnapshotHeader {
            shard: ShardId(3),
            index: LogIndex(300),
            term: Term(2),
            conf_state: conf_state([vec![1, 2], vec![4], vec![], vec![]], true),
            meta: "meta".into(),
        };
        let mut expected = b"\x01\x03\0\0\0\xac\x02\x02".to_vec();
        expected.extend(b"\x02\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\x04\0\0\0\0\0\0\0\0\0\x01meta");
        assert_eq!(&header.encode()[..], &expected[..]);
    }

    #[test]
    fn another_version_and_impossible_counts_are_refused() {
        let error = |bytes: &'static [u8]| SnapshotHeader::decode(&Bytes::from_static(bytes)).err();
        assert!(matches!(error(b"\x02"), Some(SnapshotError::UnknownVersion(2))));
        let huge_count = b"\x01\x03\0\0\0\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert!(matches!(error(huge_count), Some(SnapshotError::Malformed(CodecError::Truncated))));
    }

    proptest! {
        #[test]
        fn headers_come_back(header in any_header()) {
            prop_assert_eq!(SnapshotHeader::decode(&header.encode()).expect("valid"), header);
        }

        #[test]
        fn accepted_bytes_encode_to_themselves(
            header in any_header(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = header.encode().to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(1 + cut.index(bytes.len()));
            let bytes = Bytes::from(bytes);
            if let Ok(header) = SnapshotHeader::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
