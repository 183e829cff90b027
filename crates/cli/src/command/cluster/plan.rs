//! `ringfort cluster plan`.

use crate::client_options::{ClientOptions, Output};
use crate::command::status::shard_name;
use crate::command::status::tables::{bytes, table_style};
use crate::command::status::verdict::some_of;
use crate::command::{print_json, print_line};
use crate::failure::{Answer, Failure};
use crate::text::{counted, escaped};
use clap::Args;
use comfy_table::Table;
use ringfort_client::v1::{MemberState, PlanResponse, PlannedMove, StatusResponse};
use serde::Serialize;

/// Show what would move and why, without moving it
///
/// If the cluster is balanced, there is nothing to move. With --leave, shows what would move if those nodes left one
/// after the other and, if the cluster would refuse that now, why.
#[derive(Args, Debug)]
pub struct Plan {
    /// A node that would leave. Can be given several times.
    #[arg(long, value_name = "NODE")]
    leave: Vec<String>,

    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Serialize)]
struct Report<'a> {
    epoch: u64,
    paused: bool,
    /// Why the nodes given with --leave could not leave now; null if they could.
    refused: Option<&'a str>,
    moves: Vec<Move<'a>>,
}

#[derive(Serialize)]
struct Move<'a> {
    /// A number, or "system".
    shard: String,
    gains: &'a [String],
    loses: &'a [String],
    /// The new leader, if the leader changes.
    leader: Option<&'a str>,
    bytes: u64,
    reason: &'a str,
}

impl Plan {
    pub fn run(self) -> Result<Answer, Failure> {
        let plan = self.client.run(async |client| Ok(client.plan(self.leave.clone()).await?))?;
        match self.client.output {
            Output::Json => print_json(&Report {
                epoch: plan.epoch,
                paused: plan.paused,
                refused: (!plan.refused.is_empty()).then_some(&plan.refused),
                moves: plan.moves.iter().map(report).collect(),
            })?,
            Output::Table => {
                let status = self.client.run(async |client| Ok(client.status().await?))?;
                if !plan.refused.is_empty() {
                    print_line(&format!("leaving would be refused now: {}", escaped(plan.refused.as_bytes())))?;
                } else if let Some(warning) = warning(&status) {
                    print_line(&warning)?;
                }
                print_line(&summary(&plan))?;
                if !plan.moves.is_empty() {
                    print_line(&format!("\n{}", table(&plan.moves)))?;
                }
            }
        }
        Ok(Answer::Yes)
    }
}

fn report(planned: &PlannedMove) -> Move<'_> {
    Move {
        shard: shard_name(planned.shard),
        gains: &planned.gains,
        loses: &planned.loses,
        leader: (!planned.leader.is_empty()).then_some(&planned.leader),
        bytes: planned.bytes,
        reason: &planned.reason,
    }
}

/// Which parts of the plan will wait, and for what, if any will.
fn warning(status: &StatusResponse) -> Option<String> {
    let silent = status.nodes.iter().filter(|node| !node.alive && node.member_state() == MemberState::Active);
    let silent: Vec<String> = silent.map(|node| escaped(node.name.as_bytes())).collect();
    let wait = "moves to it and from it wait until it is started again or leaves";
    match &silent[..] {
        [] => None,
        [one] => Some(format!("{one} does not answer: {wait}")),
        _ => Some(format!("{} do not answer: moves to them and from them wait", some_of(&silent))),
    }
}

fn summary(plan: &PlanResponse) -> String {
    let copies: usize = plan.moves.iter().map(|planned| planned.gains.len()).sum();
    let leaders = plan.moves.iter().filter(|planned| !planned.leader.is_empty()).count();
    let data = plan.moves.iter().map(|planned| planned.bytes).sum();
    let mut text = match (copies, leaders) {
        _ if plan.moves.is_empty() => "nothing to move".to_owned(),
        (0, _) => format!("no data to copy, {} to change", counted(leaders, "leader")),
        _ => format!(
            "{} to copy, {} of data, {} to change",
            counted(copies, "replica"),
            bytes(data),
            counted(leaders, "leader")
        ),
    };
    if plan.paused {
        text += "; moves are paused: `ringfort cluster resume` ends the pause";
    }
    text
}

fn table(moves: &[PlannedMove]) -> Table {
    let mut table = table_style(&["SHARD", "TO", "FROM", "LEADER", "DATA", "WHY"]);
    let names = |names: &[String]| -> String {
        let names: Vec<String> = names.iter().map(|name| escaped(name.as_bytes())).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(" ") }
    };
    for planned in moves {
        let leader = if planned.leader.is_empty() { "-".to_owned() } else { escaped(planned.leader.as_bytes()) };
        table.add_row([
            shard_name(planned.shard),
            names(&planned.gains),
            names(&planned.loses),
            leader,
            bytes(planned.bytes),
            escaped(planned.reason.as_bytes()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_client::v1::NodeStatus;

    #[test]
    fn the_summary_counts_copies_and_leaders() {
        let planned = |gains: &[&str], leader: &str, bytes| PlannedMove {
            gains: gains.iter().map(|name| name.to_string()).collect(),
            leader: leader.to_owned(),
            bytes,
            ..Default::default()
        };
        let plan = |moves| PlanResponse { moves, ..Default::default() };
        assert_eq!(summary(&plan(vec![])), "nothing to move");
        assert_eq!(summary(&plan(vec![planned(&[], "a", 0)])), "no data to copy, 1 leader to change");
        let moves = vec![planned(&["a", "b"], "a", 2048), planned(&["a"], "", 1024)];
        assert_eq!(summary(&plan(moves)), "3 replicas to copy, 3.0 KiB of data, 1 leader to change");
        let dead = |name: &str| NodeStatus { name: name.to_owned(), ..Default::default() };
        let live = NodeStatus { alive: true, ..dead("c") };
        let told = |nodes| warning(&StatusResponse { nodes, ..Default::default() });
        assert_eq!(told(vec![live.clone()]), None);
        assert!(told(vec![dead("a"), live]).unwrap().starts_with("a does not answer: moves to it"));
        assert!(told(vec![dead("a"), dead("b")]).unwrap().starts_with("a, b do not answer"));
    }
}
