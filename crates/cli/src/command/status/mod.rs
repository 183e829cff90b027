//! `ringfort status`: one sentence for the operator, then the evidence.

mod gossip;
mod report;
pub mod tables;
mod trouble;
pub mod verdict;

use super::{print_json, print_line};
use crate::client_options::{ClientOptions, Output};
use crate::failure::{Answer, Failure};
use clap::{ArgAction, Args};
use std::io::{self, IsTerminal};

/// Show the status of the cluster
///
/// The first line says how many node failures every shard survives right now and, if something is wrong, what to do. A
/// table of the nodes follows, then a summary of the shards and a table of those with a problem. Exits with 1 if
/// something is wrong. --gossip gives no verdict and never exits with 1.
#[derive(Args, Debug)]
pub struct Status {
    /// Show what one node knows through gossip instead: which nodes are alive, and the state of the eventual keyspace.
    /// The node asks no others, so it can answer without a quorum.
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    gossip: bool,

    /// List every shard, with its leader and its replicas.
    #[arg(long, conflicts_with = "gossip")]
    shards: bool,

    #[command(flatten)]
    client: ClientOptions,
}

impl Status {
    pub fn run(self) -> Result<Answer, Failure> {
        if self.gossip {
            let gossip = self.client.run(async |client| Ok(client.gossip().await?))?;
            match self.client.output {
                Output::Json => print_json(&gossip::Report::new(&gossip))?,
                Output::Table => {
                    print_line(&gossip::sentence(&gossip))?;
                    print_line(&format!("\n{}", gossip::table(&gossip, style(), terminal_width())))?;
                }
            }
            return Ok(Answer::Yes);
        }
        let status = self.client.run(async |client| Ok(client.status().await?))?;
        let verdict = verdict::judge(&status);
        let answer = if verdict.healthy { Answer::Yes } else { Answer::No };
        match self.client.output {
            Output::Json => print_json(&report::Report::new(&status, &verdict))?,
            Output::Table => {
                print_line(&verdict.sentence)?;
                print_line(&format!("\n{}", tables::nodes(&status, style(), terminal_width())))?;
                if self.shards {
                    print_line(&format!("\n{}", tables::shards(&status, style())))?;
                    // The first line may have scrolled off the screen.
                    if terminal_width().is_some() {
                        print_line(&format!("\n{}", verdict.sentence))?;
                    }
                    return Ok(answer);
                }
                print_line(&format!("\n{}", tables::shards_in_short(&status)))?;
                if let Some(table) = tables::shards_in_trouble(&status, style()) {
                    print_line(&format!("\n{table}"))?;
                }
            }
        }
        Ok(answer)
    }
}

fn style() -> tables::Style {
    if io::stdout().is_terminal() { tables::Style::Lines } else { tables::Style::Plain }
}

/// The width of standard output in characters; `None` if it is not a terminal.
pub fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// "system" or the shard's number.
pub fn shard_name(shard: u32) -> String {
    ringfort_ring::ShardId(shard).to_string()
}
