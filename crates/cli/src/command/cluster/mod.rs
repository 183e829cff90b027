//! `ringfort cluster`: operator commands, one file per kind.
//!
//! A command takes effect when the cluster has committed it. The cluster then makes the resulting moves by itself,
//! whether or not the command waits for them. Repeating the command waits again.

mod depart;
mod leaders;
mod pause;
mod plan;
mod watch;

use crate::failure::{Answer, Failure};
use clap::{Args, Subcommand};
use serde::Serialize;

/// Drain, remove and replace nodes, and control moves and leadership
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

/// What `-o json` prints for a command that changes something.
#[derive(Serialize)]
struct Report<'a> {
    /// The node that the command is about, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// The epoch in which the command took effect.
    epoch: u64,
    /// Whether the command has waited until all resulting moves were done.
    complete: bool,
}
