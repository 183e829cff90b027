//! The tables under the sentence: drawn with lines on a terminal, aligned columns in a pipe.

use super::report::{liveness_name, member_state_name, role_name};
use super::shard_name;
use super::trouble::disk_name;
use super::verdict::SYSTEM_SHARD;
use crate::text::{duration, escaped};
use comfy_table::{Cell, CellAlignment, Table, TableComponent, presets};
use ringfort_client::v1::{
    DiskHealth, LivenessState, MemberState, NodeStatus, ReplicaRole, ReplicaStatus, ShardStatus, StatusResponse,
};
use std::io::IsTerminal;
use std::time::Duration;

#[derive(Clone, Copy)]
pub enum Style {
    Lines,
    Plain,
}

/// The columns of the table of nodes, and what is left of them on narrower and narrower terminals.
const NODE_COLUMNS: [&[&str]; 4] = [
    &["NODE", "ID", "GRPC", "RAFT", "ZONE", "STATE", "VERSION", "LEADS", "REPLICAS", "KEYS", "DATA", "LOG"],
    &["NODE", "GRPC", "STATE", "LEADS", "REPLICAS", "KEYS", "DATA"],
    &["NODE", "GRPC", "STATE", "KEYS", "DATA"],
    &["NODE", "STATE", "KEYS"],
];

/// A row for each node: all columns if they fit into `width`, otherwise the most important ones.
pub fn nodes(status: &StatusResponse, style: Style, width: Option<usize>) -> Table {
    let [all @ .., fewest] = NODE_COLUMNS;
    let mut tables = all.into_iter().map(|columns| nodes_table(status, style, columns));
    let fits = |table: &Table| width.is_none_or(|width| !is_wider(table, width));
    tables.find(fits).unwrap_or_else(|| nodes_table(status, style, fewest))
}

/// Whether a line of the table would wrap on a terminal that is `width` columns wide.
pub fn is_wider(table: &Table, width: usize) -> bool {
    table.lines().any(|line| line.chars().count() > width)
}

fn nodes_table(status: &StatusResponse, style: Style, columns: &[&str]) -> Table {
    let mut table = table(style, columns);
    for node in &status.nodes {
        // The contents of a silent node are unknown, which is not the same as zero.
        let known = |text: String| right(if node.alive { text } else { "-".to_owned() });
        table.add_row(columns.iter().map(|column| match *column {
            "NODE" => text(&node.name),
            "ID" => number(node.id),
            "GRPC" => text(&node.grpc_address),
            "RAFT" => text(&node.raft_address),
            "ZONE" => text(&node.zone),
            "STATE" => Cell::new(state(node)),
            "VERSION" => text(&node.build_version),
            "LEADS" => known(node.shards_led.to_string()),
            "REPLICAS" => known(node.replicas.to_string()),
            "KEYS" => known(node.keys.to_string()),
            "DATA" => known(bytes(node.key_value_bytes)),
            _ => known(bytes(node.log_bytes)),
        }));
    }
    table
}

/// A summary of all shards, in one sentence.
pub fn shards_in_short(status: &StatusResponse) -> String {
    let shards: Vec<_> = status.shards.iter().filter(|shard| shard.shard != SYSTEM_SHARD).collect();
    let count = |matches: fn(&ShardStatus) -> bool| shards.iter().filter(|shard| matches(shard)).count();
    let (led, lacking) = (count(|shard| shard.leader != 0), count(lacks));
    let behind = count(|shard| shard.leader != 0 && !lacks(shard) && lags(shard));
    let leaving = count(|shard| shard.leader != 0 && !lacks(shard) && !lags(shard) && !is_well(shard));
    let mut said = vec![match shards.len() {
        0 => "no shard was reported".to_owned(),
        all if count(is_well) == all => format!("all {all} shards have a leader, and all replicas are caught up"),
        all => format!("{led} of {all} shards have a leader"),
    }];
    if lacking > 0 {
        said.push(format!("{lacking} {} a replica", if lacking == 1 { "lacks" } else { "lack" }));
    }
    if behind > 0 {
        said.push(format!("{behind} {} for a replica to catch up", if behind == 1 { "waits" } else { "wait" }));
    }
    if leaving > 0 {
        said.push(format!("{leaving} {} a replica that leaves", if leaving == 1 { "has" } else { "have" }));
    }
    // Only a leader reports what its shard holds.
    let bytes_held = bytes(shards.iter().map(|shard| shard.key_value_bytes).sum());
    said.push(match led {
        0 => "the amount of data is unknown".to_owned(),
        led if led < shards.len() => format!("at least {bytes_held} of data"),
        _ => format!("{bytes_held} of data"),
    });
    format!("{}; --shards lists each", said.join("; "))
}

/// Whether a replica of the shard does not take part.
fn lacks(shard: &ShardStatus) -> bool {
    shard.members.iter().any(|member| member.offline && member.role() != ReplicaRole::Leaving)
}

/// Whether a replica of the shard has not caught up, or is still to become a voter.
fn lags(shard: &ShardStatus) -> bool {
    shard.members.iter().any(|member| member.role() != ReplicaRole::Leaving && !remark(member).is_empty())
}

/// Whether a shard has a leader and no replica with a remark.
fn is_well(shard: &ShardStatus) -> bool {
    shard.leader != 0 && shard.members.iter().all(|member| remark(member).is_empty())
}

/// A row for each shard with a problem, up to a limit, and how many more there are; `None` if there are no problems.
pub fn shards_in_trouble(status: &StatusResponse, style: Style) -> Option<String> {
    const SHOWN: usize = 10;
    let mut few: Vec<_> = status.shards.iter().filter(|shard| !is_well(shard)).cloned().collect();
    let more = few.len().saturating_sub(SHOWN);
    few.truncate(SHOWN);
    (!few.is_empty()).then(|| {
        let table = shards(&StatusResponse { shards: few, ..status.clone() }, style);
        if more == 0 { table.to_string() } else { format!("{table}\n… and {more} more: --shards") }
    })
}

/// One row per shard.
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

/// A table in the style that suits the output, terminal or pipe.
pub fn table_style(header: &[&str]) -> Table {
    table(if std::io::stdout().is_terminal() { Style::Lines } else { Style::Plain }, header)
}

pub(super) fn table(style: Style, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(match style {
        Style::Lines => presets::UTF8_HORIZONTAL_ONLY,
        Style::Plain => presets::NOTHING,
    });
    // Lines between the rows would double the height.
    for component in [
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::LeftBorderIntersections,
        TableComponent::RightBorderIntersections,
    ] {
        table.remove_style(component);
    }
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
    let dead = node.liveness.as_ref().filter(|liveness| liveness.state() != LivenessState::Alive);
    let silence = duration(Duration::from_millis(node.silent_ms));
    let alive = match dead {
        // The node has just answered, whatever its heartbeats say.
        _ if node.alive => {
            let disk = node.health.unwrap_or_default().disk();
            let disk = (disk != DiskHealth::Healthy).then(|| format!("disk {}", disk_name(disk)));
            let memory = node.memory_full.then(|| "memory full".to_owned());
            ["alive".to_owned()].into_iter().chain(disk).chain(memory).collect::<Vec<_>>().join(", ")
        }
        // For as long as the sentence says. It was not known to be dead all the time.
        Some(liveness) if node.silent_ms >= 1000 => format!("{} {silence}", liveness_name(liveness.state())),
        Some(liveness) => liveness_name(liveness.state()).to_owned(),
        None if node.silent_ms < 1000 => "does not answer".to_owned(),
        None => format!("silent {silence}"),
    };
    match node.member_state() {
        MemberState::Active => alive,
        MemberState::Dead => format!("{alive}, declared dead"),
        state => format!("{alive}, {}", member_state_name(state)),
    }
}

/// What is special about a replica, in parentheses; nothing about a voter that is caught up.
fn remark(member: &ReplicaStatus) -> String {
    let mut remarks = Vec::new();
    if member.role() != ReplicaRole::Voter {
        remarks.push(role_name(member.role()).to_owned());
    }
    if member.role() == ReplicaRole::Leaving {
        // Whether it lags does not matter any more.
    } else if member.offline {
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
    use ringfort_client::v1::{Liveness, NodeHealthStatus};

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
        let wide = words(nodes(&status, Style::Plain, Some(200)));
        assert_eq!(wide[0].len(), 12);
        let narrow = nodes(&status, Style::Lines, Some(80));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        let mut two = status.clone();
        two.nodes.push(two.nodes[0].clone());
        let heights = [&status, &two].map(|status| nodes(status, Style::Lines, Some(80)).lines().count());
        assert_eq!(heights[1], heights[0] + 1, "a row is a line");
        let nodes = words(nodes(&status, Style::Plain, None));
        assert_eq!(nodes[1], ["node1", "1", "alive", "0", "0", "0", "0", "B", "1.5", "KiB"]);
        let shards = words(shards(&status, Style::Plain));
        assert_eq!(shards[1], ["0", "0-16383", "node1", "4", "10", "node1", "node", "2(learner,", "lag", "5)"]);
        assert_eq!(shards[2][..3], ["system", "-", "none"]);
    }

    #[test]
    fn whether_a_node_lives_and_whether_it_was_given_up_are_different_words() {
        let given_up = |node| NodeStatus { member_state: MemberState::Dead.into(), ..node };
        let alive = NodeStatus { alive: true, ..Default::default() };
        assert_eq!(state(&given_up(alive)), "alive, declared dead");
        let liveness = Liveness { state: LivenessState::Dead.into(), since_ms: 12_000, ..Default::default() };
        let dead = NodeStatus { silent_ms: 17_000, liveness: Some(liveness), ..Default::default() };
        assert_eq!(state(&dead), "dead 17 s");
        assert_eq!(state(&given_up(dead)), "dead 17 s, declared dead");
    }

    #[test]
    fn the_table_fits_into_a_narrow_terminal_whatever_is_wrong() {
        let node = NodeStatus {
            id: 1,
            name: "node1".to_owned(),
            grpc_address: "127.0.0.1:50051".to_owned(),
            alive: true,
            keys: 1_000_000,
            key_value_bytes: 1 << 29,
            memory_full: true,
            ..Default::default()
        };
        let mut status = StatusResponse { nodes: vec![node], ..Default::default() };
        for (width, disk, columns) in [(80, DiskHealth::Healthy, 5), (60, DiskHealth::Recovering, 3)] {
            status.nodes[0].health = Some(NodeHealthStatus { disk: disk.into(), ..Default::default() });
            let table = nodes(&status, Style::Lines, Some(width));
            assert!(!is_wider(&table, width), "{table}");
            assert_eq!(table.header().unwrap().cell_count(), columns, "{table}");
        }
    }

    #[test]
    fn a_shard_whose_former_replica_leaves_waits_for_nothing_to_catch_up() {
        let voter = ReplicaStatus { node: 1, caught_up: true, ..Default::default() };
        let leaving = ReplicaStatus { role: ReplicaRole::Leaving.into(), offline: true, lag: 1, ..Default::default() };
        let shard = ShardStatus { leader: 1, members: vec![voter, leaving], ..Default::default() };
        let said = shards_in_short(&StatusResponse { shards: vec![shard], ..Default::default() });
        assert!(said.starts_with("1 of 1 shards have a leader; 1 has a replica that leaves; "), "{said}");
        assert_eq!(remark(&leaving), "(leaving)");
    }

    #[test]
    fn nothing_is_said_of_what_a_silent_node_holds() {
        let silent = NodeStatus { id: 1, name: "node1".to_owned(), ..Default::default() };
        let status = StatusResponse { nodes: vec![silent], ..Default::default() };
        let row = nodes(&status, Style::Plain, None).lines().nth(1).unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["node1", "1", "does", "not", "answer", "-", "-", "-", "-", "-"]
        );
    }

    #[test]
    fn shards_are_told_in_short_and_those_that_are_not_well_by_name() {
        let voter = |caught_up| ReplicaStatus { node: 1, caught_up, ..Default::default() };
        let shard = |shard, caught_up| ShardStatus {
            shard,
            leader: 1,
            key_value_bytes: 1024,
            members: vec![voter(caught_up)],
            ..Default::default()
        };
        let mut status = StatusResponse {
            shards: vec![shard(0, true), shard(1, true), shard(SYSTEM_SHARD, true)],
            ..Default::default()
        };
        let said = shards_in_short(&status);
        assert!(said.starts_with("all 2 shards have a leader, and all replicas are caught up; 2.0 KiB"), "{said}");
        assert!(shards_in_trouble(&status, Style::Plain).is_none());
        status.shards[1] = shard(1, false);
        let said = shards_in_short(&status);
        assert!(
            said.starts_with("2 of 2 shards have a leader; 1 waits for a replica to catch up; 2.0 KiB of data;"),
            "{said}"
        );
        assert_eq!(shards_in_trouble(&status, Style::Plain).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_node_that_is_away_is_no_outage_and_what_is_unknown_is_not_nothing() {
        let away = ReplicaStatus { node: 2, offline: true, ..Default::default() };
        let here = ReplicaStatus { node: 1, caught_up: true, ..Default::default() };
        let shard = |shard| ShardStatus {
            shard,
            leader: 1,
            key_value_bytes: 1,
            members: vec![here, away],
            ..Default::default()
        };
        let mut status = StatusResponse { shards: (0..64).map(shard).collect(), ..Default::default() };
        let said = shards_in_short(&status);
        assert!(said.starts_with("64 of 64 shards have a leader; 64 lack a replica; 64 B of data;"), "{said}");
        let table = shards_in_trouble(&status, Style::Plain).unwrap();
        assert_eq!((table.lines().count(), table.lines().last().unwrap()), (12, "… and 54 more: --shards"));
        let mut leaderless = |shard: usize| {
            (status.shards[shard].leader, status.shards[shard].key_value_bytes) = (0, 0);
            shards_in_short(&status)
        };
        let said = leaderless(0);
        assert!(said.starts_with("63 of 64 shards have a leader; 64 lack a replica; at least 63 B of data;"), "{said}");
        for shard in 1..63 {
            leaderless(shard);
        }
        let said = leaderless(63);
        assert!(
            said.starts_with("0 of 64 shards have a leader; 64 lack a replica; the amount of data is unknown;"),
            "{said}"
        );
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            [0, 1023, 1024, 1 << 20, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "16777216.0 TiB"]
        );
    }
}
