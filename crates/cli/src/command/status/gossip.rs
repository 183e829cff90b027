//! `ringfort status --gossip`: what one node knows without asking others.

use super::report::liveness_name;
use super::tables::{Style, bytes, is_wider, number, right, table as empty_table, text};
use crate::text::{counted, duration};
use comfy_table::{Cell, Table};
use ringfort_client::v1::{GossipMember, GossipResponse, LivenessState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The answer of `-o json`. Field names are stable.
#[derive(Serialize)]
pub struct Report<'a> {
    node: u64,
    nodes: Vec<Node<'a>>,
    keys: u64,
    tombstones: u64,
    bytes: u64,
    /// 16 hexadecimal digits: JSON numbers end at 2^53.
    hash: String,
    missing: u64,
    diverged: &'a [u64],
    rounds: u64,
    refused: BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
struct Node<'a> {
    id: u64,
    name: &'a str,
    /// Alive, suspect or dead; null for the node that answers, as are the following fields.
    liveness: Option<&'static str>,
    since_ms: Option<u64>,
    reason: Option<&'a str>,
    heard_ms: Option<u64>,
    incarnation: u64,
    heartbeat: u64,
    epoch: u64,
    build_version: &'a str,
    shards_led: u32,
    keys: u64,
    key_value_bytes: u64,
    clock_ahead_us: i64,
    lag: Option<u64>,
}

impl<'a> Report<'a> {
    pub fn new(gossip: &'a GossipResponse) -> Report<'a> {
        Report {
            node: gossip.node,
            nodes: gossip.members.iter().map(node).collect(),
            keys: gossip.keys,
            tombstones: gossip.tombstones,
            bytes: gossip.bytes,
            hash: format!("{:016x}", gossip.hash),
            missing: gossip.missing,
            diverged: &gossip.diverged,
            rounds: gossip.rounds,
            refused: gossip.refused.iter().map(|(kind, &count)| (&kind[..], count)).collect(),
        }
    }
}

fn node(member: &GossipMember) -> Node<'_> {
    let liveness = member.liveness.as_ref();
    Node {
        id: member.id,
        name: &member.name,
        liveness: liveness.map(|liveness| liveness_name(liveness.state())),
        since_ms: liveness.map(|liveness| liveness.since_ms),
        reason: liveness.map(|liveness| &liveness.reason[..]),
        heard_ms: liveness.map(|liveness| liveness.heard_ms),
        incarnation: member.incarnation,
        heartbeat: member.heartbeat,
        epoch: member.epoch,
        build_version: &member.build_version,
        shards_led: member.shards_led,
        keys: member.keys,
        key_value_bytes: member.key_value_bytes,
        clock_ahead_us: member.clock_ahead_us,
        lag: member.lag,
    }
}

/// The state of the eventual keyspace, and what is wrong.
pub fn sentence(gossip: &GossipResponse) -> String {
    let name_of = |id: u64| gossip.members.iter().find(|member| member.id == id).map_or("?", |member| &member.name);
    let count = |state| {
        let members = gossip.members.iter().filter_map(|member| member.liveness.as_ref());
        members.filter(|liveness| liveness.state() == state).count()
    };
    let mut sentence = format!(
        "{} of {} nodes are alive according to {}; its copy of the eventual keyspace has {} in {}",
        gossip.members.len() - count(LivenessState::Suspect) - count(LivenessState::Dead),
        gossip.members.len(),
        name_of(gossip.node),
        counted(gossip.keys as usize, "key"),
        bytes(gossip.bytes),
    );
    if gossip.missing > 0 {
        sentence += &format!(" and lacks {}", counted(gossip.missing as usize, "write"));
    }
    for &node in &gossip.diverged {
        let name = name_of(node);
        sentence += &format!("; {name} holds different data and does not converge: see docs/gossip.md");
    }
    let refused: Vec<String> = gossip.refused.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if !refused.is_empty() {
        let mut refused = refused;
        refused.sort();
        sentence += &format!("; refused messages: {}", refused.join(", "));
    }
    sentence
}

/// A row for each node: all columns if they fit into `width`, otherwise the most important ones.
pub fn table(gossip: &GossipResponse, style: Style, width: Option<usize>) -> Table {
    let all = table_of(gossip, style, true);
    if width.is_some_and(|width| is_wider(&all, width)) { table_of(gossip, style, false) } else { all }
}

fn table_of(gossip: &GossipResponse, style: Style, has_all: bool) -> Table {
    const FEW: [&str; 6] = ["NODE", "STATE", "SINCE", "WHY", "HEARD", "LAG"];
    const ALL: [&str; 12] =
        ["NODE", "ID", "STATE", "SINCE", "WHY", "HEARD", "BEATS", "EPOCH", "VERSION", "LEADS", "CLOCK", "LAG"];
    let columns: &[&str] = if has_all { &ALL } else { &FEW };
    let mut table = empty_table(style, columns);
    for member in &gossip.members {
        // A healthy node was heard less than a second ago.
        let seconds = |ms: u64| right(format!("{:.1} s", ms as f64 / 1000.0));
        let since = |ms: u64| right(duration(Duration::from_millis(ms)));
        let dash = || Cell::new("-");
        let liveness = member.liveness.as_ref();
        table.add_row(columns.iter().map(|column| match *column {
            "NODE" => text(&member.name),
            "ID" => number(member.id),
            "STATE" => {
                liveness.map_or_else(|| Cell::new("itself"), |liveness| Cell::new(liveness_name(liveness.state())))
            }
            "SINCE" => liveness.map_or_else(dash, |liveness| since(liveness.since_ms)),
            "WHY" => liveness.map_or_else(dash, |liveness| text(&liveness.reason)),
            "HEARD" => liveness.map_or_else(dash, |liveness| seconds(liveness.heard_ms)),
            "BEATS" => number(member.heartbeat),
            "EPOCH" => number(member.epoch),
            "VERSION" => text(&member.build_version),
            "LEADS" => number(member.shards_led.into()),
            "CLOCK" => liveness.map_or_else(dash, |_| right(format!("{:+} ms", member.clock_ahead_us / 1000))),
            _ => member.lag.map_or_else(dash, number),
        }));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_client::v1::Liveness;

    fn gossip() -> GossipResponse {
        let liveness = Liveness {
            state: LivenessState::Dead.into(),
            since_ms: 1_200_000,
            reason: "heartbeats".into(),
            heard_ms: 9000,
        };
        let one = GossipMember { id: 1, name: "node1".into(), lag: Some(0), ..Default::default() };
        let two = GossipMember { id: 2, name: "node2".into(), liveness: Some(liveness), ..Default::default() };
        let refused = [("late".to_owned(), 3)].into();
        GossipResponse { node: 1, members: vec![one, two], keys: 7, diverged: vec![2], refused, ..Default::default() }
    }

    #[test]
    fn the_sentence_says_what_is_wrong() {
        let sentence = sentence(&gossip());
        assert!(
            sentence
                .starts_with("1 of 2 nodes are alive according to node1; its copy of the eventual keyspace has 7 keys")
        );
        assert!(sentence.contains("; node2 holds different data"));
        assert!(sentence.ends_with("; refused messages: 3 late"));
    }

    #[test]
    fn a_node_is_a_row_and_an_object() {
        let gossip = gossip();
        let table = table(&gossip, Style::Plain, None).to_string();
        let row: Vec<&str> = table.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row[..8], ["node2", "2", "dead", "20", "min", "heartbeats", "9.0", "s"]);
        let json = serde_json::to_value(Report::new(&gossip)).unwrap();
        assert_eq!(json["nodes"][1]["liveness"], "dead");
        assert_eq!((&json["nodes"][0]["liveness"], &json["nodes"][0]["lag"]), (&serde_json::Value::Null, &0.into()));
    }

    #[test]
    fn a_terminal_of_eighty_columns_has_room_for_a_row() {
        let mut gossip = gossip();
        gossip.members[1].name = "ringfort-2.example.org".into();
        let liveness = gossip.members[1].liveness.as_mut().unwrap();
        (liveness.since_ms, liveness.reason) = (90_000, "indirect checks failed".into());
        let widths =
            |width| table(&gossip, Style::Lines, width).lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widths(Some(80)) <= 80 && widths(None) > 80);
        assert_eq!(widths(Some(200)), widths(None));
    }
}
