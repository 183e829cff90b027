//! What a node has on disk when it starts, and how a cluster begins.
//!
//! Besides the log and the snapshots, a node's directory has two small files, each written under a temporary name,
//! synced and renamed:
//!
//! - `identity`: the node that owns the directory; written before the first contact with a cluster.
//! - `topology`: the latest topology that the node knew. While it exists (or the log is not empty) the directory
//!   belongs to a cluster, and the topology takes precedence over the command line.
//!
//! If another cluster claims the directory's node as its member ([`crate::control`], claims), the file `claimed`
//! records that. Without it the node would serve for a moment after each restart.
//!
//! If the directory's node is no longer a member, the file `departed` says why ([`departure`]). Nothing else in the
//! directory may be used again. A node that was declared dead may start as a new node in it: [`clear`] deletes
//! everything and leaves `contacts`, the nodes that it knew.
//!
//! The shell writes the file `disk-probe` while it has nothing to log, to see whether the disk answers.
//!
//! The directory is opened ([`open`]) before the first topology is saved, so a directory with a topology and without a
//! log has lost its log. If the log has lost anything, replicas that the topology assigns to this node and that the log
//! does not know are not trusted: they may have voted.
//!
//! [`bootstrap`] writes the initial state of a cluster in one record of the log, so that a crash leaves either nothing,
//! and bootstrapping can be repeated, or a cluster of one node.

use crate::codec::{CodecError, Reader, put_bytes, put_u32};
use crate::disk::Disk;
use crate::eventual::codec::DecodeError as EventualError;
use crate::eventual::journal;
use crate::kv::state::{CutMeta, Machine};
use crate::log::item::{Base, Change, LogItem, ReplicaState};
use crate::log::{self, Log, LogConfig, LogError, RecoveredShard};
use crate::mutation::Mutation;
use crate::replica::Restored;
use crate::replica::restore::{self, LoadError};
use crate::snapshot::{self, SnapshotError, SnapshotHeader, SnapshotWriter, snapshot_name};
use crate::system::topology::MAX_NAME_BYTES;
use crate::system::{DecodeError, MemberState, SystemMachine, Topology};
use crate::time::HlcTimestamp;
use crate::types::{ClusterId, Identity, LogIndex, NodeId, ReplicaId, ShardId, Term};
use raft::eraftpb::{ConfState, HardState};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The owner of the directory: while this file exists, the directory belongs to a node.
pub const IDENTITY_FILE: &str = "identity";
const TOPOLOGY_FILE: &str = "topology";
/// Locked by the process that uses the directory; belongs to the shell and is never deleted.
pub const LOCK_FILE: &str = "lock";

const DEPARTED_FILE: &str = "departed";
const CLAIM_FILE: &str = "claimed";
const CONTACTS_FILE: &str = "contacts";
/// Written by the shell while it has nothing to log, to check that the disk answers. Its content has no meaning.
pub const PROBE_FILE: &str = "disk-probe";

/// The suffix of a file that is being written.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Whether a node creates files with this name in its directory.
pub fn is_nodes_file(name: &str) -> bool {
    let name = name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(name);
    [IDENTITY_FILE, TOPOLOGY_FILE, LOCK_FILE, DEPARTED_FILE, CLAIM_FILE, CONTACTS_FILE, PROBE_FILE].contains(&name)
        || log::is_log_file(name)
        || snapshot::is_snapshot(name)
}

/// The number of other nodes' addresses that a node keeps when it restarts as a new node.
const MAX_CONTACTS: usize = 32;

/// Why a node can't start from its directory. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("the node's directory can't be read or written")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the file {0} is damaged")]
    Damaged(&'static str),
    #[error("the file {TOPOLOGY_FILE} can't be read")]
    Topology(#[from] DecodeError),
    #[error(
        "the snapshot {file} of shard {shard} can't be read: try again; if the disk stays unable to read it, and \
         other nodes hold that shard, copy the directory, then delete this file: the replica is then replaced"
    )]
    UnreadableSnapshot { file: String, shard: ShardId, source: io::Error },
    #[error("the log holds an eventual keyspace that this version of Ringfort can't read")]
    Eventual(#[from] EventualError),
    #[error("the first snapshot could not be written")]
    Snapshot(#[from] SnapshotError),
}

/// The node that owns a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    pub identity: Identity,
    /// The node's name, as the operator gave it.
    pub name: String,
}

/// A replica to start.
pub struct StartReplica {
    pub shard: ShardId,
    pub replica: ReplicaId,
    pub state: Box<ReplicaState>,
    pub restored: Restored,
}

/// The contents of a node's directory.
pub struct Boot<D: ?Sized> {
    pub log: Log<Arc<D>>,
    pub replicas: Vec<StartReplica>,
    /// Replicas that can no longer be trusted, found by this start or an earlier one. They are never started; new ones
    /// replace them.
    pub lost: Vec<(ShardId, ReplicaId)>,
    /// Earlier replicas of shards that have later ones here. The topology still names them, and the later ones may have
    /// no data yet.
    pub superseded: Vec<(ShardId, ReplicaId)>,
    /// Replicas that were removed: neither this id nor a lower one may start again.
    pub removed: Vec<(ShardId, ReplicaId)>,
    pub eventual: journal::Recovered,
    /// Whether the log has never held anything, as far as the other files show. A cluster may begin only in such a
    /// directory.
    pub is_log_empty: bool,
    pub owner: Option<Owner>,
    /// None if the directory belongs to no cluster yet.
    pub topology: Option<Topology>,
    /// What was found damaged or cut, for the operator.
    pub findings: Vec<String>,
}

/// The directory's owner; none if it was never written.
pub fn owner<D: Disk + ?Sized>(disk: &D) -> Result<Option<Owner>, BootError> {
    let Some(content) = read_file(disk, IDENTITY_FILE)? else { return Ok(None) };
    let read = || -> Result<Owner, CodecError> {
        let mut reader = Reader::new(&content);
        let low = reader.u64()?;
        let identity = Identity(u128::from(reader.u64()?) << 64 | u128::from(low));
        let name = String::from_utf8_lossy(reader.bytes(MAX_NAME_BYTES)?).into_owned();
        reader.expect_end()?;
        Ok(Owner { identity, name })
    };
    read().map(Some).map_err(|_| BootError::Damaged(IDENTITY_FILE))
}

/// Sets the directory's owner. Durable when this returns.
pub fn set_owner<D: Disk + ?Sized>(disk: &D, owner: &Owner) -> Result<(), BootError> {
    let mut content = owner.identity.0.to_le_bytes().to_vec();
    put_bytes(&mut content, owner.name.as_bytes());
    Ok(write_file(disk, IDENTITY_FILE, &content)?)
}

/// Saves the latest topology. Durable when this returns.
pub fn save_topology<D: Disk + ?Sized>(disk: &D, topology: &Topology) -> io::Result<()> {
    write_file(disk, TOPOLOGY_FILE, &topology.encode())
}

/// The topology that was saved last; none if the directory belongs to no cluster.
pub fn saved_topology<D: Disk + ?Sized>(disk: &D) -> Result<Option<Topology>, BootError> {
    Ok(read_file(disk, TOPOLOGY_FILE)?.map(|content| Topology::decode(&content)).transpose()?)
}

/// Whether `next` assigns the node a replica that `saved`, the topology on its disk, does not. Then the node must save
/// `next` before it acts on it: if its log is lost, only the saved topology tells it which replicas it had. Until then
/// it only [removes replicas](crate::worker::Worker::handle_retirements). The node may act on any other topology even
/// if it can't save it: on a full disk, that topology may free some space.
pub fn assigns_anew(saved: Option<&Topology>, next: &Topology, node: NodeId) -> bool {
    let is_saved = |shard, replica| saved.and_then(|saved| saved.replica(shard, node)) == Some(replica);
    next.groups.iter().any(|(&shard, group)| group.replica_on(node).is_some_and(|replica| !is_saved(shard, replica)))
}

/// Records that the directory's node is no longer a member. Durable when this returns.
pub fn set_departure<D: Disk + ?Sized>(disk: &D, why: MemberState) -> io::Result<()> {
    write_file(disk, DEPARTED_FILE, &[why.code()])
}

/// Why the directory's node is no longer a member; none if it may be one.
pub fn departure<D: Disk + ?Sized>(disk: &D) -> Result<Option<MemberState>, BootError> {
    let Some(content) = read_file(disk, DEPARTED_FILE)? else { return Ok(None) };
    Ok(Some(MemberState::decode(&mut Reader::new(&content))?))
}

/// Another cluster's claim that the directory's node is its member.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub cluster: ClusterId,
    pub name: String,
    /// The address at which that cluster's nodes reached this one, `host:port`.
    pub raft_address: String,
}

/// Records a claim. Durable when this returns.
pub fn set_claim<D: Disk + ?Sized>(disk: &D, claim: &Claim) -> io::Result<()> {
    let mut content = claim.cluster.0.to_le_bytes().to_vec();
    put_bytes(&mut content, claim.name.as_bytes());
    put_bytes(&mut content, claim.raft_address.as_bytes());
    write_file(disk, CLAIM_FILE, &content)
}

/// The cluster that claims a node of this name at this address. A claim for another name or address is deleted: by
/// changing either, an operator decides that the node stays in its own cluster.
pub fn claim<D: Disk + ?Sized>(disk: &D, name: &str, raft_address: &str) -> Result<Option<ClusterId>, BootError> {
    let Some(content) = read_file(disk, CLAIM_FILE)? else { return Ok(None) };
    let read = || -> Result<Claim, CodecError> {
        let mut reader = Reader::new(&content);
        let cluster = ClusterId(reader.u64()?);
        let mut text = || Ok(String::from_utf8_lossy(reader.bytes(MAX_NAME_BYTES)?).into_owned());
        Ok(Claim { cluster, name: text()?, raft_address: text()? })
    };
    let noted = read().map_err(|_| BootError::Damaged(CLAIM_FILE))?;
    if (&*noted.name, &*noted.raft_address) == (name, raft_address) {
        return Ok(Some(noted.cluster));
    }
    disk.delete(CLAIM_FILE)?;
    Ok(None)
}

/// Deletes everything that a departed node had, except for the client addresses of the nodes that it knew, which
/// [`contacts`] returns from then on. After a crash at any point, this is either done or must be done again.
pub fn clear<D: Disk + ?Sized>(disk: &D) -> Result<(), BootError> {
    if let Some(content) = read_file(disk, TOPOLOGY_FILE)? {
        let topology = Topology::decode(&content)?;
        let own = owner(disk)?.map(|owner| owner.identity);
        let others = topology.nodes.values().filter(|member| Some(member.identity) != own);
        let mut known = Vec::new();
        others.take(MAX_CONTACTS).for_each(|member| put_bytes(&mut known, member.grpc_address.as_bytes()));
        write_file(disk, CONTACTS_FILE, &known)?;
    }
    for name in disk.list()? {
        if ![LOCK_FILE, DEPARTED_FILE, CONTACTS_FILE].contains(&&*name) {
            disk.delete(&name)?;
        }
    }
    Ok(disk.delete(DEPARTED_FILE)?)
}

/// The nodes that this node knew before it was cleared; empty if it was not.
pub fn contacts<D: Disk + ?Sized>(disk: &D) -> Result<Vec<String>, BootError> {
    let Some(content) = read_file(disk, CONTACTS_FILE)? else { return Ok(Vec::new()) };
    let mut reader = Reader::new(&content);
    let mut contacts = Vec::new();
    while !reader.is_empty() {
        let address = reader.bytes(MAX_NAME_BYTES).map_err(|_| BootError::Damaged(CONTACTS_FILE))?;
        contacts.push(String::from_utf8_lossy(address).into_owned());
    }
    Ok(contacts)
}

/// Creates a cluster in an empty directory: this node gets its replicas of the topology, with empty shards and all of
/// the topology's replicas as voters. In a new cluster this node is the only one.
///
/// # Panics
/// If the log is not empty; [`open`] shows whether it is.
pub fn bootstrap<D: Disk + ?Sized>(
    disk: &Arc<D>,
    config: LogConfig,
    topology: &Topology,
    node: NodeId,
) -> Result<(), BootError> {
    let (mut log, recovery) = Log::open(disk.clone(), config)?;
    let is_log_empty = recovery.shards.is_empty() && !recovery.shards_unknown;
    assert!(is_log_empty, "no cluster begins in a directory whose log holds something");
    let mut items = Vec::new();
    for (&shard, group) in &topology.groups {
        let Some(replica) = group.replica_on(node) else { continue };
        let voters = group.replicas.iter().map(|replica| replica.0).collect();
        let mut base = Base {
            index: LogIndex::BASE,
            term: Term::FIRST,
            conf_state: ConfState { voters, ..ConfState::default() },
            snapshot: String::new(),
        };
        if shard == ShardId::SYSTEM {
            base.snapshot = snapshot_name(shard, base.index);
            write_system_snapshot(disk, &base, topology)?;
        }
        let hard_state = HardState { term: base.term.0, commit: base.index.0, ..HardState::default() };
        let state = ReplicaState { hard_state, base, entries: Vec::new() };
        items.push(LogItem { shard, replica, change: Change::State(Box::new(state)) });
    }
    log.append(&items)?;
    log.sync()?;
    Ok(save_topology(&**disk, topology)?)
}

fn write_system_snapshot<D: Disk + ?Sized>(
    disk: &Arc<D>,
    base: &Base,
    topology: &Topology,
) -> Result<(), SnapshotError> {
    let content = topology.encode();
    let meta = CutMeta { revision: 0, timestamp: HlcTimestamp::default(), hash: 0, len: content.len() as u64 };
    let header = SnapshotHeader {
        shard: ShardId::SYSTEM,
        index: base.index,
        term: base.term,
        conf_state: base.conf_state.clone(),
        meta: meta.encode(),
    };
    let mut writer = SnapshotWriter::begin(disk.clone(), &base.snapshot, &header)?;
    writer.chunk(&content)?;
    writer.finish()?;
    Ok(())
}

/// Opens a node's directory: recovers the log, reads the snapshots, and deletes files that nothing refers to.
pub fn open<D: Disk + ?Sized>(disk: &Arc<D>, config: LogConfig) -> Result<Boot<D>, BootError> {
    let topology = saved_topology(&**disk)?;
    let mutation = config.mutation;
    // The log is always opened before the first topology is saved. Only one snapshot is older than the log's first
    // record: the one that `bootstrap` writes.
    let is_first = |name: &str| name == snapshot_name(ShardId::SYSTEM, LogIndex::BASE);
    let has_snapshots = disk.list()?.iter().any(|name| snapshot::is_snapshot(name) && !is_first(name));
    let config = LogConfig { has_begun: topology.is_some() || has_snapshots, ..config };
    let (log, mut recovery) = Log::open(disk.clone(), config)?;
    let is_log_empty = recovery.shards.is_empty() && !recovery.shards_unknown;
    let eventual = match recovery.shards.remove(&ShardId::EVENTUAL) {
        None => journal::Recovered { lost: recovery.shards_unknown, ..journal::recover(None)? },
        shard => journal::recover(shard)?,
    };
    let mut boot = Boot {
        log,
        replicas: Vec::new(),
        lost: Vec::new(),
        superseded: Vec::new(),
        removed: Vec::new(),
        eventual,
        is_log_empty,
        owner: owner(&**disk)?,
        topology,
        findings: recovery.findings,
    };
    if boot.eventual.lost {
        let finding = "the eventual keyspace may be damaged: entries that other nodes hold are restored from them, all \
                       others are lost";
        boot.findings.push(finding.to_owned());
    }
    for (shard, recovered) in recovery.shards {
        match recovered {
            RecoveredShard::Suspect { replica }
                if mutation.is(Mutation::ForgetLostReplicas) && !recovery.shards_unknown =>
            {
                boot.removed.push((shard, replica));
            }
            RecoveredShard::Suspect { replica } => boot.lost.push((shard, replica)),
            RecoveredShard::Removed(replica) => boot.removed.push((shard, replica)),
            RecoveredShard::Recovered { replica, state } => {
                match state_at(disk, shard, &state.base, boot.topology.as_ref()) {
                    Ok(restored) => boot.replicas.push(StartReplica { shard, replica, state, restored }),
                    // The file may be intact, and the next start may be able to read it.
                    Err(StateError::Load(LoadError::Read(SnapshotError::Disk(source)))) => {
                        let file = state.base.snapshot.clone();
                        return Err(BootError::UnreadableSnapshot { file, shard, source });
                    }
                    Err(error) => {
                        boot.findings.push(format!("shard {shard}: {error}"));
                        boot.lost.push((shard, replica));
                    }
                }
            }
        }
    }
    if let Some(StartReplica { restored: Restored::System(system), .. }) =
        boot.replicas.iter().find(|start| start.shard == ShardId::SYSTEM)
        && boot.topology.as_ref().is_none_or(|known| known.epoch < system.topology().epoch)
    {
        boot.topology = Some(Topology::clone(system.topology()));
    }
    if recovery.shards_unknown {
        boot.quarantine_unrecovered()?;
    }
    boot.superseded = boot.find_superseded();
    // If the log has lost records of unknown shards, the snapshots that nothing refers to may be the only copies left.
    if boot.topology.is_some() && !recovery.shards_unknown {
        // The log's entries of a lost replica continue its snapshot, and an operator may need both.
        snapshot::clean_up(&**disk, |name| boot.is_named(name) || boot.lost_replica_of(name).is_some())?;
    }
    Ok(boot)
}

impl<D: ?Sized> Boot<D> {
    /// Whether the directory belongs to a cluster.
    pub fn has_state(&self) -> bool {
        self.topology.is_some()
    }

    /// Whether the directory has intact replicas, even if it belongs to no cluster.
    pub fn has_replicas(&self) -> bool {
        !self.replicas.is_empty()
    }

    /// Whether a replica starts from this snapshot.
    fn is_named(&self, snapshot: &str) -> bool {
        self.replicas.iter().any(|start| start.state.base.snapshot == snapshot)
    }

    /// The shard of this snapshot, if it has lost or superseded a replica here.
    fn lost_replica_of(&self, snapshot: &str) -> Option<ShardId> {
        let mut shards = self.lost.iter().chain(&self.superseded).map(|(shard, _)| *shard);
        shards.find(|&shard| snapshot::is_snapshot_of(snapshot, shard))
    }

    fn find_superseded(&self) -> Vec<(ShardId, ReplicaId)> {
        let (Some(topology), Some(node)) = (&self.topology, self.node()) else { return Vec::new() };
        let earlier = |start: &StartReplica| {
            let named = topology.groups.get(&start.shard)?.replicas.iter();
            let earlier = named.filter(|replica| replica.node() == node && **replica < start.replica).max()?;
            Some((start.shard, *earlier))
        };
        self.replicas.iter().filter_map(earlier).collect()
    }

    /// The snapshots of lost and superseded replicas. They are kept for an operator, for as long as the topology names
    /// the replicas.
    pub fn lost_snapshots(&self, disk: &D) -> io::Result<BTreeMap<ShardId, Vec<String>>>
    where
        D: Disk,
    {
        let mut found: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
        for name in disk.list()?.into_iter().filter(|name| !self.is_named(name)) {
            if let Some(shard) = self.lost_replica_of(&name) {
                found.entry(shard).or_default().push(name);
            }
        }
        Ok(found)
    }

    /// The id under which this directory's node is a member, as far as it knows.
    pub fn node(&self) -> Option<NodeId> {
        let (id, member) = self.topology.as_ref()?.node_named(&self.owner.as_ref()?.name)?;
        (Some(member.identity) == self.owner.as_ref().map(|owner| owner.identity)).then_some(id)
    }

    /// Makes the node a member of `topology`'s cluster. Durable when this returns.
    ///
    /// If the directory had an identity before this join (`was_owned`), it may have lost everything else. So the
    /// replicas that the topology already assigns to the node are not trusted: they may have voted. If the node was
    /// only slow to join, they are replaced needlessly, but they are still empty.
    pub fn join(&mut self, disk: &D, owner: Owner, topology: Topology, was_owned: bool) -> Result<(), BootError>
    where
        D: Disk,
    {
        self.owner = Some(owner);
        self.topology = Some(topology.clone());
        if was_owned {
            // This comes before the topology is saved: a node that stops in between asks to join again.
            self.quarantine_unrecovered()?;
        }
        Ok(save_topology(disk, &topology)?)
    }

    /// Handles a log that has lost records of unknown shards. A replica is created only when the topology that names it
    /// is on disk. So this node may have held and lost any replica that the saved topology assigns to it and the log
    /// does not know. Once these are logged as suspect, the log knows all replicas again.
    ///
    /// If the log has lost nothing, a replica that it does not know was never created: a replica's first record is
    /// synced before it sends any message.
    fn quarantine_unrecovered(&mut self) -> Result<(), LogError>
    where
        D: Disk,
    {
        let (Some(topology), Some(node)) = (&self.topology, self.node()) else { return Ok(()) };
        let mut highest: BTreeMap<ShardId, ReplicaId> = BTreeMap::new();
        let recovered = self.replicas.iter().map(|start| (start.shard, start.replica));
        for (shard, replica) in recovered.chain(self.lost.iter().chain(&self.removed).copied()) {
            let known = highest.entry(shard).or_insert(replica);
            *known = replica.max(*known);
        }
        let assigned = topology.groups.iter().filter_map(|(&shard, group)| Some((shard, group.replica_on(node)?)));
        let lost: Vec<(ShardId, ReplicaId)> =
            assigned.filter(|(shard, replica)| highest.get(shard).is_none_or(|known| replica > known)).collect();
        // A later replica of a shard has replaced the recovered one, which must not run again.
        for older in self.replicas.extract_if(.., |start| lost.iter().any(|(shard, _)| *shard == start.shard)) {
            self.lost.push((older.shard, older.replica));
        }
        let suspect = |&(shard, replica)| LogItem { shard, replica, change: Change::Suspect };
        self.log.append(&lost.iter().map(suspect).collect::<Vec<_>>())?;
        self.log.sync()?;
        self.log.declare_complete();
        self.lost.extend(lost);
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("its snapshot belongs to another position of the log")]
    Position,
    #[error("it waits for its first snapshot, and there is no topology to start from")]
    NoTopology,
}

/// The state at a replica's base. Without a snapshot it is empty; a system shard replica that waits for its first
/// snapshot begins with the topology that the node knew.
fn state_at<D: Disk + ?Sized>(
    disk: &Arc<D>,
    shard: ShardId,
    base: &Base,
    topology: Option<&Topology>,
) -> Result<Restored, StateError> {
    if base.snapshot.is_empty() {
        return match topology {
            _ if shard != ShardId::SYSTEM => Ok(Restored::Kv(Machine::new())),
            Some(topology) => Ok(Restored::System(SystemMachine::new(topology.clone(), HlcTimestamp::default()))),
            None => Err(StateError::NoTopology),
        };
    }
    let (header, restored) = restore::load(disk, &base.snapshot)?;
    if (header.shard, header.index, header.term) != (shard, base.index, base.term) {
        return Err(StateError::Position);
    }
    Ok(restored)
}

/// Writes a small file: a checksum, then the content.
fn write_file<D: Disk + ?Sized>(disk: &D, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}{TEMPORARY_SUFFIX}");
    let mut bytes = Vec::new();
    put_u32(&mut bytes, crc32c::crc32c(content));
    bytes.extend_from_slice(content);
    disk.create(&temporary)?;
    disk.write_at(&temporary, 0, &bytes)?;
    disk.sync(&temporary)?;
    disk.rename(&temporary, name)
}

fn read_file<D: Disk + ?Sized>(disk: &D, name: &'static str) -> Result<Option<Vec<u8>>, BootError> {
    let Some(size) = disk.size(name)? else { return Ok(None) };
    let bytes = disk.read_at(name, 0, size as usize)?;
    let mut reader = Reader::new(&bytes);
    match reader.u32() {
        Ok(checksum) if checksum == crc32c::crc32c(reader.rest()) => Ok(Some(reader.rest().to_vec())),
        _ => Err(BootError::Damaged(name)),
    }
}

#[cfg(test)]
mod tests;
