//! The library behind the `ringfort` binary, separate so that tests can check what it reads and prints.
//!
//! [`args`] turns the command line into a [`command::Command`]; each command is one file under `command` and ends with
//! an [`Answer`] or a [`Failure`]. Both determine the process's exit code: 0 done, 1 a clean "no", 2 an error, for
//! which one line on stderr says what to do.

pub mod args;
mod asked;
mod client_options;
mod command;
mod failure;
mod help;
mod random;
pub mod settings;
pub mod text;
mod violation;

use clap::FromArgMatches;
use failure::{Answer, Failure};
use std::process::ExitCode;

/// Executes the process's command line.
pub fn main() -> ExitCode {
    match run() {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // The reader of our output has closed it, as in `ringfort scan | head`.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ringfort: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Exits the process itself if the command line is wrong or asks for help.
fn run() -> Result<Answer, Failure> {
    let args = args::normalized(std::env::args_os());
    let command = settings::with_file(args::command(), &args)?;
    let matches = command.try_get_matches_from(&args).map_err(|error| args::hinted(error, &args));
    let cli = matches.and_then(|matches| args::Cli::from_arg_matches(&matches)).unwrap_or_else(|error| error.exit());
    cli.command.run()
}
