//! The network between the nodes, and its faults.
//!
//! Each node listens on 127.0.0.1 and tells the others to dial it at an address of its own, 127.83.0.N, where this
//! process listens instead and forwards the bytes. So cutting and slowing connections does not need root. Every ordered
//! pair of nodes has a [`Condition`], which applies to the bytes from one to the other, regardless of which of the two
//! dialled. To find the dialling node, this process asks Linux which process holds the other end of the connection.
//!
//! - A **cut** is like a firewall that drops packets: connections stay open but no data arrives until the cut is
//!   lifted, when delayed data arrives. New connections are accepted but carry no data.
//! - **Delay** is the same for all bytes of a direction.
//! - **Loss** is modelled as its effect on TCP: occasionally a piece is as late as a retransmission would be, and so is
//!   everything behind it.
//!
//! Clients dial the same addresses, but their connections have no faults. For a dead node, this process does not
//! listen: the node's gate is shut, and opens when the node itself listens again.

mod dialler;

use crate::random::Random;
use rustix::process::Pid;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// How many bytes are read at a time.
const PIECE_BYTES: usize = 16 << 10;

/// How many pieces may be under way in one direction of a connection before its sender must wait.
const PIECES_UNDER_WAY: usize = 256;

/// The cost of a lost packet: the shortest time after which Linux retransmits.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// How often to check whether a node listens yet.
const LISTEN_PAUSE: Duration = Duration::from_millis(10);

/// The number of connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// What happens to bytes from one node to another.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Condition {
    pub is_cut: bool,
    pub delay: Duration,
    /// The percentage of pieces that arrive as late as a retransmission would.
    pub loss_percent: u8,
}

pub struct Network {
    shared: Arc<Shared>,
    /// By node, the tasks of its open gate.
    tasks: Vec<Vec<AbortHandle>>,
}

struct Shared {
    /// By sender, then by receiver.
    links: Vec<Vec<watch::Sender<Condition>>>,
    /// By node: the running process, if there is one.
    processes: Mutex<Vec<Option<Pid>>>,
}

/// The address at which a node is dialled. `number` counts from 0.
pub fn advertised(number: usize) -> Ipv4Addr {
    let last = u8::try_from(number + 1).expect("a playground has a few nodes");
    Ipv4Addr::new(127, 83, 0, last)
}

impl Network {
    /// A network without faults, all gates shut.
    pub fn new(nodes: usize) -> Network {
        let links = (0..nodes).map(|_| (0..nodes).map(|_| watch::Sender::new(Condition::default())).collect());
        let shared = Shared { links: links.collect(), processes: Mutex::new(vec![None; nodes]) };
        Network { shared: Arc::new(shared), tasks: vec![Vec::new(); nodes] }
    }

    /// Lets connections through to a process as soon as it listens on these ports.
    pub fn open(&mut self, node: usize, process: Pid, ports: [u16; 2]) {
        self.shut(node);
        self.shared.set_process(node, Some(process));
        let [port, raft_port] = ports;
        self.tasks[node] = [(port, None), (raft_port, Some(node))]
            .map(|(port, receiver)| {
                tokio::spawn(serve(self.shared.clone(), advertised(node), port, receiver)).abort_handle()
            })
            .into();
    }

    /// Refuses new connections to a node. Existing ones end with its process.
    pub fn shut(&mut self, node: usize) {
        self.shared.set_process(node, None);
        self.tasks[node].drain(..).for_each(|task| task.abort());
    }

    pub fn set(&self, from: usize, to: usize, condition: Condition) {
        self.shared.links[from][to].send_replace(condition);
    }

    /// Ends all network faults.
    pub fn heal(&self) {
        for link in self.shared.links.iter().flatten() {
            link.send_replace(Condition::default());
        }
    }
}

impl Shared {
    fn set_process(&self, node: usize, process: Option<Pid>) {
        self.processes.lock().expect("no code panics while it holds the processes")[node] = process;
    }

    fn processes(&self) -> Vec<Option<Pid>> {
        self.processes.lock().expect("no code panics while it holds the processes").clone()
    }
}

/// Listens on behalf of a node; `receiver` is the node if the port is the one for other nodes.
async fn serve(shared: Arc<Shared>, address: Ipv4Addr, port: u16, receiver: Option<usize>) {
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    while TcpStream::connect(target).await.is_err() {
        sleep(LISTEN_PAUSE).await;
    }
    // The address may still be taken by a gate that was shut a moment ago.
    let listener = loop {
        match listen(SocketAddrV4::new(address, port)) {
            Ok(listener) => break listener,
            Err(_) => sleep(LISTEN_PAUSE).await,
        }
    };
    loop {
        // This process may be out of file descriptors temporarily.
        let Ok((near, peer)) = listener.accept().await else {
            sleep(LISTEN_PAUSE).await;
            continue;
        };
        let sender = match (receiver, peer) {
            (Some(_), SocketAddr::V4(peer)) => {
                let local = SocketAddrV4::new(address, port);
                let Some(sender) = dialler::find(peer, local, &shared.processes()) else { continue };
                Some(sender)
            }
            _ => None,
        };
        let link = sender.zip(receiver);
        tokio::spawn(pass(shared.clone(), near, target, link));
    }
}

fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.into())?;
    socket.listen(BACKLOG)
}

/// Connects to the node, and forwards bytes in both directions until both have ended.
async fn pass(shared: Arc<Shared>, near: TcpStream, target: SocketAddrV4, link: Option<(usize, usize)>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    // Otherwise this process would delay small messages (Nagle's algorithm), which a direct connection does not.
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    let subscribe = |(from, to): (usize, usize)| shared.links[from][to].subscribe();
    let clear = || watch::Sender::new(Condition::default()).subscribe();
    let forth = link.map_or_else(clear, subscribe);
    let back = link.map_or_else(clear, |(from, to)| subscribe((to, from)));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(pump(near_read, far_write, forth), pump(far_read, near_write, back));
}

/// Forwards the bytes of one direction until either end closes.
async fn pump(mut source: OwnedReadHalf, sink: OwnedWriteHalf, condition: watch::Receiver<Condition>) {
    let (pieces_tx, pieces_rx) = mpsc::channel(PIECES_UNDER_WAY);
    let conditions = condition.clone();
    let read = async move {
        let mut random = Random::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut due = Instant::now();
        while let Ok(count @ 1..) = source.read(&mut piece).await {
            let condition = *conditions.borrow();
            let late = if random.percent(condition.loss_percent) { RETRANSMISSION } else { Duration::ZERO };
            // Never before bytes that were sent earlier.
            due = due.max(Instant::now() + condition.delay + late);
            if pieces_tx.send((due, piece[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, deliver(pieces_rx, sink, condition));
}

async fn deliver(
    mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut sink: OwnedWriteHalf,
    mut condition: watch::Receiver<Condition>,
) {
    while let Some((due, piece)) = pieces.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        let is_cut = condition.borrow().is_cut;
        if is_cut && condition.wait_for(|condition| !condition.is_cut).await.is_err() {
            return;
        }
        if sink.write_all(&piece).await.is_err() {
            return;
        }
    }
    // The end of the stream obeys the same condition as the bytes before it.
    let is_cut = condition.borrow().is_cut;
    if !is_cut || condition.wait_for(|condition| !condition.is_cut).await.is_ok() {
        let _ = sink.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpid;
    use tokio::time::timeout;

    const QUICK: Duration = Duration::from_millis(50);

    /// A node that echoes each byte, dialled by this process as another node.
    async fn echo() -> (Network, SocketAddrV4) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() {
                        stream.write_all(&byte).await.unwrap();
                    }
                });
            }
        });
        let mut network = Network::new(2);
        // This process is both nodes; the search for the dialler finds the first of them.
        network.shared.set_process(0, Some(getpid()));
        network.open(1, getpid(), [0, port]);
        (network, SocketAddrV4::new(advertised(1), port))
    }

    async fn connect(address: SocketAddrV4) -> TcpStream {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_) => sleep(LISTEN_PAUSE).await,
            }
        }
    }

    async fn exchange(stream: &mut TcpStream) -> Duration {
        let begun = Instant::now();
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        begun.elapsed()
    }

    #[tokio::test]
    async fn a_cut_in_either_direction_stops_bytes_and_loses_none() {
        let (network, address) = echo().await;
        let mut stream = connect(address).await;
        exchange(&mut stream).await;
        for (from, to) in [(0, 1), (1, 0)] {
            network.set(from, to, Condition { is_cut: true, ..Condition::default() });
            stream.write_all(b"x").await.unwrap();
            let mut byte = [0];
            assert!(timeout(QUICK, stream.read_exact(&mut byte)).await.is_err(), "from {from} to {to}");
            let mut new = connect(address).await;
            new.write_all(b"y").await.unwrap();
            assert!(timeout(QUICK, new.read_exact(&mut byte)).await.is_err(), "a new connection is cut, too");
            network.heal();
            stream.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"x");
            new.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"y");
        }
    }

    #[tokio::test]
    async fn bytes_are_as_late_as_they_should_be_and_in_order() {
        let (network, address) = echo().await;
        let mut stream = connect(address).await;
        let slow = Condition { delay: QUICK, ..Condition::default() };
        network.set(0, 1, slow);
        network.set(1, 0, slow);
        assert!(exchange(&mut stream).await >= 2 * QUICK);
        network.heal();
        network.set(0, 1, Condition { loss_percent: 100, ..Condition::default() });
        assert!(exchange(&mut stream).await >= RETRANSMISSION);
        network.set(0, 1, Condition { loss_percent: 50, ..Condition::default() });
        for number in 0..20 {
            stream.write_all(&[number]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut bytes = [0; 20];
        stream.read_exact(&mut bytes).await.unwrap();
        assert!(bytes.is_sorted(), "{bytes:?}");
    }

    #[tokio::test]
    async fn a_shut_gate_refuses() {
        let (mut network, address) = echo().await;
        let mut stream = connect(address).await;
        exchange(&mut stream).await;
        network.shut(1);
        tokio::task::yield_now().await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
