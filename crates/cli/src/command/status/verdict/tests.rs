use super::*;
use ringfort_client::v1::{DiskHealth, Divergence, Liveness, MoveStatus, NodeHealthStatus};

/// A healthy cluster of `nodes` nodes with two shards and the system shard, each on the first three nodes.
fn cluster(nodes: u64) -> StatusResponse {
    let node = |id| NodeStatus { id, name: format!("node{id}"), alive: true, ..Default::default() };
    let member = |node| ReplicaStatus { node, replica: node, caught_up: true, ..Default::default() };
    let shard = |shard, first_slot, last_slot| ShardStatus {
        shard,
        first_slot,
        last_slot,
        leader: 1,
        members: (1..=nodes.min(3)).map(member).collect(),
        ..Default::default()
    };
    StatusResponse {
        nodes: (1..=nodes).map(node).collect(),
        shards: vec![shard(0, 0, 8191), shard(1, 8192, 16_383), shard(SYSTEM_SHARD, 0, 0)],
        ..Default::default()
    }
}

fn silence(status: &mut StatusResponse, node: usize) {
    status.nodes[node].alive = false;
    status.nodes[node].silent_ms = 12_345;
}

#[track_caller]
fn assert_says(status: &StatusResponse, sentence: &str) {
    assert_eq!(judge(status).sentence, sentence);
}

#[test]
fn healthy_clusters() {
    assert_says(&cluster(3), "3 nodes, 2 shards, tolerates 1 node failure; all replicas caught up");
    let verdict = judge(&cluster(4));
    assert!(verdict.healthy && verdict.node_failures_tolerated == 1, "{verdict:?}");
}

#[test]
fn fewer_than_three_nodes_tolerate_nothing() {
    let more = "with --join-addr to tolerate a failure";
    let caught_up = "all replicas caught up";
    assert_says(
        &cluster(1),
        &format!("1 node, 2 shards, tolerates no node failure; {caught_up}; start 2 more nodes {more}"),
    );
    assert_says(
        &cluster(2),
        &format!("2 nodes, 2 shards, tolerates no node failure; {caught_up}; start 1 more node {more}"),
    );
}

#[test]
fn five_voters_everywhere_tolerate_two_and_the_weakest_shard_decides() {
    let mut status = cluster(5);
    for shard in &mut status.shards {
        for node in [4, 5] {
            shard.members.push(ReplicaStatus { node, replica: node, caught_up: true, ..Default::default() });
        }
    }
    assert_says(&status, "5 nodes, 2 shards, tolerates 2 node failures; all replicas caught up");
    status.shards[2].members.truncate(3);
    assert_eq!(judge(&status).node_failures_tolerated, 1, "the system shard has three voters");
}

#[test]
fn silent_node_uses_up_the_tolerance() {
    let mut status = cluster(3);
    silence(&mut status, 1);
    let expected = "3 nodes, 2 shards, tolerates no node failure; node2 has been silent for 12 s: start it again";
    assert_says(&status, expected);
    assert!(!judge(&status).healthy);
}

#[test]
fn nothing_is_said_of_shards_that_a_node_may_lead_whose_heartbeats_come() {
    let mut status = cluster(3);
    status.nodes[0] = NodeStatus {
        alive: false,
        silent_ms: 400,
        liveness: Some(Liveness::default()),
        grpc_address: "127.0.0.1:50051".to_owned(),
        ..status.nodes[0].clone()
    };
    for shard in &mut status.shards {
        shard.leader = 0;
        shard.members[0].offline = true;
    }
    assert_says(
        &status,
        "3 nodes, 2 shards, tolerates no node failure; node1 does not answer at 127.0.0.1:50051, and was last heard \
         0.4 s ago: start it again, or, if its process still runs, see ringfort_connections_refused_total in its \
         metrics",
    );
    status.nodes[0].silent_ms = 4000;
    assert!(judge(&status).sentence.contains("3 shards without a leader"), "{}", judge(&status).sentence);
}

#[test]
fn replicas_on_a_full_disk_do_not_catch_up_by_waiting() {
    let mut status = cluster(3);
    let health = NodeHealthStatus { disk: DiskHealth::Full.into(), ..Default::default() };
    status.nodes[2].health = Some(health);
    status.shards[0].members[2].caught_up = false;
    assert_says(
        &status,
        "3 nodes, 2 shards, tolerates no node failure; node3 can't extend its log and refuses every write: \
         free some disk space there, or see what is logged there",
    );
}

#[test]
fn a_node_without_room_is_told_although_every_shard_is_served() {
    let mut status = cluster(3);
    status.nodes[2].memory_full = true;
    let verdict = judge(&status);
    assert!(!verdict.healthy && verdict.node_failures_tolerated == 1, "{verdict:?}");
    assert!(verdict.sentence.contains("; node3 has reached its --max-memory"), "{}", verdict.sentence);
}

#[test]
fn orders_and_estimates_are_told() {
    let mut status = cluster(4);
    status.nodes[2].member_state = MemberState::Leaving.into();
    status.nodes[3].member_state = MemberState::Drained.into();
    status.paused = true;
    let expected = "4 nodes, 2 shards, tolerates 1 node failure; all replicas caught up; \
                    node3 is leaving, 3 replicas to go; node4 is drained; \
                    moves are paused, and no dead node is replaced: `ringfort cluster resume` ends the pause";
    assert_says(&status, expected);
    assert!(judge(&status).healthy);
    let mut status = cluster(4);
    silence(&mut status, 3);
    status.nodes[3].member_state = MemberState::Dead.into();
    status.shards[0].members[2].role = ReplicaRole::Learner.into();
    status.moves = Some(MoveStatus { left: 9, waiting: 2, estimate_ms: 90_000, ..Default::default() });
    let expected = "4 nodes, 2 shards, tolerates no node failure; \
                    node4 has been silent for 12 s: other nodes take its place; \
                    1 replica being added (7 to move, about 90 s left): wait";
    assert_says(&status, expected);
    status.paused = true;
    let said = judge(&status).sentence;
    assert!(
        said.contains("; node4 has been silent for 12 s: other nodes take its place when moves are resumed;"),
        "{said}"
    );
}

#[test]
fn moves_that_wait_for_a_silent_node_are_not_estimated() {
    let mut status = cluster(4);
    silence(&mut status, 3);
    let waiting = ReplicaStatus { node: 4, role: ReplicaRole::Joining.into(), offline: true, ..Default::default() };
    status.shards[0].members.push(waiting);
    status.moves = Some(MoveStatus { left: 1, waiting: 1, replace_after_ms: 60_000, ..Default::default() });
    let said = judge(&status).sentence;
    let expected = "; 1 move waits for node4, which is silent: it will be replaced in 47 s unless it returns";
    assert!(said.ends_with(expected) && !said.contains("being added"), "{said}");
    status.shards[1].members.push(waiting);
    status.paused = true;
    let said = judge(&status).sentence;
    assert!(said.contains("; 2 moves wait for node4, which is silent: start it again, or make it leave;"), "{said}");
    status.nodes[3].member_state = MemberState::Dead.into();
    assert!(!judge(&status).sentence.contains("wait for node4"), "others take its place");
}

#[test]
fn a_replica_that_leaves_is_not_being_added_and_waits_for_a_silent_voter() {
    let mut status = cluster(5);
    for shard in &mut status.shards[..2] {
        shard.members[0].node = 4;
        shard.leader = 2;
        let left = ReplicaStatus { node: 1, role: ReplicaRole::Leaving.into(), lag: 1, ..Default::default() };
        shard.members.push(left);
    }
    status.moves = Some(MoveStatus { left: 1, estimate_ms: 1, replace_after_ms: 60_000, ..Default::default() });
    assert_says(&status, "5 nodes, 2 shards, tolerates 1 node failure; 2 replicas being removed: wait");
    silence(&mut status, 3);
    assert_says(
        &status,
        "5 nodes, 2 shards, tolerates no node failure; node4 has been silent for 12 s: start it again; \
         2 moves wait for node4, which is silent: it will be replaced in 47 s unless it returns",
    );
    let mut replaced = cluster(3);
    let lost = ReplicaStatus { node: 1, role: ReplicaRole::Leaving.into(), offline: true, ..Default::default() };
    replaced.shards[0].members.push(lost);
    assert_says(&replaced, "3 nodes, 2 shards, tolerates 1 node failure; 1 replica being removed: wait");
}

#[test]
fn lost_quorum_comes_first_and_promises_nothing() {
    let mut status = cluster(3);
    silence(&mut status, 1);
    silence(&mut status, 2);
    status.shards.iter_mut().flat_map(|shard| &mut shard.members).for_each(|member| member.caught_up = false);
    assert_says(
        &status,
        "3 nodes, 2 shards; 3 shards without a leader or a quorum (0, 1, system); \
         node2 has been silent for 12 s: start it again; node3 has been silent for 12 s: start it again; \
         if all nodes have new addresses, this node can't find the others: start it with --join-addr and \
         the new client address of another node",
    );
}

#[test]
fn shard_without_a_leader() {
    let mut status = cluster(3);
    status.shards[1].leader = 0;
    assert_says(
        &status,
        "3 nodes, 2 shards; 1 shard without a leader or a quorum (1); \
         an election should end this within seconds; if it does not, see the nodes' logs",
    );
}

#[test]
fn voter_that_lags_is_no_spare_one() {
    let mut status = cluster(3);
    status.shards[0].members[2].caught_up = false;
    assert_says(&status, "3 nodes, 2 shards, tolerates no node failure; 1 replica catching up: wait");
    status.shards[0].members[1].caught_up = false;
    assert_says(&status, "3 nodes, 2 shards, tolerates no node failure; 2 replicas catching up: wait");
}

#[test]
fn learners_do_not_count() {
    let mut status = cluster(4);
    for shard in &mut status.shards {
        shard.members[2].role = ReplicaRole::Learner.into();
    }
    assert_says(&status, "4 nodes, 2 shards, tolerates no node failure; 3 replicas being added: wait");
}

#[test]
fn offline_replica_names_its_node() {
    let mut status = cluster(3);
    status.shards[0].members[2].offline = true;
    assert_says(
        &status,
        "3 nodes, 2 shards, tolerates no node failure; replicas are offline on node3: the reason is logged there",
    );
}

#[test]
fn replicas_with_a_wrong_state_are_told_with_what_comes_next() {
    let mut status = cluster(3);
    let member = &mut status.shards[1].members[2];
    (member.offline, member.caught_up) = (true, false);
    member.set_quarantine(QuarantineReason::Memory);
    status.divergences = vec![Divergence { shard: 1, index: 64, nodes: vec![1, 2, 3], minority: vec![3] }];
    assert_says(
        &status,
        "3 nodes, 2 shards, tolerates no node failure; the memory of shard 1 on node3 is damaged, so the \
         cluster replaces that replica: wait, and have that machine's memory checked",
    );
    status.shards[1].members[1].offline = true;
    status.shards[1].members[1].set_quarantine(QuarantineReason::Minority);
    status.shards[1].members.truncate(2);
    assert_says(
        &status,
        "3 nodes, 2 shards; 1 shard without a leader or a quorum (1); shard 1 on node2 differs from the majority, \
         so that replica is offline: start node2 again, so that it reads the shard from its disk",
    );
    let mut status = cluster(3);
    status.divergences = vec![Divergence { shard: 1, index: 64, nodes: vec![1, 2], minority: vec![] }];
    assert_says(
        &status,
        "3 nodes, 2 shards, tolerates 1 node failure; the replicas of shard 1 on node1, node2 differ, and there is no \
         majority to tell which is wrong: see \"Replicas that differ\" in docs/operating.md",
    );
    assert!(!judge(&status).healthy);
}

#[test]
fn what_was_not_reported_is_not_promised() {
    for missing in 0..3 {
        let mut status = cluster(3);
        status.shards.remove(missing);
        let verdict = judge(&status);
        assert_eq!((verdict.node_failures_tolerated, verdict.healthy), (0, false), "{}", verdict.sentence);
    }
    assert_eq!(judge(&StatusResponse::default()).node_failures_tolerated, 0);
}

#[test]
fn long_lists_are_cut() {
    let names: Vec<String> = (0..7).map(|number| number.to_string()).collect();
    assert_eq!(some_of(&names), "0, 1, 2, 3, 4 and 2 more");
}
