//! Starts a node from a directory and a command line until it is a member of a cluster (DESIGN, section 9).
//!
//! 1. The directory is locked, so that no two processes share it. A directory with files that no node has created is
//!    refused.
//! 2. Its contents decide what happens next ([`ringfort_core::start`]); `bootstrap` and `join` matter only if the
//!    directory belongs to no cluster yet.
//! 3. With both, no cluster is created before all other nodes have answered that they belong to none
//!    ([`ringfort_core::founding`]): a first node that lost its directory is refused by its former peers under its old
//!    name, instead of serving clients from an empty cluster of its own. Until a node is part of a cluster, it only
//!    answers that it waits for one.

use crate::config::{DEFAULT_SHARDS, NodeConfig};
use crate::disk::{self, FileDisk};
use crate::grpc::membership::Waiting;
use crate::join::{self, Contact, Joined, Joins};
use crate::metrics::Metrics;
use crate::random::{random_u64, random_u128};
use crate::start_error::StartError;
use ringfort_core::boot::{self, Boot, BootError};
use ringfort_core::disk::Disk;
use ringfort_core::founding::Own;
use ringfort_core::log::LogConfig;
use ringfort_core::start::{self, Newcomer, Refusal, Start};
use ringfort_core::system::topology::is_node_name;
use ringfort_core::system::{Member, Topology};
use ringfort_core::timing::Timing;
use ringfort_core::types::{ClusterId, Identity, NodeId};
use ringfort_ring::ShardCount;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Since when a node is a member of its cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// It has just created the cluster.
    Beginning,
    /// It has just joined, through a node that could reach it.
    Joining,
    /// An earlier start.
    Before,
}

/// A member of a cluster that is about to run.
pub struct Membership {
    pub boot: Boot<dyn Disk>,
    pub disk: Arc<dyn Disk>,
    /// The same files, without the faults of tests.
    pub files: Arc<FileDisk>,
    pub node: NodeId,
    pub topology: Topology,
    /// This node as other nodes should know it, with its current addresses.
    pub member: Member,
    pub since: Since,
    /// Held for as long as the process uses the directory.
    pub lock: File,
}

/// Finds or creates this node's membership. The addresses are those at which clients and nodes reach it. `clients` is
/// the listener for clients with its maximum number of connections, and `nodes` the listener for nodes; the node
/// answers on both while it waits.
pub fn membership(
    config: &NodeConfig,
    (grpc_address, raft_address): (String, String),
    runtime: &Runtime,
    metrics: &Metrics,
    clients: (&TcpListener, usize),
    nodes: &TcpListener,
) -> Result<Membership, StartError> {
    if !is_node_name(&config.name) {
        return Err(StartError::Name(config.name.clone()));
    }
    let directory = config.directory.display().to_string();
    let refused = |refusal| refused(config, refusal);
    let lock = lock(&config.directory)?;
    let (disk, files) = disk::open(&config.directory, config.disk_faults.as_deref())
        .map_err(|source| StartError::Directory { directory: directory.clone(), source })?;
    if start::clear_if_given_up(&*disk).map_err(refused)? {
        tracing::warn!(
            "this node was silent for so long that other nodes took its place: it joins again as a new node"
        );
    }
    let log_config = LogConfig { segment_bytes: config.segment_bytes, ..LogConfig::default() };
    let new_identity = Identity(random_u128()?);
    let found = start::open(&disk, log_config, &config.name, &raft_address, || new_identity).map_err(refused)?;
    let (zone, name) = (config.zone.clone(), config.name.clone());
    let member = |identity| Member { name, identity, raft_address, grpc_address, zone };

    let (found, member, since) = match found {
        Start::Member(found) => {
            let identity = found.topology.nodes[&found.node].identity;
            (found, member(identity), Since::Before)
        }
        Start::Newcomer(newcomer) => {
            let member = member(newcomer.owner().identity);
            let (found, since) = begin_or_join(config, newcomer, &member, runtime, metrics, clients, nodes)?;
            (found, member, since)
        }
    };
    let start::Member { boot, node, topology } = found;
    compare(config, &topology);
    check_disk_timeout(config, topology.timing)?;
    Ok(Membership { boot, disk, files, node, topology, member, since, lock })
}

/// Makes the node a member of a cluster: of a new one that it creates, or of one that admits it.
fn begin_or_join(
    config: &NodeConfig,
    newcomer: Newcomer<dyn Disk>,
    member: &Member,
    runtime: &Runtime,
    metrics: &Metrics,
    clients: (&TcpListener, usize),
    nodes: &TcpListener,
) -> Result<(start::Member<dyn Disk>, Since), StartError> {
    let directory = config.directory.display().to_string();
    let refused = |refusal| refused(config, refusal);
    // A node that can't write its log must not become a member.
    if let Some(no_space) = too_small(config) {
        return Err(no_space);
    }
    let deadline = Instant::now() + config.join_timeout;
    let given = [&config.join[..], newcomer.contacts()].concat();
    let told = told(&given, config.listen, &member.grpc_address);
    let is_alone = told.iter().all(|told| told.is_own == Own::Yes);
    let may_begin = config.bootstrap && newcomer.may_begin();
    let own = newcomer.owner().clone();
    let waiting = match told.is_empty() {
        true => None,
        false => Some(Waiting::serve(runtime, clients, metrics, nodes, &own, may_begin)?),
    };
    if may_begin {
        runtime.block_on(join::resolve(&member.grpc_address, deadline))?;
    }
    let begins = may_begin && runtime.block_on(join::may_begin(&told, &own, deadline))?;
    let joined = match begins {
        true => None,
        false if is_alone && newcomer.has_lost_topology() => {
            return Err(StartError::LostTopology { directory });
        }
        false if given.is_empty() => return Err(StartError::NoWay { directory }),
        false if is_alone => return Err(StartError::JoinsItself { address: given.join(", ") }),
        false => {
            let joins = if config.replace { Joins::Replacing } else { Joins::New };
            let founder = may_begin.then_some(&own);
            runtime.block_on(join::join(&told, member, joins, founder, config.disk_timeout, deadline))?
        }
    };
    if let Some(Joined { node, topology }) = joined {
        // From now on other nodes dial this one. Until it serves, their connections stay queued instead of being
        // closed.
        drop(waiting);
        tracing::info!(cluster = %topology.cluster, %node, "joined the cluster");
        return Ok((newcomer.join(topology).map_err(refused)?, Since::Joining));
    }
    let timing = config.timing.unwrap_or_default();
    check_disk_timeout(config, timing)?;
    let cluster = ClusterId(random_u64()?);
    if let Some(waiting) = &waiting {
        waiting.begins(cluster);
    }
    let topology = Topology::bootstrap(cluster, shards(config), timing, member.clone());
    let begun = newcomer.begin(&topology).map_err(refused)?;
    tracing::info!(
        cluster = %topology.cluster,
        shards = topology.shards.get(),
        election_timeout = %topology.timing,
        "created a new cluster"
    );
    Ok((begun, Since::Beginning))
}

/// What to tell the operator.
fn refused(config: &NodeConfig, refusal: Refusal) -> StartError {
    let directory = config.directory.display().to_string();
    match refusal {
        Refusal::Boot(source) => boot_error(config, source),
        Refusal::Departed => StartError::Departed { directory },
        Refusal::OtherOwner(owner) => StartError::OtherOwner { directory, owner },
        Refusal::NoTopology => StartError::NoTopology { directory },
        Refusal::NotMember => StartError::NotMember { directory },
        Refusal::Claimed(cluster) => StartError::Claimed { directory, cluster },
    }
}

/// Why a directory can't be used. If the disk has no space, the error names the sizes.
fn boot_error(config: &NodeConfig, source: BootError) -> StartError {
    let directory = config.directory.display().to_string();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&source);
    while let Some(error) = cause {
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        if error.downcast_ref().is_some_and(is_full)
            && let Some(available_bytes) = available_bytes(&config.directory)
        {
            return StartError::NoSpace { directory, available_bytes, segment_bytes: config.segment_bytes };
        }
        cause = error.source();
    }
    StartError::Boot { directory, source }
}

/// The error for a volume that has no room for one segment of the log.
fn too_small(config: &NodeConfig) -> Option<StartError> {
    let (directory, segment_bytes) = (config.directory.display().to_string(), config.segment_bytes);
    let available_bytes = available_bytes(&config.directory).filter(|available| *available < segment_bytes)?;
    Some(StartError::NoSpace { directory, available_bytes, segment_bytes })
}

fn available_bytes(directory: &Path) -> Option<u64> {
    let volume = rustix::fs::statvfs(directory).ok()?;
    Some(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// Compares the node's settings with those that its cluster was created with, which are fixed. The same command line
/// may be used at every start, so a difference is logged and does not keep the node from starting.
fn compare(config: &NodeConfig, topology: &Topology) {
    if let Some(given) = config.shards.filter(|given| *given != topology.shards) {
        let (given, kept) = (given.get(), topology.shards.get());
        tracing::warn!("--shards={given} has no effect: this cluster was created with {kept}, which is fixed");
    }
    if let Some(given) = config.timing.filter(|given| *given != topology.timing) {
        let kept = topology.timing;
        tracing::warn!(
            "--election-timeout={given} has no effect: this cluster was created with {kept}, which is fixed"
        );
    }
}

fn check_disk_timeout(config: &NodeConfig, timing: Timing) -> Result<(), StartError> {
    match config.disk_timeout < timing.least_disk_timeout() {
        true => Err(StartError::DiskTimeout { timing }),
        false => Ok(()),
    }
}

fn shards(config: &NodeConfig) -> ShardCount {
    config.shards.unwrap_or_else(|| ShardCount::new(DEFAULT_SHARDS).expect("a power of two"))
}

/// The configured addresses without duplicates. This node's own are marked, so that all nodes can be given the same
/// list. Names are not looked up: a name that leads here now may stand for all nodes.
fn told(given: &[String], listen: IpAddr, own_address: &str) -> Vec<Contact> {
    let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let by_host = |host: &str| match ringfort_proto::address::parse_host(host).map(|host| host.parse::<IpAddr>()) {
        Ok(Ok(ip)) if ip == listen || (listen.is_unspecified() && ip.is_loopback()) => Own::Yes,
        Ok(Ok(ip)) if listen.is_unspecified() && can_be_bound(ip) => Own::IfItAnswers,
        Ok(Ok(_)) => Own::No,
        _ if host == "localhost" && (listen.is_loopback() || listen.is_unspecified()) => Own::Yes,
        _ => Own::No,
    };
    let is_own = |address: &str| match address.rsplit_once(':') {
        _ if address == own_address => Own::Yes,
        Some((host, _)) if port(address) == port(own_address) => by_host(host),
        _ => Own::No,
    };
    let mut told: Vec<Contact> = Vec::new();
    for address in given {
        if told.iter().all(|known| known.address != *address) {
            told.push(Contact { address: address.clone(), is_own: is_own(address) });
        }
    }
    told
}

/// Whether `ip` may be an address of this machine. Usually no other address can be bound, but see [`Own::IfItAnswers`].
fn can_be_bound(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Creates the directory and its missing ancestors, and syncs each new entry: what the node writes and syncs later must
/// not be lost with the directory.
fn create_durably(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| path.parent().is_some() && !path.exists()).collect();
    fs::create_dir_all(path)?;
    for created in missing {
        let parent = created.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Locks the directory, and creates it first if it is missing.
fn lock(path: &Path) -> Result<File, StartError> {
    let directory = || path.display().to_string();
    let failed = |source| StartError::Directory { directory: directory(), source };
    create_durably(path).map_err(failed)?;
    let foreign = foreign_names(path).map_err(failed)?;
    if !foreign.is_empty() {
        return Err(StartError::Foreign { directory: directory(), names: foreign.join(", ") });
    }
    let file = File::create(path.join(boot::LOCK_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Locked { directory: directory() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The first few names, sorted, of files in the directory that no node creates; none if the directory is a node's.
fn foreign_names(path: &Path) -> io::Result<Vec<String>> {
    const NAMED: usize = 3;
    let mut names = Vec::new();
    for entry in path.read_dir()? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    // `lost+found` and names that begin with a dot do not show whose directory it is.
    let is_foreign = |name: &String| !boot::is_nodes_file(name) && name != "lost+found" && !name.starts_with('.');
    if names.iter().any(|name| name == boot::IDENTITY_FILE) {
        return Ok(Vec::new());
    }
    names.retain(is_foreign);
    names.sort_unstable();
    if names.len() > NAMED {
        names.truncate(NAMED);
        names.push("…".to_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_somebody_else_is_not_taken_for_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let put = |name: &str| std::fs::write(path.join(name), "").unwrap();
        for own in ["lock", ".keep", "identity.tmp", "log-00000000000000000001.seg", "log-extent", "snap-1-5.snap.tmp"]
        {
            put(own);
        }
        std::fs::create_dir(path.join("lost+found")).unwrap();
        assert!(lock(path).is_ok(), "that is what an interrupted first start leaves");
        for foreign in ["passwd", "hosts", "group", "fstab"] {
            put(foreign);
        }
        std::fs::remove_file(path.join("lock")).unwrap();
        let refused = lock(path).unwrap_err().to_string();
        assert!(refused.contains("not Ringfort's (fstab, group, hosts, …): choose an empty --raft-dir"), "{refused}");
        assert!(!path.join("lock").exists(), "nothing was written there");
        put("identity");
        assert!(lock(path).is_ok(), "a node's directory stays one");
    }

    #[test]
    fn a_node_knows_its_own_address_and_looks_up_no_name() {
        let own = |given: &[&str], listen: &str| -> Vec<String> {
            let given: Vec<String> = given.iter().map(|address| address.to_string()).collect();
            let told = told(&given, listen.parse().unwrap(), "node1.example:7000");
            assert_eq!(told.len(), given.len());
            told.into_iter().filter(|told| told.is_own == Own::Yes).map(|told| told.address).collect()
        };
        let given = ["node1.example:7000", "127.0.0.1:7000", "localhost:7000"];
        assert_eq!(own(&given, "127.0.0.1"), given);
        assert_eq!(own(&given, "0.0.0.0"), given);
        assert_eq!(own(&["[::1]:7000", "127.0.0.1:7000"], "::1"), ["[::1]:7000"]);
        let others = ["127.0.0.1:7001", "node2.example:7000", "no address", "ip6-localhost:7000", "198.51.100.7:7000"];
        assert_eq!(own(&others, "127.0.0.1"), [""; 0]);
        assert_eq!(own(&others, "0.0.0.0"), [""; 0]);
        assert_eq!(own(&["127.0.0.1:7000"], "10.0.0.1"), [""; 0]);
        let twice = ["a:1".to_owned(), "b:1".to_owned(), "a:1".to_owned()];
        assert_eq!(told(&twice, "::".parse().unwrap(), "node1.example:7000").len(), 2);
    }
}
