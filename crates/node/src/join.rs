//! Joining a cluster: asks other nodes until it is clear whether a cluster exists and whether it admits this node. Also
//! tells the cluster about new addresses of this node.

use crate::routing::Routing;
use crate::start_error::{StartError, with_sources};
use bytes::Bytes;
use ringfort_core::boot::Owner;
use ringfort_core::founding::{self, Answer, Asked, Decision, Missing, Own};
use ringfort_core::system::{Member, Topology};
use ringfort_core::timing::Timing;
use ringfort_core::types::{ClusterId, Identity, NodeId};
use ringfort_proto::metadata;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_proto::v1::membership_client::MembershipClient;
use ringfort_proto::v1::{JoinRequest, MembershipRequest, MembershipResponse};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to look up the addresses of a name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for a node to say whether it belongs to a cluster.
const FIND_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// How often a line is logged while the node waits.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What a node learns when it joins a cluster.
pub struct Joined {
    pub node: NodeId,
    pub topology: Topology,
}

/// The role in which a node asks to join.
#[derive(Clone, Copy)]
pub enum Joins {
    New,
    /// As the replacement of a member of the same name whose directory is lost.
    Replacing,
    /// As a member of this cluster that reports its new addresses. The cluster's ID is checked, since another cluster
    /// may have taken over an address.
    Again(NodeId, ClusterId),
}

/// An address from this node's configuration, `host:port`.
#[derive(Clone, Debug, PartialEq)]
pub struct Contact {
    pub address: String,
    /// Whether it is this node's own address. See [`Own`].
    pub is_own: Own,
}

/// The addresses that `address` resolves to, at least one.
async fn resolved(address: &str, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    let patience = deadline.min(Instant::now() + RESOLVE_TIMEOUT);
    let found = timeout_at(patience, tokio::net::lookup_host(address)).await;
    let mut found: Vec<SocketAddr> =
        found.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the name service does not answer"))??.collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(found)
}

/// Waits until the name in this node's own address resolves. A pod's name may resolve only some time after the pod has
/// started.
pub async fn resolve(address: &str, deadline: Instant) -> Result<(), StartError> {
    let mut progress = Instant::now();
    loop {
        let reason = match resolved(address, deadline).await {
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

/// Asks the configured nodes until [`founding`] can decide whether this node creates the cluster. Returns true if it
/// does; otherwise it must join the others' cluster.
pub async fn may_begin(told: &[Contact], own: &Owner, deadline: Instant) -> Result<bool, StartError> {
    let mut progress = Instant::now();
    loop {
        let waits_for = match founding::decide(own, &ask_all(told, deadline).await) {
            Decision::Begin => return Ok(true),
            Decision::Join => return Ok(false),
            Decision::WaitFor(missing) => waits_for(told, &missing),
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

/// Names the nodes that have not answered, and the addresses that do not lead to exactly one other node.
fn waits_for(told: &[Contact], missing: &[(usize, Missing)]) -> String {
    let (mut silent, mut unfit) = (Vec::new(), Vec::new());
    for &(index, why) in missing {
        let address = &told[index].address;
        match why {
            Missing::Silent => silent.push(&**address),
            Missing::Itself => unfit.push(format!("{address} is this node itself")),
            Missing::Several => unfit.push(format!("several nodes answer at {address}")),
            Missing::Same(first) => unfit.push(format!("{address} is the same node as {}", told[first].address)),
        }
    }
    let silent =
        (!silent.is_empty()).then(|| format!("{} to answer whether they belong to a cluster", silent.join(", ")));
    let unfit = (!unfit.is_empty()).then(|| {
        format!(
            "a --join-addr that gives each other node its own address, and this node the one of --advertise ({})",
            unfit.join("; ")
        )
    });
    silent.into_iter().chain(unfit).collect::<Vec<_>>().join(", and for ")
}

/// The answers of all nodes, asked concurrently.
async fn ask_all(told: &[Contact], deadline: Instant) -> Vec<Asked> {
    let mut asked = JoinSet::new();
    for (index, contact) in told.iter().enumerate() {
        let address = contact.address.clone();
        asked.spawn(async move {
            let found = resolved(&address, deadline).await.unwrap_or_default();
            (index, ask_everywhere(&address, found).await)
        });
    }
    let unanswered = |contact: &Contact| Asked { is_own: contact.is_own, answers: Vec::new() };
    let mut all: Vec<Asked> = told.iter().map(unanswered).collect();
    while let Some(asked) = asked.join_next().await {
        if let Ok((index, answers)) = asked {
            all[index].answers = answers;
        }
    }
    all
}

/// The answer from each of the addresses that `address` resolves to: each may lead to a different node.
async fn ask_everywhere(address: &str, found: Vec<SocketAddr>) -> Vec<(IpAddr, Answer)> {
    let mut asked = JoinSet::new();
    for at in found {
        let address = address.to_owned();
        asked.spawn(async move {
            let answer = timeout(FIND_TIMEOUT, ask_membership(&address, at)).await.ok().flatten();
            (at.ip(), answer.unwrap_or(Answer::Silent))
        });
    }
    asked.join_all().await
}

async fn ask_membership(address: &str, at: SocketAddr) -> Option<Answer> {
    let MembershipResponse { cluster_id, node_id, identity, may_begin, .. } = membership(address, at).await?;
    if cluster_id != 0 {
        return Some(Answer::Member(ClusterId(cluster_id)));
    }
    let identity = Identity(u128::from_le_bytes(identity[..].try_into().ok()?));
    Some(Answer::Waiting { owner: Owner { identity, name: node_id }, may_begin })
}

async fn membership(address: &str, at: SocketAddr) -> Option<MembershipResponse> {
    let channel = endpoint(address, at).ok()?.connect().await.ok()?;
    let answer = MembershipClient::new(channel).ask(MembershipRequest {}).await.ok()?;
    Some(answer.into_inner())
}

/// Dials one of the addresses that `address` resolves to.
fn endpoint(address: &str, at: SocketAddr) -> Result<Endpoint, Status> {
    let invalid = || Status::invalid_argument(format!("{address:?} is not an address: give host:port"));
    let endpoint = Endpoint::from_shared(format!("http://{at}")).map_err(|_| invalid())?;
    Ok(endpoint.origin(format!("http://{address}").parse().map_err(|_| invalid())?))
}

/// Logs which of the --join-addr nodes belong to a different cluster than this node's directory.
pub async fn compare_clusters(addresses: Vec<String>, own: ClusterId, directory: String) {
    let told: Vec<Contact> = addresses.into_iter().map(|address| Contact { address, is_own: Own::No }).collect();
    let answers = ask_all(&told, Instant::now() + RESOLVE_TIMEOUT).await;
    for (Contact { address, .. }, asked) in told.iter().zip(answers) {
        let other = asked.answers.into_iter().find_map(|(_, answer)| match answer {
            Answer::Member(other) => Some(other).filter(|other| *other != own),
            _ => None,
        });
        if let Some(other) = other {
            tracing::warn!(
                "{address}, given as --join-addr, belongs to cluster {other}, but this node remains a member of \
                 cluster {own}, because --raft-dir {directory} holds its data. To join the other cluster, stop this \
                 node and start it with an empty --raft-dir; otherwise correct --join-addr"
            );
        }
    }
}

/// Refuses a disk timeout that is too short for the cluster of the node that is asked, before this node becomes a
/// member. If that node does not answer, nothing is checked.
async fn check_disk_timeout(address: &str, at: SocketAddr, disk_timeout: Duration) -> Result<(), StartError> {
    if disk_timeout >= Timing::LONGEST.least_disk_timeout() {
        return Ok(());
    }
    let answer = timeout(FIND_TIMEOUT, membership(address, at)).await.ok().flatten();
    let election_timeout_ms = answer.map_or(0, |answer| answer.election_timeout_ms);
    match Timing::new(Duration::from_millis(election_timeout_ms.into())) {
        Ok(timing) if disk_timeout < timing.least_disk_timeout() => Err(StartError::DiskTimeout { timing }),
        _ => Ok(()),
    }
}

/// Asks the other configured nodes in turn to admit this one, until one admits or refuses it, or the deadline has
/// passed.
///
/// Returns `None` if this node must create the cluster itself. A node that may do so (`founder`) decides anew after
/// each round, as it would after a restart: the node that it tried to join may have stopped before its cluster was on
/// its disk, and would then join this one.
pub async fn join(
    told: &[Contact],
    member: &Member,
    joins: Joins,
    founder: Option<&Owner>,
    disk_timeout: Duration,
    deadline: Instant,
) -> Result<Option<Joined>, StartError> {
    let addresses: Vec<&String> =
        told.iter().filter(|told| told.is_own != Own::Yes).map(|told| &told.address).collect();
    let mut progress = Instant::now();
    let mut last = Status::unavailable("nobody was asked");
    for (index, &address) in addresses.iter().enumerate().cycle() {
        let found = resolved(address, deadline).await;
        if let Err(error) = &found {
            last = not_found(error);
        }
        let mut refusal = None;
        for at in found.unwrap_or_default().into_iter().take_while(|_| Instant::now() < deadline) {
            check_disk_timeout(address, at, disk_timeout).await?;
            match ask(address, at, member, joins).await {
                Ok(joined) => return Ok(Some(joined)),
                Err(status) if is_refusal(&status) => refusal = Some(status),
                Err(status) => last = status,
            }
        }
        // Another address of the name may have led to a node that takes this one in.
        if let Some(status) = refusal {
            return Err(StartError::Refused { address: address.clone(), reason: status.message().to_owned() });
        }
        if let Some(own) = founder.filter(|_| index + 1 == addresses.len())
            && founding::decide(own, &ask_all(told, deadline).await) == Decision::Begin
        {
            return Ok(None);
        }
        let now = Instant::now();
        if now + PAUSE >= deadline {
            break;
        }
        if now >= progress {
            tracing::info!("{address} does not admit this node yet ({}): trying again", last.message());
            progress = now + PROGRESS_INTERVAL;
        }
        sleep(PAUSE).await;
    }
    let addresses = addresses.into_iter().map(|address| &**address).collect::<Vec<_>>().join(", ");
    Err(StartError::NoCluster { addresses, reason: last.message().to_owned() })
}

fn not_found(error: &io::Error) -> Status {
    Status::unavailable(format!("its name can't be resolved: {error}"))
}

/// Tells the other nodes this node's addresses until the topology contains them or a node has committed them. It calls
/// the client addresses of the known members and those in `join`. Announcements also do this as long as the other nodes
/// have kept their addresses; if all have moved, they find each other this way.
pub async fn introduce(routing: Arc<Routing>, member: Member, join: Vec<String>) {
    let mut progress = Instant::now();
    loop {
        let (node, cluster, members) = (routing.node(), routing.cluster(), routing.members());
        if routing.topology().nodes.get(&node) == Some(&member) {
            return;
        }
        let known = members.iter().filter(|(other, _)| **other != node).map(|(_, other)| &other.grpc_address);
        let mut said = None;
        for address in known.chain(&join).filter(|address| **address != member.grpc_address) {
            let found = resolved(address, Instant::now() + RESOLVE_TIMEOUT).await;
            if let Err(error) = &found {
                said = Some(format!("{address}: {}", not_found(error).message()));
            }
            for at in found.unwrap_or_default() {
                match ask(address, at, &member, Joins::Again(node, cluster)).await {
                    Ok(_) => return,
                    Err(status) => said = Some(format!("{address}: {}", status.message())),
                }
            }
        }
        if let Some(said) = said.filter(|_| Instant::now() >= progress) {
            tracing::warn!(
                "this node's addresses have changed, and its cluster does not know the new ones yet ({said}). If the \
                 addresses of all nodes have changed, start this one with --join-addr and the new client address of a \
                 node that runs"
            );
            progress = Instant::now() + PROGRESS_INTERVAL;
        }
        sleep(PAUSE).await;
    }
}

/// Whether a retry would get the same answer.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::AlreadyExists | Code::InvalidArgument | Code::FailedPrecondition)
}

/// Asks one node to admit this one.
async fn ask(address: &str, at: SocketAddr, member: &Member, joins: Joins) -> Result<Joined, Status> {
    let channel = endpoint(address, at)?.connect_timeout(CONNECT_TIMEOUT).connect().await;
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

    fn contact(address: String) -> Contact {
        Contact { address, is_own: Own::No }
    }

    fn waiting(runtime: &Runtime, clients: &TcpListener, nodes: &TcpListener, own: &Owner) -> Waiting {
        Waiting::serve(runtime, (clients, 10), &Metrics::new(), nodes, own, true).unwrap()
    }

    #[test]
    fn a_node_begins_the_cluster_itself_when_the_one_that_did_has_forgotten_it() {
        let runtime = Runtime::new().unwrap();
        let (clients, nodes) = (listener(), listener());
        let told = [contact(clients.local_addr().unwrap().to_string())];
        let [first, other] =
            [(1, "a"), (7, "b")].map(|(identity, name)| Owner { identity: Identity(identity), name: name.to_owned() });
        let member = Member { name: first.name.clone(), identity: first.identity, ..Member::default() };
        let begins = waiting(&runtime, &clients, &nodes, &other);
        begins.begins(ClusterId(9));
        let join = |founder, patience| {
            let deadline = Instant::now() + patience;
            runtime.block_on(join(&told, &member, Joins::New, founder, Duration::from_secs(3_600), deadline))
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        assert!(!runtime.block_on(may_begin(&told, &first, deadline)).unwrap());
        assert!(join(Some(&first), Duration::from_millis(500)).is_err(), "it waits for the other one");
        // The other node restarts before its cluster is on its disk.
        drop(begins);
        let _restarted = waiting(&runtime, &clients, &nodes, &other);
        assert!(join(None, Duration::from_millis(500)).is_err(), "it was not told to begin a cluster");
        assert!(matches!(join(Some(&first), Duration::from_secs(30)), Ok(None)));
    }

    #[test]
    fn a_node_that_begins_a_cluster_says_so_before_it_serves() {
        let runtime = Runtime::new().unwrap();
        let (clients, nodes) = (listener(), listener());
        let address = clients.local_addr().unwrap();
        let own = Owner { identity: Identity(7), name: "b".to_owned() };
        let waiting = waiting(&runtime, &clients, &nodes, &own);
        let asked = || runtime.block_on(ask_membership("node", address));
        assert_eq!(asked(), Some(Answer::Waiting { owner: own.clone(), may_begin: true }));
        waiting.begins(ClusterId(9));
        assert_eq!(asked(), Some(Answer::Member(ClusterId(9))));
        // A node with a lower name, which would otherwise create the cluster.
        let other = Owner { identity: Identity(1), name: "a".to_owned() };
        let asked = Asked { is_own: Own::No, answers: vec![(address.ip(), asked().unwrap())] };
        assert_eq!(founding::decide(&other, &[asked]), Decision::Join);
    }

    #[test]
    fn a_name_is_asked_at_all_its_addresses_and_this_node_is_no_other_one() {
        let runtime = Runtime::new().unwrap();
        let [own_clients, own_nodes, clients, nodes] = [listener(), listener(), listener(), listener()];
        let [own, other] =
            [(1, "a"), (7, "b")].map(|(identity, name)| Owner { identity: Identity(identity), name: name.to_owned() });
        let _own = waiting(&runtime, &own_clients, &own_nodes, &own);
        let member = waiting(&runtime, &clients, &nodes, &other);
        member.begins(ClusterId(9));
        let found = [&own_clients, &clients].map(|listener| listener.local_addr().unwrap());
        let answers = runtime.block_on(ask_everywhere("all.example:1", found.to_vec()));
        let asked = Asked { is_own: Own::No, answers };
        assert_eq!(founding::decide(&own, &[asked]), Decision::Join);

        let told = [contact(found[0].to_string())];
        let deadline = Instant::now() + Duration::from_millis(300);
        let refused = runtime.block_on(may_begin(&told, &own, deadline)).unwrap_err().to_string();
        assert!(refused.contains(&format!("{} is this node itself", found[0])), "{refused}");
    }

    #[test]
    fn what_a_node_waits_for_is_told_by_name() {
        let told = ["a:1", "b:1", "c:1", "d:1"].map(|address| contact(address.to_owned()));
        let missing = [(0, Missing::Silent), (1, Missing::Several), (2, Missing::Silent), (3, Missing::Same(0))];
        assert_eq!(
            waits_for(&told, &missing),
            "a:1, c:1 to answer whether they belong to a cluster, and for a --join-addr that gives each other node \
             its own address, and this node the one of --advertise (several nodes answer at b:1; d:1 is the same node \
             as a:1)"
        );
    }
}
