//! Parses a settings file, and checks it against the description of the flags.

use super::CONFIG;
use clap::{Arg, ArgAction, Command};
use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Names that are at least this similar are suggested (Jaro similarity, from 0 to 1).
const ALIKE: f64 = 0.75;

/// A problem in a settings file.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

/// Valid settings as texts, by the names of their flags.
#[derive(Debug)]
pub struct Settings(Vec<(String, Vec<String>)>);

impl Settings {
    /// Makes the settings the defaults of the flags.
    pub fn into_defaults(self, serve: Command) -> Command {
        self.0
            .into_iter()
            .fold(serve, |serve, (name, values)| serve.mut_arg(name, |arg| arg.required(false).default_values(values)))
    }
}

/// The flags of `serve` that are settings.
pub fn settings_of(serve: &Command) -> impl Iterator<Item = &Arg> {
    serve.get_arguments().filter(|arg| arg.get_id() != CONFIG && arg.get_id() != "help" && arg.get_id() != "version")
}

/// Parses the text of a settings file for the command `serve`. Reports all problems at once, by line.
pub fn parse(text: &str, serve: &Command) -> Result<Settings, Vec<Problem>> {
    let line_of = |position: usize| text[..position.min(text.len())].matches('\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| Problem {
            line: line_of(error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', " "),
        })
        .collect();
    // After a syntax error the rest may be misread.
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut settings = Vec::new();
    for (key, value) in table.get_ref().iter() {
        match setting(serve, key.get_ref(), value) {
            Ok((_, values)) if values.is_empty() => {}
            Ok((arg, values)) => settings.push((arg.get_id().to_string(), values)),
            Err(message) => problems.push(Problem { line: line_of(key.span().start), message }),
        }
    }
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty() { Ok(Settings(settings)) } else { Err(problems) }
}

/// The flag that a key stands for and its values, if they are valid.
fn setting<'a>(serve: &'a Command, key: &str, value: &Spanned<DeValue<'_>>) -> Result<(&'a Arg, Vec<String>), String> {
    let arg = settings_of(serve).find(|arg| arg.get_long() == Some(key)).ok_or_else(|| unknown(serve, key))?;
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    let values = match value.get_ref() {
        DeValue::Array(array) if is_list => {
            array.iter().map(|value| text_of(value.get_ref())).collect::<Result<Vec<_>, _>>()
        }
        DeValue::Array(_) => Err("a list"),
        value => text_of(value).map(|value| vec![value]),
    };
    let values = values.map_err(|kind| format!("{key} can't be {kind}"))?;
    check(arg, key, &values)?;
    Ok((arg, values))
}

fn text_of(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err("so large a number"),
        },
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Float(_) => Err("a fraction"),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Array(_) => Err("a list in a list"),
        DeValue::Table(_) => Err("a table"),
    }
}

/// Checks the values with clap's parser, which will also parse them as defaults.
fn check(arg: &Arg, key: &str, values: &[String]) -> Result<(), String> {
    let alone = Command::new("check").no_binary_name(true).arg(arg.clone().required(false));
    let flags = values.iter().map(|value| format!("--{key}={value}"));
    alone.try_get_matches_from(flags).map(drop).map_err(|error| {
        let text = error.to_string();
        // The first paragraph of clap's error, without hints about flags.
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        lines.join(" ").trim_start_matches("error: ").replace(&format!("--{key}"), key)
    })
}

fn unknown(serve: &Command, key: &str) -> String {
    let names = settings_of(serve).filter_map(Arg::get_long);
    let likeness = |name: &str| strsim::jaro(key, name);
    let best = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) >= ALIKE);
    match best {
        Some(name) => format!("unknown setting {key:?}; did you mean {name}?"),
        None => format!("unknown setting {key:?}; `ringfort config example` lists all settings"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;

    fn problems(text: &str) -> Vec<String> {
        let command = Cli::command();
        let problems = parse(text, super::super::serve(&command)).map(drop).unwrap_err();
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn every_problem_has_its_line_and_says_what_to_do() {
        let found = problems(
            "# a comment\nraft_dir = \"/d\"\nport = 70000\nread-mode = \"fast\"\nbootstrap = \"yes\"\nshards = 3\n\
             [tls]\nx = 1\n",
        );
        let expected = [
            "2: unknown setting \"raft_dir\"; did you mean raft-dir?",
            "3: invalid value '70000' for 'port <PORT>': give a number up to 65535",
            "4: invalid value 'fast' for 'read-mode <MODE>' [possible values: lease, quorum]",
            "5: invalid value 'yes' for 'bootstrap[=<BOOTSTRAP>]' [possible values: true, false]",
            "6: invalid value '3' for 'shards <NUMBER>': ",
            "7: unknown setting \"tls\"; `ringfort config example` lists all settings",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_where() {
        let found = problems("port = 1\nnode-id = \"a\nshards = 8\n");
        assert!(found[0].starts_with("2: "), "{found:?}");
        let found = problems("port = 1\nport = 2\n");
        assert!(found[0].starts_with("2: duplicate key"), "{found:?}");
    }

    #[test]
    fn the_file_does_not_name_another_one() {
        assert!(problems("config = \"x\"")[0].starts_with("1: unknown setting \"config\""));
    }

    #[test]
    fn kinds_of_values_are_told_apart() {
        assert_eq!(problems("port = [1]"), ["1: port can't be a list"]);
        assert_eq!(problems("port = 1.5"), ["1: port can't be a fraction"]);
        assert_eq!(problems("join-addr = [[\"a:1\"]]"), ["1: join-addr can't be a list in a list"]);
        assert!(problems("join-addr = \"a\"")[0].contains("give host:port"));
        let command = Cli::command();
        let Settings(settings) =
            parse("segment-bytes = 0x10_0000\njoin-addr = []", super::super::serve(&command)).unwrap();
        assert_eq!(settings, [("segment_bytes".to_owned(), vec!["1048576".to_owned()])]);
    }
}
