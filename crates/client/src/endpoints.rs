//! The endpoints: for each node its connection, made when first needed, and its [circuit](crate::circuit) with the I/O
//! around it. Probes are sent here.
//!
//! A probe is a call of the standard health service, which a node answers by itself. Any answer counts, even an error.
//! When an endpoint has not answered at all for as long as connecting may take, later requests use a new connection:
//! the old one may be dead, and TCP would take many seconds to notice. Requests under way on the old connection stay
//! there until their deadlines.

use crate::Error;
use crate::circuit::{Circuit, PROBE_AFTER, PROBE_LIMIT};
use crate::routes::Address;
use ringfort_proto::address::check_address;
use ringfort_proto::{metadata, outcome};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint as Dial};
use tonic::{Code, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A connection that takes longer than this has failed. Circuits open much earlier, so requests do not wait for it.
/// Long enough for a node far away, and for TCP to repeat a lost first packet, which it does after one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait for a late answer to a probe, which still proves that the endpoint is alive.
const PROBE_GIVES_UP: Duration = Duration::from_secs(5);

/// A connection that has been idle for this long is sent a keep-alive ping ...
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// ... and closed with all its requests if no answer comes within this time. This is only for unused connections to a
/// machine that vanished without closing them: circuits detect silence much earlier.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A bound well above the number of nodes in a topology, so that hints from a broken node cannot fill the memory.
/// Beyond it, all endpoints are dropped and created again when needed.
const MAX_ENDPOINTS: usize = 4096;

/// Why a write was not sent.
pub(crate) const NO_SIGN_OF_LIFE: &str = "no sign of life";

const POISONED: &str = "no code panics while it holds the lock";

pub(crate) struct Endpoints {
    known: RwLock<BTreeMap<Address, Arc<Endpoint>>>,
    changes: watch::Sender<()>,
}

pub(crate) struct Endpoint {
    dial: Dial,
    connection: Mutex<Connection>,
    circuit: Mutex<Circuit>,
    changes: watch::Sender<()>,
}

struct Connection {
    channel: Channel,
    /// When connecting began; `None` if the connection has not been used yet.
    made_at: Option<Instant>,
}

impl Endpoints {
    pub(crate) fn new() -> Endpoints {
        Endpoints { known: RwLock::default(), changes: watch::Sender::new(()) }
    }

    pub(crate) fn get(&self, address: &Address) -> Result<Arc<Endpoint>, Error> {
        if let Some(endpoint) = self.known.read().expect(POISONED).get(address) {
            return Ok(endpoint.clone());
        }
        let dial = dial(address)?;
        let mut known = self.known.write().expect(POISONED);
        if known.len() >= MAX_ENDPOINTS {
            known.clear();
        }
        let endpoint = known.entry(address.clone()).or_insert_with(|| {
            let connection = Mutex::new(Connection::new(&dial));
            let changes = self.changes.clone();
            Arc::new(Endpoint { dial, connection, circuit: Mutex::default(), changes })
        });
        Ok(endpoint.clone())
    }

    /// Whether requests should go to another endpoint. Probes this one if a probe is due.
    pub(crate) fn is_open(&self, address: &Address) -> bool {
        let known = self.known.read().expect(POISONED);
        let Some(endpoint) = known.get(address) else { return false };
        let mut circuit = endpoint.circuit();
        if !circuit.is_open() {
            return false;
        }
        let now = Instant::now();
        if circuit.request_passes(now) {
            endpoint.probe(now);
        }
        true
    }

    /// Whether the endpoint answered lately, in time or not, so that it may get a write without a probe.
    pub(crate) fn takes_writes(&self, address: &Address) -> bool {
        let known = self.known.read().expect(POISONED);
        known.get(address).is_some_and(|endpoint| endpoint.circuit().takes_writes(Instant::now()))
    }

    /// Changes when a circuit opens or closes, or a probe is answered.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

impl Connection {
    fn new(dial: &Dial) -> Connection {
        Connection { channel: dial.connect_lazy(), made_at: None }
    }
}

impl Endpoint {
    pub(crate) fn channel(&self) -> Channel {
        let mut connection = self.connection.lock().expect(POISONED);
        connection.made_at.get_or_insert_with(Instant::now);
        connection.channel.clone()
    }

    /// Sends a request and waits for its answer, for at most `limit`. Updates the circuit. The request is sent when it
    /// is first polled.
    pub(crate) async fn ask<R>(
        self: &Arc<Endpoint>,
        request: impl Future<Output = Result<Response<R>, Status>>,
        limit: Duration,
    ) -> Result<Response<R>, Status> {
        let sent = Instant::now();
        let mut request = std::pin::pin!(request);
        let result = loop {
            let left = limit.saturating_sub(sent.elapsed());
            match timeout(left.min(PROBE_AFTER), &mut request).await {
                Ok(result) => {
                    self.learn(&result, sent, None);
                    break result;
                }
                Err(_) if left > PROBE_AFTER => {
                    let now = Instant::now();
                    if self.circuit().request_waits(sent, now) {
                        self.probe(now);
                    }
                }
                Err(_) => {
                    let waited = format!("no answer within {} ms", limit.as_millis());
                    break Err(Status::deadline_exceeded(waited));
                }
            }
        };
        if result.as_ref().is_err_and(|status| matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable)) {
            self.circuit().gave_up(sent, Instant::now());
        }
        result
    }

    /// Waits until a write may be sent: for a sign of life, if there was none recently.
    ///
    /// # Errors
    /// A status that says that nothing was sent: there was no sign of life within `limit`, or the circuit
    /// opened.
    pub(crate) async fn wait_for_life(self: &Arc<Endpoint>, limit: Duration) -> Result<(), Status> {
        let start = Instant::now();
        let mut changes = self.changes.subscribe();
        let was_open = {
            let mut circuit = self.circuit();
            if circuit.takes_writes(start) {
                return Ok(());
            }
            if circuit.begin_probe(start) {
                self.probe(start);
            }
            circuit.is_open()
        };
        let lives = async {
            while changes.changed().await.is_ok() {
                let circuit = self.circuit();
                if circuit.was_heard_since(start) {
                    return true;
                }
                if circuit.is_open() && !was_open {
                    return false;
                }
            }
            false
        };
        // No longer than this, because another endpoint may answer.
        match timeout(limit.min(2 * PROBE_LIMIT), lives).await {
            Ok(true) => Ok(()),
            _ => Err(outcome::unavailable(NO_SIGN_OF_LIFE, None)),
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().expect(POISONED)
    }

    /// Sends the probe that the circuit began at `sent`.
    fn probe(self: &Arc<Endpoint>, sent: Instant) {
        let endpoint = self.clone();
        tokio::spawn(async move {
            let mut health = HealthClient::new(endpoint.channel());
            let mut check = std::pin::pin!(health.check(HealthCheckRequest::default()));
            let result = match timeout(PROBE_LIMIT, &mut check).await {
                Ok(result) => result,
                Err(_) => {
                    endpoint.probe_is_late(sent);
                    let Ok(result) = timeout(PROBE_GIVES_UP, check).await else { return };
                    result
                }
            };
            endpoint.learn(&result, sent, Some(sent));
            endpoint.changes.send_replace(());
        });
    }

    fn probe_is_late(&self, sent: Instant) {
        let now = Instant::now();
        {
            let mut circuit = self.circuit();
            circuit.probe_is_late(sent, now);
            let mut connection = self.connection.lock().expect(POISONED);
            // Connecting to a node far away takes time, and a connection whose answers are late still works.
            let is_dead = now.checked_sub(CONNECT_TIMEOUT).is_some_and(|since| {
                connection.made_at.is_some_and(|at| at < since) && !circuit.was_heard_since(since)
            });
            if is_dead {
                *connection = Connection::new(&self.dial);
            }
        }
        self.changes.send_replace(());
    }

    fn learn<R>(&self, result: &Result<Response<R>, Status>, sent: Instant, probe: Option<Instant>) {
        let mut circuit = self.circuit();
        let now = Instant::now();
        let has_changed = match result {
            Err(status) if is_of_the_connection(status) => {
                let was_open = circuit.is_open();
                circuit.failed(probe, now);
                !was_open
            }
            _ => circuit.answered(sent, now),
        };
        drop(circuit);
        if has_changed {
            self.changes.send_replace(());
        }
    }
}

/// Whether a status comes from the connection, or from a proxy on the way, rather than from a node.
fn is_of_the_connection(status: &Status) -> bool {
    let is_marked = status.metadata().contains_key(metadata::OUTCOME);
    !is_marked && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

/// How to connect to an address.
///
/// # Errors
/// [`Error::InvalidEndpoint`] if it is not `host:port`.
pub(crate) fn dial(address: &str) -> Result<Dial, Error> {
    let invalid = |why: String| Error::InvalidEndpoint(format!("{address:?} is not an endpoint: {why}"));
    check_address(address).map_err(|error| invalid(error.to_string()))?;
    let dial = Dial::from_shared(format!("http://{address}")).map_err(|error| invalid(error.to_string()))?;
    Ok(dial
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
            assert!(dial(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost", ":50051", "a b:1", "host:1/path", "host:70000", "host:"] {
            assert!(matches!(dial(bad), Err(Error::InvalidEndpoint(_))), "{bad}");
        }
    }
}
