//! The command line.

use crate::command::Command;
use crate::help;
use clap::builder::{OsStr, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory, Parser};
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
    without_empty_variables(help::complete(Cli::command()))
}

/// An environment variable with an empty value counts as unset.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::<OsStr>::Reset) } else { arg });
    command.mut_subcommands(without_empty_variables)
}

/// Names the environment variable that has a wrong value. Adds a hint if a switch is followed by a separate value, or if
/// `scan` was given a prefix without --prefix.
pub fn hinted(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let found = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(found))) => found.clone(),
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(ContextValue::String(flag))) => {
            if let Some(variable) = variable_of(flag, args) {
                let named = ContextValue::String(format!("{variable} ({flag})"));
                error.insert(ContextKind::InvalidArg, named);
            }
            return error;
        }
        _ => return error,
    };
    if args.get(1).is_some_and(|command| command == "scan") && !found.starts_with('-') {
        let tip = format!("to scan the keys that begin with {found}, write --prefix={found}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        return error;
    }
    let is_switch = |arg: &OsString| arg.to_str().is_some_and(|text| text.starts_with("--") && !text.contains('='));
    let before = args.windows(2).find(|pair| *pair[1] == *found && is_switch(&pair[0]));
    if let Some([switch, value]) = before
        && ["true", "false"].contains(&&*found)
    {
        let tip = format!("write {}={}", switch.display(), value.display());
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The environment variable that a flag has its value from, if it is not on the command line. `flag` is as an error
/// names it, with the name of its value.
fn variable_of(flag: &str, args: &[OsString]) -> Option<String> {
    let words = || args.iter().skip(1).map_while(|arg| arg.to_str()).take_while(|arg| !arg.starts_with('-'));
    let all = command();
    let command = words().try_fold(&all, |command, word| command.find_subcommand(word).ok_or(command));
    let command = command.unwrap_or_else(|deepest| deepest);
    let long = flag.split([' ', '=', '[']).next()?;
    let arg = command.get_arguments().find(|arg| long.strip_prefix("--") == arg.get_long())?;
    let short = arg.get_short().map(|short| format!("-{short}"));
    let is_given = |given: &str| {
        given.strip_prefix(long).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            || short.as_ref().is_some_and(|short| !given.starts_with("--") && given.starts_with(short))
    };
    let variable = arg.get_env().filter(|variable| std::env::var_os(variable).is_some())?;
    (!args.iter().filter_map(|arg| arg.to_str()).any(is_given)).then(|| variable.to_string_lossy().into_owned())
}

/// Turns `--raft_dir=x` into `--raft-dir=x`: long flags are also accepted with underscores, as in settings files.
///
/// Only names change, never values or anything after `--`. An argument that is not Unicode is not a flag's name and
/// stays unchanged.
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
    fn a_switch_with_its_value_after_a_space_is_told_the_equals_sign() {
        let args = ["ringfort", "serve", "--node-id=a", "--raft-dir=d", "--bootstrap", "true"].map(OsString::from);
        let error = hinted(command().try_get_matches_from(&args).unwrap_err(), &args).to_string();
        assert!(error.contains("tip: write --bootstrap=true"), "{error}");
    }

    #[test]
    fn a_scan_of_a_prefix_without_its_flag_is_told_the_flag() {
        let args = ["ringfort", "scan", "a/"].map(OsString::from);
        let error = hinted(command().try_get_matches_from(&args).unwrap_err(), &args).to_string();
        assert!(error.contains("tip: to scan the keys that begin with a/, write --prefix=a/"), "{error}");
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
