//! One connection a node, made when it is first needed.

use crate::Error;
use crate::routes::Address;
use std::collections::BTreeMap;
use std::sync::RwLock;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// After this long without a connection the node counts as unreachable, and the request goes to another one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection on which nothing was heard for this long is asked for a sign of life ...
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// ... and given up if none comes within this time: a machine that vanished closes nothing.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A bound well above what a topology names, so that hints of a broken node cannot fill the memory. Beyond it the
/// connections are forgotten and made again as they are needed.
const MAX_CHANNELS: usize = 4096;

#[derive(Default)]
pub(crate) struct Channels(RwLock<BTreeMap<Address, Channel>>);

impl Channels {
    /// The connection to a node. Where there is none yet, the first request on it makes it.
    pub(crate) fn get(&self, address: &Address) -> Result<Channel, Error> {
        let poisoned = "no code panics while it holds the channels";
        if let Some(channel) = self.0.read().expect(poisoned).get(address) {
            return Ok(channel.clone());
        }
        let endpoint = endpoint(address)?;
        let mut channels = self.0.write().expect(poisoned);
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        Ok(channels.entry(address.clone()).or_insert_with(|| endpoint.connect_lazy()).clone())
    }
}

/// How to connect to an address.
///
/// # Errors
/// [`Error::InvalidEndpoint`] where it is not `host:port`.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let invalid = || Error::InvalidEndpoint(address.to_owned());
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| invalid())?;
    let uri = endpoint.uri();
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if !has_host || uri.port_u16().is_none() || uri.path() != "/" || uri.query().is_some() {
        return Err(invalid());
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_are_an_address() {
        for good in ["127.0.0.1:50051", "[::1]:50051", "node1.example:1"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost", ":50051", "a b:1", "host:1/path", "host:70000", "host:"] {
            assert!(matches!(endpoint(bad), Err(Error::InvalidEndpoint(_))), "{bad}");
        }
    }
}
