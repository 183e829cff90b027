//! Whether a node that asks to be taken in can be reached where it says that it is.
//!
//! A member that advertises an address that others can't dial gets shards which nobody reaches there. Whoever is asked to
//! take a node in dials both of its ports first. The newcomer asks again until its `--join-timeout`: its name may become
//! known to the others a little later than it starts, as those of pods do.

use crate::start::with_sources;
use bytes::Bytes;
use ringfort_core::system::Member;
use ringfort_proto::outcome;
use ringfort_proto::v1::MembershipRequest;
use ringfort_proto::v1::membership_client::MembershipClient;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Endpoint;

/// How long both ports together may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Dials the node at the addresses that it gives.
///
/// # Errors
/// Says which address does not lead to the node, and what to do. The newcomer may ask again.
pub async fn check(member: &Member) -> Result<(), Status> {
    let (clients, nodes) = tokio::join!(
        timeout(PATIENCE, ask(member)),
        timeout(PATIENCE, TcpStream::connect(member.raft_address.as_str()))
    );
    let silent = || format!("no answer within {} s", PATIENCE.as_secs());
    let clients = clients.unwrap_or_else(|_| Err(silent()));
    let nodes =
        nodes.map_or_else(|_| Err(silent()), |connected| connected.map(drop).map_err(|error| error.to_string()));
    for (address, dialled) in [(&member.grpc_address, clients), (&member.raft_address, nodes)] {
        if let Err(why) = dialled {
            return Err(outcome::unavailable(
                format!(
                    "the node that was asked can't reach the new one at {address} ({why}): give --advertise with a host \
                     at which all nodes and clients reach it, and keep its ports open to them"
                ),
                None,
            ));
        }
    }
    Ok(())
}

/// Asks the node at the new one's address for clients who it is.
async fn ask(member: &Member) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{}", member.grpc_address));
    let endpoint = endpoint.map_err(|_| "that is no address".to_owned())?;
    let channel = endpoint.connect().await.map_err(|error| with_sources(&error))?;
    let answer = MembershipClient::new(channel).ask(MembershipRequest {}).await;
    let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
    match answer.identity == Bytes::copy_from_slice(&member.identity.0.to_le_bytes()) {
        true => Ok(()),
        false => Err(format!("{:?} answers there", answer.node_id)),
    }
}
