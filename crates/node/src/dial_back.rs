//! Checks whether nodes can be reached at the addresses that they advertise.
//!
//! A member is assigned shards. If others can't dial its address, they can't reach those shards. So the node that
//! receives a join request first dials both of the new node's ports. The new node asks again until its
//! `--join-timeout`, because its name may resolve only some time after it has started, as the names of pods do.
//!
//! The other directions are checked once a node serves, and failures are only logged. A new member dials all others. A
//! node that has begun a cluster dials itself, because no other node has dialled it back. These failures are not
//! errors: other nodes may be down, and some networks do not let a node reach itself.

use crate::files::OWN_FILES;
use crate::start_error::with_sources;
use bytes::Bytes;
use ringfort_core::system::{Member, Topology};
use ringfort_core::types::NodeId;
use ringfort_proto::outcome;
use ringfort_proto::v1::MembershipRequest;
use ringfort_proto::v1::membership_client::MembershipClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Endpoint;

/// Nodes that are dialled at the same time because they want to join; the requests of others are refused as overload,
/// and they ask again. Callers choose the addresses, and each takes two file descriptors for up to [`PATIENCE`].
const CHECKS_AT_ONCE: usize = 8;

const _: () = assert!(2 * CHECKS_AT_ONCE as u64 <= OWN_FILES / 8);

/// How long each port of a node that wants to join may take to answer; both are dialled at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same, for a port that is only checked to log a failure.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// An address at which a node can't be reached.
struct Unreachable {
    address: String,
    why: String,
}

/// Checks of nodes that want to join.
pub struct DialBacks(Semaphore);

impl Default for DialBacks {
    fn default() -> DialBacks {
        DialBacks(Semaphore::new(CHECKS_AT_ONCE))
    }
}

impl DialBacks {
    /// Dials the new node at the addresses that it advertises.
    ///
    /// # Errors
    /// Says which address does not lead to the node, and what to do; or that too many are being dialled. The new node
    /// may ask again.
    pub async fn check(&self, member: &Member) -> Result<(), Status> {
        let Ok(_turn) = self.0.try_acquire() else {
            return Err(outcome::overloaded(format!(
                "the node that was asked to admit this one checks the addresses of {CHECKS_AT_ONCE} others now: ask \
                 again"
            )));
        };
        dial(member, PATIENCE).await.map_err(|Unreachable { address, why }| {
            outcome::unavailable(
                format!(
                    "the node that was asked to admit this one can't reach it at {address} ({why}): give --advertise \
                     with a host at which all nodes and clients reach it, and open its ports to them"
                ),
                None,
            )
        })
    }
}

/// A node that has begun a cluster dials itself, and logs if it can't.
pub async fn check_own(member: Member) {
    if let Err(Unreachable { address, why }) = dial(&member, SHORT_PATIENCE).await {
        tracing::warn!(
            "this node advertises {address} to other nodes and clients, but can't reach itself there ({why}): if \
             they can't reach it there either, give --advertise with a host at which they can"
        );
    }
}

/// A new member dials all others, and logs those that it can't reach.
pub async fn check_others(own: NodeId, topology: Arc<Topology>) {
    let mut dialled = JoinSet::new();
    for member in topology.nodes.iter().filter(|(node, _)| **node != own).map(|(_, member)| member.clone()) {
        dialled.spawn(async move { dial(&member, SHORT_PATIENCE).await.map_err(|failed| (member.name, failed)) });
    }
    let failed = dialled.join_all().await.into_iter().filter_map(Result::err);
    let mut failed: Vec<_> =
        failed.map(|(name, Unreachable { address, why })| format!("{name} at {address} ({why})")).collect();
    if failed.is_empty() {
        return;
    }
    failed.sort();
    tracing::warn!(
        "this node has joined, but can't reach {}. If such a node runs, open its ports to this one, or start it with \
         --advertise and a host at which all nodes reach it",
        failed.join(", ")
    );
}

/// Dials both ports of a node. On the port for clients, the node that answers must be this member.
async fn dial(member: &Member, patience: Duration) -> Result<(), Unreachable> {
    let (clients, nodes) = tokio::join!(
        timeout(patience, ask(member)),
        timeout(patience, TcpStream::connect(member.raft_address.as_str()))
    );
    let silent = || format!("no answer within {} s", patience.as_secs());
    let clients = clients.unwrap_or_else(|_| Err(silent()));
    let nodes =
        nodes.map_or_else(|_| Err(silent()), |connected| connected.map(drop).map_err(|error| error.to_string()));
    let unreachable = |address: &String, why| Unreachable { address: address.clone(), why };
    clients.map_err(|why| unreachable(&member.grpc_address, why))?;
    nodes.map_err(|why| unreachable(&member.raft_address, why))
}

/// Asks for the identity of the node that answers at the new node's client address.
async fn ask(member: &Member) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{}", member.grpc_address));
    let endpoint = endpoint.map_err(|_| "it is not a valid address".to_owned())?;
    let channel = endpoint.connect().await.map_err(|error| with_sources(&error))?;
    let answer = MembershipClient::new(channel).ask(MembershipRequest {}).await;
    let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
    match answer.identity == Bytes::copy_from_slice(&member.identity.0.to_le_bytes()) {
        true => Ok(()),
        false => Err(format!("another node, {:?}, answers there", answer.node_id)),
    }
}
