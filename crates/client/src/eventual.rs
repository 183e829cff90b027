//! The eventual keyspace: see [`Eventual`].

use crate::call::Effect;
use crate::routes::Target;
use crate::{Client, Error, Page, check_advance, check_size, kv};
use bytes::Bytes;
use ringfort_proto::v1;

/// Reads and writes of the eventual keyspace, which shares no key with the one of [`Client::put`] and [`Client::get`].
///
/// Any single node answers, even if it reaches no other node. A write is durable on that node when the call returns,
/// and spreads to the others through gossip; a read returns the value that the asked node holds at the time. Of two
/// writes to a key, the later one wins, by the clocks of the nodes that accepted them. A client may ask a different
/// node each time: give it a single endpoint if it must read its own writes.
#[derive(Clone, Copy)]
pub struct Eventual<'a> {
    pub(crate) client: &'a Client,
}

/// A value of the eventual keyspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventualValue {
    pub value: Bytes,
    /// When it was written: microseconds since 1970, by the clock of the node that accepted it, made unique.
    pub timestamp: u64,
}

impl Eventual<'_> {
    /// Sets a key, and returns the write's timestamp.
    ///
    /// # Errors
    /// After [`Error::UnknownOutcome`] the write may or may not be applied; after any other it is not.
    pub async fn put(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64, Error> {
        let (key, value) = (key.into(), value.into());
        check_size(key.len() + value.len())?;
        let message = v1::PutRequest { key, value, consistency: EVENTUAL };
        let send = async |channel, request| kv(channel).put(request).await;
        let deadline = self.client.deadline();
        Ok(self.client.call(Target::Node, Effect::Write, deadline, message, send).await?.revision)
    }

    /// Reads a key; `None` if the node that was asked does not have it.
    pub async fn get(self, key: impl Into<Bytes>) -> Result<Option<EventualValue>, Error> {
        let message = v1::GetRequest { key: key.into(), consistency: EVENTUAL };
        let send = async |channel, request| kv(channel).get(request).await;
        let found = self.client.call(Target::Node, Effect::LongRead, self.client.deadline(), message, send).await?;
        Ok(found.found.then_some(EventualValue { value: found.value, timestamp: found.modify_revision }))
    }

    /// Removes a key; the answer says whether the node that was asked had it.
    ///
    /// # Errors
    /// As for [`Eventual::put`].
    pub async fn delete(self, key: impl Into<Bytes>) -> Result<v1::DeleteResponse, Error> {
        let key = key.into();
        check_size(key.len())?;
        let message = v1::DeleteRequest { key, consistency: EVENTUAL };
        let send = async |channel, request| kv(channel).delete(request).await;
        self.client.call(Target::Node, Effect::Write, self.client.deadline(), message, send).await
    }

    /// The keys with a prefix above `start_after` (empty: from the first), at most `limit` (0: as many as a node gives
    /// in one answer), as the node that was asked holds them at that moment. Entries' revisions are timestamps.
    pub async fn scan_page(
        self,
        prefix: impl Into<Bytes>,
        start_after: impl Into<Bytes>,
        limit: u32,
    ) -> Result<Page, Error> {
        let (prefix, start_after) = (prefix.into(), start_after.into());
        let message = v1::ScanRequest {
            prefix,
            start_after: start_after.clone(),
            limit,
            consistency: EVENTUAL,
            ..Default::default()
        };
        let send = async |channel, request| kv(channel).scan(request).await;
        let page = self.client.call(Target::Node, Effect::LongRead, self.client.deadline(), message, send).await?;
        check_advance(page, &start_after)
    }
}

const EVENTUAL: i32 = v1::Consistency::Eventual as i32;
