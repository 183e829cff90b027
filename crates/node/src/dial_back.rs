//! Checks that a node that asks to join can be reached at the addresses that it advertises.
//!
//! A member gets shards, and if others can't dial its address, they can't reach these shards there. The node that
//! receives a join request therefore first dials both of the new node's ports. The new node asks again until its
//! `--join-timeout`, because its name may resolve only some time after it has started, as the names of pods do.

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

/// How long each port may take to answer; both are dialled at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Dials the new node at the addresses that it advertises.
///
/// # Errors
/// Says which address does not lead to the node, and what to do. The new node may ask again.
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
                    "the node that was asked to admit this one can't reach it at {address} ({why}): give --advertise \
                     with a host at which all nodes and clients reach it, and open its ports to them"
                ),
                None,
            ));
        }
    }
    Ok(())
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
