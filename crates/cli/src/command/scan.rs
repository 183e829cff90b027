//! `ringfort scan`.

use super::key::unescape;
use crate::client_options::{ClientOptions, Output};
use crate::failure::{Answer, Failure};
use crate::text::{JsonBytes, JsonKey, escaped};
use bytes::Bytes;
use clap::{ArgAction, Args};
use ringfort_client::v1::Entry;
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};

/// List keys and their values, in the byte order of the keys
///
/// Prints a line for each key: key, tab, value, with control characters, backslashes and bytes that are not UTF-8
/// escaped (\n, \x00). With `-o json` it prints one object per line, with {"base64":"..."} for bytes that are not
/// UTF-8, and for keys with a backslash. Other commands accept both forms of a key: the escapes as KEY, base64 with
/// --key-base64. Each shard is read at one point in time, but different shards at different times.
#[derive(Args, Debug)]
pub struct Scan {
    /// Only keys that begin with this, with escapes as `scan` prints them.
    #[arg(long, default_value = "")]
    prefix: OsString,

    /// Only keys after this one, with escapes as `scan` prints them.
    #[arg(long, default_value = "", value_name = "KEY")]
    start_after: OsString,

    /// Print at most this many keys.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,

    /// Print the keys without their values.
    #[arg(long, conflicts_with = "count")]
    keys_only: bool,

    /// Print how many keys there are instead of the keys.
    #[arg(long)]
    count: bool,

    /// List the eventual keyspace. The node that is asked answers from its own copy.
    #[arg(
        long,
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

/// A line of `-o json`.
#[derive(Serialize)]
struct Line<'a> {
    key: JsonKey<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<JsonBytes<'a>>,
    version: u64,
    create_revision: u64,
    modify_revision: u64,
}

/// The answer of `--count -o json`.
#[derive(Serialize)]
struct Count {
    count: u64,
}

impl Scan {
    pub fn run(self) -> Result<Answer, Failure> {
        let mut stdout = BufWriter::new(io::stdout().lock());
        let prefix = unescape("--prefix", &self.prefix)?;
        let mut start_after = unescape("--start-after", &self.start_after)?;
        let mut count = 0;
        self.client.run(async |client| {
            let mut left = self.limit.unwrap_or(u32::MAX);
            while left > 0 {
                let limit = self.limit.map_or(0, |_| left);
                let page = match self.eventual {
                    true => client.eventual().scan_page(prefix.clone(), start_after, limit).await?,
                    false => client.scan_page(prefix.clone(), start_after, limit).await?,
                };
                for entry in page.entries.iter().take(left as usize) {
                    count += 1;
                    if !self.count {
                        print(&mut stdout, self.client.output, entry, self.keys_only)?;
                    }
                }
                if self.limit.is_some() {
                    left = left.saturating_sub(page.entries.len() as u32);
                }
                if !page.more {
                    break;
                }
                // A page with more to come is not empty: the client has checked it.
                start_after = page.entries.last().map_or_else(Bytes::new, |entry| entry.key.clone());
            }
            Ok(())
        })?;
        match self.client.output {
            _ if !self.count => {}
            Output::Table => writeln!(stdout, "{count}")?,
            Output::Json => {
                serde_json::to_writer(&mut stdout, &Count { count }).map_err(io::Error::from)?;
                writeln!(stdout)?;
            }
        }
        stdout.flush()?;
        Ok(Answer::Yes)
    }
}

fn print(out: &mut impl Write, output: Output, entry: &Entry, keys_only: bool) -> Result<(), Failure> {
    match output {
        Output::Table if keys_only => writeln!(out, "{}", escaped(&entry.key))?,
        Output::Table => writeln!(out, "{}\t{}", escaped(&entry.key), escaped(&entry.value))?,
        Output::Json => {
            let line = Line {
                key: JsonKey(&entry.key),
                value: (!keys_only).then_some(JsonBytes(&entry.value)),
                version: entry.version,
                create_revision: entry.create_revision,
                modify_revision: entry.modify_revision,
            };
            serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line() {
        let entry =
            Entry { key: "k\n".into(), value: "v\t".into(), version: 2, create_revision: 3, modify_revision: 4 };
        let printed = |output, keys_only| {
            let mut out = Vec::new();
            print(&mut out, output, &entry, keys_only).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(Output::Table, true), "k\\n\n");
        assert!(!printed(Output::Json, true).contains("value"));
        assert_eq!(printed(Output::Table, false), "k\\n\tv\\t\n");
        assert_eq!(
            printed(Output::Json, false),
            "{\"key\":\"k\\n\",\"value\":\"v\\t\",\"version\":2,\"create_revision\":3,\"modify_revision\":4}\n"
        );
    }
}
