use super::*;
use crate::disk::mem::MemDisk;
use crate::system::topology::tests::member;
use crate::timing::Timing;
use ringfort_ring::ShardCount;

#[test]
fn a_directory_is_cleared_but_for_the_way_back() {
    let disk = Arc::new(MemDisk::new());
    let config = LogConfig { segment_bytes: 1 << 16, ..LogConfig::default() };
    let own = member("one");
    let mut topology = Topology::bootstrap(ClusterId(1), ShardCount::new(2).unwrap(), Timing::DEFAULT, own.clone());
    set_owner(&*disk, &Owner { identity: own.identity, name: own.name }).unwrap();
    bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
    topology.nodes.insert(NodeId(2), member("two"));
    save_topology(&*disk, &topology).unwrap();
    assert_eq!(departure(&*disk).unwrap(), None);
    set_departure(&*disk, MemberState::Dead).unwrap();
    assert_eq!(departure(&*disk).unwrap(), Some(MemberState::Dead));
    for again in [false, true] {
        if again {
            // The state after a crash right before the end.
            set_departure(&*disk, MemberState::Dead).unwrap();
        }
        clear(&*disk).unwrap();
        assert_eq!(disk.list().unwrap(), [CONTACTS_FILE]);
        assert_eq!(contacts(&*disk).unwrap(), ["two:50051"]);
    }
    assert!(!open(&disk, config).unwrap().has_state());
    assert_eq!(owner(&*disk).unwrap(), None);
}

/// The directory of a node with three replicas in a cluster of two nodes.
fn member_of_two() -> (Arc<MemDisk>, LogConfig, Topology) {
    let disk = Arc::new(MemDisk::new());
    let config = LogConfig { segment_bytes: 1 << 16, ..LogConfig::default() };
    let own = member("one");
    let mut topology = Topology::bootstrap(ClusterId(1), ShardCount::new(2).unwrap(), Timing::DEFAULT, own.clone());
    topology.nodes.insert(NodeId(2), member("two"));
    set_owner(&*disk, &Owner { identity: own.identity, name: own.name }).unwrap();
    (disk, config, topology)
}

fn delete_segments(disk: &MemDisk) {
    for name in disk.list().unwrap().iter().filter(|name| name.ends_with(".seg")) {
        disk.delete(name).unwrap();
    }
}

#[test]
fn a_directory_of_another_form_is_refused_and_left_as_it_is() {
    let (disk, config, topology) = member_of_two();
    bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
    let mut older = topology.encode().to_vec();
    older[0] -= 1;
    write_file(&*disk, TOPOLOGY_FILE, &older).unwrap();
    let content = |disk: &MemDisk| {
        let read = |name: String| (disk.read_at(&name, 0, disk.size(&name).unwrap().unwrap() as usize).unwrap(), name);
        disk.list().unwrap().into_iter().map(read).collect::<Vec<_>>()
    };
    let before = content(&disk);
    let Err(BootError::Topology(error)) = open(&disk, config) else { panic!("a form that nobody reads") };
    assert!(error.to_string().contains("use the version of Ringfort that wrote it"), "{error}");
    assert_eq!(content(&disk), before);
}

#[test]
fn a_node_whose_log_is_lost_trusts_none_of_its_replicas() {
    for is_all_lost in [false, true] {
        let (disk, config, topology) = member_of_two();
        bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
        delete_segments(&disk);
        if is_all_lost {
            disk.delete("log-extent").unwrap();
        }
        let snapshots = disk.list().unwrap().iter().filter(|name| name.starts_with("snap-")).count();
        for _ in 0..2 {
            let boot = open(&disk, config.clone()).unwrap();
            assert!(boot.replicas.is_empty(), "an empty replica under an old id would vote");
            let held: Vec<_> = topology.groups.iter().map(|(shard, group)| (*shard, group.replicas[0])).collect();
            assert_eq!((boot.lost, boot.removed), (held, vec![]), "each start asks for new ones");
            assert!(boot.eventual.lost && !boot.findings.is_empty());
            let kept = disk.list().unwrap().iter().filter(|name| name.starts_with("snap-")).count();
            assert_eq!(kept, snapshots, "what is left is for an operator to look at");
        }
    }
}

#[test]
fn only_a_directory_whose_log_is_empty_may_begin_a_cluster() {
    let damage = |disk: &MemDisk| disk.corrupt("log-00000000000000000001.seg", 300, 1);
    let all: [fn(&MemDisk); 2] = [damage, delete_segments];
    for lose in all {
        let (disk, config, topology) = member_of_two();
        assert!(open(&disk, config.clone()).unwrap().is_log_empty);
        bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
        disk.delete(TOPOLOGY_FILE).unwrap();
        lose(&disk);
        for _ in 0..2 {
            let boot = open(&disk, config.clone()).unwrap();
            assert!(!boot.has_state() && !boot.has_replicas());
            assert!(!boot.is_log_empty);
        }
    }
}

#[test]
fn the_snapshots_of_a_directory_that_has_lost_its_topology_and_its_log_are_kept() {
    let is_log = |name: &str| name.starts_with("log-");
    let is_segment = |name: &str| name.ends_with(".seg");
    let lost: [&dyn Fn(&str) -> bool; 2] = [&is_log, &is_segment];
    for is_lost in lost {
        let (disk, config, topology) = member_of_two();
        bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
        let kept = snapshot_name(ShardId(1), LogIndex(500));
        disk.create(&kept).unwrap();
        for name in disk.list().unwrap().iter().filter(|name| *name == TOPOLOGY_FILE || is_lost(name)) {
            disk.delete(name).unwrap();
        }
        for _ in 0..2 {
            let boot = open(&disk, config.clone()).unwrap();
            assert!(!boot.is_log_empty && !boot.has_state());
            assert!(disk.list().unwrap().contains(&kept), "it may be all that is left");
        }
        // If it joins again, it trusts none of the replicas that it had.
        let own = owner(&*disk).unwrap().unwrap();
        open(&disk, config.clone()).unwrap().join(&disk, own, topology.clone(), true).unwrap();
        let boot = open(&disk, config).unwrap();
        assert_eq!((boot.lost.len(), boot.replicas.len()), (topology.groups.len(), 0));
    }
}

#[test]
fn nothing_is_deleted_while_it_is_unknown_to_which_cluster_the_directory_belongs() {
    let (disk, config, topology) = member_of_two();
    bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
    // A replica of the system shard would know the topology.
    let (shard, replica) = (ShardId::SYSTEM, topology.groups[&ShardId::SYSTEM].replicas[0]);
    let mut log = open(&disk, config.clone()).unwrap().log;
    log.append(&[LogItem { shard, replica, change: Change::Removed }]).unwrap();
    log.sync().unwrap();
    let unnamed = snapshot_name(ShardId(1), LogIndex(500));
    disk.create(&unnamed).unwrap();
    disk.delete(TOPOLOGY_FILE).unwrap();
    for is_known in [false, true] {
        if is_known {
            save_topology(&*disk, &topology).unwrap();
        }
        assert_eq!(open(&disk, config.clone()).unwrap().has_state(), is_known);
        assert_eq!(disk.list().unwrap().contains(&unnamed), !is_known);
    }
}

#[test]
fn a_beginning_that_a_crash_interrupts_is_complete_or_can_be_done_again() {
    let mut choices = 0;
    let mut choose = |below: u64| {
        choices += 1;
        choices % 7 % below
    };
    let (mut done, mut again) = (0, 0);
    for changes in 0.. {
        let (disk, config, topology) = member_of_two();
        disk.stop_after(Some(changes));
        bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
        if !disk.has_stopped() {
            break;
        }
        disk.crash(&mut choose);
        let boot = open(&disk, config.clone()).unwrap();
        if boot.has_state() {
            done += 1;
            assert_eq!(boot.replicas.len(), topology.groups.len());
        } else {
            again += 1;
            assert!(boot.is_log_empty, "after {changes} changes: {:?}", boot.findings);
            drop(boot);
            bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
            assert_eq!(open(&disk, config).unwrap().replicas.len(), topology.groups.len());
        }
    }
    assert!(done > 1 && again > 5, "{done} done, {again} again");
}

#[test]
fn a_replica_that_found_its_log_lost_is_not_trusted_after_a_restart() {
    let (disk, config, topology) = member_of_two();
    bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
    let (shard, replica) = (ShardId(1), topology.groups[&ShardId(1)].replicas[0]);
    let mut log = open(&disk, config.clone()).unwrap().log;
    log.append(&[LogItem { shard, replica, change: Change::Suspect }]).unwrap();
    log.sync().unwrap();
    drop(log);
    for _ in 0..2 {
        let boot = open(&disk, config.clone()).unwrap();
        assert_eq!(boot.lost, [(shard, replica)], "each start asks for a new one");
        assert_eq!(boot.replicas.len(), topology.groups.len() - 1, "the others are trusted");
        assert!(!boot.findings.is_empty());
    }
}

#[test]
fn the_snapshot_of_a_suspect_replica_is_kept_with_its_log() {
    let (disk, config, topology) = member_of_two();
    bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
    let (shard, replica) = (ShardId::SYSTEM, topology.groups[&ShardId::SYSTEM].replicas[0]);
    let mut log = open(&disk, config.clone()).unwrap().log;
    let snapshots = || disk.list().unwrap().into_iter().filter(|name| snapshot::is_snapshot(name)).count();
    assert_eq!(snapshots(), 1);
    log.append(&[LogItem { shard, replica, change: Change::Suspect }]).unwrap();
    log.sync().unwrap();
    for _ in 0..2 {
        assert_eq!(open(&disk, config.clone()).unwrap().lost, [(shard, replica)]);
        assert_eq!(snapshots(), 1, "an operator may want it");
    }
    log.append(&[LogItem { shard, replica, change: Change::Removed }]).unwrap();
    log.sync().unwrap();
    open(&disk, config).unwrap();
    assert_eq!(snapshots(), 0);
}

/// The successor's first record is durable, but it may have no data yet.
#[test]
fn the_snapshot_of_a_lost_replica_outlives_restarts_until_the_topology_does_not_name_it() {
    let (disk, config, mut topology) = member_of_two();
    bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
    let shard = ShardId(1);
    let old = topology.groups[&shard].replicas[0];
    let (kept, other) = (snapshot_name(shard, LogIndex(500)), snapshot_name(ShardId(0), LogIndex(500)));
    let successor = ReplicaId::new(NodeId(1), 100);
    topology.groups.get_mut(&shard).unwrap().replicas.push(successor);
    save_topology(&*disk, &topology).unwrap();
    let mut log = open(&disk, config.clone()).unwrap().log;
    log.append(&[LogItem { shard, replica: successor, change: Change::State(Box::default()) }]).unwrap();
    log.sync().unwrap();
    for name in [&kept, &other] {
        disk.create(name).unwrap();
    }
    for _ in 0..2 {
        let boot = open(&disk, config.clone()).unwrap();
        assert_eq!((&boot.lost, &boot.superseded), (&vec![], &vec![(shard, old)]));
        assert_eq!(boot.lost_snapshots(&disk).unwrap(), BTreeMap::from([(shard, vec![kept.clone()])]));
        let names = disk.list().unwrap();
        assert!(names.contains(&kept) && !names.contains(&other), "{names:?}");
    }
    topology.groups.get_mut(&shard).unwrap().replicas.retain(|replica| *replica != old);
    save_topology(&*disk, &topology).unwrap();
    assert_eq!(open(&disk, config).unwrap().superseded, []);
    assert!(!disk.list().unwrap().contains(&kept));
}

#[test]
fn a_snapshot_that_can_not_be_read_now_is_no_lost_one() {
    let (disk, config, topology) = member_of_two();
    bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
    let snapshot = disk.list().unwrap().into_iter().find(|name| snapshot::is_snapshot(name)).unwrap();
    disk.set_unreadable(&snapshot, true);
    let Err(error @ BootError::UnreadableSnapshot { .. }) = open(&disk, config.clone()) else { panic!("it is read") };
    assert!(error.to_string().contains(&snapshot), "{error}");
    disk.set_unreadable(&snapshot, false);
    let boot = open(&disk, config).unwrap();
    assert_eq!((boot.lost, boot.replicas.len()), (vec![], topology.groups.len()));
}

#[test]
fn a_node_that_has_only_its_identity_left_trusts_none_of_its_replicas() {
    let (disk, config, topology) = member_of_two();
    let held: Vec<_> = topology.groups.iter().map(|(shard, group)| (*shard, group.replicas[0])).collect();
    let own = owner(&*disk).unwrap().unwrap();
    let mut boot = open(&disk, config.clone()).unwrap();
    boot.join(&disk, own.clone(), topology.clone(), true).unwrap();
    assert_eq!(boot.lost, held);
    // The state after a crash just before the topology is saved: the node joins again.
    disk.delete(TOPOLOGY_FILE).unwrap();
    let mut boot = open(&disk, config.clone()).unwrap();
    assert!(!boot.has_state() && !boot.has_replicas());
    boot.join(&disk, own.clone(), topology.clone(), true).unwrap();
    assert_eq!(boot.lost, held, "the second attempt to join knows them too");
    for _ in 0..2 {
        let boot = open(&disk, config.clone()).unwrap();
        assert!(boot.has_state());
        assert_eq!((&boot.lost, &boot.removed), (&held, &vec![]), "until the topology names others in their place");
    }

    let (disk, config, topology) = member_of_two();
    let mut boot = open(&disk, config).unwrap();
    boot.join(&disk, own, topology, false).unwrap();
    assert_eq!(boot.lost, vec![], "a new node has lost nothing");
}

#[test]
fn a_lost_replica_is_asked_for_until_another_takes_its_place() {
    let (disk, config, mut topology) = member_of_two();
    bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
    delete_segments(&disk);
    let mut boot = open(&disk, config.clone()).unwrap();
    assert_eq!(boot.lost.len(), 3);
    let (renewed, retired) = (ShardId(0), ShardId(1));
    let old = topology.groups[&retired].replicas[0];
    let later = ReplicaId::new(NodeId(1), 100);
    topology.groups.get_mut(&renewed).unwrap().replicas.push(later);
    topology.groups.get_mut(&retired).unwrap().replicas.clear();
    save_topology(&*disk, &topology).unwrap();
    let created = Change::State(Box::default());
    boot.log.append(&[LogItem { shard: renewed, replica: later, change: created }]).unwrap();
    boot.log.sync().unwrap();
    let boot = open(&disk, config).unwrap();
    let system = topology.groups[&ShardId::SYSTEM].replicas[0];
    assert_eq!(boot.lost, [(retired, old), (ShardId::SYSTEM, system)], "the worker removes the first");
    assert_eq!(boot.replicas.iter().map(|start| start.replica).collect::<Vec<_>>(), [later]);
}

#[test]
fn a_replica_that_was_never_created_is_no_lost_one() {
    let (disk, config, topology) = member_of_two();
    assert!(!open(&disk, config.clone()).unwrap().has_state());
    // The state of a joined node just before the first record of its replicas.
    save_topology(&*disk, &topology).unwrap();
    let boot = open(&disk, config).unwrap();
    assert_eq!((boot.lost, boot.removed, boot.findings), (vec![], vec![], vec![]));
}

#[test]
fn a_later_replica_that_a_lost_segment_knew_is_not_created_again() {
    let (disk, config, mut topology) = member_of_two();
    bootstrap(&disk, config.clone(), &topology, NodeId(1)).unwrap();
    let (first, second, third) = (ShardId(0), ShardId(1), ShardId::SYSTEM);
    let renewed = ReplicaId::new(NodeId(1), 100);
    // The log knows that the first shard's replica was removed. The second shard's replica was in the lost segment.
    let mut log = open(&disk, config.clone()).unwrap().log;
    let older = topology.groups[&first].replicas[0];
    log.append(&[LogItem { shard: first, replica: older, change: Change::Removed }]).unwrap();
    log.sync().unwrap();
    let large = vec![raft::eraftpb::Entry { index: 2, data: vec![1; 1 << 16].into(), ..Default::default() }];
    let replica = topology.groups[&second].replicas[0];
    log.append(&[LogItem { shard: second, replica, change: Change::Entries(large) }]).unwrap();
    log.sync().unwrap();
    disk.delete("log-00000000000000000002.seg").unwrap();
    for shard in [first, second] {
        topology.groups.get_mut(&shard).unwrap().replicas = vec![renewed];
    }
    save_topology(&*disk, &topology).unwrap();
    let boot = open(&disk, config).unwrap();
    assert!(boot.replicas.is_empty(), "nothing is trusted");
    for expected in [(first, renewed), (second, renewed), (third, topology.groups[&third].replicas[0])] {
        assert!(boot.lost.contains(&expected), "{expected:?} is not in {:?}", boot.lost);
    }
}

#[test]
fn a_claim_is_kept_for_the_node_that_is_missed() {
    let disk = MemDisk::new();
    let noted = Claim { cluster: ClusterId(7), name: "one".to_owned(), raft_address: "here:1".to_owned() };
    assert_eq!(claim(&disk, "one", "here:1").unwrap(), None);
    set_claim(&disk, &noted).unwrap();
    assert_eq!(claim(&disk, "one", "here:1").unwrap(), Some(ClusterId(7)));
    assert_eq!(claim(&disk, "one", "here:2").unwrap(), None, "it is another node now");
    assert_eq!(claim(&disk, "one", "here:1").unwrap(), None, "which is remembered");
}
