//! Calls from nodes of another cluster.
//!
//! Such a call is refused. It proves nothing by itself, so this node asks the caller for its cluster's members at the
//! gRPC address that the caller gives; the core evaluates the answers ([`ringfort_core::control`], claims). Only one
//! caller is asked at a time, however many call.

use crate::events::{ControlEvent, Mailbox};
use ringfort_core::control::Testimony;
use ringfort_core::types::{ClusterId, NodeId};
use ringfort_proto::address::check_address;
use ringfort_proto::v1::PeerBatch;
use ringfort_proto::v1::TopologyRequest;
use ringfort_proto::v1::cluster_client::ClusterClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::Endpoint;

/// How long the caller may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Strangers {
    /// The cluster that this node belongs to.
    own: ClusterId,
    control: Mailbox<ControlEvent>,
    /// The cluster that called last, to log it once: its nodes keep calling.
    last: AtomicU64,
    is_asking: Arc<AtomicBool>,
}

impl Strangers {
    pub fn new(own: ClusterId, control: Mailbox<ControlEvent>) -> Strangers {
        Strangers { own, control, last: AtomicU64::default(), is_asking: Arc::default() }
    }

    /// A node of another cluster has called, and gives `address` as its gRPC address.
    pub fn called(&self, batch: &PeerBatch, address: Option<&str>) {
        if self.last.swap(batch.cluster_id, Ordering::Relaxed) != batch.cluster_id {
            tracing::warn!(
                "nodes of cluster {} call this node, of cluster {}: if it should be one of theirs, stop it and start it \
                 with an empty --raft-dir, --join-addr, and --replace or another --node-id",
                ClusterId(batch.cluster_id),
                self.own
            );
        }
        let Some(address) = address.filter(|address| check_address(address).is_ok()) else { return };
        if self.is_asking.swap(true, Ordering::Relaxed) {
            return;
        }
        let (control, is_asking, address) = (self.control.clone(), self.is_asking.clone(), address.to_owned());
        let (cluster, from, to) = (ClusterId(batch.cluster_id), NodeId(batch.from_node), NodeId(batch.to_node));
        tokio::spawn(async move {
            if let Ok(Some(testimony)) = timeout(ANSWER_TIMEOUT, ask(cluster, from, to, address)).await {
                control.tell_testimony(testimony);
            }
            is_asking.store(false, Ordering::Relaxed);
        });
    }
}

/// Asks a node for the members of its cluster.
async fn ask(cluster: ClusterId, from: NodeId, to: NodeId, asked: String) -> Option<Testimony> {
    let channel = Endpoint::from_shared(format!("http://{asked}")).ok()?.connect().await.ok()?;
    let topology = ClusterClient::new(channel).topology(TopologyRequest {}).await.ok()?.into_inner();
    let members = topology.nodes.into_iter().map(|node| (NodeId(node.id), (node.name, node.grpc_address)));
    (topology.cluster_id == cluster.0).then(|| Testimony { cluster, from, to, asked, members: members.collect() })
}
