//! The command line.

use crate::command::Command;
use crate::help;
use clap::{CommandFactory, Parser};
use std::ffi::OsString;

/// A sharded, replicated, in-memory key-value store that does not lose a write it has acknowledged.
#[derive(Parser, Debug)]
#[command(name = "ringfort", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The command line, with the sections at the end of each command's help.
pub fn command() -> clap::Command {
    help::complete(Cli::command())
}

/// Makes `--raft-dir=x` out of `--raft_dir=x`: long flags are also understood with underscores, as in settings files.
///
/// Only names change, never values, and nothing after `--`. What is not Unicode is no flag's name and stays.
pub fn normalized(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut only_values = false;
    args.into_iter()
        .map(|arg| {
            only_values |= arg == "--";
            match arg.to_str().and_then(|text| text.strip_prefix("--")) {
                Some(flag) if !only_values => {
                    let (name, value) = flag.split_at(flag.find('=').unwrap_or(flag.len()));
                    format!("--{}{value}", name.replace('_', "-")).into()
                }
                _ => arg,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(args: &[&str]) -> Vec<String> {
        normalized(args.iter().map(OsString::from)).into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn underscores_in_flag_names_are_dashes() {
        assert_eq!(
            normal(&["ringfort", "serve", "--raft_dir=/a_b", "--node_id", "my_node", "--bootstrap=true"]),
            ["ringfort", "serve", "--raft-dir=/a_b", "--node-id", "my_node", "--bootstrap=true"]
        );
    }

    #[test]
    fn values_stay() {
        let values = ["ringfort", "put", "a_b", "-x_y", "--", "--c_d", "--"];
        assert_eq!(normal(&values), values);
    }

    #[cfg(unix)]
    #[test]
    fn values_that_are_not_unicode_stay() {
        use std::os::unix::ffi::OsStringExt;
        let value = OsString::from_vec(b"--\xff_x".to_vec());
        assert_eq!(normalized([value.clone()]), [value]);
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
