//! What this node knows through gossip, as messages for operators.

use crate::clock;
use crate::events::GossipKnowledge;
use crate::observer::Observer;
use ringfort_core::gossip::node_state::Fact;
use ringfort_core::gossip::status::MemberStatus;
use ringfort_core::health::{DiskState, NodeHealth};
use ringfort_core::liveness::{self, Reason};
use ringfort_core::time::Moment;
use ringfort_proto::v1::*;
use tonic::Status;

/// The gossip thread's knowledge as a message.
pub async fn own(observer: &Observer) -> Result<GossipResponse, Status> {
    let GossipKnowledge { status, rounds, refused, .. } = observer.gossip().await?;
    let topology = observer.topology();
    let members = status.members.into_iter().map(|member| {
        let name = topology.nodes.get(&member.node).map(|known| known.name.clone());
        self::member(member, name.unwrap_or_default())
    });
    Ok(GossipResponse {
        node: observer.node().0,
        members: members.collect(),
        keys: status.keys as u64,
        tombstones: status.tombstones as u64,
        bytes: status.bytes as u64,
        hash: status.hash,
        missing: status.missing,
        diverged: status.diverged.into_iter().map(|node| node.0).collect(),
        rounds,
        refused: refused.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
    })
}

/// A member's liveness as a message.
pub fn liveness(liveness: liveness::Liveness) -> Liveness {
    let now = clock::moment();
    let ms = |since: Moment| now.saturating_since(since).as_millis() as u64;
    let reason = match liveness.reason {
        Reason::Expected => "not heard of yet",
        Reason::Heard => "heartbeats arrive",
        Reason::Silent => "no more heartbeats",
        Reason::Back => "heartbeats arrive again",
        Reason::Restarted => "started again",
    };
    let state = match liveness.state {
        liveness::LivenessState::Alive => LivenessState::Alive,
        liveness::LivenessState::Suspect => LivenessState::Suspect,
        liveness::LivenessState::Dead => LivenessState::Dead,
    };
    Liveness {
        state: state.into(),
        since_ms: ms(liveness.since),
        reason: reason.to_owned(),
        heard_ms: ms(liveness.heard),
    }
}

/// A node's report of its health, as a message.
pub fn health(health: NodeHealth) -> NodeHealthStatus {
    let disk = match health.disk {
        DiskState::Healthy => DiskHealth::Healthy,
        DiskState::Slow => DiskHealth::Slow,
        DiskState::Recovering => DiskHealth::Recovering,
        DiskState::Full => DiskHealth::Full,
        DiskState::Hung => DiskHealth::Hung,
    };
    NodeHealthStatus {
        disk: disk.into(),
        sync_latency_ms: health.sync_latency_ms.into(),
        sync_age_ms: 0,
        is_stopping: health.is_stopping,
    }
}

/// This node's own health.
pub fn own_health(observer: &Observer) -> NodeHealthStatus {
    let report = observer.disk();
    NodeHealthStatus { sync_age_ms: report.age.as_millis() as u64, ..health(report.health) }
}

/// The health that a node last reported.
pub fn told_health(member: &MemberStatus) -> Option<NodeHealthStatus> {
    member.facts.iter().find_map(|fact| match fact {
        Fact::Health(told) => Some(health(*told)),
        _ => None,
    })
}

fn member(member: MemberStatus, name: String) -> GossipMember {
    let mut message = GossipMember {
        id: member.node.0,
        name,
        liveness: member.liveness.map(liveness),
        incarnation: member.incarnation.0,
        heartbeat: member.heartbeat.0,
        clock_ahead_us: member.clock_ahead_us.unwrap_or_default(),
        lag: member.lag,
        ..GossipMember::default()
    };
    for fact in member.facts {
        match fact {
            Fact::Epoch(epoch) => message.epoch = epoch.0,
            Fact::Build(version) => message.build_version = version,
            Fact::Leads(leads) => message.shards_led = leads.len() as u32,
            Fact::Health(health) => message.health = Some(self::health(health)),
            Fact::Points(..) => {}
            Fact::Load(load) => (message.keys, message.key_value_bytes) = (load.keys, load.key_value_bytes),
        }
    }
    message
}
