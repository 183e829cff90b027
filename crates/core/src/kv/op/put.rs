//! Sets a key.

use super::*;

/// Sets the value, whether or not the key existed.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    pub key: Bytes,
    pub value: Bytes,
}

/// The key's numbers after the put.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PutReply {
    pub version: u64,
    /// The key's modify revision, which is the shard's.
    pub revision: u64,
}

impl Operation for Put {
    const NAME: &'static str = "put";
    /// A retry could overwrite a later put: readers would see 1, 2, 1.
    const REPEATS: bool = false;
    type Reply = PutReply;

    fn check(&self) -> Result<(), Invalid> {
        check_key(&self.key)?;
        check_value(&self.value)
    }
}

impl Mutate for Put {
    const GROWS: bool = true;

    fn key(&self) -> &Bytes {
        &self.key
    }

    fn apply(&self, state: &mut Transaction<'_>) -> Result<PutReply, Refusal> {
        let numbers = state.put(&self.key, &self.value);
        Ok(PutReply { version: numbers.version, revision: numbers.modify_revision })
    }
}

impl Encoded for Put {
    fn encode(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
        out.bytes(&self.value);
    }

    fn decode(source: &mut impl Source) -> Result<Put, CodecError> {
        Ok(Put { key: source.bytes(MAX_KEY_BYTES)?, value: source.bytes(MAX_VALUE_BYTES)? })
    }
}

impl Encoded for PutReply {
    fn encode(&self, out: &mut impl Sink) {
        out.number(self.version);
        out.number(self.revision);
    }

    fn decode(source: &mut impl Source) -> Result<PutReply, CodecError> {
        Ok(PutReply { version: source.number()?, revision: source.number()? })
    }
}
