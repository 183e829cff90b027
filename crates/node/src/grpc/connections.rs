//! Accepts connections: bounds their number, and closes those that stay silent.
//!
//! HTTP/2 sends keep-alive pings on an idle connection, but only after its preface (RFC 9113, section 3.4). A
//! connection that never sends the preface could stay open for ever; it is closed after [`PREFACE_TIMEOUT`].

use crate::files::ACCEPT_PAUSE;
use crate::metrics::Connections;
use crate::seldom::Seldom;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// The length of the preface that every connection begins with.
const PREFACE_BYTES: usize = 24;

/// How long the preface may take to arrive.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts connections while the stream is polled: at most `most` at the same time; further ones are closed at once.
pub fn accepted(
    listener: TcpListener,
    most: usize,
    counters: Connections,
) -> impl futures_core::Stream<Item = io::Result<Connection>> {
    static REFUSED: Seldom = Seldom::new();
    static FAILED: Seldom = Seldom::new();
    let places = Arc::new(Semaphore::new(most));
    let (connections_tx, connections_rx) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = connections_tx.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => match places.clone().try_acquire_owned() {
                    Ok(place) => {
                        // A connection that refuses this is slower, or already closed.
                        let _ = stream.set_nodelay(true);
                        if connections_tx.send(Ok(Connection::new(stream, place, &counters))).await.is_err() {
                            return;
                        }
                    }
                    Err(_) => {
                        counters.refused.inc();
                        if let Some(left_out) = REFUSED.due() {
                            tracing::warn!(
                                left_out,
                                "closed a connection: {most} are open already, which is the limit"
                            );
                        }
                    }
                },
                Err(error) => {
                    if let Some(left_out) = FAILED.due() {
                        tracing::warn!(left_out, "could not accept a connection: {error}");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(connections_rx)
}

/// A connection that holds one of the bounded number of places.
pub struct Connection {
    stream: TcpStream,
    /// Until the preface is complete: the number of missing bytes, and the deadline.
    waiting: Option<(usize, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
    counters: Connections,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, counters: &Connections) -> Connection {
        counters.accepted.inc();
        counters.open.inc();
        let waiting = Some((PREFACE_BYTES, Box::pin(sleep(PREFACE_TIMEOUT))));
        Connection { stream, waiting, _place: place, counters: counters.clone() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counters.open.dec();
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Some((lacking, timeout)) = &mut this.waiting {
            if read.is_pending() {
                ready!(timeout.as_mut().poll(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            *lacking = lacking.saturating_sub(buffer.filled().len() - filled);
            if *lacking == 0 {
                this.waiting = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn connections_beyond_the_bound_are_closed_until_one_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Metrics::new().client_connections;
        let mut accepted = std::pin::pin!(accepted(listener, 1, counters.clone()));
        let _first = TcpStream::connect(address).await.unwrap();
        let first = accepted.next().await.unwrap().unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        let closed = tokio::time::timeout(Duration::from_secs(5), second.read(&mut byte)).await;
        assert_eq!(closed.expect("it is not left open").unwrap_or(0), 0, "closed");
        assert_eq!((counters.open.get(), counters.accepted.get(), counters.refused.get()), (1, 1, 1));
        drop(first);
        assert_eq!(counters.open.get(), 0);
        let _third = TcpStream::connect(address).await.unwrap();
        accepted.next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn only_a_connection_that_has_begun_may_be_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut accepted = std::pin::pin!(accepted(listener, 1, Metrics::new().client_connections));
        let mut connection = accepted.next().await.unwrap().unwrap();
        let mut preface = [0; PREFACE_BYTES];
        connection.waiting.as_mut().unwrap().1 = Box::pin(sleep(Duration::from_millis(20)));
        client.write_all(&preface[1..]).await.unwrap();
        let failed = connection.read_exact(&mut preface).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);

        connection.waiting = Some((1, Box::pin(sleep(Duration::from_millis(20)))));
        client.write_all(&[0]).await.unwrap();
        connection.read_exact(&mut [0]).await.unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(50), connection.read(&mut [0])).await;
        assert!(silent.is_err(), "it stays");
    }
}
