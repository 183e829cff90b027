//! Three nodes in separate network namespaces, joined by a bridge, with iptables between them: packets are dropped as
//! by a switch or a firewall, on existing and on new connections. `ringfort playground --chaos` does the same without
//! root through a proxy process, which accepts connections that are then not answered.
//!
//! Meanwhile the wall clocks of the affected nodes step by ten seconds. A node that used the time of day to measure how
//! long it has not heard from the others would continue to serve reads, which are stale by then.

use crate::support::verifying::Verifying;
use crate::support::wall_clock::WallClock;
use crate::support::{Cluster, PATIENCE, Writers, assert_all_there, program, text};
use crate::{SMALL, skip};
use ringfort_client::Client;
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const NODES: usize = 3;

/// The time between the writes before a partition and those after it: longer than it takes to elect a new leader.
const CUT: Duration = Duration::from_millis(2500);

fn does(command: &str) -> Result<(), String> {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).output();
    let output = output.map_err(|error| format!("{command}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command}: {}", text(&output.stderr))) }
}

/// A bridge and namespaces of this process, removed when it is dropped.
struct Machines {
    id: u32,
}

impl Machines {
    /// # Errors
    /// What is not permitted here, or missing.
    fn start() -> Result<Machines, String> {
        let id = std::process::id();
        let machines = Machines { id };
        does("iptables --version")?;
        does(&format!("ip link add rf{id} type bridge"))?;
        does(&format!("ip address add {}/24 dev rf{id}", machines.address(254)))?;
        does(&format!("ip link set rf{id} up"))?;
        for number in 0..NODES {
            let (name, link) = (machines.namespace(number), format!("rf{id}v{number}"));
            does(&format!("ip netns add {name}"))?;
            does(&format!("ip link add {link} type veth peer name eth0 netns {name}"))?;
            does(&format!("ip link set {link} master rf{id} up"))?;
            let address = machines.address(number + 1);
            for inside in [
                format!("ip address add {address}/24 dev eth0"),
                "ip link set eth0 up".to_owned(),
                "ip link set lo up".to_owned(),
                "iptables --list".to_owned(),
            ] {
                machines.does_in(number, &inside)?;
            }
        }
        Ok(machines)
    }

    fn namespace(&self, number: usize) -> String {
        format!("rf{}n{number}", self.id)
    }

    /// The address of a node, in a network that concurrent tests do not share.
    fn address(&self, host: usize) -> String {
        format!("10.83.{}.{host}", self.id % 256)
    }

    fn does_in(&self, number: usize, command: &str) -> Result<(), String> {
        does(&format!("ip netns exec {} {command}", self.namespace(number)))
    }

    /// Drops packets from `from` to `to`.
    fn cut(&self, from: usize, to: usize) {
        let drop = format!("iptables --append INPUT --source {} --jump DROP", self.address(from + 1));
        self.does_in(to, &drop).unwrap();
    }

    fn heal(&self) {
        (0..NODES).for_each(|number| self.does_in(number, "iptables --flush INPUT").unwrap());
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        // The links are removed with their namespaces.
        for number in 0..NODES {
            let _ = does(&format!("ip netns delete {}", self.namespace(number)));
        }
        let _ = does(&format!("ip link delete rf{}", self.id));
    }
}

/// A partition, and a clock that is wrong from then on.
struct Cut {
    what: &'static str,
    /// Pairs of sender and receiver whose messages are dropped.
    pairs: &'static [(usize, usize)],
    stepping: usize,
    seconds: i32,
}

/// Waits until every shard has all its replicas and they have caught up.
async fn wait_until_whole(endpoints: &str) {
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < PATIENCE {
        let output = program().args(["status", "-o", "json", "--endpoints", endpoints]).output().unwrap();
        if let Ok(status) = serde_json::from_slice::<Value>(&output.stdout) {
            last = status["summary"].to_string();
            if status["healthy"] == true && status["node_failures_tolerated"] == 1 {
                return;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("not whole within {PATIENCE:?}: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn firewalls_between_machines_lose_nothing_and_no_read_is_stale() {
    let machines = match Machines::start() {
        Ok(machines) => machines,
        Err(why) => return skip(&why),
    };
    let clock = WallClock::find();
    if clock.is_none() {
        println!("without clocks that step: faketime is not installed");
    }
    let mut cluster = Cluster::prepare(NODES, &SMALL);
    let first = format!("{}:{}", machines.address(1), cluster.nodes[0].port);
    let mut endpoints = Vec::new();
    for (number, node) in cluster.nodes.iter_mut().enumerate() {
        node.set(&format!("--listen={}", machines.address(number + 1)));
        node.set("--insecure=true");
        if number > 0 {
            node.set(&format!("--join_addr={first}"));
        }
        endpoints.push(format!("{}:{}", machines.address(number + 1), node.port));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &machines.namespace(number)]).arg(program().get_program());
        if let Some(clock) = &clock {
            clock.set(node, 0);
            clock.take_effect(&mut command, node);
        }
        node.start_by(command);
    }
    let all = endpoints.join(",");
    wait_until_whole(&all).await;
    let client = Client::connect(&endpoints).unwrap().with_timeout(Duration::from_secs(2));
    let verifying = Verifying::start(&all);
    let writers = Writers::start(&client, "cut");
    writers.wait_for(200).await;

    let cuts = [
        Cut { what: "node1 is cut off", pairs: &[(0, 1), (1, 0), (0, 2), (2, 0)], stepping: 0, seconds: -10 },
        Cut { what: "node2 is cut off", pairs: &[(1, 0), (0, 1), (1, 2), (2, 1)], stepping: 1, seconds: -10 },
        Cut { what: "node2 and node3 do not hear each other", pairs: &[(1, 2), (2, 1)], stepping: 2, seconds: 10 },
        Cut { what: "node1 does not hear node2", pairs: &[(1, 0)], stepping: 0, seconds: 10 },
        Cut { what: "no node hears node3", pairs: &[(2, 0), (2, 1)], stepping: 2, seconds: -10 },
        Cut { what: "node2 hears no node", pairs: &[(0, 1), (2, 1)], stepping: 1, seconds: 10 },
    ];
    for Cut { what, pairs, stepping, seconds } in cuts {
        pairs.iter().for_each(|(from, to)| machines.cut(*from, *to));
        if let Some(clock) = &clock {
            clock.set(&cluster.nodes[stepping], seconds);
        }
        sleep(CUT).await;
        let waited = writers.wait_for(50).await;
        println!("{what}: 50 more writes within {waited:?}");
        machines.heal();
        wait_until_whole(&all).await;
        writers.wait_for(50).await;
    }
    verifying.finish();
    let acknowledged = writers.stop().await;
    assert_all_there(&client, &acknowledged).await;
}
