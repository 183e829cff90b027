//! Gauges of the node's current state, updated when the metrics are scraped.

use super::{Maker, Metrics};
use crate::clock;
use crate::events::NoAnswer;
use crate::observer::Observer;
use prometheus::{Gauge, IntGauge, IntGaugeVec};
use ringfort_core::gossip::status::MemberStatus;
use ringfort_core::health::{DiskReport, DiskState};
use ringfort_core::replica::ReplicaStatus;
use ringfort_core::system::{Group, Topology};

pub struct Gauges {
    nodes: IntGauge,
    shards: IntGauge,
    epoch: IntGauge,
    election_timeout_seconds: Gauge,
    leaders: IntGauge,
    followers: IntGauge,
    learners: IntGauge,
    leaderless: IntGauge,
    lagging: IntGauge,
    moving_joining: IntGauge,
    moving_learners: IntGauge,
    moving_leaving: IntGauge,
    moves_left: IntGauge,
    lost: IntGauge,
    silence_seconds: IntGaugeVec,
    log_bytes: IntGauge,
    log_entries: IntGauge,
    keys: IntGauge,
    key_value_bytes: IntGauge,
    requests_in_flight: IntGauge,
    disk_full: IntGauge,
    memory_full: IntGauge,
    disk_states: IntGaugeVec,
    sync_age_seconds: Gauge,
    sync_latency_seconds: Gauge,
    unsynced_bytes: IntGauge,
}

impl Gauges {
    pub(super) fn new(maker: &Maker) -> Gauges {
        let replicas = maker.gauges("raft_replicas", "Replicas on this node, by their role.", "role");
        let help = "Replicas on their way into a shard that is led here (joining, learner) or out of it (leaving).";
        let moving = maker.gauges("moving_replicas", help, "state");
        Gauges {
            nodes: maker.gauge("nodes", "Nodes of the cluster, as this one knows it."),
            shards: maker.gauge("shards", "Shards of the cluster; the system shard does not count."),
            epoch: maker.gauge("topology_epoch", "The version of the topology that this node knows."),
            election_timeout_seconds: maker.float_gauge(
                "election_timeout_seconds",
                "The shortest time for which the shards of this cluster wait before they replace a silent leader.",
            ),
            leaders: replicas.with_label_values(&["leader"]),
            followers: replicas.with_label_values(&["follower"]),
            learners: replicas.with_label_values(&["learner"]),
            leaderless: maker.gauge("raft_replicas_without_leader", "Replicas here that know of no leader."),
            lagging: maker
                .gauge("raft_voters_lagging", "Voters of the shards led here that could not take over at once."),
            moving_joining: moving.with_label_values(&["joining"]),
            moving_learners: moving.with_label_values(&["learner"]),
            moving_leaving: moving.with_label_values(&["leaving"]),
            moves_left: maker.gauge(
                "moves_left",
                "Replicas of the cluster that are still to arrive; known to the system shard's leader, 0 elsewhere.",
            ),
            lost: maker.gauge("lost_replicas", "Replicas here that can't be run, because they can't be trusted."),
            silence_seconds: maker.gauges(
                "node_silence_seconds",
                "For how long nothing was heard of another node, by its name.",
                "node",
            ),
            log_bytes: maker.gauge("log_bytes", "Bytes in the segments of the log."),
            log_entries: maker.gauge("raft_log_entries", "Entries of all replicas here that are kept in memory."),
            keys: maker.gauge("keys", "Keys in all replicas here."),
            key_value_bytes: maker
                .gauge("key_value_bytes", "Memory of keys and values in all replicas here, estimated."),
            requests_in_flight: maker.gauge("requests_in_flight", "Requests of clients that are under way here."),
            disk_full: maker.gauge("disk_full", "1 while the log has no disk space, and writes are refused."),
            disk_states: maker.gauges(
                "disk_state",
                "1 for the state that the disk is in: healthy, slow, recovering (it hung or was full recently), full, \
                 hung.",
                "state",
            ),
            sync_age_seconds: maker.float_gauge(
                "disk_sync_age_seconds",
                "How long the record that is being synced has taken so far; 0 if there is none.",
            ),
            sync_latency_seconds: maker.float_gauge(
                "disk_sync_latency_seconds",
                "The longest recent sync latency of a record, halved for every 10 s since.",
            ),
            unsynced_bytes: maker.gauge("disk_unsynced_bytes", "Bytes of entries that are not synced yet."),
            memory_full: maker
                .gauge("memory_full", "1 while --max-memory is reached, and all writes but deletes are refused."),
        }
    }

    fn set(&self, replicas: &[ReplicaStatus], topology: &Topology) {
        let count = |is: fn(&&ReplicaStatus) -> bool| replicas.iter().filter(is).count() as i64;
        self.leaders.set(count(|replica| replica.is_leader));
        self.learners.set(count(|replica| replica.is_learner));
        self.followers.set(count(|replica| !replica.is_leader && !replica.is_learner));
        self.leaderless.set(count(|replica| replica.leader.is_none()));
        self.log_entries.set(replicas.iter().map(|replica| replica.last.saturating_sub(replica.base) as i64).sum());
        let (mut lagging, mut joining, mut learners, mut leaving) = (0, 0, 0, 0);
        for report in replicas.iter().filter_map(|replica| replica.report.as_ref()) {
            lagging += report.voters.iter().filter(|voter| !report.caught_up.contains(voter)).count();
            learners += report.learners.len();
            let members = || report.voters.iter().chain(&report.outgoing).chain(&report.learners);
            let group = topology.groups.get(&report.shard);
            let target = group.map(Group::target_replicas).unwrap_or_default();
            let placed = group.iter().flat_map(|group| &group.replicas);
            for replica in placed.filter(|replica| !members().any(|member| member == *replica)) {
                *(if target.contains(replica) { &mut joining } else { &mut leaving }) += 1;
            }
        }
        self.lagging.set(lagging as i64);
        self.moving_joining.set(joining as i64);
        self.moving_learners.set(learners as i64);
        self.moving_leaving.set(leaving as i64);
        self.nodes.set(topology.nodes.len() as i64);
        self.shards.set(topology.shards.get().into());
        self.election_timeout_seconds.set(topology.timing.election_timeout().as_secs_f64());
        self.epoch.set(topology.epoch.0 as i64);
    }

    fn set_disk(&self, report: DiskReport) {
        for state in DiskState::ALL {
            let gauge = self.disk_states.with_label_values(&[&state.to_string()]);
            gauge.set((report.health.disk == state).into());
        }
        self.sync_age_seconds.set(report.age.as_secs_f64());
        self.sync_latency_seconds.set(report.latency.as_secs_f64());
    }

    fn set_silences(&self, topology: &Topology, members: &[MemberStatus]) {
        self.silence_seconds.reset();
        let now = clock::moment();
        for known in members {
            let silence = known.liveness.and_then(|liveness| liveness.silence(now));
            if let (Some(silence), Some(member)) = (silence, topology.nodes.get(&known.node)) {
                self.silence_seconds.with_label_values(&[&member.name]).set(silence.as_secs() as i64);
            }
        }
    }
}

impl Metrics {
    /// Updates all gauges.
    ///
    /// # Errors
    /// A thread of the node does not answer.
    pub async fn look(&self, observer: &Observer) -> Result<(), NoAnswer> {
        let topology = observer.topology();
        let replicas = observer.replicas().await?;
        let knowledge = observer.controller().await?;
        let gossip = observer.gossip().await?;
        self.gossip.set(&gossip);
        self.divergence.set(&gossip);
        self.gauges.set(&replicas, &topology);
        self.gauges.set_silences(&topology, &gossip.status.members);
        self.gauges.moves_left.set(knowledge.progress.map_or(0, |progress| progress.left as i64));
        self.gauges.lost.set(knowledge.lost.len() as i64);
        self.gauges.log_bytes.set(observer.log_bytes() as i64);
        let (keys, bytes) = observer.total_size(&replicas);
        self.gauges.keys.set(keys as i64);
        self.gauges.key_value_bytes.set(bytes as i64);
        self.gauges.requests_in_flight.set(observer.requests_in_flight() as i64);
        self.gauges.disk_full.set(observer.is_disk_full().into());
        self.gauges.memory_full.set(observer.is_memory_full().into());
        self.gauges.unsynced_bytes.set(observer.unsynced_bytes() as i64);
        self.gauges.set_disk(observer.disk());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_core::message::ShardReport;
    use ringfort_core::system::Member;
    use ringfort_core::timing::Timing;
    use ringfort_core::types::{ClusterId, Identity, NodeId, ReplicaId, ShardId, Term};
    use ringfort_ring::ShardCount;

    #[test]
    fn replicas_are_counted_by_role_and_by_what_they_lack() {
        let member = Member { identity: Identity(1), ..Member::default() };
        let mut topology = Topology::bootstrap(ClusterId(1), ShardCount::new(2).unwrap(), Timing::DEFAULT, member);
        let ids = [1, 2, 3, 4, 5].map(|node| ReplicaId::new(NodeId(node), 7));
        let group = topology.groups.get_mut(&ShardId(0)).unwrap();
        group.replicas = ids.to_vec();
        group.target = [1, 3, 4].map(NodeId).to_vec();
        let report = ShardReport {
            shard: ShardId(0),
            leader: ids[0],
            term: Term(1),
            configuration: 1,
            voters: ids[..2].to_vec(),
            outgoing: Vec::new(),
            learners: vec![ids[2]],
            caught_up: vec![ids[0], ids[2]],
            confirmed: Vec::new(),
            copied_bytes: 0,
        };
        let replica = |shard, is_leader: bool, is_learner, leader| ReplicaStatus {
            shard: ShardId(shard),
            replica: ids[0],
            leader,
            is_leader,
            is_learner,
            term: 1,
            committed: 9,
            applied: 9,
            last: 9,
            base: 4,
            report: is_leader.then(|| report.clone()),
        };
        let replicas = [
            replica(0, true, false, Some(NodeId(1))),
            replica(1, false, false, None),
            replica(2, false, true, Some(NodeId(2))),
        ];
        let gauges = Gauges::new(&Maker(prometheus::Registry::new()));
        gauges.set(&replicas, &topology);
        let counted = [&gauges.leaders, &gauges.followers, &gauges.learners, &gauges.leaderless].map(IntGauge::get);
        assert_eq!(counted, [1, 1, 1, 1]);
        assert_eq!(gauges.lagging.get(), 1);
        let moving = [&gauges.moving_joining, &gauges.moving_learners, &gauges.moving_leaving].map(IntGauge::get);
        assert_eq!(moving, [1, 1, 1]);
        assert_eq!((gauges.log_entries.get(), gauges.shards.get(), gauges.nodes.get()), (15, 2, 1));
    }
}
