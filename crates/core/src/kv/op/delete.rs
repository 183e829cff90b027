//! Removes a key.

use super::*;

/// Removes the key; no change if there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    pub key: Bytes,
}

/// What the delete found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeleteReply {
    pub existed: bool,
    /// The shard's revision, which has changed only if the key existed.
    pub revision: u64,
}

impl Operation for Delete {
    const NAME: &'static str = "delete";
    /// A retry could delete a value that was put in between.
    const REPEATS: bool = false;
    type Reply = DeleteReply;

    fn check(&self) -> Result<(), Invalid> {
        check_key(&self.key)
    }
}

impl Mutate for Delete {
    const GROWS: bool = false;

    fn key(&self) -> &Bytes {
        &self.key
    }

    fn apply(&self, state: &mut Transaction<'_>) -> Result<DeleteReply, Refusal> {
        Ok(DeleteReply { existed: state.delete(&self.key), revision: state.revision() })
    }
}

impl Encoded for Delete {
    fn encode(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
    }

    fn decode(source: &mut impl Source) -> Result<Delete, CodecError> {
        Ok(Delete { key: source.bytes(MAX_KEY_BYTES)? })
    }
}

impl Encoded for DeleteReply {
    fn encode(&self, out: &mut impl Sink) {
        out.flag(self.existed);
        out.number(self.revision);
    }

    fn decode(source: &mut impl Source) -> Result<DeleteReply, CodecError> {
        Ok(DeleteReply { existed: source.flag()?, revision: source.number()? })
    }
}
