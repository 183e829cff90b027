//! `ringfort config`.

use crate::args::command;
use crate::failure::{Answer, Failure};
use crate::settings;
use clap::Subcommand;
use std::io::{self, Write};
use std::path::PathBuf;

/// Check a settings file, or print an example of one
#[derive(clap::Args, Debug)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Check a settings file: prints a line for each problem, and exits with 1 if there are any
    Check {
        /// The settings file.
        file: PathBuf,
    },
    /// Print an annotated settings file with all settings and their defaults
    Example,
}

impl Config {
    pub fn run(self) -> Result<Answer, Failure> {
        let command = command();
        let serve = settings::serve(&command);
        let mut out = io::stdout().lock();
        match self.action {
            Action::Example => {
                out.write_all(settings::example(serve).as_bytes())?;
                Ok(Answer::Yes)
            }
            Action::Check { file } => match settings::parse(&settings::read(&file)?, serve) {
                Ok(_) => {
                    writeln!(out, "{}: valid", file.display())?;
                    Ok(Answer::Yes)
                }
                Err(problems) => {
                    for problem in problems {
                        writeln!(out, "{}:{problem}", file.display())?;
                    }
                    Ok(Answer::No)
                }
            },
        }
    }
}
