//! Becoming part of a cluster: asks until it is clear whether a cluster exists and whether it admits this node. And
//! telling a cluster about new addresses of this node.

use crate::shell::Shell;
use crate::start::{StartError, with_sources};
use bytes::Bytes;
use ringfort_core::boot::Owner;
use ringfort_core::founding::{self, Answer, Decision};
use ringfort_core::system::{Member, Topology};
use ringfort_core::timing::Timing;
use ringfort_core::types::{ClusterId, Identity, NodeId};
use ringfort_proto::metadata;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_proto::v1::membership_client::MembershipClient;
use ringfort_proto::v1::{JoinRequest, MembershipRequest, MembershipResponse};
use std::sync::Weak;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for a node's answer whether it belongs to a cluster.
const FIND_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// A line is logged this often while there is no answer.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What a cluster tells a node that is part of it.
pub struct Joined {
    pub node: NodeId,
    pub topology: Topology,
}

/// As what a node asks to be taken in.
#[derive(Clone, Copy)]
pub enum Joins {
    New,
    /// Under the name of a member whose directory is lost.
    Replacing,
    /// A member of this cluster, and of no other that may have taken its address, says where it is now.
    Again(NodeId, ClusterId),
}

/// Waits until the name in this node's own address resolves. The name of a pod may do so only some time after its
/// start.
pub async fn resolve(address: &str, deadline: Instant) -> Result<(), StartError> {
    let mut progress = Instant::now();
    loop {
        let reason = match tokio::net::lookup_host(address).await {
            Ok(_) => return Ok(()),
            Err(reason) => reason,
        };
        let now = Instant::now();
        if now + PAUSE >= deadline {
            return Err(StartError::Advertised { address: address.to_owned(), reason });
        }
        if now >= progress {
            tracing::warn!("{address}, which other nodes dial, can't be resolved ({reason}): waiting for it");
            progress = now + PROGRESS_INTERVAL;
        }
        sleep(PAUSE).await;
    }
}

/// Asks the nodes at `addresses` until [`founding`] can decide whether this node creates a cluster. Returns true if it
/// does; otherwise it must join theirs.
pub async fn may_begin(addresses: &[String], own: &Owner, deadline: Instant) -> Result<bool, StartError> {
    let mut progress = Instant::now();
    loop {
        let answers = ask_all(addresses).await;
        let waits_for = match founding::decide(own, &answers) {
            Decision::Begin => return Ok(true),
            Decision::Join => return Ok(false),
            Decision::WaitFor(silent) => {
                let silent: Vec<&str> = silent.into_iter().map(|index| &*addresses[index]).collect();
                format!("{} to say whether they belong to a cluster", silent.join(", "))
            }
            Decision::YieldTo(name) => format!("{name} to create it"),
        };
        let now = Instant::now();
        if now + PAUSE >= deadline {
            return Err(StartError::NoneCreated { waits_for });
        }
        if now >= progress {
            tracing::info!("no cluster exists yet: waiting for {waits_for}");
            progress = now + PROGRESS_INTERVAL;
        }
        sleep(PAUSE).await;
    }
}

/// The answers of all nodes, asked at once.
async fn ask_all(addresses: &[String]) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for (index, address) in addresses.iter().cloned().enumerate() {
        asked.spawn(async move { (index, timeout(FIND_TIMEOUT, ask_membership(&address)).await.ok().flatten()) });
    }
    let mut answers = vec![Answer::Silent; addresses.len()];
    while let Some(asked) = asked.join_next().await {
        if let Ok((index, Some(answer))) = asked {
            answers[index] = answer;
        }
    }
    answers
}

async fn ask_membership(address: &str) -> Option<Answer> {
    let MembershipResponse { cluster_id, node_id, identity, may_begin, .. } = membership(address).await?;
    if cluster_id != 0 {
        return Some(Answer::Member(ClusterId(cluster_id)));
    }
    let identity = Identity(u128::from_le_bytes(identity[..].try_into().ok()?));
    Some(Answer::Waiting { owner: Owner { identity, name: node_id }, may_begin })
}

async fn membership(address: &str) -> Option<MembershipResponse> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let answer = MembershipClient::new(endpoint.connect().await.ok()?).ask(MembershipRequest {}).await.ok()?;
    Some(answer.into_inner())
}

/// Logs which of the --join-addr nodes belong to a different cluster than this node's directory.
pub async fn compare_clusters(addresses: Vec<String>, own: ClusterId, directory: String) {
    let answers = ask_all(&addresses).await;
    for (address, answer) in addresses.iter().zip(answers) {
        if let Answer::Member(other) = answer
            && other != own
        {
            tracing::warn!(
                "{address}, given as --join-addr, belongs to cluster {other}, and this node goes on as a member of \
                 cluster {own}, because --raft-dir {directory} holds its data. To join the other cluster, stop this \
                 node and start it with an empty --raft-dir; otherwise correct --join-addr"
            );
        }
    }
}

/// Refuses a disk timeout that is too short for the cluster of the node at `address`, before this node becomes a
/// member. If that node does not answer, nothing is checked.
async fn check_disk_timeout(address: &str, disk_timeout: Duration) -> Result<(), StartError> {
    if disk_timeout >= Timing::LONGEST.least_disk_timeout() {
        return Ok(());
    }
    let answer = timeout(FIND_TIMEOUT, membership(address)).await.ok().flatten();
    let election_timeout_ms = answer.map_or(0, |answer| answer.election_timeout_ms);
    match Timing::new(Duration::from_millis(election_timeout_ms.into())) {
        Ok(timing) if disk_timeout < timing.least_disk_timeout() => Err(StartError::DiskTimeout { timing }),
        _ => Ok(()),
    }
}

/// Asks the nodes at `addresses` in turn to take this one in, until one does, refuses, or the deadline has passed.
///
/// Returns None if the node is to begin the cluster: it is a `founder`, one that may do so, and decides anew after each
/// round, as it would after a restart. A node that it was to join may have stopped before its cluster was on its disk,
/// and yields to this one from then on.
pub async fn join(
    addresses: &[String],
    member: &Member,
    joins: Joins,
    founder: Option<&Owner>,
    disk_timeout: Duration,
    deadline: Instant,
) -> Result<Option<Joined>, StartError> {
    let mut progress = Instant::now();
    let mut last = Status::unavailable("nobody was asked");
    for (index, address) in addresses.iter().enumerate().cycle() {
        check_disk_timeout(address, disk_timeout).await?;
        match ask(address, member, joins).await {
            Ok(joined) => return Ok(Some(joined)),
            Err(status) if is_refusal(&status) => {
                return Err(StartError::Refused { address: address.clone(), reason: status.message().to_owned() });
            }
            Err(status) => last = status,
        }
        if let Some(own) = founder.filter(|_| index + 1 == addresses.len())
            && founding::decide(own, &ask_all(addresses).await) == Decision::Begin
        {
            return Ok(None);
        }
        let now = Instant::now();
        if now + PAUSE >= deadline {
            break;
        }
        if now >= progress {
            tracing::info!("{address} does not take this node in yet ({}): trying again", last.message());
            progress = now + PROGRESS_INTERVAL;
        }
        sleep(PAUSE).await;
    }
    Err(StartError::NoCluster { addresses: addresses.join(", "), reason: last.message().to_owned() })
}

/// Tells the other nodes where this one is, until the topology says so: where they and `join` say that clients reach
/// them. Announcements do that, too, for nodes that are where they were. Where all have moved, this is how they find
/// one another.
pub async fn introduce(shell: Weak<Shell>, member: Member, join: Vec<String>) {
    let mut progress = Instant::now();
    loop {
        let Some(shell) = shell.upgrade() else { return };
        if shell.routing.topology().nodes.get(&shell.node) == Some(&member) {
            return;
        }
        let (node, cluster, members) = (shell.node, shell.cluster, shell.routing.members());
        drop(shell);
        let known = members.iter().filter(|(other, _)| **other != node).map(|(_, other)| &other.grpc_address);
        let mut said = None;
        for address in known.chain(&join).filter(|address| **address != member.grpc_address) {
            match ask(address, &member, Joins::Again(node, cluster)).await {
                Ok(_) => return,
                Err(status) => said = Some(format!("{address}: {}", status.message())),
            }
        }
        if let Some(said) = said.filter(|_| Instant::now() >= progress) {
            tracing::warn!(
                "this node's addresses have changed, and its cluster does not know the new ones yet ({said}). If all its nodes \
                 have moved, start it with --join-addr and the new client address of a node that runs"
            );
            progress = Instant::now() + PROGRESS_INTERVAL;
        }
        sleep(PAUSE).await;
    }
}

/// Whether another attempt would be answered alike.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::AlreadyExists | Code::InvalidArgument | Code::FailedPrecondition)
}

/// Asks one node to take this one in.
async fn ask(address: &str, member: &Member, joins: Joins) -> Result<Joined, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| Status::invalid_argument(format!("{address:?} is no address: give host:port")))?;
    let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await;
    let channel =
        channel.map_err(|error| Status::unavailable(format!("{}: is a node running there?", with_sources(&error))))?;
    let mut request = Request::new(JoinRequest {
        node_id: member.name.clone(),
        raft_address: member.raft_address.clone(),
        grpc_address: member.grpc_address.clone(),
        identity: Bytes::copy_from_slice(&member.identity.0.to_le_bytes()),
        zone: member.zone.clone(),
        replace: matches!(joins, Joins::Replacing),
        known_as: if let Joins::Again(node, _) = joins { node.0 } else { 0 },
    });
    request.set_timeout(ANSWER_TIMEOUT);
    if let Joins::Again(_, cluster) = joins {
        request.metadata_mut().insert(metadata::CLUSTER, metadata::cluster_value(cluster.0));
    }
    let response = ClusterClient::new(channel).join(request).await.map_err(|status| match status.code() {
        Code::Unimplemented => Status::failed_precondition("this is not a node's port for clients; give that one"),
        _ => status,
    })?;
    let response = response.into_inner();
    let topology = Topology::decode(&response.topology)
        .map_err(|error| Status::failed_precondition(format!("the topology can't be read: {error}")))?;
    let node = NodeId(response.node);
    if topology.cluster != ClusterId(response.cluster_id) || topology.nodes.get(&node) != Some(member) {
        return Err(Status::unavailable("the answer does not fit the request"));
    }
    Ok(Joined { node, topology })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::membership::Waiting;
    use crate::metrics::Metrics;
    use std::net::TcpListener;
    use tokio::runtime::Runtime;

    fn listener() -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    fn waiting(runtime: &Runtime, clients: &TcpListener, nodes: &TcpListener, own: &Owner) -> Waiting {
        Waiting::serve(runtime, (clients, 10), Metrics::new().client_connections, nodes, own, true).unwrap()
    }

    #[test]
    fn a_node_begins_the_cluster_itself_when_the_one_that_did_has_forgotten_it() {
        let runtime = Runtime::new().unwrap();
        let (clients, nodes) = (listener(), listener());
        let addresses = [clients.local_addr().unwrap().to_string()];
        let [first, other] =
            [(1, "a"), (7, "b")].map(|(identity, name)| Owner { identity: Identity(identity), name: name.to_owned() });
        let member = Member { name: first.name.clone(), identity: first.identity, ..Member::default() };
        let begins = waiting(&runtime, &clients, &nodes, &other);
        begins.begins(ClusterId(9));
        let join = |founder, patience| {
            let deadline = Instant::now() + patience;
            runtime.block_on(join(&addresses, &member, Joins::New, founder, Duration::from_secs(3_600), deadline))
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        assert!(!runtime.block_on(may_begin(&addresses, &first, deadline)).unwrap());
        assert!(join(Some(&first), Duration::from_millis(500)).is_err(), "it waits for the other one");
        // The other one is started anew, before its cluster was on its disk.
        drop(begins);
        let _restarted = waiting(&runtime, &clients, &nodes, &other);
        assert!(join(None, Duration::from_millis(500)).is_err(), "it was not told to begin a cluster");
        assert!(matches!(join(Some(&first), Duration::from_secs(30)), Ok(None)));
    }

    #[test]
    fn a_node_that_begins_a_cluster_says_so_before_it_serves() {
        let runtime = Runtime::new().unwrap();
        let (clients, nodes) = (listener(), listener());
        let address = clients.local_addr().unwrap().to_string();
        let own = Owner { identity: Identity(7), name: "b".to_owned() };
        let waiting = waiting(&runtime, &clients, &nodes, &own);
        let asked = || runtime.block_on(ask_membership(&address));
        assert_eq!(asked(), Some(Answer::Waiting { owner: own.clone(), may_begin: true }));
        waiting.begins(ClusterId(9));
        assert_eq!(asked(), Some(Answer::Member(ClusterId(9))));
        // One with a lower name, which would begin one otherwise.
        let other = Owner { identity: Identity(1), name: "a".to_owned() };
        assert_eq!(founding::decide(&other, &[asked().unwrap()]), Decision::Join);
    }
}
