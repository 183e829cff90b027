//! `ringfort get`.

use super::key::KeyArgument;
use super::print_json;
use crate::client_options::{ClientOptions, Output};
use crate::failure::{Answer, Failure};
use crate::text::{JsonBytes, JsonKey, escaped};
use clap::{ArgAction, Args};
use ringfort_client::{Consistency, Value};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Read a key
///
/// To a pipe or a file the value is printed unchanged, so that `ringfort get a | ringfort put b` copies it. On a
/// terminal it is printed on one line, with control characters, backslashes and bytes that are not UTF-8 escaped. Exits
/// with 1 if there is no such key.
#[derive(Args, Debug)]
pub struct Get {
    #[command(flatten)]
    key: KeyArgument,

    /// Let any replica answer, possibly with a slightly old value.
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    stale: bool,

    /// Read from the eventual keyspace. The node that is asked answers from its own copy.
    #[arg(
        long,
        conflicts_with = "stale",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    eventual: bool,

    #[command(flatten)]
    client: ClientOptions,
}

/// The answer of `-o json`. For a missing key it has only `key` and `found`. In the eventual keyspace there is only one
/// revision, the timestamp of the last write.
#[derive(Serialize)]
struct Report<'a> {
    key: JsonKey<'a>,
    found: bool,
    #[serde(flatten)]
    value: Option<FoundValue<'a>>,
}

#[derive(Serialize)]
struct FoundValue<'a> {
    value: JsonBytes<'a>,
    version: u64,
    create_revision: u64,
    modify_revision: u64,
}

impl Get {
    pub fn run(self) -> Result<Answer, Failure> {
        let consistency = if self.stale { Consistency::Stale } else { Consistency::Linearizable };
        let key = self.key.key()?;
        let found = self.client.run(async |client| {
            if !self.eventual {
                return Ok(client.get_with(key.clone(), consistency).await?);
            }
            let found = client.eventual().get(key.clone()).await?;
            Ok(found.map(|found| Value {
                value: found.value,
                version: 0,
                create_revision: 0,
                modify_revision: found.timestamp,
            }))
        })?;
        match self.client.output {
            Output::Json => print_json(&Report {
                key: JsonKey(&key),
                found: found.is_some(),
                value: found.as_ref().map(|found| FoundValue {
                    value: JsonBytes(&found.value),
                    version: found.version,
                    create_revision: found.create_revision,
                    modify_revision: found.modify_revision,
                }),
            })?,
            Output::Table => match &found {
                Some(found) => {
                    let mut stdout = io::stdout().lock();
                    match stdout.is_terminal() {
                        true => writeln!(stdout, "{}", escaped(&found.value))?,
                        false => stdout.write_all(&found.value)?,
                    }
                    stdout.flush()?;
                }
                None => eprintln!("not found"),
            },
        }
        Ok(if found.is_some() { Answer::Yes } else { Answer::No })
    }
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, normalized};
    use crate::command::Command;
    use clap::Parser;
    use std::ffi::OsString;

    fn is_stale(args: &[&str]) -> Option<bool> {
        let args = ["ringfort", "get", "k"].iter().chain(args).map(OsString::from);
        match Cli::try_parse_from(normalized(args)).ok()?.command {
            Command::Get(get) => Some(get.stale),
            other => panic!("get was parsed as {other:?}"),
        }
    }

    #[test]
    fn boolean_flags_may_have_a_value() {
        assert_eq!(is_stale(&[]), Some(false));
        assert_eq!(is_stale(&["--stale"]), Some(true));
        assert_eq!(is_stale(&["--stale=true"]), Some(true));
        assert_eq!(is_stale(&["--stale=false"]), Some(false));
        assert_eq!(is_stale(&["--stale", "-o", "json"]), Some(true));
        assert_eq!(is_stale(&["--stale=perhaps"]), None);
    }
}
