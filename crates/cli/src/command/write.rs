//! The commands that change a key: `ringfort put`, `delete`, `increment` and `append`.

use super::key::KeyArgument;
use super::{bytes_of, print_json, print_line};
use crate::client_options::{ClientOptions, Output};
use crate::failure::{Answer, Failure};
use bytes::Bytes;
use clap::{ArgAction, Args, Subcommand};
use ringfort_client::v1;
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};

/// Examples for the help of each command, one on each line.
pub const EXAMPLES: [(&str, &str); 4] = [
    (
        "put",
        r"ringfort put greeting hello
ringfort put picture < picture.png
ringfort put number -- -1                a value that begins with a dash
ringfort put --key-base64 AP8= value     a key that can't be typed",
    ),
    (
        "delete",
        r"ringfort delete greeting
ringfort delete 'bin\x00ary'             a key as scan prints it",
    ),
    (
        "increment",
        "ringfort increment visits
ringfort increment visits 5
ringfort increment visits -5             subtracts
ringfort increment --key-base64 AP8= 5   a key that can't be typed",
    ),
    (
        "append",
        "ringfort append events 'login;'
ringfort append events < more.txt
ringfort append events -- -1             bytes that begin with a dash
ringfort append --key-base64 AP8= more   a key that can't be typed",
    ),
];

#[derive(Subcommand, Debug)]
pub enum Write {
    #[command(visible_alias = "set")]
    Put(Put),
    #[command(visible_aliases = ["del", "rm"])]
    Delete(Delete),
    #[command(visible_alias = "incr")]
    Increment(Increment),
    Append(Append),
}

impl Write {
    pub fn run(self) -> Result<Answer, Failure> {
        match self {
            Write::Put(put) => put.run(),
            Write::Delete(delete) => delete.run(),
            Write::Increment(increment) => increment.run(),
            Write::Append(append) => append.run(),
        }
    }
}

/// Set a key
///
/// Returns once the write is durable on a quorum of the shard's replicas. If the outcome of the write is unknown, the
/// error says so; the command never retries such a write.
#[derive(Args, Debug)]
pub struct Put {
    #[command(flatten)]
    key: KeyArgument,

    /// The value, without escapes. If it is not given, stdin is read to its end. Write `--` before a value that begins
    /// with a dash.
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,

    /// Write to the eventual keyspace. One node accepts the write, with or without a quorum, and passes it on to the
    /// others.
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

/// The value, taken from stdin if it is no argument.
fn given_or_read(value: Option<OsString>) -> io::Result<Bytes> {
    if let Some(value) = &value {
        return Ok(bytes_of(value));
    }
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        eprintln!("type the value and end it with Ctrl-D; Ctrl-C cancels");
    }
    let mut value = Vec::new();
    stdin.read_to_end(&mut value)?;
    Ok(value.into())
}

/// The answer of `put -o json`. For an eventual write, the version is 0 and the revision is its timestamp.
#[derive(Serialize)]
struct Written {
    version: u64,
    revision: u64,
}

impl Put {
    pub fn run(self) -> Result<Answer, Failure> {
        let (key, value) = self.key.key_and_value(self.value)?;
        let value = given_or_read(value)?;
        if self.eventual {
            let timestamp = self.client.run(async |client| Ok(client.eventual().put(key, value).await?))?;
            match self.client.output {
                Output::Table => print_line("OK")?,
                Output::Json => print_json(&Written { version: 0, revision: timestamp })?,
            }
            return Ok(Answer::Yes);
        }
        let put = self.client.run(async |client| Ok(client.put(key, value).await?))?;
        match self.client.output {
            Output::Table => print_line(&format!("OK, version {}", put.version))?,
            Output::Json => print_json(&Written { version: put.version, revision: put.revision })?,
        }
        Ok(Answer::Yes)
    }
}

/// Delete a key
///
/// Exits with 1 if there was no such key.
#[derive(Args, Debug)]
pub struct Delete {
    #[command(flatten)]
    key: KeyArgument,

    /// Delete from the eventual keyspace. The node that is asked answers from its own copy.
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

/// The answer of `delete -o json`.
#[derive(Serialize)]
struct Deleted {
    found: bool,
    revision: u64,
}

impl Delete {
    pub fn run(self) -> Result<Answer, Failure> {
        let key = self.key.key()?;
        let deleted = self.client.run(async |client| {
            Ok(match self.eventual {
                true => client.eventual().delete(key).await?,
                false => client.delete(key).await?,
            })
        })?;
        match self.client.output {
            Output::Json => print_json(&Deleted { found: deleted.found, revision: deleted.revision })?,
            Output::Table if deleted.found => print_line("deleted")?,
            Output::Table => eprintln!("not found"),
        }
        Ok(if deleted.found { Answer::Yes } else { Answer::No })
    }
}

/// Add to a number
///
/// Prints the sum. The value of the key must be a decimal 64-bit integer; a missing key counts as 0. For any other
/// value, or a sum that does not fit into 64 bits, the command fails and nothing changes. If the outcome of the
/// increment is unknown, the error says so; the command never retries such an increment, which could count twice.
#[derive(Args, Debug)]
pub struct Increment {
    #[command(flatten)]
    key: KeyArgument,

    /// The number to add; a negative one is subtracted [default: 1]
    #[arg(allow_negative_numbers = true)]
    by: Option<OsString>,

    #[command(flatten)]
    client: ClientOptions,
}

/// The answer of `increment -o json`.
#[derive(Serialize)]
struct Incremented {
    number: i64,
    version: u64,
    revision: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} can't be added: give a 64-bit integer, such as 5 or -5")]
struct NotANumber(OsString);

impl Increment {
    pub fn run(self) -> Result<Answer, Failure> {
        let (key, by) = self.key.key_and_value(self.by)?;
        let by = match by {
            Some(by) => by.to_str().and_then(|text| text.parse().ok()).ok_or(NotANumber(by))?,
            None => 1,
        };
        let incremented = self.client.run(async |client| Ok(client.increment(key, by).await?))?;
        match self.client.output {
            Output::Table => print_line(&incremented.number.to_string())?,
            Output::Json => {
                let v1::IncrementResponse { number, version, revision } = incremented;
                print_json(&Incremented { number, version, revision })?;
            }
        }
        Ok(Answer::Yes)
    }
}

/// Append to a value
///
/// Prints the new length in bytes. A missing key counts as empty. If the value would become larger than 1 MiB, the
/// command fails and nothing changes. If the outcome of the append is unknown, the error says so; the command never
/// retries such an append, which could add the bytes twice.
#[derive(Args, Debug)]
pub struct Append {
    #[command(flatten)]
    key: KeyArgument,

    /// The bytes to append, without escapes. If they are not given, stdin is read to its end. Write `--` before bytes
    /// that begin with a dash.
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,

    #[command(flatten)]
    client: ClientOptions,
}

/// The answer of `append -o json`.
#[derive(Serialize)]
struct Appended {
    length_bytes: u64,
    version: u64,
    revision: u64,
}

impl Append {
    pub fn run(self) -> Result<Answer, Failure> {
        let (key, bytes) = self.key.key_and_value(self.value)?;
        let bytes = given_or_read(bytes)?;
        let appended = self.client.run(async |client| Ok(client.append(key, bytes).await?))?;
        match self.client.output {
            Output::Table => print_line(&appended.length_bytes.to_string())?,
            Output::Json => {
                let v1::AppendResponse { length_bytes, version, revision } = appended;
                print_json(&Appended { length_bytes, version, revision })?;
            }
        }
        Ok(Answer::Yes)
    }
}
