//! `ringfort put`.

use super::key::KeyArgument;
use super::{bytes_of, print_json, print_line};
use crate::client_options::{ClientOptions, Output};
use crate::failure::{Answer, Failure};
use bytes::Bytes;
use clap::{ArgAction, Args};
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};

/// Set a key
///
/// Returns once the write is durable on a quorum of the shard's replicas. Where the outcome of a write is unknown, the
/// error says so, and the write is never repeated by itself.
#[derive(Args, Debug)]
pub struct Put {
    #[command(flatten)]
    key: KeyArgument,

    /// The value, taken as it is, without escapes. If it is missing, all of stdin is read. After `--` it may begin with
    /// a dash.
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,

    /// Write to the eventual keyspace: one node takes it, quorum or not, and the others come to hold it.
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

/// The answer of `-o json`. Of an eventual write the version is 0, and the revision is its stamp.
#[derive(Serialize)]
struct Report {
    version: u64,
    revision: u64,
}

impl Put {
    pub fn run(self) -> Result<Answer, Failure> {
        let (key, value) = self.key.key_and_value(self.value)?;
        let value = match &value {
            Some(value) => bytes_of(value),
            None => {
                let mut stdin = io::stdin().lock();
                if stdin.is_terminal() {
                    eprintln!("type the value and end it with Ctrl-D; Ctrl-C cancels");
                }
                let mut value = Vec::new();
                stdin.read_to_end(&mut value)?;
                Bytes::from(value)
            }
        };
        if self.eventual {
            let stamp = self.client.run(async |client| Ok(client.eventual().put(key, value).await?))?;
            match self.client.output {
                Output::Table => print_line("OK")?,
                Output::Json => print_json(&Report { version: 0, revision: stamp })?,
            }
            return Ok(Answer::Yes);
        }
        let put = self.client.run(async |client| Ok(client.put(key, value).await?))?;
        match self.client.output {
            Output::Table => print_line(&format!("OK, version {}", put.version))?,
            Output::Json => print_json(&Report { version: put.version, revision: put.revision })?,
        }
        Ok(Answer::Yes)
    }
}
