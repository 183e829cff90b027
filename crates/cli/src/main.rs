//! `ringfort`, the one binary.
//!
//! [`args`] turns the command line into a [`command::Command`]; each command is one file under `command` and ends with an
//! [`Answer`] or a [`Failure`]. Both are the process's exit code: 0 done, 1 a clean "no", 2 an error, of which one line
//! on stderr says what to do.

mod args;
mod client_options;
mod command;
mod failure;
mod text;

use clap::Parser;
use failure::Answer;
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A request is many small allocations, freed on other threads than made them: glibc's allocator was a fifth of a node's
/// time under writes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse_from(args::normalized(std::env::args_os()));
    match cli.command.run() {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // Whoever reads our output has read enough, as in `ringfort scan | head`.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ringfort: {failure}");
            ExitCode::from(2)
        }
    }
}
