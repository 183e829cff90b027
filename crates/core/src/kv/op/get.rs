//! Reads a key.

use super::*;
use crate::kv::state::Record;

/// Reads a key. The reply is its record, or `None` if there is no such key.
#[derive(Clone, Debug, PartialEq)]
pub struct Get {
    pub key: Bytes,
}

impl Operation for Get {
    const NAME: &'static str = "get";
    const REPEATS: bool = true;
    type Reply = Option<Record>;

    fn check(&self) -> Result<(), Invalid> {
        check_key(&self.key)
    }
}

impl Read for Get {
    const IS_LARGE: bool = false;

    fn key(&self) -> Option<&Bytes> {
        Some(&self.key)
    }

    fn answer(&self, machine: &Machine) -> Option<Record> {
        machine.get(&self.key)
    }
}

impl Encoded for Get {
    fn encode(&self, out: &mut impl Sink) {
        out.bytes(&self.key);
    }

    fn decode(source: &mut impl Source) -> Result<Get, CodecError> {
        Ok(Get { key: source.bytes(MAX_KEY_BYTES)? })
    }
}

impl Encoded for Option<Record> {
    fn encode(&self, out: &mut impl Sink) {
        out.option(self.as_ref(), |out, record| record.encode(out));
    }

    fn decode(source: &mut impl Source) -> Result<Option<Record>, CodecError> {
        source.option(Record::decode)
    }
}

impl Encoded for Record {
    fn encode(&self, out: &mut impl Sink) {
        out.number(self.version);
        out.number(self.create_revision);
        out.number(self.modify_revision);
        out.bytes(&self.value);
    }

    fn decode(source: &mut impl Source) -> Result<Record, CodecError> {
        Ok(Record {
            version: source.number()?,
            create_revision: source.number()?,
            modify_revision: source.number()?,
            value: source.bytes(MAX_VALUE_BYTES)?,
        })
    }
}
