//! The sections at the end of each command's help and manual page: examples, environment and exit status.

use crate::command::WRITE_EXAMPLES;
use clap::Command;

/// Which environment variables a command reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Talks to a cluster.
    Client,
    /// Runs nodes.
    Node,
    /// Neither.
    Other,
}

/// For each command: its words, its kind, and examples, one on each line. The examples of commands that change a key
/// are in their own table ([`WRITE_EXAMPLES`]).
const COMMANDS: [(&str, Kind, &str); 20] = [
    (
        "serve",
        Kind::Node,
        "ringfort serve --node-id node1 --raft-dir ./node1 --bootstrap
ringfort serve --node-id node2 --raft-dir ./node2 \\
    --port 50052 --raft-port 12002 --join-addr localhost:50051
ringfort serve --config ringfort.toml --node-id node1 --raft-dir ./node1",
    ),
    (
        "playground",
        Kind::Other,
        "ringfort playground
ringfort playground --tour
ringfort playground --chaos --duration 2m
ringfort playground --nodes 5 --dir ./data --logs",
    ),
    (
        "get",
        Kind::Client,
        r"ringfort get greeting
ringfort get greeting > file
ringfort get 'bin\x00ary'                a key as scan prints it
ringfort get --key-hex 62696e00617279    the same key",
    ),
    (
        "scan",
        Kind::Client,
        r"ringfort scan --prefix users/ --limit 10
ringfort scan --prefix users/ --count
ringfort scan --keys-only --start-after 'a\tb'",
    ),
    (
        "status",
        Kind::Client,
        "ringfort status\nringfort status --shards\nringfort status -o json\nringfort status --gossip",
    ),
    ("cluster plan", Kind::Client, "ringfort cluster plan\nringfort cluster plan --leave node3"),
    ("cluster drain", Kind::Client, "ringfort cluster drain node3\nringfort cluster drain node3 --undo"),
    ("cluster leave", Kind::Client, "ringfort cluster leave node3"),
    ("cluster replace", Kind::Client, "ringfort cluster replace node3 --with node4"),
    ("cluster pause", Kind::Client, "ringfort cluster pause"),
    ("cluster resume", Kind::Client, "ringfort cluster resume"),
    ("cluster leaders", Kind::Client, "ringfort cluster leaders\nringfort cluster leaders balance"),
    ("cluster leaders balance", Kind::Client, "ringfort cluster leaders balance"),
    (
        "bench",
        Kind::Client,
        "ringfort bench
ringfort bench --in-flight 1 --reads 50 --duration 1m
ringfort bench --rate 1000 -o json
ringfort bench --floor --floor-dir /var/lib/ringfort",
    ),
    (
        "verify",
        Kind::Client,
        "ringfort verify --duration 5m
ringfort verify --clients 64 --rate 2000 -o json
ringfort verify --against redis --endpoints localhost:7000",
    ),
    ("config check", Kind::Other, "ringfort config check ringfort.toml"),
    ("config example", Kind::Other, "ringfort config example > ringfort.toml"),
    (
        "completions",
        Kind::Other,
        "ringfort completions bash \\
    > ~/.local/share/bash-completion/completions/ringfort",
    ),
    ("man", Kind::Other, "ringfort man ~/.local/share/man/man1"),
    ("version", Kind::Other, "ringfort version"),
];

const CLIENT_ENVIRONMENT: &str = "\
RINGFORT_ENDPOINTS   for --endpoints
RINGFORT_TIMEOUT     for --timeout
RINGFORT_OUTPUT      for --output";

const NODE_ENVIRONMENT: &str = "\
RINGFORT_CONFIG      for --config; each option above names its variable";

const OTHER_ENVIRONMENT: &str = "none";

const EXIT_STATUS: &str = "\
0  success
1  a definite \"no\": not found, a problem was found, or not finished
2  an error; one line on stderr says what to do";

/// The titles of the sections.
pub const TITLES: [&str; 3] = ["EXAMPLES", "ENVIRONMENT", "EXIT STATUS"];

/// The commands of both tables.
fn commands() -> impl Iterator<Item = (&'static str, Kind, &'static str)> {
    COMMANDS.into_iter().chain(WRITE_EXAMPLES.map(|(words, examples)| (words, Kind::Client, examples)))
}

/// Adds the sections to a command and all its subcommands.
pub fn complete(command: Command) -> Command {
    complete_below(command, "")
}

fn complete_below(command: Command, words: &str) -> Command {
    let command = match commands().find(|(known, ..)| *known == words) {
        Some((_, kind, examples)) => command.after_help(sections(kind, examples)),
        None => command,
    };
    command.mut_subcommands(|below| {
        let words = format!("{words} {}", below.get_name());
        complete_below(below, words.trim_start())
    })
}

fn sections(kind: Kind, examples: &str) -> String {
    let environment = match kind {
        Kind::Client => CLIENT_ENVIRONMENT,
        Kind::Node => NODE_ENVIRONMENT,
        Kind::Other => OTHER_ENVIRONMENT,
    };
    let section = |(title, text): (&str, &str)| {
        let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
        format!("{title}\n{}", lines.join("\n"))
    };
    TITLES.into_iter().zip([examples, environment, EXIT_STATUS]).map(section).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, command};
    use clap::Parser;

    fn check(command: &Command, words: &str) {
        let subcommands: Vec<_> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
        for below in &subcommands {
            check(below, format!("{words} {}", below.get_name()).trim_start());
        }
        if subcommands.is_empty() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for section in TITLES {
                assert!(after.contains(section), "the help of {words:?} has no {section}");
            }
        }
    }

    #[test]
    fn every_command_has_its_sections() {
        check(&command(), "");
    }

    #[test]
    fn examples_are_understood() {
        for (words, _, examples) in commands() {
            for example in examples.replace("\\\n", "").lines() {
                // Two spaces begin a remark, and the shell reads what follows a redirection.
                let typed = example.split("  ").next().unwrap().split(['<', '>']).next().unwrap();
                let typed: Vec<&str> = typed.split_whitespace().map(|word| word.trim_matches('\'')).collect();
                assert!(typed.join(" ").starts_with(&format!("ringfort {words}")), "{example}");
                if let Err(error) = Cli::try_parse_from(typed) {
                    panic!("{example}: {error}");
                }
            }
        }
    }
}
