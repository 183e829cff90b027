//! Why a node does not start, in words that say what to do.

use ringfort_core::boot::BootError;
use ringfort_core::system::topology::NODE_NAME_RULE;
use ringfort_core::timing::Timing;
use ringfort_core::types::ClusterId;
use std::io;

/// Why a node does not start, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't use {directory} as --raft-dir: {source}")]
    Directory { directory: String, source: io::Error },
    #[error("{directory} holds files that are not Ringfort's ({names}): choose an empty --raft-dir")]
    Foreign { directory: String, names: String },
    #[error("{directory} is in use by another process: stop it, or choose another --raft-dir")]
    Locked { directory: String },
    #[error(
        "{directory} has {available_bytes} bytes free, and a segment of the log takes {segment_bytes}: free some disk \
         space or use a larger volume (the log has several segments)"
    )]
    NoSpace { directory: String, available_bytes: u64, segment_bytes: u64 },
    #[error("{directory} can't be read: {}", with_sources(.source))]
    Boot { directory: String, source: BootError },
    #[error("{directory} belongs to node {owner:?}: start it with --node-id {owner}")]
    OtherOwner { directory: String, owner: String },
    #[error(
        "{directory} belongs to a cluster that does not know this node: choose an empty --raft-dir to join as a new \
         node"
    )]
    NotMember { directory: String },
    #[error(
        "{directory} holds data but not its topology: put back the file `topology`, or choose an empty \
         --raft-dir to join as a new node"
    )]
    NoTopology { directory: String },
    #[error(
        "{directory} has lost the file `topology` and holds no replica that can be trusted: put that file back, give \
         --join-addr HOST:PORT of a node of its cluster, or choose an empty --raft-dir"
    )]
    LostTopology { directory: String },
    #[error("{directory} is empty: give --bootstrap to create a new cluster, or --join-addr HOST:PORT to join one")]
    NoWay { directory: String },
    #[error(
        "the node of {directory} has left its cluster, which holds all of its data: delete the directory, or choose an \
         empty --raft-dir to join as a new node"
    )]
    Departed { directory: String },
    #[error("the cluster refuses this node (asked at {address}): {reason}")]
    Refused { address: String, reason: String },
    #[error(
        "no cluster was created before --join-timeout: waited for {waits_for}. Start those nodes; or, if they can't \
         belong to another cluster, give --bootstrap without --join-addr"
    )]
    NoneCreated { waits_for: String },
    #[error(
        "this node is a member of cluster {cluster}, as its nodes have confirmed, but {directory} belongs to another \
         cluster. {CLAIM_ADVICE}"
    )]
    Claimed { directory: String, cluster: ClusterId },
    #[error("no node at {addresses} admitted this one before --join-timeout: {reason}")]
    NoCluster { addresses: String, reason: String },
    #[error("can't listen on {address}: {source}{}", instead(.setting, .source))]
    Listen { address: String, setting: &'static str, source: io::Error },
    #[error(
        "{address}, which other nodes and clients dial, can't be resolved ({reason}): give --advertise with a name or \
         address at which they reach this node"
    )]
    Advertised { address: String, reason: io::Error },
    #[error("{0:?} is not a valid --node-id: {NODE_NAME_RULE}")]
    Name(String),
    #[error("--join-addr names only this node itself ({address}): give the address of another node of the cluster")]
    JoinsItself { address: String },
    #[error(
        "this process may have {limit} files open at once, and a node needs {needed}: raise the limit (`ulimit -n`, or \
         LimitNOFILE of a systemd unit)"
    )]
    FewFiles { limit: u64, needed: u64 },
    #[error(
        "--disk-timeout is too short for this cluster, whose election timeout is {timing}: before the process \
         ends, a hung disk must be detected and leadership handed over. Give {} ms or more, and start the node again \
         with the same --raft-dir",
        .timing.least_disk_timeout().as_millis()
    )]
    DiskTimeout { timing: Timing },
    #[error("the operating system refuses what a node needs: {0}")]
    System(#[from] io::Error),
}

/// What an operator can do with a node that runs in one cluster and is a member of another.
pub const CLAIM_ADVICE: &str = "If its directory was lost, give it an empty --raft-dir, --join-addr instead of --bootstrap, \
     and --replace or another --node-id: it gets its data from the others. If it is to stay in its own cluster, give it \
     another --node-id with an empty --raft-dir, or another --raft-port";

/// What to do if the node can't listen on a port.
fn instead(setting: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(": stop the process that uses the port, or give another --{setting}"),
        io::ErrorKind::AddrNotAvailable => ": give an address of this machine with --listen".to_owned(),
        io::ErrorKind::PermissionDenied => format!(": give a --{setting} from 1024 on"),
        _ => String::new(),
    }
}

/// All of an error's causes in one line.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
