//! The README's tour, with exactly its flags.

use crate::support::{Cluster, Node, run, summary, text};

#[test]
fn any_node_may_stop_and_come_back_by_its_same_command() {
    let mut cluster = Cluster::prepare(3, &[]);
    cluster.nodes.iter_mut().for_each(Node::start);
    let status = cluster.wait_until_complete(3);
    assert_eq!(summary(&status), "3 nodes, 64 shards, tolerates 1 node failure; all replicas caught up");
    assert_eq!(cluster.prints(&["put", "greeting", "hello"]), "OK, version 1\n");
    for endpoint in cluster.endpoints() {
        assert_eq!(text(&run(&["get", "greeting"], &endpoint, b"").stdout), "hello", "asked at {endpoint}");
    }

    // A node that joined, then the one that began the cluster.
    for (stopped, version) in [(2, 2), (0, 3)] {
        let name = cluster.nodes[stopped].name.clone();
        assert!(cluster.nodes[stopped].interrupt().success(), "{name}: Ctrl-C is a clean end");
        let value = format!("without {name}");
        assert_eq!(cluster.prints(&["put", "greeting", &value]), format!("OK, version {version}\n"));
        assert_eq!(cluster.prints(&["get", "greeting"]), value);
        let alone = format!("3 nodes, 64 shards, tolerates no node failure; {name} has been silent for ");
        let status = cluster.wait_for_status("the silent node is named, and nothing else is wrong", |status| {
            status["summary"].as_str().is_some_and(|summary| summary.starts_with(&alone))
        });
        assert_eq!(status["healthy"], false);

        cluster.nodes[stopped].start();
        cluster.wait_until_complete(3);
        let endpoint = cluster.nodes[stopped].endpoint();
        assert_eq!(text(&run(&["get", "greeting"], &endpoint, b"").stdout), value, "asked at {name}");
    }

    for node in &mut cluster.nodes {
        assert!(node.interrupt().success(), "{}", node.name);
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_until_complete(3);
    assert_eq!(cluster.prints(&["get", "greeting"]), "without node1");
}
