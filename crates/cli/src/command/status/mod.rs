//! `ringfort status`: one sentence for the operator, then the evidence.

mod report;
pub mod tables;
pub mod verdict;

use super::{print_json, print_line};
use crate::client_options::{ClientOptions, Output};
use crate::failure::{Answer, Failure};
use clap::Args;
use std::io::{self, IsTerminal};

/// Show how the cluster fares
///
/// Opens with a sentence that says how many node failures every shard survives right now and, where something is wrong,
/// what to do. Tables of the nodes and the shards follow.
#[derive(Args, Debug)]
pub struct Status {
    #[command(flatten)]
    client: ClientOptions,
}

impl Status {
    pub fn run(self) -> Result<Answer, Failure> {
        let status = self.client.run(async |client| Ok(client.status().await?))?;
        let verdict = verdict::judge(&status);
        match self.client.output {
            Output::Json => print_json(&report::Report::new(&status, &verdict))?,
            Output::Table => {
                let style = if io::stdout().is_terminal() { tables::Style::Lines } else { tables::Style::Plain };
                print_line(&verdict.sentence)?;
                print_line(&format!("\n{}", tables::nodes(&status, style)))?;
                print_line(&format!("\n{}", tables::shards(&status, style)))?;
            }
        }
        Ok(Answer::Yes)
    }
}

/// "system" or the shard's number.
pub fn shard_name(shard: u32) -> String {
    ringfort_ring::ShardId(shard).to_string()
}
