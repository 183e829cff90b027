//! Lists the keys of a shard in order.

use super::*;
use crate::kv::state::{Record, ScanPage};
use crate::limits::{MAX_SCAN_BYTES, MAX_SCAN_ENTRIES};

/// Reads the entries whose keys begin with `prefix`, in order: those after `start_after` and up to and including
/// `up_to`, if these are given, at most `limit` of them, and within the limits on scans.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    pub prefix: Bytes,
    pub start_after: Option<Bytes>,
    pub up_to: Option<Bytes>,
    pub limit: usize,
}

impl Operation for Scan {
    const NAME: &'static str = "scan";
    const REPEATS: bool = true;
    type Reply = ScanPage;

    fn check(&self) -> Result<(), Invalid> {
        let keys = [Some(&self.prefix), self.start_after.as_ref(), self.up_to.as_ref()];
        match keys.into_iter().flatten().map(Bytes::len).max() {
            Some(length) if length > MAX_KEY_BYTES => Err(Invalid::LongKey(length)),
            _ => Ok(()),
        }
    }
}

impl Read for Scan {
    const IS_LARGE: bool = true;

    fn key(&self) -> Option<&Bytes> {
        None
    }

    fn answer(&self, machine: &Machine) -> ScanPage {
        let limit = self.limit.min(MAX_SCAN_ENTRIES);
        machine.scan(&self.prefix, self.start_after.as_deref(), self.up_to.as_deref(), limit, MAX_SCAN_BYTES)
    }
}

impl Encoded for Scan {
    fn encode(&self, out: &mut impl Sink) {
        out.bytes(&self.prefix);
        out.option(self.start_after.as_ref(), |out, key| out.bytes(key));
        out.option(self.up_to.as_ref(), |out, key| out.bytes(key));
        out.number(self.limit as u64);
    }

    fn decode(source: &mut impl Source) -> Result<Scan, CodecError> {
        Ok(Scan {
            prefix: source.bytes(MAX_KEY_BYTES)?,
            start_after: source.option(|source| source.bytes(MAX_KEY_BYTES))?,
            up_to: source.option(|source| source.bytes(MAX_KEY_BYTES))?,
            limit: usize::try_from(source.number()?).unwrap_or(usize::MAX),
        })
    }
}

impl Encoded for ScanPage {
    fn encode(&self, out: &mut impl Sink) {
        out.flag(self.more);
        out.list(&self.entries, |out, (key, record)| {
            out.bytes(key);
            record.encode(out);
        });
    }

    fn decode(source: &mut impl Source) -> Result<ScanPage, CodecError> {
        let more = source.flag()?;
        let entries =
            source.list(MAX_SCAN_ENTRIES, |source| Ok((source.bytes(MAX_KEY_BYTES)?, Record::decode(source)?)))?;
        Ok(ScanPage { entries, more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::fields::Fields;

    #[test]
    fn a_page_has_no_more_entries_than_a_scan_gives() {
        let record = Record { value: Bytes::new(), version: 0, create_revision: 0, modify_revision: 0 };
        let read = |count| {
            let page = ScanPage { entries: vec![(Bytes::new(), record.clone()); count], more: false };
            let mut bytes = Vec::new();
            page.encode(&mut bytes);
            ScanPage::decode(&mut Fields::new(&bytes.into())).map(|page| page.entries.len())
        };
        assert_eq!(read(MAX_SCAN_ENTRIES), Ok(MAX_SCAN_ENTRIES));
        let len = MAX_SCAN_ENTRIES as u64 + 1;
        assert_eq!(read(MAX_SCAN_ENTRIES + 1), Err(CodecError::TooLong { len, max: MAX_SCAN_ENTRIES }));
    }
}
