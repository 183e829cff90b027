//! What a node's directory determines about its start: continue as a member, begin a cluster, join one, or refuse.
//!
//! 1. The directory records whether its node is no longer a member. If an operator had the node leave, the start is
//!    refused. If it was declared dead, the directory is cleared, and the node joins the nodes that it knew as a new
//!    one.
//! 2. The directory's owner is written, if it has none, before the first contact with a cluster, so that joining is
//!    idempotent. A node that no cluster has admitted may be given another name; if a cluster had admitted it without
//!    its knowledge, that cluster refuses it by its identity.
//! 3. A directory with a topology continues as a member, unless another cluster has claimed the node under its name and
//!    address ([`crate::control`], claims): then an operator must decide first.
//! 4. A directory with intact replicas and without the topology is refused: it has lost a file.
//! 5. Any other directory belongs to no cluster yet ([`Start::Newcomer`]). The caller asks other nodes to decide
//!    whether it begins a cluster or joins one ([`crate::founding`]). A directory that has lost its topology and all
//!    its replicas may join; it begins no cluster, because it belongs to one. The same holds for a node that was
//!    declared dead.

use crate::boot::{self, Boot, BootError, Owner};
use crate::disk::Disk;
use crate::log::LogConfig;
use crate::system::{MemberState, Topology};
use crate::types::{ClusterId, Identity, NodeId};
use std::sync::Arc;

/// What to do with a directory.
pub enum Start<D: ?Sized> {
    Member(Member<D>),
    Newcomer(Newcomer<D>),
}

/// A directory whose node continues as a member of its cluster.
pub struct Member<D: ?Sized> {
    pub boot: Boot<D>,
    pub node: NodeId,
    pub topology: Topology,
}

/// A directory whose node is part of no cluster yet.
pub struct Newcomer<D: ?Sized> {
    disk: Arc<D>,
    log: LogConfig,
    boot: Boot<D>,
    owner: Owner,
    was_owned: bool,
    contacts: Vec<String>,
}

/// Why a node does not start.
#[derive(Debug)]
pub enum Refusal {
    Boot(BootError),
    /// It was asked to leave its cluster, and has left.
    Departed,
    /// The directory belongs to the node with this name.
    OtherOwner(String),
    /// It holds replicas, but the topology that they belong to is missing.
    NoTopology,
    /// It belongs to a cluster that does not know the node.
    NotMember,
    /// This other cluster has proven that the node is its member.
    Claimed(ClusterId),
}

impl From<BootError> for Refusal {
    fn from(error: BootError) -> Refusal {
        Refusal::Boot(error)
    }
}

/// If the directory's node was declared dead, clears the directory for a new member. Returns whether it did. Call it
/// before [`open`].
pub fn clear_if_given_up<D: Disk + ?Sized>(disk: &D) -> Result<bool, Refusal> {
    match boot::departure(disk)? {
        None => Ok(false),
        Some(MemberState::Dead) => {
            boot::clear(disk)?;
            Ok(true)
        }
        Some(_) => Err(Refusal::Departed),
    }
}

/// Opens the directory of the node with this name, which others reach at `raft_address`. A directory without an owner
/// gets `new_identity`.
pub fn open<D: Disk + ?Sized>(
    disk: &Arc<D>,
    log: LogConfig,
    name: &str,
    raft_address: &str,
    new_identity: impl FnOnce() -> Identity,
) -> Result<Start<D>, Refusal> {
    let boot = boot::open(disk, log.clone())?;
    let may_rename = !boot.has_state() && !boot.has_replicas();
    let (owner, was_owned) = own(&**disk, name, may_rename, new_identity)?;
    if boot.has_state() {
        if let Some(cluster) = boot::claim(&**disk, name, raft_address)? {
            return Err(Refusal::Claimed(cluster));
        }
        return Ok(Start::Member(Member::of(boot)?));
    }
    if boot.has_replicas() {
        return Err(Refusal::NoTopology);
    }
    let contacts = boot::contacts(&**disk)?;
    Ok(Start::Newcomer(Newcomer { disk: disk.clone(), log, boot, owner, was_owned, contacts }))
}

/// The directory's owner, and whether it had one.
fn own<D: Disk + ?Sized>(
    disk: &D,
    name: &str,
    may_rename: bool,
    new_identity: impl FnOnce() -> Identity,
) -> Result<(Owner, bool), Refusal> {
    let (identity, was_owned) = match boot::owner(disk)? {
        Some(owner) if owner.name == name => return Ok((owner, true)),
        Some(owner) if may_rename => (owner.identity, true),
        Some(owner) => return Err(Refusal::OtherOwner(owner.name)),
        None => (new_identity(), false),
    };
    let owner = Owner { identity, name: name.to_owned() };
    boot::set_owner(disk, &owner)?;
    Ok((owner, was_owned))
}

impl<D: ?Sized> Member<D> {
    fn of(boot: Boot<D>) -> Result<Member<D>, Refusal> {
        let (Some(node), Some(topology)) = (boot.node(), boot.topology.clone()) else {
            return Err(Refusal::NotMember);
        };
        Ok(Member { boot, node, topology })
    }
}

impl<D: Disk + ?Sized> Newcomer<D> {
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The client addresses of the nodes that this one knew before it was declared dead.
    pub fn contacts(&self) -> &[String] {
        &self.contacts
    }

    /// Whether only the log shows that the node belonged to a cluster.
    pub fn has_lost_topology(&self) -> bool {
        !self.boot.is_log_empty
    }

    /// Whether the node may begin a cluster, if the operator allows it.
    pub fn may_begin(&self) -> bool {
        self.contacts.is_empty() && !self.has_lost_topology()
    }

    /// Begins the cluster of this topology, with this node as its first.
    pub fn begin(self, topology: &Topology) -> Result<Member<D>, Refusal> {
        let Newcomer { disk, log, boot, .. } = self;
        // The log is opened again below.
        drop(boot);
        boot::bootstrap(&disk, log.clone(), topology, NodeId(1))?;
        Member::of(boot::open(&disk, log)?)
    }

    /// Makes the node a member of this topology's cluster.
    pub fn join(self, topology: Topology) -> Result<Member<D>, Refusal> {
        let Newcomer { disk, mut boot, owner, was_owned, .. } = self;
        boot.join(&disk, owner, topology, was_owned)?;
        Member::of(boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Claim;
    use crate::disk::mem::MemDisk;
    use crate::system::topology::tests::member;
    use crate::timing::Timing;
    use ringfort_ring::ShardCount;

    const IDENTITY: Identity = Identity(7);

    fn start(disk: &Arc<MemDisk>, name: &str) -> Result<Start<MemDisk>, Refusal> {
        let log = LogConfig { segment_bytes: 1 << 16, ..LogConfig::default() };
        open(disk, log, name, "here:1", || IDENTITY)
    }

    fn newcomer(disk: &Arc<MemDisk>, name: &str) -> Newcomer<MemDisk> {
        let Ok(Start::Newcomer(newcomer)) = start(disk, name) else { panic!("it is of no cluster") };
        newcomer
    }

    fn topology(name: &str, cluster: u64) -> Topology {
        let first = crate::system::Member { identity: IDENTITY, ..member(name) };
        Topology::bootstrap(ClusterId(cluster), ShardCount::new(2).unwrap(), Timing::DEFAULT, first)
    }

    /// The directory of the only node of cluster 5.
    fn begun() -> Arc<MemDisk> {
        let disk = Arc::new(MemDisk::new());
        newcomer(&disk, "one").begin(&topology("one", 5)).map_err(drop).expect("its disk works");
        disk
    }

    #[test]
    fn an_empty_directory_begins_or_joins_and_goes_on_as_a_member() {
        let disk = Arc::new(MemDisk::new());
        assert!(newcomer(&disk, "one").may_begin());
        for disk in [begun(), {
            let joined = newcomer(&disk, "one").join(topology("one", 5));
            assert!(joined.is_ok_and(|member| member.node == NodeId(1)));
            disk
        }] {
            let Ok(Start::Member(member)) = start(&disk, "one") else { panic!("it is a member") };
            assert_eq!((member.node, member.topology.cluster), (NodeId(1), ClusterId(5)));
            assert!(matches!(start(&disk, "two"), Err(Refusal::OtherOwner(owner)) if owner == "one"));
        }
    }

    #[test]
    fn a_node_that_no_cluster_has_taken_in_may_be_renamed_and_keeps_its_identity() {
        let disk = Arc::new(MemDisk::new());
        newcomer(&disk, "one");
        let renamed = open(&disk, LogConfig::default(), "two", "here:1", || Identity(8));
        let Ok(Start::Newcomer(renamed)) = renamed else { panic!("it is of no cluster") };
        assert_eq!(renamed.owner(), &Owner { identity: IDENTITY, name: "two".to_owned() });
    }

    #[test]
    fn a_node_that_has_left_is_refused_and_one_that_was_given_up_joins_as_a_new_one() {
        let disk = begun();
        boot::set_departure(&*disk, MemberState::Leaving).unwrap();
        assert!(matches!(clear_if_given_up(&*disk), Err(Refusal::Departed)));
        boot::set_departure(&*disk, MemberState::Dead).unwrap();
        assert!(matches!(clear_if_given_up(&*disk), Ok(true)));
        assert!(matches!(clear_if_given_up(&*disk), Ok(false)));
        assert!(newcomer(&disk, "one").may_begin(), "it knew no other node");

        let disk = begun();
        let mut topology = topology("one", 5);
        topology.nodes.insert(NodeId(2), member("two"));
        boot::save_topology(&*disk, &topology).unwrap();
        boot::set_departure(&*disk, MemberState::Dead).unwrap();
        assert!(matches!(clear_if_given_up(&*disk), Ok(true)));
        let newcomer = newcomer(&disk, "one");
        assert_eq!(newcomer.contacts(), [member("two").grpc_address]);
        assert!(!newcomer.may_begin());
    }

    #[test]
    fn a_directory_without_its_topology_begins_no_cluster() {
        let disk = begun();
        disk.delete("topology").unwrap();
        assert!(matches!(start(&disk, "one"), Ok(Start::Member(_))), "the system shard's replica knows it");
        disk.delete("snap-system-1.snap").unwrap();
        assert!(matches!(start(&disk, "one"), Err(Refusal::NoTopology)));
        for name in disk.list().unwrap().iter().filter(|name| name.ends_with(".seg")) {
            disk.delete(name).unwrap();
        }
        let lost = newcomer(&disk, "one");
        assert!(lost.has_lost_topology() && !lost.may_begin());
    }

    #[test]
    fn a_member_of_another_cluster_or_of_none_is_refused() {
        let disk = begun();
        let claim = |raft_address: &str| {
            let (cluster, name) = (ClusterId(9), "one".to_owned());
            boot::set_claim(&*disk, &Claim { cluster, name, raft_address: raft_address.to_owned() }).unwrap();
        };
        claim("here:1");
        assert!(matches!(start(&disk, "one"), Err(Refusal::Claimed(ClusterId(9)))));
        claim("elsewhere:1");
        assert!(matches!(start(&disk, "one"), Ok(Start::Member(_))), "an operator has decided");
        let mut without = topology("one", 5);
        without.nodes.get_mut(&NodeId(1)).unwrap().identity = Identity(99);
        without.epoch.0 += 1;
        boot::save_topology(&*disk, &without).unwrap();
        assert!(matches!(start(&disk, "one"), Err(Refusal::NotMember)));
    }
}
