//! The requests of a checked workload's clients, and how they are sent to Ringfort. Shared by `verify` and `playground
//! --chaos`.

use crate::violation::Values;
use bytes::Bytes;
use ringfort_check::{Found, Kind, Value};
use ringfort_client::{Client, Error};
use ringfort_node::Kind as Asked;

/// One in this many keys is a counter: it is incremented, and neither put nor appended to, so that no increment is
/// refused.
pub const COUNTERS_ONE_OF: u64 = 4;

/// A request for one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    Put(Value),
    Get,
    /// A get by listing all keys that begin with this one.
    Scan,
    Delete,
    Increment(i64),
    /// Of the value's bytes.
    Append(Value),
}

impl Request {
    /// The request for an operation that was drawn. `value` is what it writes, if it writes a value.
    pub fn new(asked: Asked, value: Value) -> Request {
        match asked {
            Asked::Put => Request::Put(value),
            Asked::Get => Request::Get,
            Asked::Scan => Request::Scan,
            Asked::Delete => Request::Delete,
            // The writers add different numbers, so that a sum shows whose increment is missing.
            Asked::Increment => Request::Increment(1 + i64::from(value.writer % 7)),
            Asked::Append => Request::Append(value),
        }
    }

    /// The operation that carries it out.
    pub fn operation(self) -> Asked {
        match self {
            Request::Put(_) => Asked::Put,
            Request::Get => Asked::Get,
            Request::Scan => Asked::Scan,
            Request::Delete => Asked::Delete,
            Request::Increment(_) => Asked::Increment,
            Request::Append(_) => Asked::Append,
        }
    }

    /// The record of the request if there was no answer.
    pub fn unanswered(self) -> Kind {
        match self {
            Request::Put(value) => Kind::Put { value, bytes: Values::len_bytes(value), version: None },
            Request::Get | Request::Scan => Kind::Get { found: None },
            Request::Delete => Kind::Delete { found: None },
            Request::Increment(by) => Kind::Increment { by, number: None },
            Request::Append(value) => Kind::Append { value, bytes: Values::len_bytes(value), length: None },
        }
    }

    pub fn is_write(self) -> bool {
        self.unanswered().is_write()
    }

    /// Whether it writes the value that it was made with.
    pub fn writes_value(self) -> bool {
        self.unanswered().written().is_some()
    }

    /// Sends the request to Ringfort. The result is of the request's kind and contains the answer.
    pub async fn ask(self, client: &Client, values: Values, key: Bytes) -> Result<Kind, Error> {
        let found = |value: &[u8], version| Found { content: values.parse(value), version: Some(version) };
        Ok(match self {
            Request::Put(value) => {
                let answer = client.put(key, values.bytes(value)).await?;
                Kind::Put { value, bytes: Values::len_bytes(value), version: Some(answer.version) }
            }
            Request::Get => {
                let answer = client.get(key).await?;
                Kind::Get { found: answer.map(|answer| found(&answer.value, answer.version)) }
            }
            Request::Scan => {
                let page = client.scan_page(key.clone(), Bytes::new(), 1).await?;
                let entry = page.entries.iter().find(|entry| entry.key == key);
                Kind::Get { found: entry.map(|entry| found(&entry.value, entry.version)) }
            }
            Request::Delete => Kind::Delete { found: Some(client.delete(key).await?.found) },
            Request::Increment(by) => Kind::Increment { by, number: Some(client.increment(key, by).await?.number) },
            Request::Append(value) => {
                let length = Some(client.append(key, values.bytes(value)).await?.length_bytes);
                Kind::Append { value, bytes: Values::len_bytes(value), length }
            }
        })
    }
}
