//! A way to a server that a test can make silent or slow, for connections that there are and for new ones.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long what is sent takes; `None`: it does not arrive.
type Delay = Option<Duration>;

#[derive(Clone)]
pub struct Road(Arc<watch::Sender<Delay>>);

impl Road {
    /// A road to a server, and its own address.
    pub fn to(server: SocketAddr) -> (Road, SocketAddr, impl Future<Output = ()>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let road = Road(Arc::new(watch::Sender::new(Some(Duration::ZERO))));
        let delay = road.0.clone();
        let run = async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(carry(from_client, to_server, delay.subscribe(), false));
                // A delay is that of a request and its answer together.
                tokio::spawn(carry(from_server, to_client, delay.subscribe(), true));
            }
        };
        (road, address, run)
    }

    /// From now on nothing arrives, until [`Road::takes`].
    pub fn is_silent(&self) {
        self.0.send_replace(None);
    }

    /// From now on each answer takes so long.
    pub fn takes(&self, delay: Duration) {
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
