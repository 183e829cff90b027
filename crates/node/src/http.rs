//! The HTTP/1 server for monitoring.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the metrics in Prometheus's text format |
//! | `/healthz` | 200 while the process lives: only the lack of an answer is a reason to restart it |
//! | `/readyz` | 200 while requests can be sent here; otherwise 503 with the reason |
//!
//! It serves from the start of the process, also while the node waits for its cluster. It exposes no data and accepts
//! only requests without a body; the number of connections and the time to send a request are bounded.

use crate::files::{ACCEPT_PAUSE, MONITORS};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::observer::Observer;
use crate::seldom::Seldom;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ringfort_core::types::ShardId;
use ringfort_proto::outcome;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How long a client may take to send its first or next request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long collecting the node's state may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// The beginning of HTTP/2's preface (RFC 9113, section 3.4), up to where it differs from any HTTP/1 request.
const HTTP2_PREFACE: [u8; 14] = *b"PRI * HTTP/2.0";

/// The pause while only a part of the preface has arrived.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// The server of one node.
pub struct Http {
    metrics: Arc<Metrics>,
    /// Set once the node is part of a cluster.
    running: OnceLock<(Arc<Observer>, Arc<Lifecycle>)>,
}

impl Http {
    /// Serves until the runtime shuts down.
    pub fn start(
        runtime: &Runtime,
        (listener, address): (TcpListener, SocketAddr),
        metrics: Arc<Metrics>,
    ) -> io::Result<Arc<Http>> {
        let _context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let http = Arc::new(Http { metrics, running: OnceLock::new() });
        runtime.spawn(http.clone().accept(listener));
        tracing::info!("metrics and health on http://{address}");
        Ok(http)
    }

    /// The node is part of a cluster.
    pub fn set_running(&self, observer: Arc<Observer>, lifecycle: Arc<Lifecycle>) {
        assert!(self.running.set((observer, lifecycle)).is_ok(), "a node becomes part of a cluster once");
    }

    async fn accept(self: Arc<Http>, listener: tokio::net::TcpListener) {
        static FAILED: Seldom = Seldom::new();
        let places = Arc::new(Semaphore::new(MONITORS));
        loop {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    let http = self.clone();
                    tokio::spawn(async move {
                        http.serve(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    if let Some(left_out) = FAILED.due() {
                        tracing::warn!(left_out, "could not accept an HTTP connection: {error}");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        if begins_http2(&stream).await {
            return refuse_http2(stream).await;
        }
        let service = service_fn(async |request| Ok::<_, Infallible>(self.answer(&request).await));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        // A client may break off at any time; that is not an error of the node.
        if let Err(error) = connection.await {
            tracing::debug!("an HTTP connection ended: {error}");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.answer_metrics().await,
            "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
            "/readyz" => match self.obstacle() {
                None => text(StatusCode::OK, "ready\n".to_owned()),
                Some(obstacle) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{obstacle}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "use /metrics, /healthz or /readyz\n".to_owned()),
        }
    }

    async fn answer_metrics(&self) -> Response<Full<Bytes>> {
        if let Some((observer, _)) = self.running.get() {
            match timeout(LOOK_TIMEOUT, self.metrics.look(observer)).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => return text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
                Err(_) => {
                    let reason = format!("the node's threads do not answer within {} s\n", LOOK_TIMEOUT.as_secs());
                    return text(StatusCode::SERVICE_UNAVAILABLE, reason);
                }
            }
        }
        match self.metrics.text() {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(METRICS_TYPE));
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// Why requests should not be sent to this node now, if they should not.
    fn obstacle(&self) -> Option<String> {
        let Some((observer, lifecycle)) = self.running.get() else {
            return Some("not part of a cluster yet".to_owned());
        };
        if lifecycle.is_handing_over() {
            return Some("handing over leadership before it stops".to_owned());
        }
        if lifecycle.has_failed() {
            return Some("stopping after a failure".to_owned());
        }
        if observer.is_disk_hung() {
            let age = observer.disk().age;
            return Some(format!("the disk has not answered for {:.1} s", age.as_secs_f64()));
        }
        if observer.leader(ShardId::SYSTEM).is_none() {
            return Some("no leader of the system shard is known".to_owned());
        }
        let shards = observer.topology().shards;
        let here = shards.ids().chain([ShardId::SYSTEM]).filter_map(|shard| observer.view(shard));
        let leaderless: Vec<String> =
            here.filter(|view| view.leader().is_none()).map(|view| view.shard.to_string()).collect();
        match &leaderless[..] {
            [] => None,
            [first, ..] => {
                Some(format!("{} replicas here know no leader, first that of shard {first}", leaderless.len()))
            }
        }
    }
}

/// Whether the client speaks HTTP/2, because it mistakes this for the gRPC port.
async fn begins_http2(stream: &TcpStream) -> bool {
    let mut begun = [0; HTTP2_PREFACE.len()];
    let look = async {
        loop {
            match stream.peek(&mut begun).await {
                Ok(0) | Err(_) => return false,
                Ok(length) if begun[..length] != HTTP2_PREFACE[..length] => return false,
                Ok(length) if length == HTTP2_PREFACE.len() => return true,
                Ok(_) => sleep(PREFACE_PAUSE).await,
            }
        }
    };
    timeout(REQUEST_TIMEOUT, look).await.unwrap_or(false)
}

/// Tells a gRPC client that this is the wrong port.
async fn refuse_http2(stream: TcpStream) {
    let service = service_fn(async |_| {
        let wrong_port = outcome::refused("this is a node's port for monitoring, not the one for clients (--port)");
        Ok::<_, Infallible>(wrong_port.into_http::<Full<Bytes>>())
    });
    let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(REQUEST_TIMEOUT, connection).await {
        tracing::debug!("an HTTP/2 connection ended: {error}");
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_TYPE));
    response
}
