//! `ringfort cluster leaders`: how many shards each node leads, and `balance`, which evens that out.

use super::Report;
use super::watch::{self, Left};
use crate::client_options::{ClientOptions, Output};
use crate::command::status::{shard_name, verdict::some_of};
use crate::command::{print_json, print_line};
use crate::failure::{Answer, Failure};
use crate::text::escaped;
use clap::{ArgAction, Args, Subcommand};
use ringfort_client::v1::{PlanResponse, StatusResponse};
use serde::Serialize;

/// Show how many shards each node leads, or balance leadership
///
/// Exits with 1 if a shard has no leader.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Leaders {
    #[command(subcommand)]
    operation: Option<Operation>,

    #[command(flatten)]
    client: ClientOptions,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Led<'a> {
    nodes: Vec<Leader<'a>>,
    /// The shards without a leader.
    without_leader: Vec<String>,
}

#[derive(Serialize)]
struct Leader<'a> {
    name: &'a str,
    shards: Vec<String>,
}

#[derive(Subcommand, Debug)]
enum Operation {
    Balance(Balance),
}

/// Make every node lead as many shards as the others
///
/// The cluster by itself keeps leadership within a tenth of the mean, and gives it back to a node that returns. This
/// command evens out the rest. No data moves. Waits until leadership is balanced.
#[derive(Args, Debug)]
struct Balance {
    /// Do not wait until leadership is balanced.
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    no_wait: bool,

    #[command(flatten)]
    client: ClientOptions,
}

impl Leaders {
    pub fn run(self) -> Result<Answer, Failure> {
        let Some(Operation::Balance(Balance { no_wait, client: options })) = self.operation else {
            let status = self.client.run(async |client| Ok(client.status().await?))?;
            let led = Led::of(&status);
            match self.client.output {
                Output::Json => print_json(&led)?,
                Output::Table => led.print()?,
            }
            return Ok(if led.without_leader.is_empty() { Answer::Yes } else { Answer::No });
        };
        options.run(async |client| {
            let epoch = client.balance_leaders().await?.epoch;
            let left = async |client: &ringfort_client::Client| Ok(left(&client.plan(Vec::new()).await?));
            if !no_wait && !watch::wait(&client, "balancing leaders", "leaderships", left).await? {
                eprintln!(
                    "leadership continues to move without this command: `ringfort cluster plan` shows what is left, \
                     and the same command waits again"
                );
                return Ok(Answer::No);
            }
            match options.output {
                Output::Json => print_json(&Report { node: None, epoch, complete: !no_wait })?,
                Output::Table if no_wait => print_line("leadership is being balanced")?,
                Output::Table => print_line("leadership is balanced")?,
            }
            Ok(Answer::Yes)
        })
    }
}

impl<'a> Led<'a> {
    fn of(status: &'a StatusResponse) -> Led<'a> {
        let led_by = |node: u64| {
            let led = status.shards.iter().filter(|shard| shard.leader == node);
            led.map(|shard| shard_name(shard.shard)).collect::<Vec<String>>()
        };
        let nodes = status.nodes.iter().map(|node| Leader { name: &node.name, shards: led_by(node.id) });
        Led { nodes: nodes.collect(), without_leader: led_by(0) }
    }

    fn print(&self) -> Result<(), Failure> {
        for Leader { name, shards } in &self.nodes {
            let which = if shards.is_empty() { String::new() } else { format!(": {}", some_of(shards)) };
            print_line(&format!("{} leads {}{which}", escaped(name.as_bytes()), shards.len()))?;
        }
        if !self.without_leader.is_empty() {
            print_line(&format!("without a leader: {}", some_of(&self.without_leader)))?;
        }
        Ok(())
    }
}

fn left(plan: &PlanResponse) -> Left {
    match plan.moves.iter().filter(|planned| !planned.leader.is_empty()).count() {
        0 => Left::Nothing,
        count => Left::Pieces(
            count,
            plan.paused.then(|| "moves are paused: `ringfort cluster resume` ends the pause".to_owned()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_client::v1::{NodeStatus, ShardStatus};

    #[test]
    fn shards_are_told_by_their_leaders() {
        let shard = |shard, leader| ShardStatus { shard, leader, ..Default::default() };
        let node = |id, name: &str| NodeStatus { id, name: name.to_owned(), ..Default::default() };
        let nodes = vec![node(1, "node1"), node(2, "node2")];
        let status =
            StatusResponse { nodes, shards: vec![shard(0, 1), shard(1, 0), shard(2, 1)], ..Default::default() };
        let led = serde_json::to_value(Led::of(&status)).unwrap();
        let nodes = [("node1", vec!["0", "2"]), ("node2", vec![])];
        let nodes = nodes.map(|(name, shards)| serde_json::json!({"name": name, "shards": shards}));
        assert_eq!(led, serde_json::json!({"nodes": nodes, "without_leader": ["1"]}));
    }
}
