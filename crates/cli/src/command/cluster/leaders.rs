//! `ringfort cluster leaders balance`.

use super::Report;
use super::watch::{self, Left};
use crate::client_options::{ClientOptions, Output};
use crate::command::{print_json, print_line};
use crate::failure::{Answer, Failure};
use clap::{ArgAction, Args, Subcommand};
use ringfort_client::v1::PlanResponse;

/// Say which nodes lead
#[derive(Args, Debug)]
pub struct Leaders {
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Subcommand, Debug)]
enum Operation {
    Balance(Balance),
}

/// Have every node lead as many shards as the others
///
/// The cluster keeps leadership within a tenth of the mean by itself, and gives it back to a node that returns. This evens
/// out the rest. No data moves. Waits until it is so.
#[derive(Args, Debug)]
struct Balance {
    /// Do not wait for it.
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
        let Operation::Balance(Balance { no_wait, client: options }) = self.operation;
        options.run(async |client| {
            let epoch = client.balance_leaders().await?.epoch;
            let left = async |client: &ringfort_client::Client| Ok(left(&client.plan(Vec::new()).await?));
            if !no_wait && !watch::wait(&client, "balancing leaders", "leaderships", left).await? {
                eprintln!(
                    "leadership goes on changing without this command: `ringfort cluster plan` shows what is left, the \
                     same command waits again"
                );
                return Ok(Answer::No);
            }
            match options.output {
                Output::Json => print_json(&Report { node: None, epoch, complete: !no_wait })?,
                Output::Table if no_wait => print_line("leadership is being balanced")?,
                Output::Table => print_line("every shard is led by the node that should lead it")?,
            }
            Ok(Answer::Yes)
        })
    }
}

fn left(plan: &PlanResponse) -> Left {
    match plan.moves.iter().filter(|planned| !planned.leader.is_empty()).count() {
        0 => Left::Nothing,
        count => Left::Pieces(count, plan.paused.then(|| "moves are paused: ringfort cluster resume".to_owned())),
    }
}
