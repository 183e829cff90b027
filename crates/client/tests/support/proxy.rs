//! A proxy in front of a server. A test can make it silent or slow, for existing and for new connections.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long data is delayed; `None`: it does not arrive.
type Delay = Option<Duration>;

pub struct Proxy(Arc<watch::Sender<Delay>>);

impl Proxy {
    /// A proxy to a server, its own address, and the task that runs it.
    pub fn to(server: SocketAddr) -> (Proxy, SocketAddr, impl Future<Output = ()>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy(Arc::new(watch::Sender::new(Some(Duration::ZERO))));
        let delay = proxy.0.clone();
        let run = async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(carry(from_client, to_server, delay.subscribe(), false));
                // Only answers are delayed: the delay is that of a whole round trip.
                tokio::spawn(carry(from_server, to_client, delay.subscribe(), true));
            }
        };
        (proxy, address, run)
    }

    /// From now on no data arrives, until [`Proxy::delay`].
    pub fn silence(&self) {
        self.0.send_replace(None);
    }

    /// From now on each answer takes this long.
    pub fn delay(&self, delay: Duration) {
        self.0.send_replace(Some(delay));
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut delay: watch::Receiver<Delay>, is_slow: bool) {
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Some(takes) = *delay.borrow_and_update() else {
            if delay.changed().await.is_err() {
                return;
            }
            continue;
        };
        let next = under_way.front().map(|(at, _)| *at);
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(bytes) if bytes > 0 => {
                    let at = Instant::now() + if is_slow { takes } else { Duration::ZERO };
                    under_way.push_back((at, buffer[..bytes].to_vec()));
                }
                _ => return,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let (_, bytes) = under_way.pop_front().expect("there is a next one");
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            _ = delay.changed() => {}
        }
    }
}
