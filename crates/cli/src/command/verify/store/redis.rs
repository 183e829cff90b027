//! Redis: a single server, or a cluster in which a redirection names the owner of a key.
//!
//! An error reply says that the command was not executed. A missing reply means an unknown outcome, unless there was no
//! connection to begin with. Reads go to the masters, so the strongest guarantee that Redis offers is checked.

use super::resp::{self, Reply};
use super::{Failed, Request, StoreError, Values, address};
use bytes::{Bytes, BytesMut};
use ringfort_check::{Found, Kind};
use ringfort_client::Outcome;
use ringfort_ring::slot_of;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A request that is redirected this often goes in circles.
const MAX_REDIRECTIONS: u32 = 5;

/// How many keys are listed at once.
const PAGE: &[u8] = b"1000";

#[derive(Clone)]
pub struct Store {
    endpoints: Arc<[String]>,
    timeout: Duration,
    values: Values,
}

pub struct Session {
    store: Store,
    connections: BTreeMap<String, TcpStream>,
    /// By slot: its owner when the slot was last used.
    owners: BTreeMap<u16, String>,
    /// The endpoint to ask if the owner of a slot is unknown.
    turn: usize,
}

/// A request without a reply.
enum Broken {
    /// There was no connection to send it on.
    NotSent(io::Error),
    Lost(io::Error),
}

impl Store {
    pub fn new(endpoints: &[String], timeout: Duration, values: Values) -> Result<Store, StoreError> {
        let endpoints = endpoints.iter().map(|endpoint| address(endpoint)).collect::<Result<_, _>>()?;
        Ok(Store { endpoints, timeout, values })
    }

    pub fn session(&self) -> Session {
        Session { store: self.clone(), connections: BTreeMap::new(), owners: BTreeMap::new(), turn: 0 }
    }

    /// Deletes all keys with a prefix that any of the endpoints has. A cluster's server that is down is skipped:
    /// another one has its keys.
    pub async fn clear(&self, prefix: &str) -> Result<(), String> {
        let mut session = self.session();
        let pattern = format!("{prefix}*");
        let (mut cleared, mut unreachable) = (0, None);
        for endpoint in self.endpoints.iter() {
            match session.clear(endpoint, pattern.as_bytes()).await {
                Ok(()) => cleared += 1,
                Err(NotCleared::Unreachable(error)) => unreachable = Some(format!("{endpoint}: {error}")),
                Err(NotCleared::Refused(message)) => return Err(format!("{endpoint}: {message}")),
            }
        }
        unreachable.filter(|_| cleared == 0).map_or(Ok(()), Err)
    }
}

/// Why the keys of a server were not deleted.
enum NotCleared {
    Unreachable(io::Error),
    Refused(String),
}

impl Session {
    pub async fn call(&mut self, key: &Bytes, request: Request) -> Result<Kind, Failed> {
        let values = self.store.values;
        Ok(match request {
            Request::Put(value) => match self.execute(key, &[b"SET", key, &values.bytes(value)]).await? {
                Reply::Text(_) => request.unanswered(),
                reply => return Err(unexpected(&reply)),
            },
            Request::Get | Request::Scan => match self.execute(key, &[b"GET", key]).await? {
                Reply::Bulk(found) => {
                    Kind::Get { found: found.map(|bytes| Found { content: values.parse(&bytes), version: None }) }
                }
                reply => return Err(unexpected(&reply)),
            },
            Request::Delete => match self.execute(key, &[b"DEL", key]).await? {
                Reply::Integer(count) => Kind::Delete { found: Some(count > 0) },
                reply => return Err(unexpected(&reply)),
            },
            Request::Increment(by) => match self.execute(key, &[b"INCRBY", key, by.to_string().as_bytes()]).await? {
                Reply::Integer(number) => Kind::Increment { by, number: Some(number) },
                reply => return Err(unexpected(&reply)),
            },
            Request::Append(value) => match self.execute(key, &[b"APPEND", key, &values.bytes(value)]).await? {
                Reply::Integer(length) => {
                    let length = Some(length.unsigned_abs());
                    Kind::Append { value, bytes: Values::len_bytes(value), length }
                }
                reply => return Err(unexpected(&reply)),
            },
        })
    }

    /// Has a command executed by the key's owner.
    async fn execute(&mut self, key: &[u8], words: &[&[u8]]) -> Result<Reply, Failed> {
        let slot = slot_of(key).get();
        let mut asked = match self.owners.get(&slot) {
            Some(owner) => owner.clone(),
            None => {
                self.turn += 1;
                self.store.endpoints[self.turn % self.store.endpoints.len()].clone()
            }
        };
        let mut is_asking = false;
        for _ in 0..=MAX_REDIRECTIONS {
            let sent = match is_asking {
                true => match self.send(&asked, &[b"ASKING"]).await {
                    Ok(_) => self.send(&asked, words).await,
                    Err(broken) => Err(broken),
                },
                false => self.send(&asked, words).await,
            };
            let message = match sent {
                Ok(Reply::Error(message)) => message,
                Ok(reply) => return Ok(reply),
                Err(broken) => {
                    self.owners.remove(&slot);
                    let (outcome, error) = match broken {
                        Broken::NotSent(error) => (Outcome::NotApplied, error),
                        Broken::Lost(error) => (Outcome::Unknown, error),
                    };
                    return Err(Failed { outcome, message: format!("{asked}: {error}") });
                }
            };
            let mut parts = message.split(' ');
            let (kind, owner) = (parts.next(), parts.nth(1).map(|owner| with_host(owner, &asked)));
            match (kind, owner) {
                (Some("MOVED"), Some(owner)) => {
                    self.owners.insert(slot, owner.clone());
                    (asked, is_asking) = (owner, false);
                }
                (Some("ASK"), Some(owner)) => (asked, is_asking) = (owner, true),
                _ => {
                    // A former master that is now a replica, or a cluster that is down: another server may know the
                    // owner.
                    self.owners.remove(&slot);
                    return Err(Failed { outcome: Outcome::NotApplied, message: format!("{asked}: {message}") });
                }
            }
        }
        let message = format!("{asked}: sent from one server to the next {MAX_REDIRECTIONS} times");
        Err(Failed { outcome: Outcome::NotApplied, message })
    }

    /// Sends a command and waits for its reply. If there is none, the connection is not used again, because the reply
    /// may come later.
    async fn send(&mut self, address: &str, words: &[&[u8]]) -> Result<Reply, Broken> {
        let limit = self.store.timeout;
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let mut connection = match self.connections.remove(address) {
            Some(connection) => connection,
            None => match timeout(limit, TcpStream::connect(address)).await {
                Ok(connected) => connected.map_err(Broken::NotSent)?,
                Err(_) => return Err(Broken::NotSent(late())),
            },
        };
        match timeout(limit, exchange(&mut connection, &resp::command(words))).await {
            Ok(Ok(reply)) => {
                self.connections.insert(address.to_owned(), connection);
                Ok(reply)
            }
            Ok(Err(error)) => Err(Broken::Lost(error)),
            Err(_) => Err(Broken::Lost(late())),
        }
    }

    async fn clear(&mut self, endpoint: &str, pattern: &[u8]) -> Result<(), NotCleared> {
        let mut cursor = b"0".to_vec();
        loop {
            let words: [&[u8]; 6] = [b"SCAN", &cursor, b"MATCH", pattern, b"COUNT", PAGE];
            let page = match self.send(endpoint, &words).await {
                Ok(page) => page,
                Err(Broken::NotSent(error)) => return Err(NotCleared::Unreachable(error)),
                Err(Broken::Lost(error)) => return Err(NotCleared::Refused(error.to_string())),
            };
            let nonsense = || NotCleared::Refused(format!("SCAN was answered with {page:?}"));
            let Reply::Array(parts) = &page else { return Err(nonsense()) };
            let [Reply::Bulk(Some(next)), Reply::Array(keys)] = &parts[..] else { return Err(nonsense()) };
            for key in keys {
                if let Reply::Bulk(Some(key)) = key {
                    let deleted = self.execute(key, &[b"DEL", key]).await;
                    deleted.map_err(|failed| NotCleared::Refused(failed.message))?;
                }
            }
            cursor.clone_from(next);
            if cursor == b"0" {
                return Ok(());
            }
        }
    }
}

async fn exchange(connection: &mut TcpStream, command: &[u8]) -> io::Result<Reply> {
    connection.set_nodelay(true)?;
    connection.write_all(command).await?;
    let mut received = BytesMut::new();
    loop {
        if connection.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(reply) = resp::reply(&received)? {
            return Ok(reply);
        }
    }
}

/// Completes an address in a redirection. It may leave out the host, which then is that of the server that was asked.
fn with_host(owner: &str, asked: &str) -> String {
    match (owner.strip_prefix(':'), asked.rsplit_once(':')) {
        (Some(port), Some((host, _))) => format!("{host}:{port}"),
        _ => owner.to_owned(),
    }
}

/// A reply that the command can't have: the outcome is unknown.
fn unexpected(reply: &Reply) -> Failed {
    Failed { outcome: Outcome::Unknown, message: format!("unexpected reply: {reply:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_without_a_host_stay_on_it() {
        assert_eq!(with_host("10.0.0.1:7", "a:1"), "10.0.0.1:7");
        assert_eq!(with_host(":7", "a:1"), "a:7");
    }
}
