//! `ringfort cluster plan`.

use crate::client_options::{ClientOptions, Output};
use crate::command::status::shard_name;
use crate::command::status::tables::{bytes, table_style};
use crate::command::{print_json, print_line};
use crate::failure::{Answer, Failure};
use crate::text::escaped;
use clap::Args;
use comfy_table::Table;
use ringfort_client::v1::{PlanResponse, PlannedMove};
use serde::Serialize;

/// Show what would move, and why, without doing it
///
/// Of a cluster at rest there is nothing to move. With --leave: what would if those nodes were to leave.
#[derive(Args, Debug)]
pub struct Plan {
    /// A node that would leave. May be given more than once.
    #[arg(long, value_name = "NODE")]
    leave: Vec<String>,

    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Serialize)]
struct Report<'a> {
    epoch: u64,
    paused: bool,
    moves: Vec<Move<'a>>,
}

#[derive(Serialize)]
struct Move<'a> {
    /// A number, or "system".
    shard: String,
    gains: &'a [String],
    loses: &'a [String],
    /// Who is to lead, where that changes.
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
                moves: plan.moves.iter().map(report).collect(),
            })?,
            Output::Table => {
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

fn summary(plan: &PlanResponse) -> String {
    let copies: usize = plan.moves.iter().map(|planned| planned.gains.len()).sum();
    let leaders = plan.moves.iter().filter(|planned| !planned.leader.is_empty()).count();
    let data = plan.moves.iter().map(|planned| planned.bytes).sum();
    let mut text = match (copies, leaders) {
        _ if plan.moves.is_empty() => "nothing to move".to_owned(),
        (0, _) => format!("no data to copy, {leaders} leaders to change"),
        _ => format!("{copies} replicas to copy, {} of data, {leaders} leaders to change", bytes(data)),
    };
    if plan.paused {
        text += "; moves are paused (ringfort cluster resume)";
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
        assert_eq!(summary(&plan(vec![planned(&[], "a", 0)])), "no data to copy, 1 leaders to change");
        let moves = vec![planned(&["a", "b"], "a", 2048), planned(&["a"], "", 1024)];
        assert_eq!(summary(&plan(moves)), "3 replicas to copy, 3.0 KiB of data, 1 leaders to change");
    }
}
