//! The settings file of `ringfort serve`: TOML, whose keys are the long flags.
//!
//! A value in the file becomes the default of the flag of the same name. So clap itself gives flags precedence over the
//! environment and the environment over the file, a value means the same in all three, and nothing is described twice.

mod example;
mod file;

pub use example::example;
pub use file::{Problem, parse};

use clap::Command;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The command whose settings these are.
pub const SERVE: &str = "serve";

/// The flag that names the file; not a setting itself.
const CONFIG: &str = "config";

/// Why a settings file is refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("can't read the settings file {file}: {source}")]
    Unreadable { file: String, source: io::Error },
    #[error("{file}:{first}{}", rest(*.others))]
    Wrong {
        file: String,
        first: Problem,
        /// How many more problems there are.
        others: usize,
    },
}

fn rest(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" (and {others} more: `ringfort config check` lists them)"),
    }
}

/// The text of a settings file.
pub fn read(path: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Unreadable { file: path.display().to_string(), source })
}

/// The `ringfort` command with the values of the settings file as defaults, if the command line or the environment
/// names a file.
pub fn with_file(command: Command, args: &[OsString]) -> Result<Command, SettingsError> {
    let Some(path) = path(command.clone(), args) else { return Ok(command) };
    let text = read(&path)?;
    let settings = parse(&text, serve(&command)).map_err(|problems| {
        let others = problems.len() - 1;
        let first = problems.into_iter().next().expect("a file without a problem is taken");
        SettingsError::Wrong { file: path.display().to_string(), first, others }
    })?;
    Ok(command.mut_subcommand(SERVE, |serve| settings.into_defaults(serve)))
}

/// The description of the settings.
pub fn serve(command: &Command) -> &Command {
    command.find_subcommand(SERVE).expect("there is a command `serve`")
}

/// The file that the command line or the environment names. Errors in other arguments are found later, when these are
/// parsed.
fn path(command: Command, args: &[OsString]) -> Option<PathBuf> {
    let lenient = command.mut_subcommand(SERVE, |serve| serve.mut_args(|arg| arg.required(false)));
    let matches = lenient.try_get_matches_from(args).ok()?;
    matches.subcommand_matches(SERVE)?.get_one::<PathBuf>(CONFIG).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{CommandFactory, FromArgMatches};

    fn parsed(file: &str, args: &[&str]) -> Cli {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ringfort.toml");
        std::fs::write(&path, file).unwrap();
        let config = format!("--config={}", path.display());
        let args: Vec<OsString> =
            ["ringfort", "serve", &config].iter().chain(args).map(|arg| OsString::from(*arg)).collect();
        let command = with_file(Cli::command(), &args).unwrap();
        let mut cli = Cli::from_arg_matches(&command.try_get_matches_from(&args).unwrap()).unwrap();
        let crate::command::Command::Serve(serve) = &mut cli.command else { panic!("it is another command") };
        assert_eq!(serve.config.take(), Some(path));
        cli
    }

    fn serve_of(cli: Cli) -> crate::command::Serve {
        match cli.command {
            crate::command::Command::Serve(serve) => *serve,
            other => panic!("{other:?}"),
        }
    }

    const REQUIRED: &str = "node-id = \"a\"\nraft-dir = \"/d\"\n";

    #[test]
    fn flags_win_over_the_file() {
        let file = format!("{REQUIRED}port = 1\nshards = 8\njoin-addr = [\"a:1\", \"b:2\"]\nbootstrap = true\n");
        let serve = serve_of(parsed(&file, &["--port=2"]));
        assert_eq!((serve.port, serve.shards.map(|shards| shards.get()), serve.raft_port), (2, Some(8), 12001));
        assert_eq!(serve.join_addr, ["a:1", "b:2"]);
        assert!(serve.bootstrap);
        assert!(!serve_of(parsed(&file, &["--bootstrap=false"])).bootstrap);
        assert_eq!(serve_of(parsed(&file, &["--join-addr=c:3"])).join_addr, ["c:3"]);
    }

    #[test]
    fn the_example_says_the_defaults() {
        let command = Cli::command();
        let example = format!("{}\n{REQUIRED}", example(serve(&command)));
        let defaults = serve_of(parsed(REQUIRED, &[]));
        assert_eq!(serve_of(parsed(&example, &[])), defaults);
    }

    #[test]
    fn a_file_that_is_wrong_or_missing_is_one_line() {
        let error = with_file(Cli::command(), &["ringfort", "serve", "--config=/nonexistent/x"].map(OsString::from));
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("can't read the settings file /nonexistent/x: "), "{text}");
    }
}
