//! The settings file of `ringfort serve` ([`ringfort_cli::settings`]).
//!
//! Any text is accepted, or refused with line numbers. Accepted settings become the flags' defaults, with which clap
//! accepts the command line or reports an error: no value from the file makes clap panic.

use crate::allocation::{Bound, within};
use crate::source::Source;
use bytes::Bytes;
use clap::{Command, CommandFactory};
use ringfort_cli::args::Cli;
use ringfort_cli::settings::{parse, serve};
use std::sync::LazyLock;

/// The file is the operator's own and read once: the bound only ensures that nothing in it makes a node allocate
/// without limit. A key of one letter costs a description of its flag, an error from clap, and a message with a
/// suggestion.
const BOUND: Bound = Bound { fixed: 256 << 10, per_byte: 4096 };

static COMMAND: LazyLock<Command> = LazyLock::new(Cli::command);

/// Names and values as written in a file, valid and invalid ones.
const NAMES: [&str; 9] =
    ["port", "raft-dir", "node-id", "join-addr", "shards", "read-mode", "bootstrap", "election-timeout", "raft_dir"];
const VALUES: [&str; 9] = ["1", "0xff", "\"a:1\"", "[\"a:1\", \"b:2\"]", "true", "64", "\"lease\"", "\"5s\"", "1.5"];

fn file(source: &mut Source) -> String {
    let mut text = String::new();
    for (name, value) in source.list(|source| {
        let name = if source.byte() < 230 { NAMES[source.below(NAMES.len())].to_owned() } else { source.text(20) };
        let value = if source.byte() < 200 { VALUES[source.below(VALUES.len())].to_owned() } else { source.text(20) };
        (name, value)
    }) {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

fn check(text: &str) {
    let serve = serve(&COMMAND);
    match within(BOUND, text.len(), || parse(text, serve)) {
        Ok(settings) => drop(settings.into_defaults(serve.clone()).try_get_matches_from(["serve"])),
        Err(problems) => {
            let lines = text.matches('\n').count() + 1;
            assert!(!problems.is_empty(), "a file that is refused has a problem");
            for problem in problems {
                assert!((1..=lines).contains(&problem.line), "line {} of {lines}", problem.line);
                assert!(!problem.message.contains('\n'), "a problem is told in one line: {:?}", problem.message);
            }
        }
    }
}

pub fn body(data: &[u8]) {
    check(&String::from_utf8_lossy(data));
    check(&file(&mut Source::new(data)));
}

pub fn seed(data: &[u8]) -> Bytes {
    file(&mut Source::new(data)).into()
}
