//! The tables under the sentence: drawn with lines on a terminal, aligned columns in a pipe.

use super::report::{liveness_name, role_name, standing_name};
use super::shard_name;
use super::verdict::SYSTEM_SHARD;
use crate::text::escaped;
use comfy_table::{Cell, CellAlignment, Table, presets};
use ringfort_client::v1::{NodeStatus, ReplicaRole, ReplicaStatus, Standing, StatusResponse};
use std::io::IsTerminal;

#[derive(Clone, Copy)]
pub enum Style {
    Lines,
    Plain,
}

/// A row a node.
pub fn nodes(status: &StatusResponse, style: Style) -> Table {
    let header = ["NODE", "ID", "GRPC", "RAFT", "ZONE", "STATE", "VERSION", "LEADS", "REPLICAS", "KEYS", "DATA", "LOG"];
    let mut table = table(style, &header);
    for node in &status.nodes {
        table.add_row([
            text(&node.name),
            number(node.id),
            text(&node.grpc_address),
            text(&node.raft_address),
            text(&node.zone),
            Cell::new(state(node)),
            text(&node.build_version),
            number(node.shards_led.into()),
            number(node.replicas.into()),
            number(node.keys),
            right(bytes(node.key_value_bytes)),
            right(bytes(node.log_bytes)),
        ]);
    }
    table
}

/// A row a shard.
pub fn shards(status: &StatusResponse, style: Style) -> Table {
    let name_of = |id: u64| match status.nodes.iter().find(|node| node.id == id) {
        Some(node) => escaped(node.name.as_bytes()),
        None => format!("node {id}"),
    };
    let mut table = table(style, &["SHARD", "SLOTS", "LEADER", "TERM", "APPLIED", "REPLICAS"]);
    for shard in &status.shards {
        let is_system = shard.shard == SYSTEM_SHARD;
        let slots = if is_system { "-".to_owned() } else { format!("{}-{}", shard.first_slot, shard.last_slot) };
        let leader = if shard.leader == 0 { "none".to_owned() } else { name_of(shard.leader) };
        let members: Vec<String> =
            shard.members.iter().map(|member| format!("{}{}", name_of(member.node), remark(member))).collect();
        table.add_row([
            right(shard_name(shard.shard)),
            Cell::new(slots),
            Cell::new(leader),
            number(shard.term),
            number(shard.applied_index),
            Cell::new(members.join(" ")),
        ]);
    }
    table
}

/// A table as it suits where it is printed.
pub fn table_style(header: &[&str]) -> Table {
    table(if std::io::stdout().is_terminal() { Style::Lines } else { Style::Plain }, header)
}

pub(super) fn table(style: Style, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(match style {
        Style::Lines => presets::UTF8_HORIZONTAL_ONLY,
        Style::Plain => presets::NOTHING,
    });
    table.set_header(header);
    table
}

pub(super) fn text(text: &str) -> Cell {
    Cell::new(escaped(text.as_bytes()))
}

pub(super) fn number(number: u64) -> Cell {
    right(number.to_string())
}

pub(super) fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn state(node: &NodeStatus) -> String {
    let dead = node.liveness.as_ref().filter(|liveness| liveness.standing() != Standing::Alive);
    let alive = match dead {
        // It answered just now, whatever its heartbeats say.
        _ if node.alive => "alive".to_owned(),
        Some(liveness) => format!("{} {} s", liveness_name(liveness.standing()), liveness.since_ms / 1000),
        None => format!("silent {} s", node.silent_ms / 1000),
    };
    match standing_name(node.standing()) {
        "active" => alive,
        standing => format!("{alive}, {standing}"),
    }
}

/// What is special about a replica, in parentheses; nothing about a voter that is caught up.
fn remark(member: &ReplicaStatus) -> String {
    let mut remarks = Vec::new();
    if member.role() != ReplicaRole::Voter {
        remarks.push(role_name(member.role()).to_owned());
    }
    if member.offline {
        remarks.push("offline".to_owned());
    } else if !member.caught_up {
        remarks.push(format!("lag {}", member.lag));
    }
    if remarks.is_empty() { String::new() } else { format!("({})", remarks.join(", ")) }
}

/// A size in the largest unit that leaves at least one before the point.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_client::v1::ShardStatus;

    #[test]
    fn plain_tables_are_aligned_columns() {
        let node = NodeStatus { id: 1, name: "node1".to_owned(), alive: true, log_bytes: 1536, ..Default::default() };
        let learner = ReplicaStatus { node: 2, role: ReplicaRole::Learner.into(), lag: 5, ..Default::default() };
        let voter = ReplicaStatus { node: 1, caught_up: true, ..Default::default() };
        let shard = |shard, last_slot, leader| ShardStatus {
            shard,
            last_slot,
            leader,
            term: 4,
            applied_index: 10,
            members: vec![voter, learner],
            ..Default::default()
        };
        let status = StatusResponse {
            nodes: vec![node],
            shards: vec![shard(0, 16_383, 1), shard(SYSTEM_SHARD, 0, 0)],
            ..Default::default()
        };
        let words = |table: Table| -> Vec<Vec<String>> {
            let lines = table.to_string();
            lines.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
        };
        let nodes = words(nodes(&status, Style::Plain));
        assert_eq!(nodes[1], ["node1", "1", "alive", "0", "0", "0", "0", "B", "1.5", "KiB"]);
        let shards = words(shards(&status, Style::Plain));
        assert_eq!(shards[1], ["0", "0-16383", "node1", "4", "10", "node1", "node", "2(learner,", "lag", "5)"]);
        assert_eq!(shards[2][..3], ["system", "-", "none"]);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            [0, 1023, 1024, 1 << 20, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "16777216.0 TiB"]
        );
    }
}
