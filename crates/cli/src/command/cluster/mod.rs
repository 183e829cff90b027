//! `ringfort cluster`: what operators ask of a cluster, one file a kind.
//!
//! Each command is done when the cluster knows of it; what follows are moves, which the cluster makes by itself, whoever
//! waits for them. The same command given again waits again.

mod depart;
mod leaders;
mod pause;
mod plan;
mod watch;

use crate::failure::{Answer, Failure};
use clap::{Args, Subcommand};
use serde::Serialize;

/// Have nodes come and go, and see what moves
#[derive(Args, Debug)]
pub struct Cluster {
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Subcommand, Debug)]
enum Operation {
    Plan(plan::Plan),
    Drain(depart::Drain),
    Leave(depart::Leave),
    Replace(depart::Replace),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Leaders(leaders::Leaders),
}

impl Cluster {
    pub fn run(self) -> Result<Answer, Failure> {
        match self.operation {
            Operation::Plan(plan) => plan.run(),
            Operation::Drain(drain) => drain.run(),
            Operation::Leave(leave) => leave.run(),
            Operation::Replace(replace) => replace.run(),
            Operation::Pause(pause) => pause.run(),
            Operation::Resume(resume) => resume.run(),
            Operation::Leaders(leaders) => leaders.run(),
        }
    }
}

/// What `-o json` prints of a command that changes something.
#[derive(Serialize)]
struct Report<'a> {
    /// The node that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// The epoch from which on it is so.
    epoch: u64,
    /// Whether everything that follows from it has been waited for.
    complete: bool,
}
