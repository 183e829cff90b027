//! Calls from nodes of another cluster.
//!
//! Such a call is refused. It proves nothing by itself, so this node asks the caller for its cluster's members at the
//! gRPC address that the caller gives; the core evaluates the answers ([`ringfort_core::control`], claims). Each
//! address is asked once at a time, and [`ASKED_AT_ONCE`] of them, however many call: callers that do not answer must
//! not keep this node from asking the others.

use crate::events::{ControlEvent, Mailbox};
use crate::files::OWN_FILES;
use parking_lot::Mutex;
use ringfort_core::control::Testimony;
use ringfort_core::types::{ClusterId, NodeId};
use ringfort_proto::address::check_address;
use ringfort_proto::v1::PeerBatch;
use ringfort_proto::v1::TopologyRequest;
use ringfort_proto::v1::cluster_client::ClusterClient;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::Endpoint;

/// Addresses that are asked at the same time; further callers are not asked until they call again.
const ASKED_AT_ONCE: usize = 8;

const _: () = assert!(ASKED_AT_ONCE as u64 <= OWN_FILES / 8);

/// How long the caller may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Strangers {
    /// The cluster that this node belongs to.
    own: ClusterId,
    control: Mailbox<ControlEvent>,
    /// The cluster that called last, to log it once: its nodes keep calling.
    last: AtomicU64,
    asked: Arc<Asked>,
}

/// The addresses that are being asked.
#[derive(Default)]
struct Asked(Mutex<BTreeSet<String>>);

/// An address that is being asked until this is dropped.
struct Asking {
    asked: Arc<Asked>,
    address: String,
}

impl Asked {
    /// `None` if the address, or too many others, are being asked.
    fn begin(self: &Arc<Asked>, address: &str) -> Option<Asking> {
        let mut addresses = self.0.lock();
        let is_new = addresses.len() < ASKED_AT_ONCE && addresses.insert(address.to_owned());
        is_new.then(|| Asking { asked: self.clone(), address: address.to_owned() })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.asked.0.lock().remove(&self.address);
    }
}

impl Strangers {
    pub fn new(own: ClusterId, control: Mailbox<ControlEvent>) -> Strangers {
        Strangers { own, control, last: AtomicU64::default(), asked: Arc::default() }
    }

    /// A node of another cluster has called, and gives `address` as its gRPC address.
    pub fn called(&self, batch: &PeerBatch, address: Option<&str>) {
        if self.last.swap(batch.cluster_id, Ordering::Relaxed) != batch.cluster_id {
            tracing::warn!(
                "nodes of cluster {} call this node, which belongs to cluster {}: if it should be one of theirs, stop \
                 it and start it with an empty --raft-dir, --join-addr, and --replace or another --node-id",
                ClusterId(batch.cluster_id),
                self.own
            );
        }
        let Some(address) = address.filter(|address| check_address(address).is_ok()) else { return };
        let Some(asking) = self.asked.begin(address) else { return };
        let control = self.control.clone();
        let (cluster, from, to) = (ClusterId(batch.cluster_id), NodeId(batch.from_node), NodeId(batch.to_node));
        tokio::spawn(async move {
            if let Ok(Some(testimony)) = timeout(ANSWER_TIMEOUT, ask(cluster, from, to, &asking.address)).await {
                control.tell_testimony(testimony);
            }
        });
    }
}

/// Asks a node for the members of its cluster.
async fn ask(cluster: ClusterId, from: NodeId, to: NodeId, asked: &str) -> Option<Testimony> {
    let channel = Endpoint::from_shared(format!("http://{asked}")).ok()?.connect().await.ok()?;
    let topology = ClusterClient::new(channel).topology(TopologyRequest {}).await.ok()?.into_inner();
    let members = topology.nodes.into_iter().map(|node| (NodeId(node.id), (node.name, node.grpc_address)));
    let (asked, members) = (asked.to_owned(), members.collect());
    (topology.cluster_id == cluster.0).then_some(Testimony { cluster, from, to, asked, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_asked_once_at_a_time_and_few_of_them() {
        let asked = Arc::new(Asked::default());
        let first = asked.begin("silent:1").expect("there is room");
        assert!(asked.begin("silent:1").is_none(), "it is being asked");
        let others: Vec<_> = (1..ASKED_AT_ONCE).map(|port| asked.begin(&format!("other:{port}")).unwrap()).collect();
        assert!(asked.begin("further:1").is_none());
        drop(first);
        drop(asked.begin("silent:1").expect("it is asked again"));
        drop(asked.begin("further:1").expect("there is room again"));
        drop(others);
        assert!(asked.0.lock().is_empty());
    }
}
