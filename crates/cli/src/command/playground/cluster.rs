//! A cluster of processes on this machine, in one directory.
//!
//! The directory holds one directory for each node and the file `nodes.json` with their ports: started again in the
//! same directory, the nodes find each other and their data. New nodes take the ports of the README's examples, from
//! 50051 and 12001 upwards, if all the ports they need are free.

use super::process::{Ended, Logs, NodeCommand, NodeProcess, SEGMENT_FLAG, stop_strays};
use super::screen::Screen;
use crate::command::status::verdict::{REPLICATION_FACTOR, judge};
use crate::failure::Failure;
use ringfort_client::Client;
use ringfort_client::v1::{ShardStatus, StatusResponse};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::sleep;

const PORTS_FILE: &str = "nodes.json";
const LOCK_FILE: &str = "playground.lock";

/// The ports of the first node in the README.
const README_PORTS: Ports = Ports { port: 50051, raft_port: 12001 };

/// The name of an abstract socket, bound by the one playground that may take the README's ports.
const README_CLAIM: &[u8] = b"ringfort-playground";

/// Small log segments: each node allocates the space of two before it serves.
const SEGMENT_BYTES: u64 = 8 << 20;

/// Short enough for a user who watches.
const REPLACE_AFTER: &str = "15s";

/// How long the cluster may take until all replicas are where they belong.
const COMPLETE_PATIENCE: Duration = Duration::from_secs(90);

/// The pause between two status requests.
const STATUS_PAUSE: Duration = Duration::from_millis(50);

/// A node that takes longer to return the cluster's status is asked again.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("can't use {directory}: {source}")]
    Directory { directory: String, source: io::Error },
    #[error("{directory} is in use by another playground: stop that one, or choose another --dir")]
    InUse { directory: String },
    #[error("{file} can't be read ({source}): repair it, or choose another --dir")]
    Ports { file: String, source: serde_json::Error },
    #[error("can't start {name}: {source}")]
    Start { name: String, source: io::Error },
    #[error(transparent)]
    Ended(#[from] Ended),
    #[error("the cluster is not complete after {} s: {last}", COMPLETE_PATIENCE.as_secs())]
    Incomplete { last: String },
}

/// Where the data is.
enum Directory {
    /// Removed at the end.
    Temporary(TempDir),
    Given(PathBuf),
}

/// Ports of a node, as saved in the directory.
#[derive(Serialize, Deserialize, Clone, Copy)]
struct Ports {
    port: u16,
    raft_port: u16,
}

pub struct Node {
    /// `127.0.0.1:PORT`, for clients.
    pub endpoint: String,
    pub command: NodeCommand,
    pub process: NodeProcess,
    ports: Ports,
}

impl Node {
    /// The ports that it listens on: for clients, and for the other nodes.
    pub fn ports(&self) -> [u16; 2] {
        [self.ports.port, self.ports.raft_port]
    }
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    logs: Logs,
    screen: Arc<Screen>,
    ended_tx: mpsc::UnboundedSender<Ended>,
    ended_rx: mpsc::UnboundedReceiver<Ended>,
    /// Locked for as long as this playground uses a directory that was given.
    _lock: Option<File>,
    /// Holds the nodes' ports, so that no other program gets one while its node restarts.
    _held: Held,
    /// Dropped last: the processes are gone by then.
    directory: Directory,
}

impl Cluster {
    /// Starts `count` nodes, or as many as the given directory has, if those are more. `arguments`, of the form
    /// `--flag=value`, are added to those of each node, by its number and the cluster's directory, or replace them.
    pub fn start(
        count: usize,
        directory: Option<PathBuf>,
        logs: Logs,
        screen: Arc<Screen>,
        arguments: impl Fn(usize, &Path) -> Vec<String>,
    ) -> Result<Cluster, ClusterError> {
        let directory = match directory {
            // Absolute, for commands that are typed elsewhere.
            Some(path) => std::path::absolute(&path)
                .and_then(|absolute| fs::create_dir_all(&absolute).map(|()| Directory::Given(absolute)))
                .map_err(|source| ClusterError::Directory { directory: path.display().to_string(), source })?,
            None => TempDir::with_prefix("ringfort-playground-").map(Directory::Temporary).map_err(|source| {
                ClusterError::Directory { directory: std::env::temp_dir().display().to_string(), source }
            })?,
        };
        let (ended_tx, ended_rx) = mpsc::unbounded_channel();
        let path = match &directory {
            Directory::Temporary(directory) => directory.path(),
            Directory::Given(path) => path,
        };
        let lock = match &directory {
            Directory::Temporary(_) => None,
            Directory::Given(path) => Some(lock(path)?),
        };
        let (ports, held) = ports(path, count)?;
        let mut cluster =
            Cluster { nodes: Vec::new(), logs, screen, ended_tx, ended_rx, _lock: lock, _held: held, directory };
        for (number, own) in ports.iter().enumerate() {
            let mut command = command(cluster.path(), number, *own, &endpoint(ports[0].port));
            for argument in arguments(number, cluster.path()) {
                let flag = argument.split_inclusive('=').next().expect("it has a flag");
                command.args.retain(|own| !own.starts_with(flag));
                command.args.push(argument);
            }
            let process = cluster.spawn(number, &command)?;
            cluster.nodes.push(Node { endpoint: endpoint(own.port), command, process, ports: *own });
        }
        Ok(cluster)
    }

    pub fn path(&self) -> &Path {
        match &self.directory {
            Directory::Temporary(directory) => directory.path(),
            Directory::Given(path) => path,
        }
    }

    /// A node's own directory.
    pub fn directory_of(&self, number: usize) -> PathBuf {
        self.path().join(&self.nodes[number].command.name)
    }

    /// Keeps a temporary directory.
    pub fn keep(&mut self) {
        if let Directory::Temporary(directory) = &mut self.directory {
            directory.disable_cleanup(true);
        }
    }

    pub fn is_temporary(&self) -> bool {
        matches!(self.directory, Directory::Temporary(_))
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.endpoint.clone()).collect()
    }

    pub fn client(&self) -> Result<Client, ringfort_client::Error> {
        Client::connect(self.endpoints())
    }

    /// The command that starts a new node, with currently free ports.
    pub fn newcomer(&self) -> io::Result<NodeCommand> {
        let own = match self.nodes.iter().all(|node| node.ports.is_of_the_readme()) {
            true => readme_ports(self.nodes.len()..self.nodes.len() + 1).pop(),
            false => None,
        };
        let (own, _held) = own.map_or_else(any_ports, Ok)?;
        Ok(command(self.path(), self.nodes.len(), own, &self.nodes[0].endpoint))
    }

    /// Restarts a node that has ended, with the same command.
    pub fn restart(&mut self, number: usize) -> Result<(), ClusterError> {
        self.nodes[number].process = self.spawn(number, &self.nodes[number].command)?;
        Ok(())
    }

    /// Waits until all nodes answer and every shard has all its replicas, and none lacks an entry. Only for a cluster
    /// without writes.
    ///
    /// # Errors
    /// A node has ended, or it takes too long.
    pub async fn wait_until_complete(&mut self) -> Result<StatusResponse, Failure> {
        let client = self.client()?.with_timeout(STATUS_TIMEOUT);
        let begun = Instant::now();
        let mut last = "no node has answered yet".to_owned();
        while begun.elapsed() < COMPLETE_PATIENCE {
            if let Some(ended) = self.ended() {
                return Err(ClusterError::from(ended).into());
            }
            if let Ok(status) = client.status().await {
                let replicas = self.nodes.len().min(REPLICATION_FACTOR);
                let is_complete = |shard: &&ShardStatus| {
                    shard.members.len() >= replicas && shard.members.iter().all(|member| member.lag == 0)
                };
                let complete = status.shards.iter().filter(is_complete).count();
                let verdict = judge(&status);
                if verdict.healthy && status.nodes.len() == self.nodes.len() && complete == status.shards.len() {
                    return Ok(status);
                }
                last = verdict.sentence;
                self.screen.progress(&format!(
                    "{} of {} nodes, {complete} of {} shards complete, {:.1} s",
                    status.nodes.iter().filter(|node| node.alive).count(),
                    self.nodes.len(),
                    status.shards.len(),
                    begun.elapsed().as_secs_f32(),
                ))?;
            }
            sleep(STATUS_PAUSE).await;
        }
        Err(ClusterError::Incomplete { last }.into())
    }

    /// A node that has ended without being asked to.
    pub fn ended(&mut self) -> Option<Ended> {
        self.ended_rx.try_recv().ok()
    }

    /// Waits for the next node that ends without being asked to.
    pub async fn next_ended(&mut self) -> Ended {
        self.ended_rx.recv().await.expect("the cluster holds a sender itself")
    }

    /// Stops all nodes at once. In a temporary directory, which is about to be removed, this includes nodes that a user
    /// started with a printed command. Returns how many nodes failed to stop or had to be killed.
    pub async fn stop(mut self) -> usize {
        let mut stops = tokio::task::JoinSet::new();
        for mut node in self.nodes.drain(..) {
            stops.spawn(async move { node.process.stop().await });
        }
        let mut failed = stops.join_all().await.into_iter().filter(|well| !well).count();
        if self.is_temporary() {
            failed += stop_strays(self.path()).await;
        }
        failed
    }

    fn spawn(&self, number: usize, command: &NodeCommand) -> Result<NodeProcess, ClusterError> {
        NodeProcess::start(number, command, self.logs, self.screen.clone(), self.ended_tx.clone())
            .map_err(|source| ClusterError::Start { name: command.name.clone(), source })
    }
}

fn endpoint(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn command(directory: &Path, number: usize, own: Ports, first: &str) -> NodeCommand {
    let name = format!("node{}", number + 1);
    let mut args = vec![
        "serve".to_owned(),
        format!("--node-id={name}"),
        format!("--port={}", own.port),
        format!("--raft-port={}", own.raft_port),
        format!("--raft-dir={}", directory.join(&name).display()),
        format!("{SEGMENT_FLAG}{SEGMENT_BYTES}"),
        format!("--replace-after={REPLACE_AFTER}"),
    ];
    args.push(if number == 0 { "--bootstrap".to_owned() } else { format!("--join-addr={first}") });
    let log = directory.join(format!("{name}.log"));
    NodeCommand { name, args, log }
}

/// Sockets that hold ports, and the claim on the README's ports.
struct Held {
    _ports: Vec<TcpSocket>,
    _readme: Option<UnixListener>,
}

impl Ports {
    fn of_the_readme(number: usize) -> Option<Ports> {
        let number = u16::try_from(number).ok()?;
        let Ports { port, raft_port } = README_PORTS;
        Some(Ports { port: port.checked_add(number)?, raft_port: raft_port.checked_add(number)? })
    }

    fn is_of_the_readme(self) -> bool {
        self.port >= README_PORTS.port
            && self.port - README_PORTS.port == self.raft_port.wrapping_sub(README_PORTS.raft_port)
    }
}

/// The ports of the directory's nodes, and free ports for the missing nodes, up to `count`; with the sockets that hold
/// them.
fn ports(directory: &Path, count: usize) -> Result<(Vec<Ports>, Held), ClusterError> {
    let file = directory.join(PORTS_FILE);
    let failed = |source| ClusterError::Directory { directory: directory.display().to_string(), source };
    let mut ports: Vec<Ports> = match fs::read(&file) {
        Ok(json) => serde_json::from_slice(&json)
            .map_err(|source| ClusterError::Ports { file: file.display().to_string(), source })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    let readme = claim_readme_ports();
    // A saved port that another program has taken can't be held; its node will report that.
    let mut held: Vec<TcpSocket> =
        ports.iter().flat_map(|own| [own.port, own.raft_port]).filter_map(|port| hold(port).ok()).collect();
    if ports.len() < count {
        let missing = ports.len()..count;
        let mut new = if readme.is_some() { readme_ports(missing.clone()) } else { Vec::new() };
        if new.len() < missing.len() {
            new = missing.map(|_| any_ports()).collect::<io::Result<_>>().map_err(failed)?;
        }
        for (own, sockets) in new {
            ports.push(own);
            held.extend(sockets);
        }
        let json = serde_json::to_vec(&ports).expect("numbers can be written as JSON");
        fs::write(&file, json).map_err(failed)?;
    }
    Ok((ports, Held { _ports: held, _readme: readme }))
}

/// Keeps other playgrounds out of a directory.
fn lock(path: &Path) -> Result<File, ClusterError> {
    let directory = || path.display().to_string();
    let failed = |source| ClusterError::Directory { directory: directory(), source };
    let file = File::create(path.join(LOCK_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ClusterError::InUse { directory: directory() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Claims the README's ports, until the socket is dropped. None if another playground has claimed them.
fn claim_readme_ports() -> Option<UnixListener> {
    UnixListener::bind_addr(&UnixAddr::from_abstract_name(README_CLAIM).ok()?).ok()
}

/// The README's ports for the nodes with these numbers, up to the first that is not free; with the sockets that hold
/// them.
fn readme_ports(numbers: std::ops::Range<usize>) -> Vec<(Ports, [TcpSocket; 2])> {
    let held = |own: Ports| Some((own, [hold(own.port).ok()?, hold(own.raft_port).ok()?]));
    numbers.map_while(|number| held(Ports::of_the_readme(number)?)).collect()
}

/// Two free ports, with the sockets that hold them.
fn any_ports() -> io::Result<(Ports, [TcpSocket; 2])> {
    let held = [hold(0)?, hold(0)?];
    let [port, raft_port] = [held[0].local_addr()?.port(), held[1].local_addr()?.port()];
    Ok((Ports { port, raft_port }, held))
}

/// Binds a port (0 for a free one) without listening on it: the system assigns it to no other program, but a node that
/// asks for it by number gets it.
fn hold(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers((ports, _): (Vec<Ports>, Held)) -> Vec<u16> {
        ports.iter().flat_map(|own| [own.port, own.raft_port]).collect()
    }

    #[test]
    fn ports_are_given_to_nobody_else_and_can_be_listened_on() {
        let directory = tempfile::tempdir().unwrap();
        let (ports, held) = ports(directory.path(), 1).unwrap();
        assert_eq!(held._ports.len(), 2);
        let listens = |port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let node = listens(ports[0].port).expect("for the node");
        drop(node);
        listens(ports[0].port).expect("and when it is started again");
    }

    #[test]
    fn a_directory_is_of_one_playground() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock(directory.path()).unwrap();
        let refused = lock(directory.path()).unwrap_err().to_string();
        assert!(refused.contains("is in use by another playground: stop that one"), "{refused}");
        drop(first);
        assert!(lock(directory.path()).is_ok());
    }

    #[test]
    fn ports_of_the_readme_belong_together() {
        let own = Ports::of_the_readme(2).unwrap();
        assert_eq!((own.port, own.raft_port), (50053, 12003));
        assert!(own.is_of_the_readme());
        for (port, raft_port) in [(50053, 12002), (40000, 12001), (50051, 60000), (50050, 12000)] {
            assert!(!Ports { port, raft_port }.is_of_the_readme(), "{port} {raft_port}");
        }
        assert!(Ports::of_the_readme(60_000).is_none());
    }

    #[test]
    fn only_one_playground_claims_the_ports_of_the_readme() {
        // Another playground may run on this machine and have the claim.
        let claim = claim_readme_ports();
        assert!(claim_readme_ports().is_none());
        drop(claim);
    }

    #[test]
    fn ports_stay_with_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = numbers(ports(directory.path(), 3).unwrap());
        let mut distinct = first.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 6);
        assert_eq!(numbers(ports(directory.path(), 2).unwrap()), first);
        let more = numbers(ports(directory.path(), 5).unwrap());
        assert_eq!((&more[..6], more.len()), (&first[..], 10));
        fs::write(directory.path().join(PORTS_FILE), "[").unwrap();
        assert!(matches!(ports(directory.path(), 3), Err(ClusterError::Ports { .. })));
    }
}
