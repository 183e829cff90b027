//! `ringfort cluster pause` and `resume`.

use super::Report;
use crate::client_options::{ClientOptions, Output};
use crate::command::{print_json, print_line};
use crate::failure::{Answer, Failure};
use clap::Args;

/// Stop the cluster from starting moves
///
/// Moves that are under way continue, and elections, reads and writes are not affected. While moves are paused, no dead
/// node is replaced.
#[derive(Args, Debug)]
pub struct Pause {
    #[command(flatten)]
    client: ClientOptions,
}

/// Let the cluster start moves again
#[derive(Args, Debug)]
pub struct Resume {
    #[command(flatten)]
    client: ClientOptions,
}

impl Pause {
    pub fn run(self) -> Result<Answer, Failure> {
        set(&self.client, true, "moves are paused: `ringfort cluster resume` ends the pause")
    }
}

impl Resume {
    pub fn run(self) -> Result<Answer, Failure> {
        set(&self.client, false, "moves are no longer paused")
    }
}

fn set(options: &ClientOptions, paused: bool, words: &str) -> Result<Answer, Failure> {
    let epoch = options.run(async |client| Ok(client.pause(paused).await?))?.epoch;
    match options.output {
        Output::Json => print_json(&Report { node: None, epoch, complete: true })?,
        Output::Table => print_line(words)?,
    }
    Ok(Answer::Yes)
}
