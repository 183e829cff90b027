//! `ringfort delete`.

use super::key::KeyArgument;
use super::{print_json, print_line};
use crate::client_options::{ClientOptions, Output};
use crate::failure::{Answer, Failure};
use clap::{ArgAction, Args};
use serde::Serialize;

/// Remove a key
///
/// Exits with 1 where there was no such key.
#[derive(Args, Debug)]
pub struct Delete {
    #[command(flatten)]
    key: KeyArgument,

    /// Remove from the eventual keyspace, as the node that is asked holds it.
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

/// The answer of `-o json`.
#[derive(Serialize)]
struct Report {
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
            Output::Json => print_json(&Report { found: deleted.found, revision: deleted.revision })?,
            Output::Table if deleted.found => print_line("deleted")?,
            Output::Table => eprintln!("not found"),
        }
        Ok(if deleted.found { Answer::Yes } else { Answer::No })
    }
}
